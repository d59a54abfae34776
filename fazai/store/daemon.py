"""Protocol of the daemon's store: telemetry, events, agents, firewalls, tokens.

`factory.open_daemon_store` opens the store that a place names; the embedded one is in `sqlite/`.

Writes and reads are awaited; writes are durable when they return, and no read holds up the event loop,
however long it takes. Plain calls answer at once, from memory, and are safe from any thread. Times that end
in `_us` are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from fazai.errors import StateError
from fazai.store.base import Store
from fazai.store.events import NewEvent as NewEvent
from fazai.store.events import StoredEvent as StoredEvent
from fazai.store.notes import NoteLimits, NoteStore
from fazai.store.rules import RuleStore
from fazai.store.sessions import SessionStore

Role = Literal["viewer", "operator", "admin"]
Mode = Literal["apply", "check"]
Trigger = Literal["api", "webhook", "schedule", "approval", "session", "rule"]

#: The figures that are derived from each record, in the order in which a sample holds them; NaN: not
#: reported. The name is that of the metric without `fazai_host_`.
GAUGES = (
    *("load1", "load5", "load15", "cpu_busy_ratio"),
    *("memory_total_bytes", "memory_free_bytes", "memory_available_bytes"),
    *("disk_total_bytes", "disk_free_bytes"),
    *("network_receive_bytes_total", "network_transmit_bytes_total", "uptime_seconds"),
)


class NewSample(NamedTuple):
    """One record to be stored; (host, time_us) is its identity. `body` is the record as it came, UTF-8 JSON.
    `interval_s` is the time between records where the agent says it, else 0; `version` is the agent's."""

    host: str
    time_us: int
    body: bytes
    gauges: tuple[float, ...]  # as GAUGES
    interval_s: float = 0.0
    version: str = ""


class Nonce(NamedTuple):
    """A text that a sender uses once. It is used at `now_us`, and may be used anew after `expires_us`."""

    agent: str
    text: str
    expires_us: int
    now_us: int


class HostRecord(NamedTuple):
    """The newest record of a host. `seen_us` is when it arrived by the daemon's clock; `records` counts all
    that were ever accepted; `interval_s` is the time between records, 0 while unknown."""

    host: str
    time_us: int
    seen_us: int
    records: int
    interval_s: float
    silent: bool
    gauges: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Limits of what is kept. Whatever is over is dropped in the background, the oldest first. The daemon's
    configuration sets them (`retention`)."""

    events_bytes: int = 256 << 20
    events_age_s: float = 30 * 86400.0
    telemetry_bytes: int = 8 << 30
    telemetry_age_s: float = 30 * 86400.0
    upkeep_s: float = 30.0
    ledger_runs: int = 5_000
    targets_age_s: float = 90 * 86400.0  # states and names of targets that no run has met since
    index_records: int = 100_000  # records not yet in the index of history; more memory, fewer writes
    actions_age_s: float = 30 * 86400.0  # of remote agents
    actions_bytes: int = 256 << 20  # of their answers
    notes: NoteLimits = field(default_factory=NoteLimits)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; the store never sees its text, only `hash` (hexadecimal SHA-256). Times in seconds."""

    hash: str
    name: str
    role: Role
    created: float
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One agent of the registry, as `wire.daemon.AgentRow`. Times in seconds since the epoch."""

    agent_id: str
    name: str
    protocol: str
    state: str
    since: float
    version: str | None = None
    capabilities: tuple[str, ...] = ()
    last_seen: float | None = None
    closed_at: float | None = None
    last_error: str | None = None
    contract: str | None = None
    reconcile: str | None = None
    latency_ms: float | None = None
    last_outcome: str | None = None
    removed_at: float | None = None


@dataclass(frozen=True, slots=True)
class AgentAction:
    """An action with an effect that a remote agent was asked for. `digest` is the SHA-256 of its request, of
    which nothing else is kept; `client` is who asked. `done` and `answer` are there once the outcome came;
    `answer` is None again where only the outcome's time is kept. Times in seconds since the epoch."""

    agent_id: str
    action_id: str
    method: str
    digest: str = ""
    client: str = ""
    sent: float | None = None
    done: float | None = None
    answer: bytes | None = None


#: Answer of an action that did not reach its agent: it had no effect, and may be asked for again.
NOT_SENT = b'{"ok":false,"code":"not_sent","error":"it did not reach the agent, and had no effect"}'
#: Answer of an action whose agent cannot say what became of it: it may be asked for again, as the agent knows
#: its id, and what is told late takes its place.
UNKNOWN = (
    b'{"ok":false,"code":"agent_lost",'
    b'"error":"the agent cannot say what became of it: look at the machine, and update the agent"}'
)
#: What stands in place of an outcome that may still come.
UNSETTLED = (NOT_SENT, UNKNOWN)


