"""The registry of remote agents: who is known, who is connected, and in which state of its life cycle
(SPEC.md)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

from fazai.daemon.agent_states import AgentEntry
from fazai.daemon.events.announcer import Announcer, row_of
from fazai.daemon.southbound.actions import GRACE_S, ActionQueue, AgentPort
from fazai.daemon.southbound.messages import Head, outcome_of
from fazai.daemon.southbound.outcomes import LOGGER, Outcomes
from fazai.daemon.southbound.trust import Removal
from fazai.errors import StateError
from fazai.service.prometheus import Family, Metric
from fazai.store.daemon import AgentRecord, DaemonStore
from fazai.timestamps import utc_now
from fazai.wire.base import WireError
from fazai.wire.events import AgentEvent, AgentState, Level
from fazai.wire.southbound import Hello

_AGENTS = Metric("fazai_agents", "gauge", "Remote agents, by state of the life cycle.", ("state",))
_QUEUE = Metric("fazai_agent_queue_length", "gauge", "Actions of remote agents that are in flight or wait.")
_REFUSED = Metric(
    "fazai_agent_refusals_total",
    "counter",
    "Connections of agents that were refused or cut off, by code.",
    ("code",),
)
_STATES: tuple[AgentState, ...] = ("registration", "handshake", "execution", "observation", "closing")
_PING_S = 2.0  # for the first of two connections with one name to show that it lives
_TOLD_S = 3600.0  # a clone is announced once in this time
_TRIES = 4
#: Certificates that one agent gets by renewal in ten minutes: each is kept for more than a year.
_RENEWALS, _RENEWALS_S = 16, 600.0
_AGAIN_S = 600.0  # after which a refusal is announced again
_REMEMBERED = 4096
#: The row of an agent that was removed stays as long as its actions do.
_REMOVED_S = 30 * 86400.0
#: Whom events name where a connection did not say who it is.
UNKNOWN = "unknown"


class Connection(AgentPort, Protocol):
    """A connection of an agent, as the registry sees it."""

    protocol: Literal["websocket", "http"]
    address: str
    instance: str | None

    @property
    def knows_1_1(self) -> bool:
        """True when the agent speaks contract 1.1."""
        ...

    @property
    def silent_s(self) -> float:
        """The seconds since something was heard of the agent."""
        ...

    async def answers_ping(self, timeout_s: float) -> float | None:
        """Return how long the agent took to answer, in seconds; None where it does not."""
        ...

    def drop(self, reason: str) -> None:
        """Cut it off without a word."""
        ...


class RemoteAgent:
    """One agent: its row, its actions, and its connection while it has one."""

    def __init__(self, registry: AgentRegistry, row: AgentRecord) -> None:
        self._registry = registry
        self.entry = AgentEntry(row, time.time)
        self.queue = ActionQueue(
            row.agent_id, registry.outcomes, self._note_busy, self.note_outcome, lambda: registry.grace_s
        )
        self.connection: Connection | None = None
        self.clone_told_s = float("-inf")
        self.instance: str | None = None  # of the latest connection
        self._renewed_s: deque[float] = deque(maxlen=_RENEWALS)

    @property
    def agent_id(self) -> str:
        return self.entry.row.agent_id

    def current_row(self) -> AgentRecord:
        """Return the row as of now: what was heard last of a connection is no news that is kept."""
        row, connection = self.entry.row, self.connection
        if connection is None:
            return row
        return replace(row, last_seen=max(row.last_seen or 0.0, time.time() - connection.silent_s))

    def count_renewal(self) -> None:
        """Count a certificate that the agent asks for. Raises WireError(overloaded) for too many."""
        now_s = asyncio.get_running_loop().time()
        if len(self._renewed_s) == _RENEWALS and now_s - self._renewed_s[0] < _RENEWALS_S:
            text = f"{self.agent_id} asked for {_RENEWALS} certificates within {_RENEWALS_S:g} s"
            raise WireError("overloaded", text, hint="one holds for days")
        self._renewed_s.append(now_s)

    def note_latency(self, seconds: float) -> None:
        """Note how long the agent took to answer a ping."""
        self.entry.row = replace(self.entry.row, latency_ms=round(seconds * 1000, 2), last_seen=time.time())

    def note_outcome(self, head: Head) -> None:
        """Note how the agent's last action ended, also where that is told late."""
        outcome = outcome_of(head)
        if outcome != self.entry.row.last_outcome:
            self.entry.row = replace(self.entry.row, last_outcome=outcome)

    def _note_busy(self, busy: bool, head: Head | None) -> None:
        if head is not None:
            self.note_outcome(head)
        if self.connection is not None:
            self._registry.enter(self, "execution" if busy else "observation", None, "debug")


