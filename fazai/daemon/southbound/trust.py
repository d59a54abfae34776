"""Whom the port for agents trusts: its own certificate, the authority of the agents, revocations."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cryptography import x509

from fazai.errors import FazaiError
from fazai.pki import (
    Authority,
    Enrolments,
    IssuedCertificate,
    PeerChecker,
    PkiError,
    PkiNotice,
    server_context,
)
from fazai.pki.files import (
    CA_CERTIFICATE,
    CA_KEY,
    ENDORSEMENTS,
    LISTENER_CERTIFICATE,
    LISTENER_KEY,
    SETTINGS,
)
from fazai.pki.peers import revoked_error
from fazai.pki.reading import fingerprint_of, is_issued_by
from fazai.store.certificates import CertificateStore, TrustHolder
from fazai.wire.base import WireError

_FILES = (CA_CERTIFICATE, CA_KEY, ENDORSEMENTS, SETTINGS, LISTENER_CERTIFICATE, LISTENER_KEY)
_NAMES_AGAIN_S = 15.0
_RENEW_AGAIN_S = 3600.0
_SAME = frozenset({"bad_request", "bad_signature", "bad_clock"})
_CODES = {
    "bad_token": "unauthorized",
    "token_used": "unauthorized",
    "token_expired": "unauthorized",
    "not_offered": "forbidden",
}

Announce = Callable[[PkiNotice], None]


@dataclass(frozen=True, slots=True)
class TrustOffer:
    """The CAs that an agent is to trust, their mark, and their endorsements by one another; `renew`: its
    certificate is of one that will go. `files`: the state of the CA's files, among them the listener's, by
    which the agent proves an offer."""

    mark: str
    pem: str
    endorsements: tuple[str, ...]
    renew: bool
    files: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Removal:
    """The end of an agent that may not come back, by an admin. `reason` is a sentence."""

    time: float
    reason: str


class AgentTrust(Protocol):
    """The certificates of one daemon. Calls block but for `check_peer` and `listener_context`."""

    def listener_context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        ...

    def refresh(self) -> bool:
        """Read files and revocations again where they changed; return whether they had. Files that cannot be
        read are a `problem`, and what was read of them before holds. Raises StateError."""
        ...

    @property
    def problem(self) -> str | None:
        """The fault that an admin has to mend, while what was read before holds; None where nothing is
        wrong."""
        ...

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the first CA, which issues where it is our own."""
        ...

    def names(self) -> dict[str, float]:
        """Return the agents that have a certificate which was not revoked, and since when, as of the last
        `refresh`."""
        ...

    def find_removal(self, agent_id: str) -> Removal | None:
        """Return when and why an agent was removed: its name is revoked; None: it may connect. From
        memory."""
        ...

    def check_peer(self, certificate: bytes | None, agent_id: str, now: float) -> None:
        """Check the certificate (DER) of an agent that says its name. Raises PkiError."""
        ...

    def check_name(self, agent_id: str) -> None:
        """Check the name of an agent whose signature proved it. Raises PkiError."""
        ...

    def expires(self, certificate: bytes) -> float:
        """Return when a certificate that was checked expires."""
        ...

    def find_offer(self, agent_id: str, certificate: bytes | None) -> TrustOffer | None:
        """Return what an agent that is connected is to be told of the CAs; None: it knows all. From
        memory."""
        ...

    def note_trust(self, agent_id: str, mark: str, problem: str) -> None:
        """Remember that an agent trusts the CAs of a mark, or why not. Raises StateError."""
        ...

    def redeem(self, token: str, csr: str, announce: Announce) -> IssuedCertificate:
        """Return the certificate for an enrolment token. Raises PkiError, StateError."""
        ...

    def renew(self, certificate: bytes, csr: str, announce: Announce) -> IssuedCertificate:
        """Return the next certificate of the holder of this one. Raises PkiError, StateError."""
        ...

    def take_back(
        self, certificate: str, csr: str, signature: str, timestamp: str, announce: Announce
    ) -> IssuedCertificate:
        """Return the next certificate for one that has expired, with proof of its key. Raises PkiError,
        StateError."""
        ...