@dataclass(frozen=True, slots=True)
class FirewallRecord:
    """One registered firewall, as `wire.daemon.OpnItem`. Its secret stands in a file, never here."""

    id: str
    name: str
    base_url: str
    verify_tls: bool
    created: float
    updated: float
    tags: tuple[str, ...] = ()
    source: Literal["api", "inventory"] = "api"
    last_seen: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    version: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


class RunRecord(msgspec.Struct, kw_only=True):
    """One run that the daemon was asked for: it waits (`started` is None), goes on, or has ended. Times are
    seconds since the epoch, UTC. `plan_hash` is of the plan that it made; `applies` names the run whose plan
    it applies; `approved…` says who let the plan of this run be applied, and by which run."""

    run_id: str
    job: str
    mode: Mode
    trigger: Trigger
    by: str
    asked: float
    limit: tuple[str, ...] = ()
    reason: str | None = None
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    error: str | None = None
    plan_hash: str | None = None
    applies: str | None = None
    approved: float | None = None
    approved_by: str | None = None
    approved_run: str | None = None

    def is_same_request(self, other: RunRecord) -> bool:
        """Return whether one run would do for both."""
        return (self.job, self.mode, self.limit, self.applies) == (
            other.job,
            other.mode,
            other.limit,
            other.applies,
        )


class TokenStore(Protocol):
    """The bearer tokens alone, for a process that is not the daemon. Every call may raise StateError."""

    def tokens(self) -> list[Token]:
        """Return all of them, the oldest first."""
        ...

    def put(self, token: Token) -> None:
        """Create it, or replace the one with the same hash; durable when it returns."""
        ...