class AgentRegistry:
    """All remote agents."""

    def __init__(self, store: DaemonStore, announcer: Announcer, outcomes: Outcomes) -> None:
        self._store = store
        self._announcer = announcer
        self.outcomes = outcomes
        self.grace_s = GRACE_S
        self._agents: dict[str, RemoteAgent] = {}
        self._writes: set[asyncio.Task[object]] = set()
        self._told_s: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.refusals: Counter[str] = Counter()

    async def load(self) -> None:
        """Read the agents that were known before. Raises StateError."""
        for row in await self._store.agents():
            closed = row
            if row.state not in ("registration", "closing"):  # nobody closed it: the daemon was killed
                closed = replace(row, state="closing", closed_at=row.last_seen or row.since)
            self._agents[row.agent_id] = RemoteAgent(self, closed)

    def note_names(self, names: Mapping[str, float]) -> None:
        """Note the agents that have a certificate and were never seen."""
        for name, since in names.items():
            if name not in self._agents:
                self._agents[name] = RemoteAgent(
                    self, AgentRecord(name, name, "websocket", "registration", since)
                )

    def note_removals(self, find: Callable[[str], Removal | None]) -> None:
        """Note which agents were removed, and which of these may come again; of one that is connected nothing
        is noted. Those that were removed long ago are forgotten."""
        forgotten = time.time() - _REMOVED_S
        for agent in list(self._agents.values()):
            removal, row = find(agent.agent_id), agent.entry.row
            if agent.connection is not None or (removal is None and row.removed_at is None):
                continue
            if removal is not None and removal.time < forgotten:
                del self._agents[agent.agent_id]
                self._store_soon(self._store.delete_agent(agent.agent_id))
            elif removal is None or removal.time != row.removed_at:
                agent.entry.row = replace(row, removed_at=None if removal is None else removal.time)
                if removal is not None:
                    self.enter(agent, "closing", removal.reason, "info", error=removal.reason)
                self.keep(agent)

    def find(self, agent_id: str) -> RemoteAgent | None:
        """Return an agent by its id."""
        return self._agents.get(agent_id)

    def agents(self) -> list[RemoteAgent]:
        """Return all agents."""
        return list(self._agents.values())

    def rows(self) -> list[AgentRecord]:
        """Return a row for each agent, also for those that were removed."""
        return [agent.current_row() for agent in self._agents.values()]

    def connected(self) -> list[RemoteAgent]:
        """Return the agents that are connected."""
        return [agent for agent in self._agents.values() if agent.connection is not None]

    # -- connections

    async def admit(self, connection: Connection, hello: Hello) -> RemoteAgent:
        """Make this the connection of the agent. Where it has another one, that is kept as long as it answers
        a ping, and the newcomer is refused: two machines with one name must not both act. Raises
        WireError(conflict)."""
        known = self._agents.get(hello.agent_id)
        if known is None:
            row = AgentRecord(hello.agent_id, hello.name, connection.protocol, "registration", time.time())
            known = self._agents[hello.agent_id] = RemoteAgent(self, row)
        agent = known
        for _ in range(_TRIES):
            old = agent.connection
            if old is None:
                self._begin(agent, connection, hello)
                return agent
            if hello.instance is not None and old.instance == hello.instance:
                old.drop("the same agent connected again")
                continue
            if await old.answers_ping(_PING_S) is None:
                if agent.connection is old:
                    old.drop("it did not answer a ping when the agent connected again")
            elif agent.connection is old:
                self._refuse_clone(agent, connection, old)
        raise WireError("conflict", f"{agent.agent_id} connects from several places at once")

    def _begin(self, agent: RemoteAgent, connection: Connection, hello: Hello) -> None:
        row = agent.entry.row
        agent.connection = connection
        if hello.instance is not None and hello.instance != agent.instance:
            agent.queue.restart()
        agent.instance = hello.instance
        agent.entry.row = replace(
            row,
            name=hello.name,
            protocol=connection.protocol,
            version=hello.version,
            capabilities=hello.capabilities,
            contract=hello.contract or "1.0",
            reconcile=hello.reconcile,
            last_error=None,
            removed_at=None,
        )
        self.enter(agent, "handshake", f"connected from {connection.address}", "debug")

    def _refuse_clone(self, agent: RemoteAgent, connection: Connection, old: Connection) -> None:
        text = f"{agent.agent_id} is connected from {old.address} already, and answers there"
        now_s = asyncio.get_running_loop().time()
        if now_s - agent.clone_told_s >= _TOLD_S:
            agent.clone_told_s = now_s
            why = f"a second machine with this name, at {connection.address}, was refused: {text}"
            self.announce(agent.agent_id, "observation", why, "error")
        hint = "was its state folder copied? enrol the second machine under a name of its own"
        raise WireError("conflict", text, hint=hint)

    def ready(self, agent: RemoteAgent, connection: Connection) -> None:
        """Note that both sides know each other: the agent can be asked."""
        row = agent.entry.row
        self.enter(agent, "observation", f"version {row.version} from {connection.address}", "info")
        self.keep(agent)
        agent.queue.connect(connection)

    def end(self, agent: RemoteAgent, connection: Connection, reason: str, level: Level = "warning") -> None:
        """Note that a connection ended; nothing happens where the agent has another one already."""
        if agent.connection is not connection:
            return
        agent.connection = None
        agent.clone_told_s = float("-inf")
        agent.queue.disconnect(reason)
        self.enter(agent, "closing", reason, level, error=reason)
        self.keep(agent)

    # -- states

    def enter(
        self,
        agent: RemoteAgent,
        state: AgentState,
        reason: str | None,
        level: Level,
        *,
        error: str | None = None,
    ) -> None:
        """Enter a state, and announce it where it is another one."""
        if agent.entry.enter(state, seen=state != "closing", error=error):
            self.announce(agent.agent_id, state, reason, level)

    def announce(self, agent_id: str, state: AgentState, reason: str | None, level: Level) -> None:
        """Announce a state of an agent; what only says that it works is no line of the log."""
        event = AgentEvent(
            timestamp=utc_now(), agent_id=agent_id, target=agent_id, state=state, reason=reason
        )
        if level == "debug":
            self._store.publish_soon([row_of(event, level)])
        else:
            self._announcer.say(level, event, LOGGER)

    def announce_notice(self, agent_id: str, text: str, level: Level) -> None:
        """Announce what happened to an agent's certificate, with the state that the agent is in."""
        known = self._agents.get(agent_id)
        state = cast("AgentState", known.entry.row.state) if known is not None else "registration"
        self.announce(agent_id, state, text, level)

    def note_refusal(self, agent_id: str | None, address: str, error: WireError) -> None:
        """Announce that a connection was refused: once in a while for each name and each code, as one that is
        refused comes again and again."""
        if error.code == "conflict":  # `_refuse_clone` says more
            return
        reason = f"refused from {address}: {error.code}: {error.message}"
        away = None if agent_id is None else self._agents.get(agent_id)
        if away is not None and away.connection is None:  # why it is away: whoever asks for it is told this
            away.entry.row = replace(away.entry.row, last_error=reason)
        now_s = asyncio.get_running_loop().time()
        key = (agent_id or address, error.code)
        if now_s - self._told_s.get(key, float("-inf")) < _AGAIN_S:
            return
        self._told_s.pop(key, None)  # to the end
        self._told_s[key] = now_s
        if len(self._told_s) > _REMEMBERED:
            self._told_s.popitem(last=False)
        self.announce(agent_id or UNKNOWN, "closing", reason, "warning")

    def keep(self, agent: RemoteAgent) -> None:
        """Have the agent's row stored."""
        self._store_soon(self._store.put_agent(agent.entry.row))

    def _store_soon(self, write: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._kept)

    def _kept(self, task: asyncio.Task[object]) -> None:
        self._writes.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StateError):
            self.outcomes.report(f"the registry of agents is not stored: {error}")
        elif error is not None:
            self.outcomes.report(f"the registry of agents: {error!r}")

    async def flush(self) -> None:
        """Wait until the rows are stored that were to be."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=1.0)

    def families(self) -> Iterable[Family]:
        """Return the metrics of agents and their actions."""
        states: Counter[str] = Counter(dict.fromkeys(_STATES, 0))
        rows = (agent.entry.row for agent in self._agents.values())
        states.update(row.state for row in rows if row.removed_at is None)
        yield _AGENTS.by_label(states)
        yield _QUEUE.single(sum(len(agent.queue) for agent in self._agents.values()))
        yield _REFUSED.by_label(self.refusals)
        yield from self.outcomes.families()
