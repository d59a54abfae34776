"""The sessions of the action loop: opened, found, started, approved, answered, paused, ended.

A session outlives the daemon: its journal is in the store. What ran when the daemon ended rests, and is
resumed by a person; what had begun to have an effect is looked up first.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import AUDIT, log_event
from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import require_role
from fazai.daemon.loop.assistants import (
    check_approver,
    expired_proposals,
    find_proposal,
    refuse_too_many,
)
from fazai.daemon.loop.driver import Driver
from fazai.daemon.loop.observing import decision_event, observe_event, observed_entry
from fazai.daemon.loop.session import LoopSession, Watcher, load_session, now
from fazai.daemon.services import Services
from fazai.daemon.tools.proposing import Proposal
from fazai.errors import FazaiError, Unreachable
from fazai.loop.effects import Effect
from fazai.loop.journal import (
    Answered,
    AnyEntry,
    Approved,
    Decided,
    Ended,
    ObjectiveSet,
    Paused,
    Proposed,
    Rejected,
    Resumed,
    Waiting,
)
from fazai.loop.tools import Observation
from fazai.store.sessions import SessionRecord, Source
from fazai.timestamps import timestamp, utc_now
from fazai.wire.actions import UseToolAction
from fazai.wire.base import WireError
from fazai.wire.events import DoneEvent, ErrorEvent, EventBase
from fazai.wire.sessions import Budget
from fazai.wire.worker import SessionParams

_LOGGER = "fazai.daemon.loop"
_DAEMON = "fazai daemon"
_GOODBYE_S = 0.2
_MOST_ENTRIES = 10_000  # of a journal, from which on it takes no further objective
_SHARES = 8  # an assistant's proposals that wait take one of so many parts of the sessions
_UNKNOWN_OUTCOME = (
    "the objective was aborted while this was carried out: what has begun may go on, and its outcome is not "
    "known here; look before it is done again"
)


class LoopSessions:
    """All sessions of the action loop. Used on the daemon's event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store.sessions
        self._limits = services.settings.config.loop
        self._all: dict[str, LoopSession] = {}

    async def load(self) -> None:
        """Read all sessions; those that ran rest from now on. Raises StateError."""
        for record in await self._store.all():
            try:
                session = await load_session(record, self._store)
            except msgspec.DecodeError as error:
                self._say("error", f"its journal cannot be read: {error}", record.session_id)
                continue
            self._all[record.session_id] = session
            if session.state.status == "running":
                await session.append(Paused(at=now(), by=_DAEMON, reason="the daemon was started again"))

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all sessions."""
        return tuple(self._all)

    def all(self) -> tuple[LoopSession, ...]:
        """Return all sessions, in the order of their ids."""
        return tuple(self._all.values())

    def find(self, session_id: str) -> LoopSession:
        """Return a session. Raises WireError(unknown_session)."""
        found = self._all.get(session_id)
        if found is None:
            hint = "see: fazai session list"
            raise WireError("unknown_session", f"there is no session {session_id[:64]!r}", hint=hint)
        return found

    def find_own(self, session_id: str, who: Principal) -> LoopSession:
        """Return a session of the client, or any for an admin. Raises WireError(unknown_session),
        Refusal(forbidden)."""
        found = self.find(session_id)
        if found.record.owner != who.name and not who.has_role("admin"):
            raise Refusal("forbidden", "the session is another's", hint="open one: POST /agent/sessions")
        return found

    async def open(
        self, owner: str, params: SessionParams | None = None, source: Source = "api"
    ) -> LoopSession:
        """Open a session. Raises Refusal(overloaded), StateError."""
        if len(self._all) >= self._limits.sessions and not await self._drop_oldest():
            raise Refusal("overloaded", "there are too many sessions", headers=((b"retry-after", b"60"),))
        given = {} if params is None else msgspec.to_builtins(params)
        at = now()
        record = SessionRecord(
            session_id=f"s-{secrets.token_hex(8)}",
            owner=owner,
            created=at,
            used=at,
            source=source,
            params={name: value for name, value in given.items() if value is not None},
        )
        await self._store.put(record)
        session = self._all[record.session_id] = LoopSession(record, [], self._store)
        return session

    async def _drop_oldest(self) -> bool:
        """Drop the session that was not used for longest among those where nothing is left to do."""
        ended = [
            one
            for one in self._all.values()
            if one.state.status in ("idle", "ended") and not one.running and not one.turn.locked()
        ]
        if not ended:
            return False
        oldest = min(ended, key=lambda one: one.record.used)
        del self._all[oldest.session_id]
        await self._store.delete(oldest.session_id)
        return True

    # -- objectives

    async def start(
        self,
        session: LoopSession,
        objective: str,
        by: str,
        *,
        history: tuple[str, ...] = (),
        budget: Budget | None = None,
    ) -> None:
        """Give the session an objective, and begin with it. Raises Refusal(session_busy),
        WireError(unknown_session), StateError."""
        async with session.turn:
            self.find(session.session_id)  # it may have been dropped meanwhile
            if session.running or session.state.status in ("running", "waiting", "paused"):
                text = f"the session has an objective, which is {session.state.status}"
                raise Refusal("session_busy", text, hint="POST /agent/abort, or resume it")
            if session.length >= _MOST_ENTRIES:
                text = f"the session's journal has {session.length} entries, and takes no further objective"
                raise Refusal("conflict", text, hint="open another session")
            session.record.used = now()
            await self._store.put(session.record)
            asked = self._limits.cap(budget)
            await session.append(
                ObjectiveSet(
                    at=now(),
                    text=objective,
                    by=by,
                    budget=asked,
                    history=history,
                    seed=secrets.randbelow(2**31),
                )
            )
            self._begin(session)

    def _begin_if_running(self, session: LoopSession) -> None:
        if session.state.status == "running":  # somebody may have paused it while it waited
            self._begin(session)

    def _begin(self, session: LoopSession) -> None:
        """Let a task carry the objective on, unless there is one."""
        if not session.running and not self._services.stopping:
            session.task = asyncio.get_running_loop().create_task(self._carry_on(session))
            session.task.add_done_callback(self._log_defect)

    async def _carry_on(self, session: LoopSession) -> None:
        """Carry the objective on; whatever stops it is in its journal."""
        self._services.agent_states.begin_generation()
        try:
            await Driver(self._services, session).run()
        except asyncio.CancelledError as error:
            await self._note_cancel(session, str(error.args[0]) if error.args else "the daemon stops")
        except Unreachable as error:
            await self._rest(session, error.message, "worker_unavailable")
        except WireError as error:
            await self._rest(session, error.message, error.code)
        except FazaiError as error:
            await self._rest(session, str(error), "internal")
        finally:
            self._services.agent_states.end_generation()
            if session.state.status == "running":  # nothing above has caught it
                await self._rest(session, "it met a defect of the daemon: see its log", "internal")
            if session.state.status in ("paused", "ended"):
                await session.end_conversation()

    def _log_defect(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.log.say("error", f"a defect ended an objective: {error!r}", logger=_LOGGER)

    async def _note_cancel(self, session: LoopSession, why: str) -> None:
        """Write down that it ended, or rests; one that came to its end meanwhile has its own word."""
        await session.written()
        if session.state.status not in ("running", "waiting"):
            return
        if why == "aborted":
            await self._note_aborted(session)
            return
        event = DoneEvent(timestamp=utc_now(), result={"stop_reason": "paused", "note": why})
        await session.append(Paused(at=now(), by=_DAEMON, reason=why), events=[event])

    async def _rest(self, session: LoopSession, why: str, code: str) -> None:
        self._say("error", f"the objective rests: {why}", session.session_id)
        event = ErrorEvent(timestamp=utc_now(), message=why, code=code)
        await session.append(Paused(at=now(), by=_DAEMON, reason=why), events=[event])

    async def abort(self, session: LoopSession, by: str) -> None:
        """End the objective, whatever it does now; a run of the reconciler that has begun goes on."""
        async with self._at_rest(session, "aborted"):
            if session.state.status in ("waiting", "paused", "running"):
                await self._note_aborted(session, f"by {by}")

    async def pause(self, session: LoopSession, by: str, why: str = "") -> None:
        """Let the objective rest until it is resumed. Raises Refusal(conflict)."""
        async with self._at_rest(session, why or f"paused by {by}") as stopped:
            if session.state.status in ("waiting", "running"):
                event = DoneEvent(timestamp=utc_now(), result={"stop_reason": "paused"})
                await session.append(Paused(at=now(), by=by, reason=why or f"paused by {by}"), events=[event])
            elif not stopped:  # else its task has written down how it ended
                raise Refusal("conflict", f"the session is {session.state.status}, and does not run")

    @contextlib.asynccontextmanager
    async def _at_rest(self, session: LoopSession, why: str) -> AsyncIterator[bool]:
        """Hold the session's turn while no task carries its objective on: nobody can begin one meanwhile.
        Yields whether there was one that had to be ended."""
        stopped = False
        while True:
            stopped = await _stop_task(session, why) or stopped
            async with session.turn:
                if not session.running:  # else somebody approved or answered meanwhile
                    yield stopped
                    return

    async def _note_aborted(self, session: LoopSession, note: str = "") -> None:
        """Write down that the objective was aborted, and, of an effect that had begun, that nobody knows its
        outcome."""
        entries: list[AnyEntry] = []
        events: list[EventBase] = []
        if (action_id := session.state.begun) is not None:
            found = Observation(note=_UNKNOWN_OUTCOME, failed=True)
            entries.append(observed_entry(session.state, action_id, found)[0])
            events.append(observe_event(action_id, found.note))
        event = DoneEvent(timestamp=utc_now(), result={"stop_reason": "aborted"})
        await session.append(*entries, Ended(at=now(), reason="aborted", note=note), events=[*events, event])

    async def resume(self, session: LoopSession, by: str, budget: Budget | None = None) -> None:
        """Go on with an objective that rests. Raises Refusal(conflict)."""
        async with session.turn:
            if session.running or session.state.status not in (
                "paused",
                "running",
            ):  # a full disk: no `Paused`
                raise Refusal("conflict", f"the session is {session.state.status}, and does not rest")
            asked = self._limits.cap(budget) if budget is not None else None
            event = log_event("info", f"{by} resumed it", AUDIT)
            await session.append(Resumed(at=now(), by=by, budget=asked), events=[event])
            self._begin_if_running(session)

    # -- people

    async def approve(
        self, session: LoopSession, action_id: str, plan_hash: str, who: Principal, reason: str | None = None
    ) -> None:
        """Let an effect happen, by the hash that was shown. Raises Refusal (conflict, plan_mismatch,
        forbidden), StateError."""
        async with session.turn:
            effect = self._waiting_effect(session, action_id, plan_hash)
            check_approver(session, who)
            if effect.tool == "tool_spec":
                require_role(who, "admin")
            if now() > effect.expires:
                raise Refusal("conflict", "what was shown has expired", hint="let it be proposed again")
            if self._services.policy.generation != effect.policy:
                raise Refusal(
                    "conflict",
                    "the policy was edited since this was shown",
                    hint="reject it, and let it be proposed again",
                )
            approved = Approved(
                at=now(), action_id=action_id, plan_hash=plan_hash, by=who.name, reason=reason
            )
            event = decision_event(who.name, "approved", action_id, plan_hash, reason)
            await session.append(approved, events=[event])
            self._say("info", f"{who.name} approved {plan_hash[:12]}", session.session_id, AUDIT)
            self._begin_if_running(session)

    async def reject(
        self, session: LoopSession, action_id: str, plan_hash: str, who: Principal, reason: str | None = None
    ) -> None:
        """Refuse an effect: it cannot be proposed again until what it rests on changes. Raises Refusal."""
        async with session.turn:
            effect = self._waiting_effect(session, action_id, plan_hash)
            await session.append(
                Rejected(
                    at=now(),
                    action_id=action_id,
                    plan_hash=plan_hash,
                    by=who.name,
                    substance=effect.substance,
                    reason=reason,
                ),
                events=[decision_event(who.name, "rejected", action_id, plan_hash, reason)],
            )
            self._say("info", f"{who.name} rejected {plan_hash[:12]}", session.session_id, AUDIT)
            if session.record.source == "mcp":  # nobody goes on: another assistant proposed it
                await session.append(Ended(at=now(), reason="done", note="rejected"))
            else:
                self._begin_if_running(session)

    def _waiting_effect(self, session: LoopSession, action_id: str, plan_hash: str) -> Effect:
        """Return the effect that waits, if it is the one that was shown. Raises Refusal."""
        waiting = session.state.waiting
        effect = session.state.effects.get(action_id)
        if effect is None:
            raise Refusal("not_found", f"the session has no proposal {action_id[:64]!r}")
        if effect.digest != plan_hash:
            raise Refusal("plan_mismatch", "the hash is not that of the proposal", hint="look at it again")
        if waiting is None or waiting.action_id != action_id:
            raise Refusal("conflict", "the proposal no longer waits: it was decided, or the objective ended")
        return effect

    async def answer(self, session: LoopSession, action_id: str, text: str, who: Principal) -> None:
        """Answer what the model asked. Raises Refusal(conflict)."""
        async with session.turn:
            waiting: Waiting | None = session.state.waiting
            if waiting is None or waiting.kind != "answer" or waiting.action_id != action_id:
                raise Refusal("conflict", "nothing of that id waits for an answer")
            event = log_event("info", f"{who.name} answered: {text}", AUDIT, action_id=action_id)
            answered = Answered(at=now(), action_id=action_id, text=text, by=who.name)
            await session.append(answered, events=[event])
            self._begin_if_running(session)

    # -- others that propose

    async def propose(self, effect: Effect, who: Principal, session_id: str | None) -> Proposal:
        """Keep an effect that another assistant prepared, in a session of its own. One that waits already is
        the same proposal. What the policy denies nobody is asked for; nothing is allowed by it without a
        person. Raises FazaiError, for an effect that was rejected, too."""
        decision = await self._services.policy.decide(effect, tainted=True)
        if decision.verdict == "refuse":
            raise Refusal("not_allowed", decision.reason)
        earlier = find_proposal(self._all.values(), effect, who, now())
        if earlier is not None:
            return earlier
        for old in expired_proposals(self._all.values(), now()):
            async with old.turn:
                if expired_proposals([old], now()):  # else somebody decided meanwhile
                    await old.append(Ended(at=now(), reason="done", note="nobody decided before it expired"))
        refuse_too_many(self._all.values(), who, max(1, self._limits.sessions // _SHARES))
        session = await self.open(who.name, source="mcp")
        action_id = f"a-{secrets.token_hex(8)}"
        at = now()
        text = f"proposed by {who.name}: {effect.tool}"
        budget = self._limits.cap(None)
        action = {"action": "use_tool", "name": effect.tool}
        shown = UseToolAction(
            timestamp=utc_now(),
            name=effect.tool,
            action_id=action_id,
            plan_hash=effect.digest,
            changes=tuple(msgspec.to_builtins(one) for one in effect.changes),
            expires=timestamp(effect.expires),
        )
        async with session.turn:
            await session.append(
                ObjectiveSet(at=at, text=text, by=who.name, budget=budget),
                Proposed(at=at, iteration=1, action_id=action_id, action=action),
                Decided(
                    at=at,
                    action_id=action_id,
                    verdict="ask",
                    reason="a person decides",
                    policy=effect.policy,
                    effect=effect,
                ),
                events=[shown],
            )
        return Proposal(session.session_id, action_id, effect.digest, effect.expires)

    # -- watching, stopping

    @contextlib.contextmanager
    def watch(self, session: LoopSession, watcher: Watcher) -> Iterator[None]:
        """Hand each event of the session to a watcher, while inside."""
        session.watchers.append(watcher)
        try:
            yield
        finally:
            session.watchers.remove(watcher)

    async def close(self) -> None:
        """Let everything rest: the daemon stops."""
        tasks = [one.task for one in self._all.values() if one.task is not None and one.running]
        for task in tasks:
            if not task.cancelling():  # else it writes down already how it ended
                task.cancel("the daemon stops")
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with deadline(_GOODBYE_S):  # the worker forgets what is left by itself
                for one in self._all.values():
                    await one.end_conversation()

    def _say(self, level: Any, text: str, session_id: str, logger: str = _LOGGER) -> None:
        self._services.log.say(level, text, logger=logger, session_id=session_id)


async def _stop_task(session: LoopSession, why: str) -> bool:
    """End the task that carries an objective on, and return whether there was one. It is told once: a second
    word would cut off what it writes down at its end."""
    task = session.task
    if task is None or task.done():
        return False
    if not task.cancelling():
        task.cancel(why)
    await asyncio.wait([task])  # deadline: it only writes down how it ended
    return True
