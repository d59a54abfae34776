"""Fast path: a request whose header block is, byte for byte, one that was parsed before on its connection.

A host sends the same head with each report; only the digits of Content-Length change. Such a request needs
no parser, no scope and no task: a route that is asked once may take it as it stands. All others, and all
that the route does not take, go the long way through httptools and ASGI, which says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Called once on the event loop: the status, and all that follows the status line and the date.
Respond = Callable[[int, bytes], None]
#: Takes the body of a request and answers it, at once or later; False: it did nothing, another must.
FastHandler = Callable[[bytes, Respond], bool]
#: What a route says of the scope of a head: who takes its requests, or None.
FastPathOpener = Callable[[Any], FastHandler | None]

_NOT_FAST = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"})
_DIGITS = 7


class KnownHead(NamedTuple):
    """A header block that was parsed and found good: the bytes before and after the digits of its
    Content-Length."""

    before: bytes
    after: bytes
    handle: FastHandler

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of a whole request with this head; None for anything else."""
        if not data.startswith(self.before):
            return None
        begin = len(self.before)
        end = data.find(b"\r", begin, begin + _DIGITS + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        start = end + len(self.after)
        return data[start:] if len(data) - start == int(digits) else None


def remember_head(
    data: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]], handle: FastHandler
) -> KnownHead | None:
    """Return the header block of a POST that httptools has read from the beginning of `data`; None where
    something in it could make the next one mean something else."""
    head = data[: data.find(b"\r\n\r\n") + 4]
    lengths = 0
    for name, value in headers:
        if name == b"content-length":
            lengths += 1
            if not value.isdigit():
                return None
        elif name in _NOT_FAST or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
    marks = head.lower().split(b"\r\ncontent-length:")
    if lengths != 1 or len(marks) != 2 or not head.startswith(b"POST " + url + b" HTTP/1.1\r\n"):
        return None
    begin = len(marks[0]) + len(b"\r\ncontent-length:")
    begin += len(head) - begin - len(head[begin:].lstrip(b" "))
    end = head.find(b"\r", begin)
    return KnownHead(head[:begin], head[end:], handle) if head[begin:end].isdigit() else None


def response_tail(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return headers and body as they follow the status line."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers]) + b"\r\n" + body
