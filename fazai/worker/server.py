"""The protocol on the socket: lines in, lines out, one object per connection (SPEC.md, section 1)."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, cast

from fazai import __version__
from fazai.wire import worker as wire
from fazai.wire.base import (
    CONTRACT,
    MAX_LINE_BYTES,
    AnswerMessage,
    ErrorAnswer,
    Message,
    OkAnswer,
    SessionAnswer,
    WireError,
    encode,
)
from fazai.worker.bridge import Options
from fazai.worker.clients import NOBODY, Client, Holdings, Place, client_of, find_place
from fazai.worker.metrics import Metrics
from fazai.worker.sessions import MAX_TIMEOUT_MS, Generation, WorkerSessions
from fazai.worker.stats import Stats

_MAX_PENDING = 64  # requests of one connection that wait for their turn; more are not read
#: Bytes of all connections together that were read and are not yet answered: lines without an end, requests
#: that wait. Beyond, the client that holds most is refused what it sent last.
MAX_HELD_BYTES = 32 * 1024 * 1024
MAX_CONNECTIONS = 256  # beyond, one of the client that has most goes
_WRITE_HIGH = 64 * 1024
_HALF_CLOSED_S = 0.1


class Worker:
    """State that all connections share. `sessions` is None until the model is loaded."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self.options = options
        self.metrics = metrics
        self.sessions: WorkerSessions | None = None
        self.model: str | None = None
        self.model_sha256: str | None = None  # once its file was read through
        self.context_tokens: int | None = None
        self.stats: Callable[[], Stats | None] = lambda: None
        self.connections: set[ClientConnection] = set()
        self.held_bytes = 0

    def loaded_sessions(self) -> WorkerSessions:
        """Return the sessions. Raises WireError(overloaded) while the model is being loaded."""
        if self.sessions is None:
            raise WireError("overloaded", "the model is being loaded", hint="ask again in some seconds")
        return self.sessions

    def make_room(self, newcomer: Client) -> bool:
        """Close a connection of the client that has most when there are too many. Return False where none is
        closed."""
        if len(self.connections) < MAX_CONNECTIONS:
            return True
        found = find_place(
            (
                Place(each, each.client, each.idle, each.used_s if each.idle else each.made_s)
                for each in self.connections
            ),
            newcomer,
        )
        if found is None:
            return False
        if found.idle:
            found.drop()
        else:
            found.give_up(WireError("overloaded", "the connection's place went to a client that has fewer"))
        return True

    def bound_held(self) -> None:
        """Refuse what the client that holds most sent last, or close its largest connection where nothing of
        it can be refused, until all of them hold no more than is allowed."""
        while self.held_bytes > MAX_HELD_BYTES:
            holders = [found for found in self.connections if found.held_bytes]
            if not holders:
                return  # one that is being closed
            hold = Holdings((found.client, found.held_bytes) for found in holders)
            most = max(hold.rank(found.client) for found in holders)
            theirs = [found for found in holders if hold.rank(found.client) == most]
            largest = max(theirs, key=lambda found: (found.refusable_bytes, found.held_bytes))
            if largest.refusable_bytes:
                largest.refuse_last()
            else:
                largest.give_up(_too_much())

    def status(self, *, metrics: bool) -> wire.StatusAnswer:
        """Return the answer to a status request."""
        state: Literal["starting", "running", "stopping"] = "starting"
        stats = self.stats()
        if self.sessions is not None:
            state = "stopping" if self.sessions.draining else "running"
        return wire.StatusAnswer(
            status=state,
            model=self.model,
            sessions=len(self.sessions) if self.sessions is not None else 0,
            slots=self.options.slots,
            contract=CONTRACT,
            version=__version__,
            context_tokens=self.context_tokens,
            model_sha256=self.model_sha256,
            queued=stats.queued if stats is not None else 0,
            logits_limit=stats.rows_limit if stats is not None else None,
            logits_note=(stats.rows_why or None) if stats is not None else None,
            drafts_limit=stats.drafts_limit if stats is not None else None,
            drafts_note=(stats.drafts_why or None) if stats is not None else None,
            metrics=self.metrics.text(stats) if metrics else None,
            limits=wire.WorkerLimits(
                max_line_bytes=MAX_LINE_BYTES,
                max_sessions=self.options.sessions,
                max_queue=self.options.queue,
                max_timeout_ms=MAX_TIMEOUT_MS,
                turn_tokens=stats.turn_tokens if stats is not None else None,
                credit_tokens=stats.credit_tokens if stats is not None else None,
                max_passes=stats.most_passes if stats is not None else None,
            ),
        )


