"""The daemon's configuration as values: runs, webhooks, schedules, polling, retention. `config_file.py` reads
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fazai.daemon.runs.schedule import Rhythm
from fazai.store.daemon import Mode, StoreLimits

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
    variables that the run gets beside the common ones."""

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
    `actions_s`, `actions_bytes`: what remote agents were asked for, and their answers.
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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaLimits:
    """Limits of the sessions that clients have on the Gemma worker: how many, and how long one is unused."""

    sessions: int = 256
    idle_s: float = 1800.0


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
class DaemonConfig:
    """The whole configuration; without a file nothing may be run."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    polling: Polling = Polling()
    retention: Retention = Retention()
    gemma: GemmaLimits = GemmaLimits()
    agents: AgentsConfig = AgentsConfig()
