"""Life-cycle state of the built-in agents (the daemon and the Gemma worker), and the gauge of whether the
worker answers.

The worker is asked for its `status` now and then, so that the registry is true also while nobody has a
session. States that an operator must know of are events (SPEC.md, "The life cycle of an agent").
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fazai import __version__
from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import Announcer
from fazai.errors import FazaiError
from fazai.providers.gemma.client import GemmaClient
from fazai.service.prometheus import Family, Metric
from fazai.store.daemon import AgentRecord
from fazai.timestamps import timestamp, utc_now
from fazai.wire.daemon import AgentRow
from fazai.wire.events import AgentEvent, AgentState, Level

DAEMON, WORKER = "daemon", "gemma-1"
_LOOK_S = 5.0
_ANSWER_S = 2.0

WORKER_UP = Metric(
    "fazai_worker_up",
    "gauge",
    "1 while the Gemma worker answers, else 0; absent where there is no socket of one.",
)


class AgentEntry:
    """An agent's row in the registry, and its changes of state."""

    def __init__(self, row: AgentRecord, now: Callable[[], float]) -> None:
        self.row = row
        self._now = now

    def enter(self, state: AgentState, *, seen: bool = True, error: str | None = None) -> bool:
        """Enter a state; return whether it is another one now."""
        now, row = self._now(), self.row
        changed = state != row.state
        self.row = replace(
            row,
            state=state,
            since=now if changed else row.since,
            last_seen=now if seen else row.last_seen,
            closed_at=(now if changed else row.closed_at) if state == "closing" else None,
            last_error=error or row.last_error,
        )
        return changed


def agent_row(one: AgentRecord) -> AgentRow:
    """Return an agent's row as GET /agents shows it."""
    return AgentRow(
        agent_id=one.agent_id,
        name=one.name,
        protocol=cast("Any", one.protocol),
        state=cast("Any", one.state),
        since=timestamp(one.since),
        version=one.version,
        capabilities=one.capabilities,
        last_seen=timestamp(one.last_seen),
        closed_at=timestamp(one.closed_at),
        last_error=one.last_error,
        contract=one.contract,
        reconcile=cast("Any", one.reconcile),
        latency_ms=one.latency_ms,
        last_outcome=one.last_outcome,
        removed_at=timestamp(one.removed_at),
    )


class AgentStates:
    """The states of the daemon and of its worker; changes that matter are announced."""

    def __init__(self, announcer: Announcer, now: Callable[[], float] = time.time) -> None:
        self._announcer = announcer
        self._running = 0
        self._up: bool | None = None
        begun = now()
        self.daemon = AgentEntry(
            AgentRecord(DAEMON, "fazai daemon", "http", "registration", begun, __version__), now
        )
        self.worker = AgentEntry(AgentRecord(WORKER, "Gemma Worker", "unix", "registration", begun), now)

    def rows(self) -> list[AgentRecord]:
        """Return the rows of both for the registry."""
        return [self.daemon.row, self.worker.row]

    def families(self) -> Iterable[Family]:
        """Return whether the worker answers, where there is one."""
        if self._up is not None:
            yield WORKER_UP.single(self._up)

    def note_check(self, there: bool, answers: bool) -> None:
        """Note whether the worker answers. A socket that was `there` once is missed when it has gone; none at
        all is a choice."""
        if there or answers or self._up is not None:
            self._up = answers

    def note_worker_up(self, version: str | None) -> None:
        """Note that the worker answers."""
        before = self.worker.row.state
        self.worker.row = replace(self.worker.row, version=version or self.worker.row.version)
        if self.worker.enter("execution" if self._running else "observation") and before != "execution":
            self._announce("observation", "it answers")

    def note_worker_down(self, why: str) -> None:
        """Note that the worker does not answer; one that never did stays in `registration`."""
        if self.worker.row.state == "registration":
            self.worker.enter("registration", seen=False, error=why)
        elif self.worker.enter("closing", seen=False, error=why):
            self._announce("closing", why)

    def begin_generation(self) -> None:
        """Note that a generation begins."""
        self._running += 1
        self._enter_both()

    def end_generation(self) -> None:
        """Note that a generation ended."""
        self._running -= 1
        self._enter_both()

    def _enter_both(self) -> None:
        state: AgentState = "execution" if self._running else "observation"
        if self.daemon.row.state != "closing":
            self.daemon.enter(state)
        if self.worker.row.state in ("execution", "observation"):
            self.worker.enter(state)

    def _announce(self, state: AgentState, reason: str | None) -> None:
        event = AgentEvent(timestamp=utc_now(), agent_id=WORKER, state=state, reason=reason)
        level: Level = "warning" if state == "closing" else "info"
        self._announcer.say(level, event, "fazai.daemon.agents")


async def check_worker(states: AgentStates, client: GemmaClient, socket: Path) -> None:
    """Ask the worker behind `socket` for its state, and note it in `states`."""
    there = await asyncio.to_thread(os.path.exists, socket)
    try:
        async with deadline(_ANSWER_S):
            answer = await client.status(patient=False)
    except (FazaiError, TimeoutError) as error:
        states.note_check(there, False)
        states.note_worker_down(str(error) or "it took too long to answer")
        return
    states.note_check(there, True)
    if answer.status == "stopping":
        states.note_worker_down("it is stopping")
    elif answer.status == "running":
        states.note_worker_up(answer.version)
    else:
        states.worker.enter("handshake")


async def watch_worker(states: AgentStates, client: GemmaClient, socket: Path) -> None:
    """Keep the states of the daemon and of its worker up to date, until the daemon stops."""
    states.daemon.enter("observation")
    while True:
        await check_worker(states, client, socket)
        await asyncio.sleep(_LOOK_S)
