"""The daemon's configuration as values: runs, webhooks, schedules, polling, retention, probes.
`config_file.py` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from fazai.daemon.notify.config import NotifyConfig
from fazai.daemon.runs.schedule import Rhythm
from fazai.probes.dns import DnsServer
from fazai.probes.dnsbl import DEFAULT_LISTS
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.store.daemon import Mode, StoreLimits
from fazai.store.notes import NoteLimits
from fazai.wire.sessions import Budget

JobMode = Literal["apply", "approve", "check"]
GitHost = Literal["github", "gitlab", "gitea"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job's schedule: how often it runs, and in which mode."""

    rhythm: Rhythm
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that may be run. `modes`: `check` plans, `approve` lets a person apply such a plan,
    `apply` applies at once. `deletes`: an apply that nobody approved may delete. `environment`: names of
    variables that the run gets beside the common ones. `entries`: the run is given what event rules want in
    aliases, as the variable `fazai_entries`."""

    name: str
    inventory: tuple[str, ...]
    playbooks: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    modes: tuple[JobMode, ...] = ("check", "approve")
    deletes: bool = False
    timeout_s: float = 3600.0
    plan_ttl_s: float = 86400.0
    environment: tuple[str, ...] = ()
    schedule: Schedule | None = None
    entries: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A webhook: a git host that may start a job. `branch` None: any."""

    name: str
    host: GitHost
    secret_file: Path
    job: str
    mode: Mode
    branch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """The polling of firewalls: how often, how many at once, and for how long each may take."""

    every_s: float = 60.0
    at_once: int = 32
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Limits of what is kept; whatever is over goes, the oldest first. `runs`: those that the daemon started,
    with their plans; `ledger`: runs of the ledger; `hosts_s`: of hosts that are silent; `deliveries_s`: of
    git hosts, by which a replay is known; `targets_s`: how the last run left a target, and what it called it;
    `actions_s`, `actions_bytes`: what remote agents were asked for, and their answers; `notes…`: of the
    knowledge base.
    `compact_every_s` and `index_records` say when the store compacts telemetry and drops what is over: so
    often, or once so many records are not yet in the index of history."""

    events_s: float = 30 * 86400.0
    events_bytes: int = 256 << 20
    telemetry_s: float = 30 * 86400.0
    telemetry_bytes: int = 8 << 30
    hosts_s: float = 30 * 86400.0
    runs: int = 500
    ledger: int = 5_000
    deliveries_s: float = 400 * 86400.0
    targets_s: float = 90 * 86400.0
    actions_s: float = 30 * 86400.0
    actions_bytes: int = 256 << 20
    notes: int = 100_000
    notes_bytes: int = 256 << 20
    notes_s: float = 365 * 86400.0
    compact_every_s: float = 30.0
    index_records: int = 100_000

    def store_limits(self) -> StoreLimits:
        """Return what of these the store keeps to by itself."""
        return StoreLimits(
            events_bytes=self.events_bytes,
            events_age_s=self.events_s,
            telemetry_bytes=self.telemetry_bytes,
            telemetry_age_s=self.telemetry_s,
            ledger_runs=self.ledger,
            targets_age_s=self.targets_s,
            upkeep_s=self.compact_every_s,
            index_records=self.index_records,
            actions_age_s=self.actions_s,
            actions_bytes=self.actions_bytes,
            notes=NoteLimits(notes=self.notes, bytes=self.notes_bytes, age_s=self.notes_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaLimits:
    """Limits of the sessions that clients have on the Gemma worker: how many, and how long one is unused.
    `endpoints`: what is asked in its place when it is away, in this order."""

    sessions: int = 256
    idle_s: float = 1800.0
    endpoints: tuple[FallbackEndpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """Limits of the action loop: how many sessions are kept, for how long an effect that was shown can be
    approved, and what an objective may use at most (SPEC.md, 2.1, Budget)."""

    sessions: int = 256
    approval_s: float = 3600.0
    iterations: int = 100
    tokens: int = 200_000
    seconds: float = 14_400.0
    bytes: int = 16 << 20

    def cap(self, asked: Budget | None) -> Budget:
        """Return a budget with none of its figures above these."""
        most = {name: int(getattr(self, name)) for name in Budget.__struct_fields__}
        wanted = asked or Budget()
        return Budget(**{name: min(getattr(wanted, name), limit) for name, limit in most.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsConfig:
    """The port for remote agents; its certificates are those of `fazai pki`. `configured`: whether anything
    of it was set; else the port is open where there is an authority. `socket`: the local one of those who
    ask agents."""

    host: str = "127.0.0.1"
    port: int = 3121
    heartbeat_s: float = 15.0
    output_bytes: int = 256 << 10
    socket: Path | None = None
    configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesConfig:
    """Places where probes of models and API clients may go besides the inventory's targets and registered
    firewalls: names (`*.` for all below one) and networks. `resolver`: the DNS server that they ask, None:
    the system's; `blocklists`: those that `probe.dnsbl` asks."""

    names: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    resolver: DnsServer | None = None
    blocklists: tuple[str, ...] = DEFAULT_LISTS


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """The whole configuration; without a file nothing may be run."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    polling: Polling = Polling()
    retention: Retention = Retention()
    gemma: GemmaLimits = GemmaLimits()
    agents: AgentsConfig = AgentsConfig()
    loop: LoopConfig = LoopConfig()
    policy: Path | None = None  # the file of the policy, where it is not the usual one
    rules: Path | None = None  # that of the event rules
    probes: ProbesConfig = ProbesConfig()
    notify: NotifyConfig = field(default_factory=NotifyConfig)
