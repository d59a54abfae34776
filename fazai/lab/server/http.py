"""A small HTTP/1.1 server on asyncio and httptools: faults need the transport itself.

One `LabConnection` per TCP connection. A request without fault or delay is answered inside `data_received`,
without a task; everything else goes through one task per connection, so that answers keep their order.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Protocol

import httptools

from fazai.compat.timeouts import deadline
from fazai.lab.server.wire import NO_CACHE, LabReply, LabRequest

MAX_BODY = 32 * 1024 * 1024
TOO_LARGE = "/too-large"  # stands for a request whose body was not kept
_STALL_S = 30.0  # for a client to take what was sent
_REASONS = {status.value: status.phrase for status in HTTPStatus}
BAD_REQUEST_PAGE = b"""<!DOCTYPE html>
<html lang="en">
 <head>
  <meta charset="UTF-8" />
  <title>400 Bad Request</title>
 </head>
 <body>
  <h1>400 Bad Request</h1>
 </body>
</html>
"""

Answer = LabReply | Awaitable[LabReply | None]


class Application(Protocol):
    """The firewall behind a connection, as the connection needs to know it."""

    keepalive_requests: int
    idle_s: float
    secure: bool

    def opened(self, connection: LabConnection) -> bool: ...
    def closed(self, connection: LabConnection) -> None: ...
    def answer(self, connection: LabConnection, request: LabRequest) -> Answer: ...


class LabConnection(asyncio.Protocol):
    """One TCP connection of a client."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._waiting: deque[LabRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._served = 0
        self._head = False
        self._last = False
        self._deaf = False
        self._idle: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deaf = not self._application.opened(self)
        self._start_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._idle is not None:
            self._idle.cancel()
        if self._task is not None:
            self._task.cancel()
        self._drained.set()
        self._application.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._report_error(error.__context__ or error)  # a mistake of the lab itself
            self.abort()
        except httptools.HttpParserError:
            self._write_reply(LabReply(400, BAD_REQUEST_PAGE, "text/html", session=False), close=True)

    def pause_writing(self) -> None:
        """Read and answer no more requests of a client that does not read."""
        self._drained.clear()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._drained.set()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._answer_waiting()

    # httptools

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body, self._size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_BODY:
            self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("ascii")
        if not self._parser.should_keep_alive():
            self._last = True
        request = LabRequest(method, self._target.decode("latin-1"), self._headers, b"".join(self._body))
        if self._size > MAX_BODY:
            self._last = True
            request = LabRequest(method, TOO_LARGE, {}, b"")
        self._waiting.append(request)
        self._answer_waiting()

    # answering

    def _answer_waiting(self) -> None:
        while self._waiting and self._task is None and self._drained.is_set():
            if self._transport is None or self._transport.is_closing():
                return
            if self._idle is not None:
                self._idle.cancel()
            request = self._waiting.popleft()
            self._head = request.method == "HEAD"
            answer = self._application.answer(self, request)
            if isinstance(answer, LabReply):
                self._write_reply(answer)
            else:
                self._task = asyncio.get_running_loop().create_task(self._write_later(answer))
                self._task.add_done_callback(self._finish_task)

    async def _write_later(self, answer: Awaitable[LabReply | None]) -> None:
        reply = await answer
        if reply is not None and self._transport is not None:
            self._write_reply(reply)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self.abort()
            self._report_error(task.exception())
            return
        self._answer_waiting()

    def _report_error(self, error: BaseException | None) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "the lab could not answer a request", "exception": error}
        )

    def _write_reply(self, reply: LabReply, *, close: bool = False) -> None:
        if self._transport is None:
            return
        head, body = self.render_reply(reply, close=close)
        self._transport.write(head + body)
        if self._last:
            self.close()
        else:
            self._start_idle_timer()

    def render_reply(self, reply: LabReply, *, close: bool = False) -> tuple[bytes, bytes]:
        """Return head and body of an answer as bytes; count it, and close after the last one."""
        self._served += 1
        limit = self._application.keepalive_requests
        if close or (limit and self._served >= limit):
            self._last = True
        lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}"]
        if reply.session:
            secure = "secure; " if self._application.secure else ""
            lines.append(
                f"set-cookie: PHPSESSID={secrets.token_hex(16)}; path=/; {secure}HttpOnly; SameSite=Lax"
            )
            lines.append(f"cache-control: {NO_CACHE}")
        lines += [f"{name}: {value}" for name, value in reply.headers]
        lines += [
            f"content-type: {reply.content_type}",
            f"content-length: {len(reply.body)}",
            "server: OPNsense",
        ]
        if self._last:
            lines.append("connection: close")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head, b"" if self._head else reply.body

    async def send(self, data: bytes) -> bool:
        """Send bytes as they are; False when the client has gone."""
        if self._transport is None:
            return False
        self._transport.write(data)
        try:
            async with deadline(self._application.idle_s or _STALL_S):
                await self._drained.wait()
        except TimeoutError:
            self.abort()
            return False
        return self._transport is not None

    def finish(self) -> None:
        """Close, or wait for the next request; called after `send`."""
        if self._last:
            self.close()
        self._start_idle_timer()

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what is already written was sent, to a client that takes it."""
        if self._transport is not None:
            self._transport.close()
            limit_s = self._application.idle_s or _STALL_S
            asyncio.get_running_loop().call_later(limit_s, self._transport.abort)

    def _start_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._application.idle_s and not self._deaf:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._application.idle_s, self.close)
