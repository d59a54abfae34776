"""Outcomes of actions: recorded with their event in one commit, and counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from fazai.daemon.events.announcer import Announcer, log_event, row_of
from fazai.daemon.southbound.messages import Head, outcome_of, read_head, refusal, sentence_of
from fazai.faults import no_fault
from fazai.service.prometheus import Family, Histogram, Metric
from fazai.store.daemon import NOT_SENT, UNKNOWN, UNSETTLED, AgentAction, DaemonStore
from fazai.wire.base import WireError
from fazai.wire.events import Level
from fazai.wire.southbound import EFFECTS

LOGGER = "fazai.daemon.agents"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_ACTIONS = Metric(
    "fazai_agent_actions_total",
    "counter",
    "Answers of remote agents, by method and outcome (ok, or the error's code).",
    ("method", "outcome"),
)
#: Actions that an agent is asked about at once, as the contract has it.
ASKED = 1024
_REMEMBERED_S = 86_400.0  # that an agent knows an action for, at least, after the daemon has its outcome
#: Of which an answer is kept; what a larger one says is cut.
_KEPT_BYTES = 1 << 20


def recorded_answer(action_id: str, digest: str, found: AgentAction | None) -> bytes | WireError | None:
    """Return what an action that is asked for is answered with by what is recorded of it; None where it has
    no outcome that is known, or did not reach the agent."""
    if found is None:
        return None
    if found.digest not in ("", digest):
        return WireError("conflict", f"{action_id} was another action")
    if found.done is None or found.answer in UNSETTLED:
        return None
    return found.answer or WireError("not_found", "its outcome came, and its text is no longer kept")


class Outcomes:
    """Records actions and their outcomes for all agents. `fault` is called by name at each instant at which a
    crash matters."""

    def __init__(
        self,
        store: DaemonStore,
        announcer: Announcer,
        report: Callable[[str], object],
        fault: Callable[[str], None] = no_fault,
    ) -> None:
        self.fault = fault
        self._store = store
        self._announcer = announcer
        self.report = report
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds = Histogram(
            "fazai_agent_action_seconds", "From the request to a remote agent to its answer.", _SECONDS
        )

    async def begin(self, action: AgentAction) -> AgentAction | None:
        """Record that an action is about to be sent; return what is recorded of it already. Raises
        StateError."""
        self.fault("action.asked")
        found = await self._store.begin_agent_action(action)
        self.fault("action.recorded")
        return found

    async def find(self, agent_id: str, action_id: str) -> AgentAction | None:
        """Return what is recorded of an action. Raises StateError."""
        return await self._store.agent_action(agent_id, action_id)

    async def find_open(self, agent_id: str) -> list[AgentAction]:
        """Return actions of an agent without an outcome, at most `ASKED`. Raises StateError."""
        return await self._store.open_agent_actions(agent_id, ASKED)

    async def settle_unsent(self, action: AgentAction) -> None:
        """Record of an action without an outcome that it did not reach the agent. After a day the agent may
        have forgotten that it had it: then nobody knows. Raises StateError."""
        now, answer = time.time(), NOT_SENT
        if action.sent is not None and now - action.sent > _REMEMBERED_S:
            text = "neither the daemon nor the agent knows what became of it"
            answer = refusal(WireError("agent_lost", text), action.action_id)
        await self.finish(replace(action, done=now, answer=answer), read_head(answer))

    async def settle_unknown(self, action: AgentAction) -> None:
        """Record of an action without an outcome that its agent cannot say what became of it. Raises
        StateError."""
        await self.finish(replace(action, done=time.time(), answer=UNKNOWN), read_head(UNKNOWN))

    async def finish(self, action: AgentAction, head: Head, note: str = "") -> bool:
        """Record an outcome and publish it, once; return whether it was new. Raises StateError."""
        answer = action.answer or b""
        if len(answer) > _KEPT_BYTES:
            answer = _shorten(head, action.action_id)
        level: Level = "info" if head.ok else "warning"
        event = log_event(
            level,
            f"{action.method} on {action.agent_id}: {sentence_of(head)}{note}",
            LOGGER,
            agent_id=action.agent_id,
            action_id=action.action_id,
            target=action.agent_id,
        )
        record = replace(action, answer=answer)
        self.fault("outcome.received")
        new = await self._store.finish_agent_action(record, row_of(event))
        self.fault("outcome.stored")
        if new:
            self._announcer.write_log(level, event, LOGGER)
        return new

    def count(self, method: str, head: Head, seconds: float) -> None:
        """Count an answer."""
        self._counts[method, outcome_of(head)] += 1
        self._seconds.observe(seconds)

    def count_late(self, method: str, head: Head) -> None:
        """Count an answer that was delivered later."""
        if method in EFFECTS:
            self._counts[method, outcome_of(head)] += 1

    def families(self) -> Iterable[Family]:
        """Return the metrics of actions."""
        yield _ACTIONS.family(self._counts.items())
        yield self._seconds.family()


def _shorten(head: Head, action_id: str) -> bytes:
    import msgspec

    short = {"ok": bool(head.ok), "action_id": action_id, "exit_code": head.exit_code, "code": head.code}
    more = {"stdout": "", "stderr": "", "truncated": True, "error": head.error}
    return msgspec.json.encode({name: one for name, one in (short | more).items() if one is not None})
