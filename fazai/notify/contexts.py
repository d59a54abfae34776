"""TLS of the channels: verified, always, against the system's authorities or a file of them."""

from __future__ import annotations

import ssl
from pathlib import Path

from fazai.notify.message import DeliveryError


def make_context(ca: Path | None) -> ssl.SSLContext:
    """Return a context for a client. Raises DeliveryError where the file of authorities cannot be used."""
    try:
        return ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise DeliveryError(f"the CA file {ca} cannot be used: {why}") from None


def certificate_problem(error: BaseException) -> str | None:
    """Return why a certificate was refused, where that is the cause of an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is refused: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return None
