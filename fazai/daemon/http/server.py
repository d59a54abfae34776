"""Connections: uvicorn's HTTP protocol with the limits that it lacks, on listeners that can be renewed.

uvicorn reads headers of any length for any time, waits for open streams when it stops, and has one TLS
setting for all sockets. So its protocol class is used, and its server is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from fazai.config import is_loopback
from fazai.daemon.http.fastpath import FastPathOpener, KnownHead, remember_head
from fazai.daemon.settings import ServerLimits
from fazai.service.log import Log, LogHandler
from fazai.wire.base import ErrorAnswer, encode

#: Where a request's scope holds its HttpConnection.
CONNECTION = "fazai.connection"

_IDLE, _HEAD, _BODY, _OVER = range(4)
_SO_PEERGROUPS = 59
_LAST_CHUNK = b"0\r\n\r\n"
_LAST_WORDS_S = 0.05  # for a request that the stop cuts off to be told
_LINGER_S = 2.0  # for a client that is refused to read why, while it still sends


class HttpListener:
    """One listening socket; `tls` is asked for a context whenever it is (re)opened."""

    def __init__(self, sock: socket.socket, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        self.sock = sock
        self.tls = tls
        self.unix = sock.family == socket.AF_UNIX
        self.address = "" if self.unix else str(sock.getsockname()[0])
        self.loopback = not self.unix and is_loopback(self.address)
        self.port = 0 if self.unix else int(sock.getsockname()[1])
        self.server: asyncio.AbstractServer | None = None


class HttpConnection(HttpToolsProtocol):
    """The connection of one client."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        listener: HttpListener,
        limits: ServerLimits,
        logger: logging.Logger,
        openers: Mapping[bytes, FastPathOpener],
    ) -> None:
        super().__init__(config, state, {})
        self.listener = listener
        self.limits = limits
        self.logger = logger
        self.access_log = False
        self.on_lost: Callable[[], object] | None = None
        self._extensions: dict[str, Any] = {CONNECTION: self}
        self._phase = _IDLE
        self._head_bytes = 0
        self._frame_bytes = 0  # since the last byte of a body came: chunks' lines and trailers
        self._deadline: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str, str] | None = None
        self._openers = openers
        self._known_head: KnownHead | None = None
        self._chunk: bytes | None = None  # what began with the head that is being read
        self._held_back = b""  # what came before a request on the fast path was answered
        self._answered_s = 0.0
        self._last = False
        self._done: asyncio.Future[None] | None = None
        self.busy = False  # with a request on the fast path
        self._busy_since_s = 0.0
        self._gave_up = False
        self.on_drained: Callable[[], None] | None = None
        self._streams = False
        self._unsent_check: asyncio.Handle | None = None  # the next one at what a client has not taken yet

    # -- what uvicorn calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._start_deadline(self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_checking_unsent()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        on_lost, self.on_lost, self.on_drained = self.on_lost, None, None
        if on_lost is not None:
            on_lost()

    def pause_writing(self) -> None:
        if not self._streams:
            super().pause_writing()
            self._stop_checking_unsent()
            self._unsent_check = self.loop.call_soon(self._check_unsent, sys.maxsize)

    def resume_writing(self) -> None:
        self._stop_checking_unsent()
        if not self._streams:
            super().resume_writing()
        if self.on_drained is not None:
            self.on_drained()

    def data_received(self, data: bytes) -> None:
        if self._streams or self._phase == _OVER:
            return  # a stream is the last answer of its connection, and so is a refusal
        before = self._phase
        if before == _IDLE:
            if self.busy:
                self._held_back += data
                self.flow.pause_reading()
                return
            if self._known_head is not None and self._try_fast_path(self._known_head, data):
                return
            self._chunk = data
        self._head_bytes += len(data)
        self._frame_bytes += len(data)
        super().data_received(data)
        phase = self._phase
        if phase == _OVER:
            return
        if phase == _IDLE:
            self._head_bytes = 0
            if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
                # Line ends, which begin nothing, stopped uvicorn's own timer.
                self._start_deadline(self.limits.head_s)
        elif (self._head_bytes if phase == _HEAD else self._frame_bytes) > self.limits.head_bytes:
            self._refuse_large_head()
            self.send_400_response("")
        elif phase != before or self._deadline is None:
            self._start_deadline(self.limits.head_s if phase == _HEAD else self.limits.body_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = self._extensions
        self._phase = _HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase != _BODY:  # a trailer is no header, and nobody asks for one
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._frame_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        if self._head_bytes > self.limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.head_bytes:
                self._refuse_large_head()
                raise ValueError("the head is too large")  # httptools hands it on as a parser's error
        super().on_headers_complete()
        self._phase = _BODY
        self._head_bytes = self._frame_bytes = 0
        opener = self._openers.get(self.url)
        if opener is not None and self._chunk is not None:
            handler = opener(self.scope)
            self._known_head = (
                remember_head(self._chunk, self.url, self.headers, handler) if handler else None
            )

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase = _IDLE
        self._chunk = None  # what follows in it is another request
        self._stop_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be read, in the shape of the contract."""
        status, code, text = self._refusal or (400, "bad_request", "this is not HTTP")
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            body = encode(ErrorAnswer(error=text, code=code))
            head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
            head += "cross-origin-resource-policy: same-origin\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.end_gently()

    def shutdown(self) -> None:
        if self.busy:
            self._last = True
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is idle. Requests on the fast path do not touch the timer: it looks how
        long ago the last one was."""
        rest_s = self._answered_s + self.limits.idle_s - self.loop.time()
        if self.busy or rest_s > 0:
            wait_s = max(rest_s, 1.0)
            self.timeout_keep_alive_task = self.loop.call_later(wait_s, self.timeout_keep_alive_handler)
        elif not self.transport.is_closing():
            self.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Answer such a request as if it had not asked for an upgrade."""

    # -- the fast path

    def _try_fast_path(self, head: KnownHead, data: bytes) -> bool:
        """Return whether the data are a whole request that was taken; the one before must be answered."""
        body = head.body_of(data)
        if body is None or self._last or not (self.cycle is None or self.cycle.response_complete):
            return False
        self.busy = True
        self._busy_since_s = self.loop.time()
        if head.handle(body, self._answer):
            return True
        self.busy = False
        return False

    def time_out_fast_path(self, now_s: float) -> None:
        """Answer 504 where a request on the fast path had no answer for `answer_s`."""
        if self.busy and now_s - self._busy_since_s > self.limits.answer_s:
            self._refusal = (504, "timeout", f"it took more than {self.limits.answer_s:g} s")
            self._gave_up = True
            self.busy = False
            self._held_back = b""
            self.send_400_response("")

    def _answer(self, status: int, tail: bytes) -> None:
        if self._gave_up:
            return
        self.busy = False
        self._answered_s = self.loop.time()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
        if self.transport.is_closing():
            return
        ((_, date),) = self.server_state.default_headers
        self.transport.write(STATUS_LINE[status] + b"date: " + date + b"\r\n" + tail)
        if self._last:
            self.transport.close()
        elif self._held_back:
            data, self._held_back = self._held_back, b""
            self.flow.resume_reading()
            self.data_received(data)

    def wait_answered(self) -> asyncio.Future[None]:
        """Return a future of the moment at which the connection is no longer busy."""
        if self._done is None:
            self._done = self.loop.create_future()
        return self._done

    # -- time

    def _refuse_large_head(self) -> None:
        self._refusal = (431, "too_large", f"the headers have more than {self.limits.head_bytes} bytes")

    def _start_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(seconds, self._time_out)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self._phase != _IDLE:
            self._refusal = (408, "timeout", "the request took too long to arrive")
            self.send_400_response("")
        else:
            self.transport.close()
        self.loop.call_later(_LINGER_S + 1.0, self.transport.abort)

    def _check_unsent(self, before: int) -> None:
        """Cut off a client that took nothing of its answers for `stall_s`; whoever sends waits for it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent >= before:
            self.transport.abort()
        else:
            self._unsent_check = self.loop.call_later(self.limits.stall_s, self._check_unsent, unsent)

    def _stop_checking_unsent(self) -> None:
        if self._unsent_check is not None:
            self._unsent_check.cancel()
            self._unsent_check = None

    # -- the end

    def close(self) -> None:
        """Close when the client has taken what is written, at the latest in `linger_s`."""
        self.transport.close()
        self.loop.call_later(self.limits.linger_s, self.transport.abort)

    def prepare_refusal(self) -> None:
        """Prepare for a refusal that will be written: nobody reads the rest of that request."""
        if self._phase == _BODY and self.cycle is not None:
            self.cycle.transport = cast("asyncio.Transport", _GentleTransport(self))

    def end_gently(self) -> None:
        """End our side; what still comes is thrown away for a while. To close a socket with unread bytes
        would reset the connection, and the client might not see the answer."""
        if self._phase == _OVER or self.transport.is_closing():
            return
        self._phase = _OVER
        self._stop_deadline()
        self.flow.resume_reading()
        self.pipeline.clear()
        if self.cycle is not None and not self.cycle.response_complete:  # nothing is written after the end
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.close)

    # -- who it is

    def peer_credentials(self) -> tuple[int, frozenset[int]] | None:
        """Return user and groups of a local client; None over TCP."""
        sock = self.transport.get_extra_info("socket") if self.listener.unix else None
        return peer_credentials(sock) if sock is not None else None

    def certificate_name(self) -> str | None:
        """Return the common name of the client's certificate, which TLS has verified."""
        found = self.transport.get_extra_info("peercert") or {}
        names = [value for part in found.get("subject", ()) for key, value in part if key == "commonName"]
        return str(names[-1]) if names else None

    # -- streams, which are written to past ASGI

    def begin_stream(self, unsent_bytes: int) -> int:
        """Leave nothing but the stream: what served the request is let go of, half of what an open stream
        costs. `on_drained` is called when less than a quarter of `unsent_bytes` is left. Return the socket's
        number where writing to it is enough, -1 with TLS."""
        self._streams = True
        self._stop_checking_unsent()
        self.transport.set_write_buffer_limits(high=unsent_bytes)
        self._stop_deadline()
        if self.cycle is not None:
            self.cycle.response_complete = True
        self.cycle = self.parser = self.flow = self.scope = self.headers = None  # type: ignore[assignment]
        self.pipeline.clear()
        self.pipeline = ()  # type: ignore[assignment]  # an empty deque has 600 bytes
        plain = self.transport.get_extra_info("sslcontext") is None
        return int(self.transport.get_extra_info("socket").fileno()) if plain else -1

    def end_stream(self) -> None:
        """Write the last chunk; then the connection closes, at the latest in `linger_s`."""
        if self.transport.is_closing():
            return
        if self.cycle is not None:
            self.cycle.response_complete = True
        self.transport.write(_LAST_CHUNK)
        self.close()


