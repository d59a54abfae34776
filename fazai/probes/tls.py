"""Probe of a TLS server: whose certificate it shows, until when, and whether it can be trusted."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fazai.compat.timeouts import deadline
from fazai.errors import InputError
from fazai.probes.contexts import make_context
from fazai.probes.reach import Anywhere, Endpoint, Reach, check_host, find_endpoints
from fazai.probes.result import (
    ProbeResult,
    check_port,
    check_timeout,
    clean_text,
    describe_failure,
)
from fazai.probes.tcp import connect_first

if TYPE_CHECKING:
    from cryptography import x509

_MOST_NAMES = 20
_DAY_S = 86_400.0


async def probe_tls(
    host: str,
    port: int = 443,
    *,
    server_name: str | None = None,
    ca: Path | None = None,
    warn_days: int = 14,
    timeout_s: float = 10.0,
    family: int | None = None,
    reach: Reach | None = None,
    now: datetime | None = None,
) -> ProbeResult:
    """Make a handshake and look at the certificate. One that is refused is looked at in a second handshake,
    which verifies nothing and sends nothing. `server_name`: for whom the certificate has to be, the host
    without it. Raises InputError, Refused."""
    check_port(port)
    if not 0 <= warn_days <= 3650:
        raise InputError(f"{warn_days} days are no warning", hint="0 to 3650")
    context, target = make_context(ca), f"{host}:{port}"
    name = None if server_name is None else check_host(server_name)
    try:
        async with deadline(check_timeout(timeout_s)):
            endpoints = await find_endpoints(host, port, reach or Anywhere(), family)
            seen = await _look(endpoints, port, name, context)
    except ValueError as error:  # a name that TLS cannot say
        raise InputError(f"{clean_text(host, 64)!r} cannot be a server's name: {error}") from None
    except OSError as error:  # ssl.SSLError and TimeoutError are
        why = f"no TLS connection: {describe_failure(error)}"
        return ProbeResult(probe="tls", target=target, ok=False, why=why, facts={"port": port})
    facts, days_left = _certificate_facts(seen.certificate, now or datetime.now(UTC))
    problem = seen.refused or _date_problem(days_left, warn_days)
    return ProbeResult(
        probe="tls",
        target=target,
        ok=problem is None,
        why=problem or f"the certificate is good for {days_left} days",
        latency_ms=seen.took_ms,
        address=seen.address,
        facts={
            "port": port,
            "trusted": seen.refused is None,
            "version": seen.version,
            "cipher": seen.cipher,
            **facts,
        },
    )


class _Seen:
    """Result of a handshake. `refused`: why the certificate is not trusted."""

    def __init__(self, link: Any, refused: str | None) -> None:
        shown: ssl.SSLObject = link.writer.get_extra_info("ssl_object")
        self.certificate = shown.getpeercert(binary_form=True) or b""
        self.version = shown.version()
        self.cipher = (shown.cipher() or ("",))[0]
        self.took_ms, self.address = link.took_ms, str(link.endpoint.address)
        self.refused = refused


async def _look(endpoints: list[Endpoint], port: int, name: str | None, context: ssl.SSLContext) -> _Seen:
    """Make one handshake that verifies, and another where that was refused. Raises OSError."""
    try:
        async with connect_first(endpoints, port, context, name) as link:
            return _Seen(link, None)
    except ssl.SSLCertVerificationError as error:
        refused = f"the certificate is refused: {clean_text(error.verify_message)}"
    async with connect_first(endpoints, port, make_context(None, verify=False), name) as link:
        return _Seen(link, refused)


def _date_problem(days_left: int | None, warn_days: int) -> str | None:
    if days_left is None:
        return "the certificate cannot be read"
    if days_left < warn_days:
        return f"the certificate expires in {days_left} days"
    return None


def _certificate_facts(der: bytes, now: datetime) -> tuple[dict[str, Any], int | None]:
    """Return what a certificate says, and the days until it expires; None where it cannot be read."""
    from cryptography import x509

    facts: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        found = x509.load_der_x509_certificate(der)
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        facts |= {
            "subject": clean_text(found.subject.rfc4514_string()),
            "issuer": clean_text(found.issuer.rfc4514_string()),
            "serial": f"{found.serial_number:x}"[:64],
            "self_signed": found.subject == found.issuer,
        }
    except (ValueError, TypeError, OverflowError):
        return facts, None
    days_left = int((ends - now).total_seconds() // _DAY_S)
    facts |= {
        "not_before": begins.isoformat(),
        "not_after": ends.isoformat(),
        "days_left": days_left,
        **_name_facts(found),
    }
    return facts, days_left


def _name_facts(certificate: x509.Certificate) -> dict[str, Any]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [clean_text(str(one.value), 253) for one in found]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, TypeError):
        names = []
    return {"names": names[:_MOST_NAMES], "names_count": len(names)}
