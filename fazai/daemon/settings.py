"""The settings of `fazai daemon`, and the limits that it keeps to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fazai.daemon.runs.config import DaemonConfig
from fazai.errors import UsageError
from fazai.providers.gemma.endpoint import FallbackEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of one connection and of the whole daemon; the defaults are those of SPEC.md, section 2."""

    head_bytes: int = 16 * 1024  # request line and headers
    head_s: float = 10.0  # from the first byte, or the connection, to the last header
    body_s: float = 30.0
    bodies_bytes: int = 64 * 1024 * 1024  # of all bodies that are being received, /ingest excepted
    idle_s: float = 75.0  # between two requests of a connection
    answer_s: float = 30.0
    connections: int = 20_000
    stop_s: float = 0.8  # what is left of it after SIGTERM is cut off
    runs_stop_s: float = 45.0  # for runs to finish what is in flight; they go on alone after it
    heartbeat_s: float = 15.0
    stall_s: float = 10.0  # a stream whose reader takes nothing for so long is cut off
    linger_s: float = 10.0  # for a closed stream's last bytes to be taken
    stream_bytes: int = 64 * 1024  # unsent bytes of a stream, from which on it no longer follows live
    recent_bytes: int = 8 * 1024 * 1024  # events kept in memory for streams that are a little behind
    failures_per_minute: int = 10  # wrong tokens and signatures of one address


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """The settings of one daemon, built by `fazai.cli.commands.daemon` from its options and the
    environment."""

    state: Path
    secrets: Path
    host: str = "127.0.0.1"
    port: int = 3120
    socket: Path | None = None
    names: tuple[str, ...] = ()  # further names by which clients may call a loopback listener
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    client_role: str = "viewer"
    gemma_socket: Path = Path("/run/fazai/gemma.sock")
    fallback: FallbackEndpoint | None = None
    inventory: tuple[str, ...] = ()
    config: DaemonConfig = field(default_factory=DaemonConfig)
    policy: Path = Path("/etc/fazai/policy.yml")
    rules: Path = Path("/etc/fazai/rules.yml")
    rules_required: bool = False
    policy_required: bool = False  # it was asked for, and is no empty policy where it is not there
    ingest: Literal["known", "open", "signed"] = "known"  # who may report without a signature
    lab: Path | None = None  # the embedded lab's folder; None: below the state
    log_file: Path | None = None
    log_text: bool = False
    limits: ServerLimits = field(default_factory=ServerLimits)

    @property
    def endpoints(self) -> tuple[FallbackEndpoint, ...]:
        """Endpoints that are asked when the worker is away, in order: the option's, then the
        configuration's."""
        first = () if self.fallback is None else (self.fallback,)
        return (*first, *self.config.gemma.endpoints)

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key belong together", hint="give both, or none")
        if self.client_ca is not None and self.tls_cert is None:
            raise UsageError("--client-ca needs TLS", hint="add --tls-cert and --tls-key")
