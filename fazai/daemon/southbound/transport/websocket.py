"""WebSockets over the sans-I/O protocol of `websockets`, without compression.

Each connection is one object: no task and no queue of its own while it is idle, as there may be thousands.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from fazai.compat.timeouts import deadline
from fazai.daemon.southbound.transport.frames import FrameSplitter, write_text

_CLOSE_S = 5.0  # for the other side to answer a close
_REASON_BYTES = 123  # that a close frame has room for
_UNSENT_BYTES = 256 << 10  # from which on `is_full`
_TURN_S = 0.005  # that the frames of one connection have the loop at a time
_LOOK_BYTES = 2048  # between two looks at the clock
_WAIT_BYTES = 16 << 10  # a text up to this size is taken as a whole, once it has come as a whole
_PIECES, _PIECE_BYTES = 1024, 1024  # of a message: that many of any size, the others of this one on average

#: The rest of what a message asks for, which has to wait for something.
Work = Coroutine[Any, Any, None]


class Receiver(Protocol):
    """Serves one connection."""

    async def open(self, request: Request) -> tuple[int, str] | None:
        """Accept the handshake; or return the status and the sentence with which it is refused."""
        ...

    def receive(self, message: bytes) -> Work | None:
        """Take a message. While the work that it returns goes on, no further one comes."""
        ...

    def lose(self, reason: str) -> None:
        """Note that the connection has ended."""
        ...

    def fail(self, error: BaseException) -> None:
        """Note a defect in the work of a message; the connection is cut off."""
        ...


class WebSocketConnection(asyncio.Protocol):
    """One connection. `heard_s` is the loop's time of its last byte; `on_drained` is called when what waited
    was sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: Receiver, max_bytes: int) -> None:
        self._loop = loop
        self._receiver: Receiver = receiver
        self._protocol = ServerProtocol(max_size=max_bytes)
        self._transport: asyncio.Transport | None = None
        self._unread = b""  # came, and was looked at up to `_place`
        self._place = 0
        self._splitter: FrameSplitter | None = None  # from where on it is known where frames begin
        self._whole_bytes = min(_WAIT_BYTES, max_bytes)
        self._has_ended = False
        self._turn: asyncio.Handle | None = None
        self._message = bytearray()
        self._pieces = 0
        self._waiting: deque[bytes] = deque()
        self._work: asyncio.Task[None] | None = None
        self._paused = 0
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        self._last_words: asyncio.TimerHandle | None = None
        self._why = ""
        self.heard_s = loop.time()
        self.is_full = False
        self.on_drained: Callable[[], None] | None = None

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._last_words is not None:
            self._last_words.cancel()
        if self._work is not None:
            self._work.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._unread, self._place = b"", 0
        self._waiting.clear()
        self._message.clear()
        for waiter in self._pongs.values():
            waiter.cancel()
        self._pongs.clear()
        self.on_drained = None
        self._receiver.lose(self._why or self._reason_of(exc))

    def _reason_of(self, error: Exception | None) -> str:
        """Return why the connection ended that this side did not close."""
        said = self._protocol.close_rcvd
        if said is not None:
            why = said.reason[:200] or ("" if said.code in (1000, 1001) else f"code {said.code}")
            return f"it closed the connection{': ' if why else ''}{why}"
        why = (getattr(error, "strerror", None) or str(error)) if error is not None else ""
        return f"the connection broke: {why}" if why else "the connection ended"

    def pause_writing(self) -> None:
        """Read nothing of who takes nothing: each ping of his would have its answer wait in memory."""
        self.is_full = True
        self.hold()

    def resume_writing(self) -> None:
        self.is_full = False
        self.let_go()
        if self.on_drained is not None:
            self.on_drained()

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        self._unread, self._place = self._unread[self._place :] + data, 0
        if self._turn is None:
            self._look()

    def _look(self) -> None:
        """Take what came, and let others have their turn after a moment: a frame may have six bytes only."""
        until_s = time.perf_counter() + _TURN_S
        while self._place < len(self._unread) and not self._is_ending:
            if not self._take_next():  # the rest of it has to come
                self._unread, self._place = self._unread[self._place :], 0
                break
            if self._place < len(self._unread) and time.perf_counter() > until_s:
                if self._turn is None:
                    self.hold()
                self._turn = self._loop.call_soon(self._look)
                return
        else:
            self._unread, self._place = b"", 0
        if self._turn is not None:
            self._turn = None
            self.let_go()
        if self._has_ended:
            self._read_end()

    def _take_next(self) -> bool:
        """Take the next text, or a piece of what is for the protocol; return whether there was enough."""
        place, text = self._place, None
        if self._splitter is not None and self._protocol.state is State.OPEN:
            self._place, text = self._splitter.next(self._unread, place, in_pieces=self._pieces > 0)
        else:
            self._place = min(place + _LOOK_BYTES, len(self._unread))
        if text is not None:
            self._take_message(text)
        elif self._place > place:
            self._read(self._unread[place : self._place])
        return self._place > place

    @property
    def _is_ending(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _read(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        broken = self._protocol.parser_exc
        if broken is not None and not self._why:
            self._why = f"bad_request: {self._protocol.close_reason or broken}"
        self._flush()
        for event in events:
            if isinstance(event, Request):
                if data.endswith(b"\r\n\r\n"):  # nobody sends more before the answer
                    self._splitter = FrameSplitter(most_bytes=self._whole_bytes, piece_bytes=_LOOK_BYTES)
                self._start(self._answer_handshake(event))
            else:
                self._take_frame(cast("Frame", event))

    def eof_received(self) -> bool:
        self._has_ended = True
        if self._turn is None:
            self._read_end()
        return False

    def _read_end(self) -> None:
        if self._unread:
            self._protocol.receive_data(self._unread)
            self._unread = b""
        self._protocol.receive_eof()
        self._flush()

    # -- frames

    async def _answer_handshake(self, request: Request) -> None:
        refusal = await self._receiver.open(request)
        if refusal is None:
            response = self._protocol.accept(request)
        else:
            response = self._protocol.reject(refusal[0], f"{refusal[1]}\n")
        self._protocol.send_response(response)
        self._flush()

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            waiter = self._pongs.pop(bytes(frame.data), None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        elif frame.opcode is Opcode.BINARY:
            self.close(CloseCode.UNSUPPORTED_DATA, "bad_request: messages are text")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._message += frame.data
            self._pieces += 1
            if frame.fin:
                message = bytes(self._message)
                self._message.clear()
                self._pieces = 0
                self._take_message(message)
            elif self._pieces > _PIECES + len(self._message) // _PIECE_BYTES:
                self.close(CloseCode.POLICY_VIOLATION, "bad_request: the pieces of the message are too small")

    def _take_message(self, message: bytes) -> None:
        if self._protocol.state is not State.OPEN:  # it was closed for an earlier one
            return
        if self._work is not None:
            self._waiting.append(message)
            return
        work = self._receiver.receive(message)
        if work is not None:
            self._start(work)

    def _start(self, work: Work) -> None:
        self.hold()
        self._work = self._loop.create_task(self._carry_out(work))
        self._work.add_done_callback(functools.partial(self._work_ended, work))

    async def _carry_out(self, work: Work) -> None:
        await work
        while self._waiting and self._protocol.state is State.OPEN:
            more = self._receiver.receive(self._waiting.popleft())
            if more is not None:
                await more

    def _work_ended(self, work: Work, task: asyncio.Task[None]) -> None:
        work.close()  # where the task was cancelled before it began
        self._work = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._receiver.fail(error)
            self.abort(f"a fault of fazai: {type(error).__name__}")
        else:
            self.let_go()
            came, self._waiting = self._waiting, deque()  # between the end of the work and this
            for message in came:
                self._take_message(message)

    # -- what the receiver calls

    def hold(self) -> None:
        """Read nothing more until `let_go` was called as often as this."""
        self._paused += 1
        if self._paused == 1 and self._transport is not None:
            self._transport.pause_reading()

    def let_go(self) -> None:
        """Take back one call of `hold`."""
        self._paused -= 1
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self.heard_s = self._loop.time()  # what it said meanwhile was not read
            self._transport.resume_reading()

    @property
    def is_held(self) -> bool:
        """True while nothing is read though the other side takes what it is sent."""
        return self._paused > self.is_full

    @property
    def is_open(self) -> bool:
        """True while messages can be sent."""
        return self._protocol.state is State.OPEN

    @property
    def unsent_bytes(self) -> int:
        """The bytes that the other side has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def transport_info(self, name: str) -> Any:
        """Return what the transport knows, such as `ssl_object` or `peername`."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def send(self, message: bytes) -> None:
        """Send a message; nothing happens where the connection is closing."""
        if self._protocol.state is State.OPEN:
            self._write(write_text(message))

    async def answers_ping(self, timeout_s: float) -> float | None:
        """Ping, and return the seconds until the answer; None where there was none in time."""
        begun_s, text = time.perf_counter(), secrets.token_bytes(8)
        waiter = self._pongs[text] = self._loop.create_future()
        try:
            self._protocol.send_ping(text)
            self._flush()
            async with deadline(timeout_s):
                await waiter
        except (TimeoutError, InvalidState):
            return None
        except asyncio.CancelledError:
            if waiter.cancelled():  # the connection ended
                return None
            raise
        finally:
            self._pongs.pop(text, None)
        return time.perf_counter() - begun_s

    def close(self, code: int, reason: str) -> None:
        """Say why, and close; what the other side does not answer in time is cut off."""
        self._why = self._why or reason
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, _cut(reason))
            self._flush()
        self._cut_off_soon()

    def abort(self, reason: str) -> None:
        """Cut the connection off without a word."""
        self._why = self._why or reason
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = self._protocol.data_to_send()
        if not data:
            return
        self._write(b"".join(data))
        if data[-1] == b"":  # the end of our side; TLS has no half of it
            transport.close()
            self._cut_off_soon()

    def _cut_off_soon(self) -> None:
        if self._last_words is None and self._transport is not None:
            self._last_words = self._loop.call_later(_CLOSE_S, self._transport.abort)


def _cut(reason: str) -> str:
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore")
