"""TLS of the listeners: certificate files that are read again when they change, and client certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from fazai.daemon.settings import DaemonSettings
from fazai.errors import InputError, missing_file


def server_context(settings: DaemonSettings) -> ssl.SSLContext:
    """Return a context from the files as they are now. Raises InputError that says which file is wrong."""
    assert settings.tls_cert is not None
    assert settings.tls_key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for file in _tls_files(settings):
        _check_readable(file)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        where = f"{settings.tls_cert}, {settings.tls_key}"
        hint = "PEM files; the key without a password, and that of the certificate"
        raise InputError(f"TLS cannot use them: {_tls_reason(error)}", where=where, hint=hint) from None
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (ssl.SSLError, OSError) as error:
            where = str(settings.client_ca)
            raise InputError(_tls_reason(error), where=where, hint="PEM certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _tls_files(settings: DaemonSettings) -> Iterable[Path]:
    return filter(None, (settings.tls_cert, settings.tls_key, settings.client_ca))


def _no_password() -> str:
    """Refuse to give a password, for which OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


def _check_readable(file: Path) -> None:
    try:
        file.open("rb").close()
    except FileNotFoundError:
        raise missing_file(InputError, "file", file) from None
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(file)) from None


def _tls_reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def files_fingerprint(settings: DaemonSettings) -> tuple[tuple[int, int, int], ...]:
    """Return a value that changes when one of the files does."""
    found = []
    for file in _tls_files(settings):
        try:
            seen = file.stat()
            found.append((seen.st_ino, seen.st_mtime_ns, seen.st_size))
        except OSError:
            found.append((0, 0, 0))  # between remove and rename
    return tuple(found)
