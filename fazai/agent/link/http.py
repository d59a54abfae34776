"""The part of HTTP/1.1 that the agent needs: requests with a body, and answers of bounded size."""

from __future__ import annotations

import re

from fazai.agent.link.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD_BYTES = 16_384
MAX_BODY_BYTES = 2 * 1024 * 1024
_CHUNK_LINE_BYTES = 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


class Response:
    """A whole answer. `rest` is what came behind it on the connection; `keep` says that there may be more."""

    __slots__ = ("body", "headers", "keep", "rest", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes, rest: bytes, keep: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.rest = rest
        self.keep = keep


def build_request(
    method: str, host: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a request; a body is JSON."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class ResponseReader:
    """Collects the bytes of one answer. Raises LinkError for one that is none, or too long."""

    def __init__(self, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._body = bytearray()  # of chunks that are whole
        self._head: tuple[int, dict[str, str], bool] | None = None

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived; returns the answer once it is whole."""
        self._buffer += data
        while self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEAD_BYTES:
                raise LinkError("protocol", f"the head of the answer is over {MAX_HEAD_BYTES} bytes")
            if end < 0:
                return None
            status, headers, keep = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if status == 101 or status >= 200:
                self._head = status, headers, keep
        return self._take_body(ended=False)

    def end(self) -> Response | None:
        """The connection ended; returns an answer whose body goes up to there."""
        return self._take_body(ended=True) if self._head is not None else None

    def _take_body(self, *, ended: bool) -> Response | None:
        assert self._head is not None
        status, headers, _ = self._head
        if status in (101, 204, 304):
            return self._build(0, 0)
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._take_chunks()
        if "content-length" not in headers:
            self._check_size(len(self._buffer))
            return Response(status, headers, bytes(self._buffer), b"", False) if ended else None
        length = headers["content-length"]
        if not (length.isascii() and length.isdigit()) or len(length) > 12:
            raise LinkError("protocol", "the answer has no usable Content-Length")
        self._check_size(int(length))
        return self._build(0, int(length)) if len(self._buffer) >= int(length) else None

    def _take_chunks(self) -> Response | None:
        """Move what is whole from the buffer to the body: nothing is looked at twice."""
        at = 0
        while True:
            end = self._buffer.find(b"\r\n", at, at + _CHUNK_LINE_BYTES)
            if end < 0 and len(self._buffer) - at >= _CHUNK_LINE_BYTES:
                raise LinkError("protocol", "the answer's chunks are malformed")
            size = _read_chunk_size(bytes(self._buffer[at:end])) if end >= 0 else 0
            self._check_size(len(self._body) + size)
            if end < 0 or len(self._buffer) < end + 2 + size + 2:
                del self._buffer[:at]
                return None
            self._body += self._buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
            if not size:
                assert self._head is not None
                status, headers, keep = self._head
                return Response(status, headers, bytes(self._body), bytes(self._buffer[at:]), keep)

    def _build(self, begin: int, end: int) -> Response:
        assert self._head is not None
        status, headers, keep = self._head
        return Response(status, headers, bytes(self._buffer[begin:end]), bytes(self._buffer[end:]), keep)

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self._limit:
            raise LinkError("protocol", f"the answer is over {self._limit} bytes")


def _read_chunk_size(line: bytes) -> int:
    """Return the size that a chunk's line names."""
    digits = line.split(b";")[0].strip()
    if _CHUNK_SIZE.fullmatch(digits) is None:
        raise LinkError("protocol", "the answer's chunks are malformed")
    return int(digits, 16)


def parse_head(raw: bytes) -> tuple[int, dict[str, str], bool]:
    """Return status, headers by lower-case name, and whether the connection stays. Raises LinkError."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    status = words[1] if len(words) > 1 and words[0] in ("HTTP/1.1", "HTTP/1.0") else ""
    if len(status) != 3 or not (status.isascii() and status.isdigit()):
        raise LinkError("protocol", "the answer is not HTTP", hint="is that the port for agents, 3121?")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise LinkError("protocol", "a header of the answer is malformed")
        headers[name.lower()] = value.strip()
    keep = words[0] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return int(status), headers, keep
