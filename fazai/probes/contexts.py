"""TLS contexts of probes: verified against the system's authorities or a file of them, or not at all."""

from __future__ import annotations

import ssl
from pathlib import Path

from fazai.errors import InputError, missing_file

_HINT = "a PEM file of the authority"


def make_context(ca: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """Return a context for a client. Raises InputError for a file of authorities that cannot be used."""
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context
    try:
        return ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    except FileNotFoundError:
        raise missing_file(InputError, "CA file", str(ca), _HINT) from None
    except (OSError, ssl.SSLError) as error:
        why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(f"it cannot be used: {why}", where=str(ca), hint=_HINT) from None
