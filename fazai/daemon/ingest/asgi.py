"""`POST /ingest` as a raw ASGI application, ahead of the router: most requests are this one."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from fazai.compat.timeouts import deadline
from fazai.daemon.http.fastpath import response_tail
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import FastPathHandler, Receive, Scope, Send
from fazai.daemon.ingest.pipeline import Ingest, IngestReply
from fazai.errors import FazaiError, SecretError, StateError
from fazai.store.daemon import Nonce
from fazai.wire.base import WireError
from fazai.wire.signature import SignedHeaders, decode_signed_headers
from fazai.wire.telemetry import MAX_INGEST_BYTES

#: Also what curl sends when nobody says what it is.
_MEDIA = frozenset(
    {
        b"",
        b"application/json",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/json-seq",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",
        b"text/plain",
    }
)
_JSON = (b"content-type", b"application/json")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CLOSE = ((b"connection", b"close"),)


class IngestGate(Protocol):
    """Decides which unsigned requests may write, by what it holds in memory."""

    def renew_in_time(self) -> bool:
        """Return whether what it holds is fresh; where it soon is not, have it read again beside this."""
        ...

    async def refresh(self) -> None:
        """Read what it holds again, where it is not fresh. Raises StateError."""
        ...

    def authorize(self, scope: Scope) -> None:
        """Raise Refusal when the request may not write."""
        ...


class IngestRoute:
    """Serves POST /ingest; `gate` lets unsigned requests in. Refusals are raised, for the border of the
    application answers them."""

    def __init__(
        self, ingest: Ingest, gate: IngestGate, report: Callable[[str], object], timeout_s: float = 30.0
    ) -> None:
        self._timeout_s = timeout_s
        self._ingest = ingest
        self._gate = gate
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._count_refusals():
            try:
                async with deadline(self._timeout_s):
                    await self._serve(scope, receive, send)
            except TimeoutError:
                raise Refusal("timeout", f"it took more than {self._timeout_s:g} s") from None

    @contextlib.contextmanager
    def _count_refusals(self) -> Iterator[None]:
        """Count a request that is refused as a whole, by the code of its refusal."""
        try:
            yield
        except WireError as error:
            self._ingest.refusals[error.code] += 1
            raise
        except StateError:
            self._ingest.refusals["unavailable"] += 1
            raise

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        if scope["method"] != "POST":
            raise Refusal("method_not_allowed", "/ingest knows POST", headers=((b"allow", b"POST"),))
        gzipped, signed = self._read_headers(scope)
        if not signed:
            await self._gate.refresh()  # deadline: IngestRoute.__call__
            self._gate.authorize(scope)
        message = await receive()  # deadline: IngestRoute.__call__
        if message["type"] == "http.request" and not message.get("more_body"):
            answer = await self._accept(scope, message.get("body", b""), gzipped, signed)
        else:
            answer = await self._accept_parts(scope, message, receive, gzipped, signed)
        self._ingest.seconds.observe(time.perf_counter() - begun)
        length = (b"content-length", b"%d" % len(answer.body))
        await send(  # deadline: IngestRoute.__call__
            {"type": "http.response.start", "status": answer.status, "headers": (_JSON, length, *_SAFE)}
        )
        await send({"type": "http.response.body", "body": answer.body})  # deadline: IngestRoute.__call__

    def fast_handler(self, scope: Scope) -> FastPathHandler | None:
        """Return the handler of plain bodies that no signature covers; each is still asked for its right to
        be there."""
        try:
            if scope["method"] != "POST" or any(self._read_headers(scope)):
                return None
        except WireError:
            return None
        return functools.partial(self._handle_fast, scope)

    def _handle_fast(
        self, scope: Scope, body: bytes, respond: Callable[[tuple[int, bytes] | FazaiError], None]
    ) -> bool:
        begun = time.perf_counter()

        def answer(result: IngestReply | StateError) -> None:
            if isinstance(result, StateError):
                self._ingest.refusals["unavailable"] += 1
                respond(result)
                return
            self._ingest.seconds.observe(time.perf_counter() - begun)
            respond((result[0], _response_tail(result[1])))

        if not self._gate.renew_in_time():
            return False
        try:
            self._gate.authorize(scope)
            return self._ingest.accept_one(body, answer)
        except (WireError, StateError) as error:
            self._ingest.refusals[getattr(error, "code", "unavailable")] += 1
            raise

    def _read_headers(self, scope: Scope) -> tuple[bool, bool]:
        """Return whether the body is compressed, and whether it is signed. Raises Refusal."""
        media = encoding = b""
        signed = False
        for name, value in scope["headers"]:
            if name == b"content-type":
                media = value
            elif name == b"content-encoding":
                encoding = value.strip().lower()
            elif name == b"x-fazai-signature":
                signed = True
            elif name == b"content-length" and value.isdigit() and int(value) > MAX_INGEST_BYTES:
                raise _too_large()
        if media != b"application/json" and media.partition(b";")[0].strip().lower() not in _MEDIA:
            raise Refusal("unsupported_media_type", "telemetry is JSON or NDJSON")
        if encoding not in (b"", b"identity", b"gzip", b"x-gzip"):
            raise Refusal("unsupported_media_type", "the content encoding is gzip or none")
        if self._ingest.rules.signed and not signed:
            raise Refusal("bad_signature", "a signature is needed", hint="see SPEC.md, 3.3")
        return encoding in (b"gzip", b"x-gzip"), signed

    async def _accept(self, scope: Scope, body: bytes, gzipped: bool, signed: bool) -> IngestReply:
        nonce = self._verified_nonce(scope, body) if signed else None
        return await self._ingest.accept(body, gzipped=gzipped, nonce=nonce)

    async def _accept_parts(
        self, scope: Scope, message: Mapping[str, Any], receive: Receive, gzipped: bool, signed: bool
    ) -> IngestReply:
        """Accept a body in several pieces, which counts as waiting from its first one on. Raises Refusal:
        too_large, bad_request, overloaded."""
        admission = self._ingest.admission
        held = 0
        parts: list[bytes] = []
        try:
            while True:
                if message["type"] != "http.request":
                    raise Refusal("bad_request", "the client went away")
                part: bytes = message.get("body", b"")
                if held + len(part) > MAX_INGEST_BYTES:
                    raise _too_large()
                if part:
                    admission.hold("", len(part))
                    held += len(part)
                    parts.append(part)
                if not message.get("more_body"):
                    break
                message = await receive()  # deadline: IngestRoute.__call__
        finally:
            if held:
                admission.release("", held)
        return await self._accept(scope, b"".join(parts), gzipped, signed)

    def _verified_nonce(self, scope: Scope, body: bytes) -> Nonce:
        """Verify the signature of a request, and return its nonce. Raises WireError."""
        try:
            return verified_nonce(self._ingest, scope, body)
        except SecretError as error:  # ours to mend; the client learns only that it is not let in
            self._report(str(error))
            raise WireError("bad_signature", "the daemon cannot read the key of this host") from None


@functools.lru_cache(maxsize=8)  # most say that one record was accepted
def _response_tail(body: bytes) -> bytes:
    return response_tail((_JSON, (b"content-length", b"%d" % len(body)), *_SAFE), body)


def verified_nonce(ingest: Ingest, scope: Scope, body: bytes) -> Nonce:
    """Verify the signature of a POST request, and return its nonce, which is not used up by that. Raises
    WireError (bad_clock, bad_signature), SecretError."""
    headers = _signed_headers(scope)
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    return ingest.verify(headers, path, body)


def _signed_headers(scope: Scope) -> SignedHeaders:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name.startswith(b"x-fazai-"):
            text = name.decode("latin-1")
            if text in found:
                raise WireError("bad_signature", f"the header {text} occurs twice")
            found[text] = value.decode("latin-1")
    return decode_signed_headers(found)


def _too_large() -> Refusal:
    return Refusal("too_large", f"a body has at most {MAX_INGEST_BYTES} bytes", headers=_CLOSE)
