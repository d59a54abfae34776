"""The small CA of fazai: certificates of agents and of the listener to which they connect.

For the daemon (nothing is read at import; calls that block say so):

    authority = Authority.load(config.secrets / "pki")   # or existing CAs, by pki.yml: can_issue is False
    store = open_certificates(config.state)              # fazai.store.factory
    context = server_context(authority)                  # of the listener: ssl.SSLContext
    authority.renew_listener()                           # at start, daily; not None: make a new context

    peers = PeerChecker(authority, store)
    peers.refresh()                                      # blocks: in a thread, each second at least and
                                                         # after each of the three below; True: check the
                                                         # living connections again
    peers.check_peer(cert_der, agent_id, now)            # from memory; raises PkiError(code, sentence)

    enrolments = Enrolments(authority, store, announce)  # announce(PkiNotice), from the calling thread
    enrolments.redeem(token, csr_pem)                    # these block: in a thread
    enrolments.renew(old_cert_der, csr_pem)              # old_cert_der: that of the connection
    enrolments.return_after_expiry(old_cert_pem, csr_pem, signature, timestamp)

The last three return an IssuedCertificate: `name` (the agent's id), `pem`, `ca_pem`, `not_after`. They and
`check_peer` raise PkiError, whose `code` is one of `errors.PkiCode`. `cert_der` is
`ssl_object.getpeercert(binary_form=True)`, None without a certificate. For a client of the relay:
`client_context(ca_pem)`.
"""

from fazai.pki.authority import Authority, IssuedCertificate
from fazai.pki.contexts import client_context, server_context
from fazai.pki.enrolment import Enrolments, NewEnrolment, PkiNotice
from fazai.pki.errors import PeerCode, PkiCode, PkiError
from fazai.pki.peers import PeerChecker
from fazai.pki.settings import PkiSettings

__all__ = [
    "Authority",
    "Enrolments",
    "IssuedCertificate",
    "NewEnrolment",
    "PeerChecker",
    "PeerCode",
    "PkiCode",
    "PkiError",
    "PkiNotice",
    "PkiSettings",
    "client_context",
    "server_context",
]
