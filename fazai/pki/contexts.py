"""TLS contexts: of the listener for agents, and of clients that connect to it."""

from __future__ import annotations

import ssl
from pathlib import Path

from fazai.errors import InputError, SecretError
from fazai.pki.authority import Authority, read_certificate_file
from fazai.pki.files import read_key
from fazai.pki.reading import check_public_key, same_key


def server_context(
    authority: Authority, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return the context of the listener; without files, of those in the CA's folder.

    TLS 1.2 and newer. A certificate is asked for and not required: who has none, a revoked one or that of
    another name is let through the handshake, so that `PeerChecker.check_peer` can say it; one that has
    expired or is of an unknown CA ends it with an alert. Sessions are not resumed: each connection proves
    its key, and a ticket is no identity. Raises InputError, SecretError.
    """
    certificate, key = certificate or authority.listener_certificate, key or authority.listener_key
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # of TLS 1.3
    context.options |= ssl.OP_NO_TICKET  # of TLS 1.2
    context.options |= ssl.OP_NO_RENEGOTIATION
    _trust(context, authority.ca_pem)
    _load_pair(context, certificate, key)
    return context


def client_context(ca_pem: str, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts these CAs alone and checks the server's name; with files it
    presents their certificate. Raises InputError, SecretError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _trust(context, ca_pem)
    if certificate is not None:
        _load_pair(context, certificate, key or certificate)
    return context


def _trust(context: ssl.SSLContext, ca_pem: str) -> None:
    """Trust exactly these CAs, also one that is not the root of its chain."""
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise InputError(f"the CA's certificate cannot be used: {_reason(error)}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    private = read_key(key)  # says what is wrong with it, also that others can read it
    if not certificate.exists():
        hint = "make it with: fazai pki listener --name NAME"
        raise SecretError(f"there is no certificate {certificate}", hint=hint)
    public = read_certificate_file(certificate).public_key()
    if not same_key(check_public_key(private.public_key()), public):
        raise InputError(
            f"{key} is not the key of {certificate}", hint="bring both back from the same backup"
        )
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError, ValueError) as error:
        where = f"{certificate}, {key}"
        raise InputError(f"TLS cannot use them: {_reason(error)}", where=where, hint="PEM files") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
