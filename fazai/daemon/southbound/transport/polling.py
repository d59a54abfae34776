"""Signed HTTP as the carrier of a session: the agent posts what it has to say, and waits for what it is asked
with a request that stays open."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal

from fazai.compat.timeouts import deadline
from fazai.daemon.southbound.session import AgentSession, SessionParts
from fazai.wire.base import WireError

_WAITING = 256  # messages for an agent that does not fetch them; then it is taken as gone
_RUDE = 1013


class PolledLink:
    """The session of an agent that polls."""

    protocol: Literal["websocket", "http"] = "http"
    certificate: bytes | None = None

    def __init__(self, parts: SessionParts, sessions: set[AgentSession], agent_id: str, address: str) -> None:
        self._heartbeat_s = parts.config.heartbeat_s
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._polls = 0
        self._heard_s = self._loop.time()
        self._reply: bytes | None = None
        self._closed: str | None = None
        self.signed_by: str | None = agent_id
        self.address = address
        self.session = AgentSession(parts, self)
        sessions.add(self.session)

    # -- requests of the agent

    async def take(self, message: bytes) -> bytes | None:
        """Take a message of the agent, and return its answer. Raises WireError where the session has
        ended."""
        async with self._turn:
            self._heard_s = self._loop.time()
            self._check_open()
            self._reply = None
            work = self.session.receive(message)
            if work is not None:
                await work
            reply, self._reply = self._reply, None
        if reply is None:
            self._check_open()
        return reply

    async def poll(self, wait_s: float, gone: Callable[[], Awaitable[object]]) -> bytes | None:
        """Return the next message for the agent; None where there is none in that time, or the agent has
        `gone`. Raises WireError where the session has ended."""
        self._polls += 1
        leaving = asyncio.ensure_future(gone())
        try:
            async with deadline(wait_s):
                while not self._outbox and self._closed is None and not leaving.done():
                    news = asyncio.ensure_future(self._news.wait())
                    try:
                        # deadline: the `wait_s` of the agent
                        await asyncio.wait([news, leaving], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        news.cancel()
        except TimeoutError:
            pass
        finally:
            self._polls -= 1
            self._heard_s = self._loop.time()
            was_leaving = leaving.done()
            leaving.cancel()
        if self._outbox and not was_leaving:
            message = self._outbox.popleft()
            if not self._outbox:
                self._news.clear()
            return message
        self._check_open()
        return None

    def _check_open(self) -> None:
        if self._closed is not None:
            code, _, text = self._closed.partition(": ")
            raise WireError(code, text) if text else WireError("hello_required", self._closed)

    # -- as a link

    @property
    def silent_since_s(self) -> float | None:
        """The loop's time of the last request; None while one waits."""
        return None if self._polls else self._heard_s

    def send(self, message: bytes) -> None:
        """Have a message fetched with the next poll."""
        if len(self._outbox) >= _WAITING:
            self.abort("it does not fetch what it is asked")
            return
        self._outbox.append(message)
        self._news.set()

    def reply(self, message: bytes) -> None:
        """Answer the request that is being served."""
        self._reply = message

    async def answers_ping(self, timeout_s: float) -> float | None:
        """Return 0.0 where the agent is waiting for a message, or was heard within a heartbeat."""
        quiet_s = self._loop.time() - self._heard_s
        return 0.0 if self._polls or quiet_s < self._heartbeat_s else None

    def close(self, code: int, reason: str) -> None:
        """End the session; the next request is told why."""
        if self._closed is None:
            self._closed = reason
            self._outbox.clear()
            self._news.set()
            self._sessions.discard(self.session)

    def abort(self, reason: str) -> None:
        """End the session."""
        self.close(_RUDE, reason)
        self.session.lose(reason)
