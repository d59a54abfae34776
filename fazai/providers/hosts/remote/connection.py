"""The WebSocket to the relay: what is sent in one turn of the event loop is one write, and what comes reaches
who waits for it without a queue. Every command that asks agents loads it: it needs the standard library
alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

from fazai.compat import websocket
from fazai.compat.timeouts import deadline
from fazai.compat.websocket import FrameError, FrameReader

_HEAD_BYTES: Final = 16 * 1024
_BODY_BYTES: Final = 4096
_BUFFER_BYTES: Final = 1 << 20
_LAST_WORDS_S: Final = 2.0  # for the other side to take them
_NORMAL: Final = 1000
_STATUS: Final = re.compile(r"HTTP/1\.1 ([0-9]{3})(?: |$)")


class UpgradeRefused(Exception):
    """The other side does not open a WebSocket; the text is its own."""


class RelayConnection(asyncio.Protocol):
    """A connection to the relay. `take` gets each text that comes, `lose` is called when it has ended. It is
    cut off when nothing came for twice `ping_s`, not even the answer to a ping."""

    def __init__(
        self, most_bytes: int, take: Callable[[bytes], object], lose: Callable[[], object], ping_s: float
    ) -> None:
        self._take, self._lose, self._ping_s = take, lose, ping_s
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(most_bytes)
        self._transport: asyncio.Transport | None = None
        self._key = websocket.new_key()
        self._answer = b""  # to the upgrade
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._unsent: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._ping: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._is_heard = True  # since the last ping

    async def open(self, host: str, path: str, *headers: str) -> None:
        """Have the connection become a WebSocket. Raises UpgradeRefused, FrameError, OSError."""
        assert self._transport is not None
        self._transport.write(websocket.upgrade_request(host, path, self._key, *headers))
        await self._opened  # deadline: the caller's
        self._watch()

    async def send(self, text: bytes) -> None:
        """Send a text, together with what else is sent in this turn. Raises ConnectionError."""
        if self.is_closed:
            raise ConnectionError("the connection has ended")
        if not self._unsent:
            self._loop.call_soon(self._write_unsent)
        self._unsent.append(websocket.build_text(text))
        await self._writable.wait()  # deadline: the caller's

    async def close(self, timeout_s: float) -> None:
        """Close it, and wait so long for the other side to do so."""
        self._end(_NORMAL, "")
        try:
            async with deadline(timeout_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Cut it off without a word."""
        if self._opened.done() and not self._opened.cancelled():
            self._opened.exception()  # which was told already
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _write_unsent(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self.is_closed:
            cast("asyncio.Transport", self._transport).write(b"".join(unsent))

    def _watch(self) -> None:
        """Ping the other side, and cut it off where it did not answer the last one."""
        if self.is_closed:
            return
        if not self._is_heard:
            self.abort()
            return
        self._is_heard = False
        self._unsent.append(websocket.build_frame(websocket.PING, b""))
        self._write_unsent()
        self._ping = self._loop.call_later(self._ping_s, self._watch)

    def _end(self, code: int, reason: str) -> None:
        if not self.is_closed:
            self._unsent.append(websocket.build_close(code, reason))
            self._write_unsent()
            transport = cast("asyncio.Transport", self._transport)
            transport.close()
            self._last_words = self._loop.call_later(_LAST_WORDS_S, transport.abort)

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_BUFFER_BYTES)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._is_heard = True
        try:
            if not self._opened.done():
                data = self._read_answer(data)
            for event in self._reader.feed(data):
                if event.kind == websocket.TEXT:
                    self._take(event.data)
                elif event.kind == websocket.PING and self._writable.is_set():  # who takes nothing gets none
                    self._unsent.append(websocket.build_frame(websocket.PONG, event.data))
                    self._write_unsent()
                elif event.kind == websocket.CLOSE:
                    self._end(_NORMAL, "")
        except FrameError as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            self._end(error.code, error.message)

    def _read_answer(self, data: bytes) -> bytes:
        """Read the answer to the upgrade; return what stands behind it. Raises FrameError."""
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _HEAD_BYTES:
                raise FrameError(websocket.TOO_LARGE, "the answer has too long a head")
            return b""
        first, *lines = head.decode("latin-1").split("\r\n")
        found = _STATUS.match(first)
        if found is None:
            raise FrameError(websocket.PROTOCOL_ERROR, "the answer is no HTTP")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if found[1] != "101":
            if len(rest) < min(_BODY_BYTES, _read_length(headers)):
                return b""
            said = rest.decode("utf-8", "replace").strip()
            self._opened.set_exception(UpgradeRefused(said[:300] or f"it answered {found[1]}"))
            self.abort()
            return b""
        websocket.check_upgrade(101, headers, self._key)
        self._opened.set_result(None)
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._ping, self._last_words):
            if timer is not None:
                timer.cancel()
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionError("it closed the connection"))
        self._writable.set()
        self._ended.set_result(None)
        self._lose()


def _read_length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
