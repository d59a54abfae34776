"""The agent's configuration as values (agent.yml; docs/agents.md has the table of its settings)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fazai.policy.arguments import ArgumentRule

#: How the names of files end that stand beside the agent's own until they take their places: the next key,
#: the next certificate, authorities that are proven and what others say of them, the proxy of the enrolment.
_ENDS = (".renewing", ".enrolling", ".offered", ".endorsement", ".proxy", "")
_NEXT_ENDS = tuple(f"{end}{new}" for end in _ENDS for new in ("", ".new") if end or new)


@dataclass(frozen=True)
class DaemonAddress:
    """One place where the daemon may be: `scheme` is `wss` (WebSocket) or `https` (signed HTTP)."""

    scheme: str
    host: str  # without the brackets of an IPv6 address
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class ProxyAddress:
    """The HTTP proxy through which the daemon is reached. `credentials`: the file with USER:PASSWORD."""

    host: str  # without the brackets of an IPv6 address
    port: int
    credentials: str | None = None

    def __str__(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class ProgramLimits:
    """The limits of a program with all that it starts; None: as the agent itself."""

    memory: int | None = None  # bytes
    processes: int | None = None
    cpu_seconds: int | None = None
    files: int | None = None  # open ones, of each process


@dataclass(frozen=True)
class ProgramRule:
    """One way in which `command.exec` may run one program."""

    path: str
    name: str | None = None
    args: tuple[ArgumentRule, ...] = ()
    user: str | None = None  # NAME, NAME:GROUP, UID:GID
    timeout_s: float = 60.0
    output: int = 256 * 1024  # bytes of stdout, and of stderr
    cwd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()  # name, pattern
    stdin: bool = False
    write: tuple[str, ...] | None = None  # None: no Landlock
    limits: ProgramLimits = field(default_factory=ProgramLimits)
    line: int = 0


@dataclass(frozen=True)
class FilesRoot:
    """A folder whose files the daemon may compare, with `write` replace, and with `read` fetch."""

    root: str
    write: bool = False
    line: int = 0
    read: bool = False


@dataclass(frozen=True)
class ReconcileRule:
    """The rule for reconciling this machine: whether, and where.

    `kinds` None: every kind but those that run a text from a playbook. `paths` None: everywhere.
    """

    mode: str = "no"  # no, look, yes
    kinds: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    hold_s: int = 600


@dataclass(frozen=True)
class TelemetryRule:
    """The rule for reporting: what, and how often; the names are those of the bash agent's settings."""

    interval_s: float = 60.0
    jitter_percent: int = 10
    hostname: str | None = None
    sample: tuple[str, ...] = ()  # empty: everything
    top_n: int = 10
    checks_dir: str = "/etc/fazai/checks.d"
    checks_every_s: float = 60.0
    check_timeout_s: float = 5.0
    units_every_s: float = 300.0
    spool_max_bytes: int = 20_000_000
    spool_max_age_s: int = 86_400
    batch_records: int = 60
    batch_bytes: int = 262_144
    proc: str = "/proc"


@dataclass(frozen=True)
class AgentLimits:
    """Bounds of the agent itself, in bytes: its journal, and the output of any one program."""

    journal: int = 64 * 1024 * 1024
    output: int = 1024 * 1024


@dataclass(frozen=True)
class AgentConfig:
    """The whole of agent.yml."""

    file: str
    agent_id: str
    daemon: tuple[DaemonAddress, ...]
    ca: str
    certificate: str
    key: str
    signing_key: str | None = None  # file with the key of signed HTTP
    proxy: ProxyAddress | None = None
    name: str = ""
    state: str = "/var/lib/fazai-remote"
    root: str = "/"
    programs: tuple[ProgramRule, ...] = ()
    files: tuple[FilesRoot, ...] = ()
    reconcile: ReconcileRule = field(default_factory=ReconcileRule)
    telemetry: TelemetryRule | None = None
    limits: AgentLimits = field(default_factory=AgentLimits)

    @property
    def own_files(self) -> tuple[str, ...]:
        """The files and folders of the agent itself, which the daemon can neither read nor change."""
        credentials = None if self.proxy is None else self.proxy.credentials
        own = (self.file, self.ca, self.certificate, self.key, self.signing_key, credentials, self.state)
        paths = [path for path in own if path]
        return (*paths, *(f"{path}{end}" for path in paths for end in _NEXT_ENDS))
