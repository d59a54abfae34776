"""The client's half of RFC 6455, without extensions and without input or output of its own.

Bytes of the connection go in, events come out; frames to send come out as bytes. It is strict: what the RFC
forbids a server ends the connection with the code that the RFC gives.
"""

from __future__ import annotations

import base64
import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
_CONTINUATION = 0x0
_CONTROL = 0x8
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

PROTOCOL_ERROR = 1002
BAD_DATA = 1003
NO_STATUS = 1005
BAD_TEXT = 1007
POLICY = 1008
TOO_LARGE = 1009

#: A longer message is sent in several frames, so that a ping finds its place between two of them.
FRAME_BYTES = 65_536
_HEAD_BYTES = 14


class FrameError(Exception):
    """The server broke the protocol; `code` is the close code to send."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Event:
    """Something that arrived: `kind` is TEXT, PING, PONG or CLOSE. `code` and `data` of a close are its
    status and reason."""

    __slots__ = ("code", "data", "kind")

    def __init__(self, kind: int, data: bytes, code: int = 0) -> None:
        self.kind = kind
        self.data = data
        self.code = code


def new_key(random: Callable[[int], bytes] = os.urandom) -> str:
    """Return a fresh `Sec-WebSocket-Key`."""
    return base64.b64encode(random(16)).decode()


def accept_value(key: str) -> str:
    """Return what the server must answer to a key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def upgrade_request(host: str, path: str, key: str, *headers: str) -> bytes:
    """Return the HTTP request that opens a WebSocket; `headers`: more lines of it."""
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def check_upgrade(status: int, headers: dict[str, str], key: str) -> None:
    """Check the server's answer to the upgrade. Raises FrameError."""
    if status != 101:
        raise FrameError(PROTOCOL_ERROR, f"the server answered {status} instead of opening a WebSocket")
    if headers.get("upgrade", "").lower() != "websocket":
        raise FrameError(PROTOCOL_ERROR, "the server's answer names no upgrade to WebSocket")
    if "upgrade" not in {word.strip().lower() for word in headers.get("connection", "").split(",")}:
        raise FrameError(PROTOCOL_ERROR, "the server's answer does not upgrade the connection")
    if headers.get("sec-websocket-accept") != accept_value(key):
        raise FrameError(PROTOCOL_ERROR, "the server's answer does not belong to our key")
    for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
        if headers.get(name):
            raise FrameError(PROTOCOL_ERROR, f"the server chose {headers[name]!r}, which nobody offered")


def build_frame(
    kind: int, data: bytes, *, final: bool = True, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Return one masked frame."""
    head = bytearray([(0x80 if final else 0) | kind])
    size = len(data)
    if size < 126:
        head.append(0x80 | size)
    elif size < 65_536:
        head.append(0x80 | 126)
        head += size.to_bytes(2, "big")
    else:
        head.append(0x80 | 127)
        head += size.to_bytes(8, "big")
    mask = random(4)
    return bytes(head) + mask + apply_mask(data, mask)


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Return the data, each byte combined with its byte of the mask; the same again undoes it."""
    size = len(data)
    if not size:
        return b""
    whole = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(whole, "little")).to_bytes(size, "little")


def build_text(data: bytes, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return the frames of one text message."""
    if len(data) <= FRAME_BYTES:
        return build_frame(TEXT, data, random=random)
    frames = []
    for at in range(0, len(data), FRAME_BYTES):
        kind = TEXT if at == 0 else _CONTINUATION
        piece = data[at : at + FRAME_BYTES]
        frames.append(build_frame(kind, piece, final=at + FRAME_BYTES >= len(data), random=random))
    return b"".join(frames)


def build_close(code: int, reason: str = "", random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return a close frame; a reason that is too long for one is cut."""
    text = reason.encode()[:123].decode("utf-8", "ignore").encode()
    return build_frame(CLOSE, code.to_bytes(2, "big") + text, random=random)


class FrameReader:
    """Reads the server's frames. Its memory is bounded by `limit_bytes` and what one `feed` brings."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._message: bytearray | None = None
        self._closed = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are whole now; what follows a close is left alone. Raises FrameError."""
        if self._closed:
            return []
        self._buffer += data
        events = []
        while not self._closed:
            frame = self._take_frame()
            if frame is None:
                break
            event = self._take(*frame)
            if event is not None:
                events.append(event)
                self._closed = event.kind == CLOSE
        return events

    def _take_frame(self) -> tuple[int, bool, bytes] | None:
        """Return kind, whether it is the last, and the data of the next frame; None until it is whole."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        kind, final, size = first & 0x0F, bool(first & 0x80), second & 0x7F
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "a frame has reserved bits set")
        if second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "the server masked a frame")
        if kind not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR, f"a frame has the unknown opcode {kind}")
        if kind & _CONTROL and (size > 125 or not final):
            raise FrameError(PROTOCOL_ERROR, "a control frame is too long or in pieces")
        head = 2 + (2 if size == 126 else 8 if size == 127 else 0)
        if len(buffer) < head:
            return None
        if size >= 126:
            least = 126 if size == 126 else 65_536
            size = int.from_bytes(buffer[2:head], "big")
            if size < least or size >> 63:
                raise FrameError(PROTOCOL_ERROR, "a frame's length is written in too many bytes")
        held = len(self._message) if self._message is not None else 0
        if not kind & _CONTROL and held + size > self.limit_bytes:
            raise FrameError(TOO_LARGE, f"a message is over {self.limit_bytes} bytes")
        if len(buffer) < head + size:
            return None
        data = bytes(buffer[head : head + size])
        del buffer[: head + size]
        return kind, final, data

    def _take(self, kind: int, final: bool, data: bytes) -> Event | None:
        if kind & _CONTROL:
            return _read_close(data) if kind == CLOSE else Event(kind, data)
        if kind == BINARY:
            raise FrameError(BAD_DATA, "the server sent a binary message")
        if (kind == _CONTINUATION) == (self._message is None):
            raise FrameError(PROTOCOL_ERROR, "a message's frames are not in their order")
        if self._message is None:
            if final:
                return Event(TEXT, _check_text(data, BAD_TEXT))
            self._message = bytearray()
        self._message += data
        if not final:
            return None
        whole, self._message = bytes(self._message), None
        return Event(TEXT, _check_text(whole, BAD_TEXT))


def _read_close(data: bytes) -> Event:
    if not data:
        return Event(CLOSE, b"", NO_STATUS)
    code = int.from_bytes(data[:2], "big")
    of_protocol = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(data) == 1 or not (of_protocol or 3000 <= code < 5000):
        raise FrameError(PROTOCOL_ERROR, "a close frame has no valid status")
    return Event(CLOSE, _check_text(data[2:], BAD_TEXT), code)


def _check_text(data: bytes, code: int) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise FrameError(code, "the server sent text that is not UTF-8") from None
    return data
