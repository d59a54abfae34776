"""Decodes the firewall's answers, and turns failures (status, TLS, DNS) into errors people can act on."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec

from fazai.errors import AccessDenied, DeviceError, FazaiError, NotAvailable, Unreachable
from fazai.providers.opnsense.api.losses import Forbidden
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.api.tls import PinMismatch

DECODED_AT_ONCE_BYTES = 256 * 1024

#: Statuses after which a repeatable call is tried again.
RETRY_STATUS = frozenset({429, 500, 502, 503, 504})

_UNEXPECTED = "Unexpected error, check log for details"


def decode_json(body: bytes, content_type: str, target: str, path: str) -> Any:
    """Decode the JSON of an answer.

    Raises Unreachable, naming what came instead: that says nothing about whether the call was carried out.
    """
    head = body[:64].lstrip().lower()
    if head.startswith(b"<") or "html" in content_type:
        hint = "is base_url the firewall itself, or a proxy or login page in front of it?"
        raise nonsense_error(target, path, "a web page instead of data", hint)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise _undecodable_error(body, target, path) from None


async def decode_large_json(body: bytes, content_type: str, target: str, path: str) -> Any:
    """Decode as `decode_json` does, rows of a large answer in parts, so that others have their turn."""
    if len(body) <= DECODED_AT_ONCE_BYTES or not body[:64].lstrip().startswith(b"{"):
        return decode_json(body, content_type, target, path)
    try:
        parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: await _decode_part(part) for name, part in parts.items()}
    except (msgspec.DecodeError, RecursionError):
        raise _undecodable_error(body, target, path) from None


async def _decode_part(part: msgspec.Raw) -> Any:
    if len(part) <= DECODED_AT_ONCE_BYTES or bytes(memoryview(part)[:1]) != b"[":
        return msgspec.json.decode(part)
    found: list[Any] = []
    size = 0
    for row in msgspec.json.decode(part, type=list[msgspec.Raw]):
        found.append(msgspec.json.decode(row))
        size += len(row)
        if size > DECODED_AT_ONCE_BYTES:
            size = 0
            await asyncio.sleep(0)
    return found


_CHANGED = "is base_url the firewall itself? Something between here and it may change its answers"


def nonsense_error(target: str, path: str, what: str, hint: str = _CHANGED) -> Unreachable:
    """Return the error for an answer that is not what the call answers."""
    return Unreachable(f"the firewall answered {path} with {what}", where=target, stage="answer", hint=hint)


def _undecodable_error(body: bytes, target: str, path: str) -> Unreachable:
    what = "nothing" if not body else f"{len(body)} bytes that are not whole JSON"
    hint = "the answer was cut short, or something between here and the firewall changed it"
    return nonsense_error(target, path, what, hint)


def _parse_error_body(body: bytes) -> Mapping[str, Any]:
    """Return the map in the body of an error; empty when it is none, or so large that it says nothing."""
    try:
        found = msgspec.json.decode(body) if len(body) <= DECODED_AT_ONCE_BYTES else None
    except (msgspec.DecodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def find_raised_error(body: bytes) -> Mapping[str, Any] | None:
    """Return the body of a 500 that a controller raised on purpose ("in use", "denied"), else None."""
    found = _parse_error_body(body)
    if "errorTitle" in found or "errorLevel" in found:
        return found
    return found if found.get("errorMessage") not in (None, "", _UNEXPECTED) else None


def status_error(status: int, body: bytes, *, target: str, path: str, privilege: str) -> FazaiError:
    """Return the error for an answer whose status is not 200."""
    if status == 401:
        hint = "compare secret: with the API keys of the user (System > Access > Users)"
        hint += "; the user may be disabled"
        return AccessDenied("the firewall does not know this API key or its secret", where=target, hint=hint)
    if status in (301, 302, 303, 307, 308):
        text = "the firewall sent us to its login page: not authenticated"
        hint = "is base_url the firewall itself? An API key is accepted under /api only"
        return AccessDenied(text, where=target, hint=hint)
    if status in (403, 404) and body[:64].lstrip().startswith(b"<"):  # the API's own are JSON
        text = f"a web page with status {status} came instead of an answer to {path}"
        hint = "is base_url the firewall itself, or a proxy or another web server in front of it?"
        return AccessDenied(text, where=target, hint=hint)
    if status == 403:
        need = f"privilege {privilege}" if privilege else f"privilege for the page api/{_page_pattern(path)}"
        hint = f"add it to the user or one of its groups ({path} was refused)"
        return Forbidden(f"the API key's user lacks the {need}", where=target, hint=hint)
    if status == 404:
        hint = "its plugin is not installed, or its release does not have it"
        return NotAvailable(f"{path} is not on this firewall", where=target, hint=hint)
    return _fault_error(status, body, target=target, path=path)


def _fault_error(status: int, body: bytes, *, target: str, path: str) -> FazaiError:
    raised = find_raised_error(body) if status == 500 else None
    if raised is not None:
        return _raised_error(raised, target)
    text = f"the firewall answered {path} with status {status}{_error_detail(body)}"
    if status in RETRY_STATUS:
        hint = "the firewall's own log (System > Log Files > Backend) says more" if status == 500 else None
        return Unreachable(text, where=target, stage="answer", hint=hint)
    return DeviceError(text, where=target)


def _raised_error(found: Mapping[str, Any], target: str) -> FazaiError:
    message, title = as_one_line(found.get("errorMessage", "")), as_one_line(found.get("errorTitle", ""))
    text = f"{title}: {message}" if title and message else title or message
    if "denied for write access" in message:
        return AccessDenied(
            f"the firewall refuses writes of this API key's user: {message}",
            where=target,
            hint="take the privilege user-config-readonly from the user, or set mode: read for the firewall",
        )
    return DeviceError(f"the firewall refused: {text}", where=target)


def validations_of(answer: Any) -> Mapping[str, Any] | None:
    """Return the validations of a refused write; empty without a reason, None when the answer is no map."""
    if isinstance(answer, dict):
        found = answer.get("validations")
        return found if isinstance(found, dict) else {}
    return {}


def _error_detail(body: bytes) -> str:
    found = _parse_error_body(body)
    text = found.get("errorMessage") or found.get("message")
    return f": {as_one_line(text)}" if isinstance(text, str) and text else ""


def _page_pattern(path: str) -> str:
    return "/".join(path.removeprefix("/api/").split("/")[:2]) + "/*"


def connect_error(error: BaseException, *, target: str, host: str, address: str) -> FazaiError:
    """Return the error for a connection that failed (DNS, refused, TLS), from its chain of causes."""
    causes = _causes_of(error)
    for cause in causes:
        found = _explain_cause(cause, host, address)
        if found is not None:
            stage, message, hint = found
            return Unreachable(message, where=target, stage=stage, hint=hint)
    reason = next((cause for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    if any(isinstance(cause, ConnectionRefusedError) or "refused" in str(cause).lower() for cause in causes):
        hint = "is the web interface running, and does it listen there?"
        return Unreachable(f"{address} refused the connection", where=target, stage="connect", hint=hint)
    text = reason.strerror if reason is not None else "the connection failed"
    return Unreachable(f"{address}: {text}", where=target, stage="connect")


def _explain_cause(cause: BaseException, host: str, address: str) -> tuple[str, str, str] | None:
    """Return stage, message and hint for a cause that is known by itself."""
    if isinstance(cause, PinMismatch):
        message = "the firewall showed a certificate that is not the pinned one"
        return "tls", message, "if the certificate was renewed on purpose, pin the new one"
    if isinstance(cause, ssl.SSLCertVerificationError):
        message, hint = _explain_certificate(cause.verify_message or str(cause), host)
        return "tls", f"the certificate of {host} {message}", hint
    if isinstance(cause, ssl.SSLError):
        hint = "is the port the one of the web interface, and does it speak https?"
        return "tls", f"TLS with {address} failed: {cause.reason or cause}", hint
    if isinstance(cause, socket.gaierror):
        message = f"the name {host} cannot be resolved"
        return "resolve", message, "check base_url, and the resolver of this machine"
    return None


_ISSUER = "give the authority with ca:"
#: Words of OpenSSL about a certificate -> what is wrong with it, and the next step.
_CERTIFICATE_FAULTS = (
    ("expired", "has expired", "renew it on the firewall (System > Trust > Certificates)"),
    ("not yet valid", "is not valid yet", "compare the clocks of this machine and the firewall"),
    (
        "mismatch|doesn't match|not valid for",
        "is for another name than {host}",
        "use the name in the certificate in base_url, or issue one for this name",
    ),
    (
        "self.signed",
        "is self-signed, or its authority is not known here",
        f"{_ISSUER}, or pin the certificate with fingerprint: sha256:…",
    ),
    ("local issuer", "was signed by an authority that is not known here", _ISSUER),
    ("", "cannot be trusted: {text}", f"{_ISSUER}, or pin the certificate with fingerprint:"),
)


def _explain_certificate(text: str, host: str) -> tuple[str, str]:
    """Return what is wrong with a certificate, and the next step, from the words of OpenSSL."""
    wrong, hint = next(row[1:] for row in _CERTIFICATE_FAULTS if re.search(row[0], text))
    return wrong.format(host=host, text=text), hint


def _causes_of(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    queue: list[BaseException] = [error]
    while queue and len(found) < 32:
        cause = queue.pop(0)
        if cause in found:
            continue
        found.append(cause)
        if isinstance(cause, BaseExceptionGroup):
            queue.extend(cause.exceptions)
        queue.extend(one for one in (cause.__cause__, cause.__context__) if one is not None)
    return found
