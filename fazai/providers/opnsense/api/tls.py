"""TLS of a firewall's connection: verification, a CA of one's own, and pinning."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fazai.compat.timeouts import deadline
from fazai.errors import InventoryError, Mark, missing_file_hint
from fazai.providers.opnsense.api.masking import as_one_line

_PEM = "give a file with the certificate in PEM form"


class PinMismatch(ssl.SSLCertVerificationError):
    """The certificate is not the pinned one."""


def _pinned_object(pin: str) -> type[ssl.SSLObject]:
    class PinnedObject(ssl.SSLObject):
        """Compares the fingerprint as part of the handshake: not a byte is sent to a stranger."""

        def do_handshake(self) -> None:
            super().do_handshake()
            certificate = self.getpeercert(binary_form=True)
            seen = hashlib.sha256(certificate or b"").hexdigest()
            if seen != pin:
                raise PinMismatch(1, f"certificate fingerprint is sha256:{seen}")

    return PinnedObject


def read_ca(text: str, where: Mark | str) -> str:
    """Return PEM text as given, or of the file that it names. Raises InventoryError if unusable."""
    pem = text
    if "-----BEGIN" not in text:
        try:
            pem = Path(text).expanduser().read_text(encoding="ascii")
        except FileNotFoundError:
            raise InventoryError(
                f'there is no CA file "{text}"', where=where, hint=missing_file_hint(text) or _PEM
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not PEM text"
            raise InventoryError(
                f"the CA file {text} cannot be read: {reason}", where=where, hint=_PEM
            ) from error
    try:
        tls_context(verify=True, ca_pem=pem)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise InventoryError("ca holds no certificate that can be read", where=where, hint=_PEM) from error
    return pem


@lru_cache(maxsize=256)
def tls_context(*, verify: bool, ca_pem: str = "", pin: str = "") -> ssl.SSLContext:
    """Return one context for all firewalls with the same settings: loading the authorities is slow.

    Raises ssl.SSLError when the PEM text is no certificate.
    """
    if pin or not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cadata=ca_pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if pin:
        context.sslobject_class = _pinned_object(pin)
    return context


async def describe_certificate(host: str, port: int, timeout_s: float) -> str:
    """Return whom a server's certificate is for, until when, and its fingerprint; "" when it cannot be had.

    It goes into the error after a refusal. The handshake is one of its own, without verification, and nothing
    is sent over it.
    """
    context = tls_context(verify=False)
    try:
        async with deadline(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()  # a polite end would wait for the server's
            with suppress(OSError):
                await writer.wait_closed()
    except (OSError, ValueError, TimeoutError):
        return ""
    return _describe_der(certificate) if certificate else ""


def _describe_der(der: bytes) -> str:
    from cryptography import x509  # only needed once something is already wrong

    pin = f"sha256:{hashlib.sha256(der).hexdigest()}"
    try:
        certificate = x509.load_der_x509_certificate(der)
        until = certificate.not_valid_after_utc.date().isoformat()
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in found]
    except (ValueError, x509.ExtensionNotFound):
        return f"the certificate shown is {pin}"
    return f"the certificate shown is for {as_one_line(', '.join(names[:5]))}, valid until {until}, {pin}"