class DaemonStore(Protocol):
    """Store of the daemon. Every call may raise StateError; StoreFull (one of them) where the disk is full:
    what was asked for is not stored, and the same call works again once there is room."""

    limits: StoreLimits

    @property
    def sessions(self) -> SessionStore:
        """Sessions of the action loop."""
        ...

    @property
    def ledger(self) -> Store:
        """Runs and actions of the reconciler; `fazai apply` writes to the same place at the same time."""
        ...

    @property
    def rules(self) -> RuleStore:
        """Uses of the policy's rules, and what event rules keep."""
        ...

    @property
    def notes(self) -> NoteStore:
        """The knowledge base."""
        ...

    def close(self) -> None:
        """Write what is queued, then close. Blocks; at most a few seconds."""
        ...

    def check_alive(self) -> None:
        """Raise StateError when a thread has ended that should write: nothing is stored any more."""
        ...

    # -- telemetry

    async def ingest(self, samples: Sequence[NewSample]) -> list[bool]:
        """Store them, and return for each whether it is new (True) or a duplicate. Durable when it
        returns."""
        ...

    def ingest_then(
        self, samples: Sequence[NewSample], told: Callable[[list[bool] | StateError], object]
    ) -> None:
        """Store them as `ingest` does, without a future and a task: `told` is called on the event loop of the
        caller."""
        ...

    async def ingest_signed(self, samples: Sequence[NewSample], nonce: Nonce) -> list[bool] | None:
        """Store them as `ingest` does, and use up the nonce, both or neither. Return None, with nothing
        stored, where the nonce was used before. Of several with one nonce at the same time one is stored."""
        ...

    def hosts(self) -> list[HostRecord]:
        """Return the newest record of every host, from memory. 5,000 hosts: about 1 ms."""
        ...

    def host(self, host: str) -> HostRecord | None:
        """Return the newest record of a host, from memory."""
        ...

    async def history(
        self, host: str, since_us: int = 0, until_us: int | None = None, limit: int = 10_000
    ) -> list[tuple[int, tuple[float, ...]]]:
        """Return (time_us, gauges as GAUGES) of one host, oldest first; the newest `limit` of them. About
        1 ms a day."""
        ...

    async def records(self, host: str, since_us: int = 0, limit: int = 100) -> list[tuple[int, bytes]]:
        """Return (time_us, record as it came), newest first. Reads and decompresses: about 0.1 ms each."""
        ...

    async def mark_silent(self, silent: Mapping[str, bool]) -> None:
        """Remember which hosts stopped reporting, so that a restart does not say it again."""
        ...

    async def forget_host(self, host: str) -> bool:
        """Drop the host from `hosts()`, and return whether it was known; its history goes with retention."""
        ...

    # -- events

    async def publish(self, events: Sequence[NewEvent]) -> list[int]:
        """Append to the log, and return their ids, in order. Durable when it returns. The ids are safe to
        resume by (see `StoredEvent`)."""
        ...

    def publish_soon(self, events: Sequence[NewEvent]) -> None:
        """Append to the log with the next commit; not waited for. What cannot be written is counted."""
        ...

    def on_published(self, listener: Callable[[list[StoredEvent]], None]) -> None:
        """Call `listener` after each commit with its events, in the order of their ids. The writer's thread
        calls it: it hands them to an event loop (`call_soon_threadsafe`) and does nothing else."""
        ...

    async def events_after(self, id_: int, limit: int = 1000, run: str | None = None) -> list[StoredEvent]:
        """Return events with a greater id (of one run alone: found by an index), in order: all that were
        published after the event of that id, and none twice, however many are publishing meanwhile; those
        that were trimmed are missing, as `event_range` tells. 1,000 events: about 2 ms."""
        ...

    def event_range(self) -> tuple[int, int]:
        """Return the first id that is still there and the last one given, from memory; (last + 1, last):
        empty."""
        ...

    async def event_id_at(self, time_us: int) -> int:
        """Return the greatest id whose event, and all before it, were published before the time:
        `events_after(it)` begins there. By binary search."""
        ...

    # -- what is known of the others

    async def put_agent(self, agent: AgentRecord) -> None: ...
    async def delete_agent(self, agent_id: str) -> bool: ...
    async def agents(self) -> list[AgentRecord]: ...
    async def begin_agent_action(self, action: AgentAction) -> AgentAction | None:
        """Record an action that is about to be sent, and return None; or what is recorded of it already. One
        whose answer is NOT_SENT or UNKNOWN is recorded anew, where it is the same action."""
        ...

    async def finish_agent_action(self, action: AgentAction, event: NewEvent) -> bool:
        """Record an outcome and publish its event, both or neither; durable when it returns. False, with
        nothing done, where an outcome is recorded already, other than NOT_SENT and UNKNOWN. The action need
        not be recorded."""
        ...

    async def open_agent_actions(self, agent_id: str, limit: int) -> list[AgentAction]:
        """Return actions of an agent whose outcome is not recorded."""
        ...

    async def agent_action(self, agent_id: str, action_id: str) -> AgentAction | None: ...
    async def put_firewall(self, firewall: FirewallRecord) -> None: ...
    async def delete_firewall(self, id_: str) -> bool: ...
    async def firewalls(self) -> list[FirewallRecord]: ...

    # -- the daemon's runs: queue, approvals, plans, schedule

    async def put_run_records(self, records: Sequence[RunRecord]) -> None:
        """Create them, or replace those with the same ids: all or none."""
        ...

    async def delete_run_record(self, run_id: str) -> bool:
        """Drop it and its plan; return whether it was there."""
        ...

    async def run_records(self) -> list[RunRecord]:
        """Return all, in the order of their ids. 500 of them: about 1 ms."""
        ...

    async def put_plan(self, run_id: str, plan: bytes) -> None:
        """Keep the plan that a recorded run made, for as long as its record."""
        ...

    async def plan(self, run_id: str) -> bytes | None:
        """Return the plan that the run made. 1 MiB: about 1 ms."""
        ...

    async def put_began(self, job: str, time: float) -> None:
        """Remember when the job of the schedule last began, in seconds since the epoch, UTC."""
        ...

    async def began(self) -> dict[str, float]:
        """Return when each job of the schedule last began."""
        ...

    # -- notices

    async def put_notices(self, notices: Mapping[str, bytes], followed: int | None = None) -> None:
        """Keep notices by their ids, all or none; `followed`: up to which event they were made."""
        ...

    async def delete_notices(self, ids: Sequence[str]) -> None: ...
    async def notices(self) -> tuple[list[bytes], int | None]:
        """Return all in the order of their ids, and up to which event they were made, if that is known."""
        ...

    # -- tokens and nonces

    async def put_token(self, token: Token) -> None:
        """Create it, or replace the one with the same hash (to revoke it)."""
        ...

    async def tokens(self, version: int = -1) -> tuple[int, list[Token]] | None:
        """Return the version of the store and all tokens; None where nothing was written since that version:
        `fazai token` of another process may have. It waits for no other read."""
        ...

    async def use_nonce(self, nonce: Nonce) -> bool:
        """Use up the nonce; False where it was used before and has not expired. Of several that ask at the
        same time one gets True, once it is durable. One that cannot be stored is not used up."""
        ...

    # -- figures for /metrics

    def counts(self) -> Mapping[str, float]:
        """Return the figures of the store itself (commits, rows, bytes, queue) by name."""
        ...
