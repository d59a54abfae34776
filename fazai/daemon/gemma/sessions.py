"""Sessions on the Gemma worker that clients of the daemon have opened."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from typing import Any

from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.errors import Unreachable
from fazai.providers.gemma.client import GemmaClient, GemmaSession
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams


class AgentSession:
    """A session on the worker and its owner; `running` is the task of its iteration, while there is one."""

    def __init__(self, owner: str, gemma: GemmaSession) -> None:
        self.owner = owner
        self.gemma = gemma
        self.used = time.monotonic()
        self.running: asyncio.Task[Any] | None = None


class AgentSessions:
    """The sessions that clients have open; at most `most`. One that is not used for `idle_s` is closed."""

    def __init__(self, client: GemmaClient, most: int = 256, idle_s: float = 1800.0) -> None:
        self.client = client
        self._most, self._idle_s = most, idle_s
        self._open: OrderedDict[str, AgentSession] = OrderedDict()

    def ids(self) -> list[str]:
        """Return the ids of the sessions that are open."""
        return list(self._open)

    async def open_session(self, owner: str, params: SessionParams | None) -> str:
        """Open a session and return its id. Raises Refusal: worker_unavailable, overloaded, and what the
        worker refuses."""
        await self._close_idle()
        if len(self._open) >= self._most:
            raise Refusal("overloaded", "there are too many sessions", headers=((b"retry-after", b"60"),))
        gemma = self.client.session(params)
        try:
            await gemma.__aenter__()
        except Unreachable as error:
            again = ((b"retry-after", b"5"),)
            raise Refusal("worker_unavailable", error.message, hint=error.hint, headers=again) from None
        session_id = f"s-{secrets.token_hex(8)}"
        self._open[session_id] = AgentSession(owner, gemma)
        return session_id

    def find_session(self, session_id: str, who: Principal) -> AgentSession:
        """Return a session of the client. Raises WireError(unknown_session), Refusal(forbidden) for
        another's."""
        found = self._open.get(session_id)
        if found is None:
            raise WireError(
                "unknown_session", f"there is no session {session_id[:64]!r}", hint="POST /agent/sessions"
            )
        if found.owner != who.name:
            raise Refusal("forbidden", "the session is another's", hint="open one: POST /agent/sessions")
        found.used = time.monotonic()
        self._open.move_to_end(session_id)
        return found

    def has(self, session_id: str) -> bool:
        """Return whether this is a session of the worker, and none of the action loop."""
        return session_id in self._open

    def abort(self, session_id: str, who: Principal) -> None:
        """End what the session generates. Raises WireError(unknown_session), Refusal(forbidden)."""
        running = self.find_session(session_id, who).running
        if running is not None:
            running.cancel("aborted")

    async def close_session(self, session_id: str) -> None:
        """Close a session, if it is open."""
        found = self._open.pop(session_id, None)
        if found is not None:
            await found.gemma.__aexit__(None, None, None)

    async def _close_idle(self) -> None:
        for session_id, session in list(self._open.items()):
            if session.running is None and time.monotonic() - session.used > self._idle_s:
                await self.close_session(session_id)

    async def close_all(self) -> None:
        """Close all sessions."""
        for session_id in list(self._open):
            await self.close_session(session_id)
