"""The action loop as the rest of the daemon uses it. `registry.LoopSessions` is it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from fazai.daemon.http.auth import Principal
from fazai.daemon.loop.session import LoopSession, Watcher
from fazai.daemon.tools.proposing import Proposal
from fazai.loop.effects import Effect
from fazai.store.sessions import Source
from fazai.wire.sessions import Budget
from fazai.wire.worker import SessionParams


class ActionLoop(Protocol):
    """The sessions, and what people and other parts of the daemon do with them. Calls may raise Refusal,
    WireError(unknown_session), StateError."""

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all sessions."""
        ...

    def all(self) -> tuple[LoopSession, ...]:
        """Return all sessions, in the order of their ids."""
        ...

    def find(self, session_id: str) -> LoopSession:
        """Return a session."""
        ...

    def find_own(self, session_id: str, who: Principal) -> LoopSession:
        """Return a session of the client, or any for an admin."""
        ...

    async def open(
        self, owner: str, params: SessionParams | None = None, source: Source = "api"
    ) -> LoopSession:
        """Open a session."""
        ...

    async def start(
        self,
        session: LoopSession,
        objective: str,
        by: str,
        *,
        history: tuple[str, ...] = (),
        budget: Budget | None = None,
    ) -> None:
        """Give the session an objective, and begin with it."""
        ...

    async def abort(self, session: LoopSession, by: str) -> None:
        """End the objective."""
        ...

    async def pause(self, session: LoopSession, by: str, why: str = "") -> None:
        """Let the objective rest until it is resumed."""
        ...

    async def resume(self, session: LoopSession, by: str, budget: Budget | None = None) -> None:
        """Go on with an objective that rests."""
        ...

    async def approve(
        self, session: LoopSession, action_id: str, plan_hash: str, who: Principal, reason: str | None = None
    ) -> None:
        """Let an effect happen, by the hash that was shown."""
        ...

    async def reject(
        self, session: LoopSession, action_id: str, plan_hash: str, who: Principal, reason: str | None = None
    ) -> None:
        """Refuse an effect."""
        ...

    async def answer(self, session: LoopSession, action_id: str, text: str, who: Principal) -> None:
        """Answer what the model asked."""
        ...

    async def propose(self, effect: Effect, who: Principal, session_id: str | None) -> Proposal:
        """Keep an effect that another assistant, or a rule, prepared as a proposal that waits."""
        ...

    def watch(self, session: LoopSession, watcher: Watcher) -> AbstractContextManager[None]:
        """Hand each event of the session to a watcher, while inside."""
        ...

    async def load(self) -> None:
        """Read all sessions of the daemon before."""
        ...

    async def close(self) -> None:
        """Let everything rest: the daemon stops."""
        ...
