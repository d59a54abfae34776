"""Section 3 of SPEC.md: signed HTTP. Pure; who remembers the nonces is the caller."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta

from fazai.wire.base import Ident, RequestMessage, WireError, convert_to

MAX_SKEW_S = 300

_HEADERS = {f"x-fazai-{field}": field for field in ("agent", "timestamp", "nonce", "signature")}

UnixSeconds = Annotated[str, Meta(pattern=r"(?#Unix seconds)\A[0-9]{1,12}\Z")]
Nonce = Annotated[
    str, Meta(min_length=16, max_length=128, pattern=r"(?#printable ASCII without spaces)\A[!-~]+\Z")
]
Signature = Annotated[str, Meta(pattern=r"(?#sha256= and 64 hexadecimal digits)\Asha256=[0-9a-f]{64}\Z")]


class SignedHeaders(RequestMessage, frozen=True, kw_only=True):
    """The four headers of a signed request; `timestamp` is the text as sent, in Unix seconds."""

    agent: Ident
    timestamp: UnixSeconds
    nonce: Nonce
    signature: Signature


def signing_text(timestamp: str, nonce: str, method: str, path: str, body: bytes) -> bytes:
    """Return the text that is signed. `path` is the path with its query, as sent; `body` as sent (still
    compressed)."""
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join((timestamp, nonce, method.upper(), path, digest)).encode()


def sign(key: bytes, *, timestamp: str, nonce: str, method: str, path: str, body: bytes) -> str:
    """Return the value of `X-Fazai-Signature`."""
    text = signing_text(timestamp, nonce, method, path, body)
    return "sha256=" + hmac.new(key, text, hashlib.sha256).hexdigest()


def decode_signed_headers(headers: Mapping[str, str]) -> SignedHeaders:
    """Read the signature's headers among `headers` (any case). Raises WireError(bad_signature)."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        field = _HEADERS.get(name.lower())
        if field is not None:
            found[field] = value
    missing = [name for name, field in _HEADERS.items() if field not in found]
    if missing:
        raise WireError("bad_signature", f"the header {missing[0]} is missing")
    try:
        return convert_to(found, SignedHeaders)
    except WireError as error:
        raise WireError("bad_signature", error.message) from None


def verify_signature(
    headers: SignedHeaders, keys: Sequence[bytes], *, method: str, path: str, body: bytes, now_s: float
) -> None:
    """Check clock and signature against every valid key. Raises WireError: bad_clock, bad_signature."""
    skew_s = abs(now_s - int(headers.timestamp))
    if skew_s > MAX_SKEW_S:
        text = f"the clocks differ by {skew_s:.0f} s, {MAX_SKEW_S} s are allowed"
        raise WireError("bad_clock", text, hint="set the clock")
    right = False
    for key in keys:  # all of them, so that the time taken does not tell which one was near
        wanted = sign(
            key, timestamp=headers.timestamp, nonce=headers.nonce, method=method, path=path, body=body
        )
        right |= hmac.compare_digest(wanted, headers.signature)
    if not right:
        raise WireError("bad_signature", "the signature does not fit the request", hint="check the key")