class ClientConnection(asyncio.Protocol):
    """The connection of one client. Requests are answered in their order; while a generation runs, later ones
    wait in `_pending`, but abort and close_session take effect as soon as they are read."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self._pending: deque[tuple[wire.WorkerRequest | bytes, int]] = deque()  # and the bytes of a request
        self._pending_bytes = 0
        self.held_bytes = 0  # as the worker counts them
        self.used_s = self.made_s = time.monotonic()
        self.client = NOBODY
        self._generation: Generation | None = None
        self._parts: list[str] | None = None  # of a generation without a stream
        self._full = False
        self._reading = True
        self._eof = False

    # --- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self.client = client_of(cast(socket.socket, transport.get_extra_info("socket")))
        if not self._worker.make_room(self.client):
            self._refuse(
                WireError("overloaded", f"{MAX_CONNECTIONS} connections are open, and none makes room")
            )
            self._transport.close()
            return
        self._worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._abandon()

    def _abandon(self) -> None:
        """Forget what was asked here, and abort what runs."""
        self._worker.connections.discard(self)
        self._pending.clear()
        self._pending_bytes = 0
        self._buffer.clear()
        self._count_held()
        generation, self._generation = self._generation, None
        if generation is not None and self._worker.sessions is not None:
            generation.sink = None
            self._worker.sessions.stop(generation)
            self._worker.sessions.pump(generation)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._generation is not None and self._generation.submitted:
            self._worker.loaded_sessions().pump(self._generation)
        self._handle_pending()

    def eof_received(self) -> bool:
        """Keep the connection of a client that said all it will say: it still gets its answers; one that is
        gone ends its generation."""
        self._eof = True
        if self._is_gone():
            return False
        self._watch_half_closed()
        self._close_when_done()
        return True

    def _is_gone(self) -> bool:
        found = self._transport.get_extra_info("socket") if self._transport is not None else None
        if found is None:
            return True
        poll = select.poll()
        poll.register(cast(socket.socket, found).fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def _watch_half_closed(self) -> None:
        """Look for the end of a half-closed connection, at which the event loop no longer looks."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_gone():
            self._transport.abort()
            return
        asyncio.get_running_loop().call_later(_HALF_CLOSED_S, self._watch_half_closed)

    def _close_when_done(self) -> None:
        if not self._eof or self._generation is not None or self._pending or not self._has_room():
            return
        if self._buffer and not self._skipping:
            self._buffer.clear()
            self._refuse(WireError("bad_json", "the last line has no end", hint="each ends with \\n"))
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """End the connection now."""
        self._worker.connections.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def give_up(self, error: WireError) -> None:
        """Say why, and end the connection now. One that did not read what came before is not told: its
        descriptor would stay open for as long as it does not read."""
        if self._generation is not None:
            self._write_error(error)
        else:
            self._refuse(error)
        self._abandon()
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._transport.abort()
        elif self._transport is not None:
            self._transport.close()

    # --- what it holds

    @property
    def idle(self) -> bool:
        """True while nothing of this client is under way or waits."""
        return self._generation is None and not self._pending and not self._full

    @property
    def refusable_bytes(self) -> int:
        """The bytes that could be freed by a refusal."""
        return self._unfinished_bytes + self._pending_bytes

    @property
    def _unfinished_bytes(self) -> int:
        """The bytes of a line whose end has not come; not of lines that wait for room."""
        return len(self._buffer) if self._scanned == len(self._buffer) else 0

    def refuse_last(self) -> None:
        """Forget the line that is being read, or the request that came last, and say so."""
        error = _too_much()
        if self._unfinished_bytes:
            self._skipping = True
            self._buffer.clear()
            self._scanned = 0
            self._refuse(error)
        else:
            for at in range(len(self._pending) - 1, -1, -1):
                request, size = self._pending[at]
                if size:
                    self._worker.metrics.errors[error.code] += 1
                    stream = isinstance(request, wire.Generate | wire.GenerateStream) and request.stream
                    self._pending[at] = (_encode_refusal(error, stream=stream), 0)
                    self._pending_bytes -= size
                    break
        self._count_held()

    def _count_held(self) -> None:
        now = len(self._buffer) + self._pending_bytes
        self._worker.held_bytes += now - self.held_bytes
        self.held_bytes = now

    # --- lines in

    def data_received(self, data: bytes) -> None:
        self.used_s = time.monotonic()
        self._buffer += data
        self._take_lines()
        self._count_held()
        self._worker.bound_held()
        self._update_reading()

    def _take_lines(self) -> None:
        """Handle as many lines as there is room for: a packet holds many thousand, and each has an answer."""
        at = 0
        while self._has_room():
            end = self._buffer.find(b"\n", max(at, self._scanned))
            if end < 0:
                self._scanned = len(self._buffer)
                break
            line = bytes(self._buffer[at:end])
            at = end + 1
            if self._skipping:
                self._skipping = False
            else:
                self._read_line(line)
        del self._buffer[:at]
        self._scanned = max(0, self._scanned - at)
        if self._scanned > MAX_LINE_BYTES or (self._skipping and self._scanned == len(self._buffer)):
            if not self._skipping:
                self._refuse(WireError("bad_request", f"a line has at most {MAX_LINE_BYTES} bytes"))
            self._skipping = True
            self._buffer.clear()
            self._scanned = 0

    def _has_room(self) -> bool:
        """Return whether another request is taken. A client that does not read may still abort what runs."""
        few = len(self._pending) < _MAX_PENDING and self._pending_bytes < MAX_LINE_BYTES
        return few and (not self._full or self._generation is not None)

    def _read_line(self, line: bytes) -> None:
        try:
            request = wire.decode_worker_request(line)
        except WireError as error:
            self._refuse(error)
            return
        busy = self._generation is not None or bool(self._pending)
        if busy and isinstance(request, wire.Abort | wire.CloseSession):
            self._pending.append((_encode_line(self._answer(request)), 0))
        elif busy or self._full:
            self._pending.append((request, len(line)))
            self._pending_bytes += len(line)
        else:
            self._handle(request)

    def _refuse(self, error: WireError) -> None:
        self._worker.metrics.errors[error.code] += 1
        answer = _encode_line(ErrorAnswer.of(error))
        if self._generation is not None or self._pending:
            self._pending.append((answer, 0))
        else:
            self._write(answer)

    def _update_reading(self) -> None:
        """Read no further from a client that asks faster than it is answered; everybody else is read."""
        if self._transport is None or self._transport.is_closing() or self._eof:
            return
        wanted = self._has_room()
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # --- requests

    def _handle(self, request: wire.WorkerRequest) -> None:
        if isinstance(request, wire.Generate | wire.GenerateStream):
            self._generate(request)
        else:
            self._write(_encode_line(self._answer(request)))

    def _answer(self, request: wire.WorkerRequest) -> Message:
        try:
            return self._carry_out(request)
        except WireError as error:
            self._worker.metrics.errors[error.code] += 1
            return ErrorAnswer.of(error)

    def _carry_out(self, request: wire.WorkerRequest) -> AnswerMessage:
        match request:
            case wire.CreateSession():
                made = self._worker.loaded_sessions().create(request.params, self.client)
                return SessionAnswer(session_id=made)
            case wire.Abort():
                self._worker.loaded_sessions().abort(request.session_id)
                return OkAnswer()
            case wire.CloseSession():
                self._worker.loaded_sessions().close(request.session_id)
                return OkAnswer()
            case _:
                return self._worker.status(metrics=isinstance(request, wire.Status) and request.metrics)

    def _generate(self, request: wire.Generate | wire.GenerateStream) -> None:
        self._parts = None if request.stream else []
        try:
            sessions = self._worker.loaded_sessions()
            self._generation = sessions.generate(request.session_id, request.prompt, request.params, self)
        except WireError as error:
            self._write_error(error)

    def _handle_pending(self) -> None:
        while self._pending and self._generation is None and not self._full:
            item, size = self._pending.popleft()
            self._pending_bytes -= size
            if isinstance(item, bytes):
                self._write(item)
            else:
                self._handle(item)
            if not self._pending:
                self._take_lines()
        self._take_lines()
        self._count_held()
        self._update_reading()
        self._close_when_done()

    # --- a generation's events (sessions.Sink)

    def ready(self) -> bool:
        return not self._full

    def text(self, generation: Generation, text: str) -> None:
        if self._parts is not None:
            self._parts.append(text)
        else:
            self._write(_encode_line(wire.TokenText(text=text)))

    def ended(self, generation: Generation, reason: str, usage: wire.Usage) -> None:
        self._generation = None
        why = cast(wire.StopReason, reason)
        end: Message = wire.StopEvent(reason=why, usage=usage)
        if self._parts is not None:
            end = wire.GenerateAnswer(text="".join(self._parts), usage=usage, stop_reason=why)
        self._write(_encode_line(end))
        self._handle_pending()

    def failed(self, generation: Generation, error: WireError) -> None:
        self._generation = None
        self._write_error(error)
        self._handle_pending()

    def _write_error(self, error: WireError) -> None:
        self._worker.metrics.errors[error.code] += 1
        self._write(_encode_refusal(error, stream=self._parts is None))

    def _write(self, line: bytes) -> None:
        if self._transport is not None:
            self._transport.write(line)


def _too_much() -> WireError:
    return WireError("overloaded", "all clients together have sent more than is kept", hint="ask again")


def _encode_line(message: Message) -> bytes:
    return encode(message) + b"\n"


def _encode_refusal(error: WireError, *, stream: bool) -> bytes:
    """Return a refusal in the form that the reader of a generation waits for."""
    answer = ErrorAnswer.of(error)
    return _encode_line(wire.WorkerErrorEvent(message=answer.error, code=error.code) if stream else answer)