def peer_credentials(sock: socket.socket) -> tuple[int, frozenset[int]]:
    """Return user and groups of the client of a local socket (SO_PEERCRED, SO_PEERGROUPS)."""
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = {gid}
    with contextlib.suppress(OSError):  # more groups than fit: the primary one has to do
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4096)
        groups.update(struct.unpack(f"{len(raw) // 4}I", raw[: len(raw) // 4 * 4]))
    return uid, frozenset(groups)


class _GentleTransport:
    """The transport to which uvicorn writes the answer of a refused request."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, connection: HttpConnection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.end_gently


class HttpServer:
    """All listeners of the daemon. `openers` are the paths whose requests may take the fast path."""

    def __init__(
        self, app: Any, limits: ServerLimits, log: Log, openers: Mapping[bytes, FastPathOpener]
    ) -> None:
        self._openers = openers
        self._limits = limits
        self._log = log
        self._state = ServerState()
        self._logger = logging.Logger("fazai.http", logging.ERROR)
        self._logger.addHandler(LogHandler(log, "fazai.http"))
        self._config = Config(
            app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(limits.idle_s),
        )
        self._config.load()
        self._clock: asyncio.TimerHandle | None = None
        self.listeners: list[HttpListener] = []

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._state.connections)

    async def listen(self, listener: HttpListener) -> None:
        """Open a listener."""
        await self._open(listener)
        self.listeners.append(listener)
        if self._clock is None:
            self._tick()

    async def renew(self) -> None:
        """Open the TLS listeners with contexts made anew; connections stay. Raises what `tls` raises, with
        everything as it was."""
        for listener in self.listeners:
            if listener.tls is None:
                continue
            before = listener.server
            await self._open(listener)
            if before is not None:
                before.close()

    async def _open(self, listener: HttpListener) -> None:
        context = listener.tls() if listener.tls is not None else None
        loop, sock = asyncio.get_running_loop(), listener.sock.dup()  # closing a server closes its socket

        make = functools.partial(self.make_connection, listener)
        if listener.unix:
            listener.server = await loop.create_unix_server(make, sock=sock, backlog=1024)
        else:
            hand_s = self._limits.head_s if context is not None else None
            listener.server = await loop.create_server(
                make, sock=sock, ssl=context, backlog=1024, ssl_handshake_timeout=hand_s
            )

    def make_connection(self, listener: HttpListener) -> HttpConnection:
        """Return the protocol of one connection, which may have been accepted elsewhere."""
        if self._clock is None:
            self._tick()
        return HttpConnection(self._config, self._state, listener, self._limits, self._logger, self._openers)

    def _tick(self) -> None:
        self._state.default_headers[:] = [(b"date", formatdate(usegmt=True).encode())]
        loop = asyncio.get_running_loop()
        for one in cast("list[HttpConnection]", list(self._state.connections)):
            one.time_out_fast_path(loop.time())
        self._clock = loop.call_later(1.0, self._tick)

    async def stop(self) -> None:
        """Accept nothing new; requests that run may end within `stop_s`, then they are cut off."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.stop_s
        if self._clock is not None:
            self._clock.cancel()
        for listener in self.listeners:
            if listener.server is not None:
                listener.server.close()
            listener.sock.close()
        fast: set[asyncio.Future[None]] = set()
        for one in cast("list[HttpConnection]", list(self._state.connections)):
            if one.busy:
                fast.add(one.wait_answered())
            one.shutdown()
        tasks: set[asyncio.Future[None]] = {*self._state.tasks, *fast}
        if tasks:
            await asyncio.wait(tasks, timeout=self._limits.stop_s)
        for task in self._state.tasks:
            task.cancel()
            until = max(until, loop.time() + _LAST_WORDS_S)
        while self._state.connections and loop.time() < until:  # noqa: ASYNC110 - they flush their last words
            await asyncio.sleep(0.005)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the transports' last callbacks