class PkiTrust:
    """The authority in a folder, and the certificates in the store. Raises FazaiError where the folder cannot
    be used."""

    def __init__(self, folder: Path, store: CertificateStore) -> None:
        self._folder = folder
        self._store = store
        self._renewed_at = float("-inf")
        self._seen = self._fingerprint()
        self._problem: str | None = None
        self._damage: str | None = None  # of files, while what was read of them before holds
        self._is_news = False  # a revocation that was read beside `refresh`
        self._authority = Authority.load(folder)
        self._renew_listener()
        self._peers = PeerChecker(self._authority, store)
        self._context = server_context(self._authority)
        self._seen = self._fingerprint()
        self._names: dict[str, float] = {}
        self._holders = store.trust_holders()
        self._names_at = float("-inf")

    def close(self) -> None:
        """Close the store of certificates."""
        self._store.close()

    def listener_context(self) -> ssl.SSLContext:
        return self._context

    def refresh(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._renewed_at >= _RENEW_AGAIN_S:
            self._renew_listener()
        try:
            changed, self._damage = self._refresh_files(), None
        except FazaiError as error:  # whoever was revoked is revoked all the same
            changed, self._damage = False, str(error)
        self._is_news, was_news = False, self._is_news
        changed = self._peers.refresh() or changed or was_news
        if now_s - self._names_at >= _NAMES_AGAIN_S:
            self._names_at = now_s
            found = self._store.names()
            if found != self._names:
                changed, self._names = True, found
                self._forget_holders()
        return changed

    def _forget_holders(self) -> None:
        """Forget whom the store has forgotten: a command issued a certificate to a machine made anew."""
        stored = self._store.trust_holders()
        for name in [one for one in list(self._holders) if one not in stored]:
            self._holders.pop(name, None)

    def _renew_listener(self) -> None:
        """Renew the listener's certificate in time. Where that fails (a folder that may not be written), the
        old one still holds: it is a problem, and none that ends anything."""
        self._renewed_at = time.monotonic()
        try:
            self._authority.renew_listener()
        except FazaiError as error:
            self._problem = f"the certificate of the port is not renewed: {error}"
        else:
            self._problem = None

    @property
    def problem(self) -> str | None:
        return self._damage or self._peers.problem or self._problem or self._authority.problem

    def _refresh_files(self) -> bool:
        seen = self._fingerprint()
        if seen == self._seen:
            return False
        authority = Authority.load(self._folder)
        context = server_context(authority)
        self._peers = PeerChecker(authority, self._store)
        self._authority, self._context, self._seen = authority, context, seen
        return True

    def _fingerprint(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name in _FILES:
            try:
                seen = (self._folder / name).stat()
                found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self._authority.trusted[0])

    def names(self) -> dict[str, float]:
        return self._names

    def check_peer(self, certificate: bytes | None, agent_id: str, now: float) -> None:
        self._peers.check_peer(certificate, agent_id, now)

    def check_name(self, agent_id: str) -> None:
        self._peers.check_name(agent_id)

    def find_removal(self, agent_id: str) -> Removal | None:
        found = self._peers.find_removal(agent_id)
        if found is None:
            return None
        error = wire_error(revoked_error(agent_id, found))
        return Removal(found.time, f"{error.code}: {error.message}")  # as a connection is told

    def expires(self, certificate: bytes) -> float:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()

    def find_offer(self, agent_id: str, certificate: bytes | None) -> TrustOffer | None:
        authority, holder = self._authority, self._holders.get(agent_id)
        if len(authority.trusted) == 1 and holder is None:
            return None  # as it was enrolled, or as its admin set it up
        own = None if certificate is None else x509.load_der_x509_certificate(certificate)
        renew = False
        if own is not None and authority.can_issue and len(authority.trusted) > 1:
            renew = not is_issued_by(own, authority.trusted[0])
        if holder is not None and holder.bundle == authority.bundle_mark and not holder.problem and not renew:
            return None
        endorsements = tuple(one.pem for one in authority.endorsements)
        return TrustOffer(authority.bundle_mark, authority.needed_by(own), endorsements, renew, self._seen)

    def note_trust(self, agent_id: str, mark: str, problem: str) -> None:
        holder = TrustHolder(agent_id, mark, time.time(), problem)
        if self._holders.get(agent_id) != replace(holder, time=0.0):
            self._store.put_trust_holder(holder)
        self._holders[agent_id] = replace(holder, time=0.0)

    def redeem(self, token: str, csr: str, announce: Announce) -> IssuedCertificate:
        issued = self._enrolments(announce).redeem(token, csr)
        self._holders.pop(issued.name, None)  # of the machine before: this one trusts one CA
        self._note_issued()
        self._names_at = float("-inf")
        return issued

    def renew(self, certificate: bytes, csr: str, announce: Announce) -> IssuedCertificate:
        issued = self._enrolments(announce).renew(certificate, csr)
        self._note_issued()
        return issued

    def take_back(
        self, certificate: str, csr: str, signature: str, timestamp: str, announce: Announce
    ) -> IssuedCertificate:
        issued = self._enrolments(announce).return_after_expiry(certificate, csr, signature, timestamp)
        self._note_issued()
        return issued

    def _note_issued(self) -> None:
        """Read what was issued just now, so that it is good at once; what was revoked beside it is news for
        the next `refresh`."""
        if self._peers.refresh():
            self._is_news = True

    def _enrolments(self, announce: Announce) -> Enrolments:
        return Enrolments(self._authority, self._store, announce)


def open_trust(
    folder: Path, open_store: Callable[[], CertificateStore], *, required: bool
) -> PkiTrust | None:
    """Return the authority of a folder; None where there is none, and none is `required`. Raises
    FazaiError."""
    if not required and not (folder / CA_CERTIFICATE).exists() and not (folder / SETTINGS).exists():
        return None
    return PkiTrust(folder, open_store())


def wire_error(error: FazaiError, names: str = "bad_certificate") -> WireError:
    """Return the contract's error for a refusal of the authority; `names` is the code for another name than
    the one that was expected."""
    code = error.code if isinstance(error, PkiError) else "unavailable"
    if code == "wrong_name":
        return WireError(names, error.message, hint=error.hint)
    if code == "unavailable":
        return WireError("unavailable", "the authority cannot be asked now")
    known = code if code in _SAME else _CODES.get(code, "bad_certificate")
    return WireError(known, error.message, hint=error.hint)


#: Codes of OpenSSL's verification for a chain that ends at nobody who is trusted.
_UNKNOWN_CODES = (2, 18, 19, 20, 21)
_REPLACED = "was the CA replaced while it was away? then: fazai pki list, fazai pki enrol NAME"


def tls_sentence(error: ssl.SSLError) -> str | None:
    """Return why TLS ended the connection of an agent, for people; None: it was none, or nobody knows."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_CODES:
            return f"its certificate is of a CA that this daemon does not trust ({_REPLACED})"
        text = str(error.verify_message or error.reason or error).replace("_", " ")
        return text.strip().lower()[:200]
    if error.reason == "TLSV1_ALERT_UNKNOWN_CA":
        return f"it does not trust the CA of this daemon's certificate ({_REPLACED})"
    return None
