"""Folders and limits of one process; built once by a shell from an explicit environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fazai.errors import UsageError

#: State folder of the machine's daemon, which all its users' runs report to.
SYSTEM_STATE = Path("/var/lib/fazai")
SYSTEM_SOCKET = Path("/run/fazai/daemon.sock")
#: The file that is in every state folder; a folder with it is one.
STATE_FILE = "fazai.sqlite3"

_PER_TARGET_BYTES = 32 << 20  # a session at work: connection, TLS, one decoded collection


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """Settings of one process. `state` holds runs, journal and locks; `secrets` the default secret files;
    `lab` the embedded lab's state. `keep_runs`: so many runs stay in the ledger; `keep_targets_days`: so
    long it is known how a run left a target."""

    state: Path
    secrets: Path
    lab: Path
    forks: int
    keep_runs: int = 5_000
    keep_targets_days: int = 90

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, root: bool) -> ProcessConfig:
        """Read the configuration from an environment, which may be empty (cron).

        FAZAI_STATE_DIR (or FAZAI_STATE, its older name), FAZAI_SECRETS, FAZAI_LAB, FAZAI_FORKS,
        FAZAI_KEEP_RUNS and FAZAI_KEEP_TARGETS_DAYS win; then the XDG folders, or for root /var/lib and /etc.
        Raises UsageError.
        """
        if root:
            state, secrets = SYSTEM_STATE, Path("/etc/fazai/secrets")
        else:
            home = Path(environ.get("HOME") or os.path.expanduser("~"))
            state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "fazai"
            secrets = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fazai/secrets"
        state = Path(environ.get("FAZAI_STATE_DIR") or environ.get("FAZAI_STATE") or state)
        secrets = Path(environ.get("FAZAI_SECRETS") or secrets)
        lab = Path(environ.get("FAZAI_LAB") or state / "lab")
        forks = _read_limit(environ, "FAZAI_FORKS", 1) or default_forks()
        runs = _read_limit(environ, "FAZAI_KEEP_RUNS", 10, 1_000_000) or 5_000
        days = _read_limit(environ, "FAZAI_KEEP_TARGETS_DAYS", 1, 3660) or 90
        return cls(state, secrets, lab, forks, runs, days)


def _read_limit(environ: Mapping[str, str], name: str, least: int, most: int | None = None) -> int | None:
    """Read a whole number; None where it is not set. Raises UsageError."""
    text = environ.get(name)
    if not text:
        return None
    number = int(text[:18]) if text.isascii() and text.isdigit() else -1
    if number < least or (most is not None and number > most):
        wanted = f"{least} on" if most is None else f"{least} to {most}"
        raise UsageError(f"{name} is {text[:32]!r}, a number from {wanted} was expected")
    return number


def default_forks() -> int:
    """Return the default number of targets at once: 32 a core, as waiting costs nothing, but no more than
    memory allows."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        memory = 1 << 30
    cores = os.cpu_count() or 1
    return max(4, min(cores * 32, 256, memory // 2 // _PER_TARGET_BYTES))


def daemon_socket_path(environ: Mapping[str, str], *, root: bool) -> Path:
    """Return the path of the daemon's local socket: FAZAI_SOCKET; else in the state folder that the
    environment names, so that two daemons of one user do not take it from each other; else /run/fazai
    for root, and for users XDG_RUNTIME_DIR or their state folder."""
    if environ.get("FAZAI_SOCKET"):
        return Path(environ["FAZAI_SOCKET"])
    own = named_state_folder(environ)
    if own is not None:
        return own / "daemon.sock"
    if root or environ.get("FAZAI_STATE_DIR") or environ.get("FAZAI_STATE"):
        return SYSTEM_SOCKET
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "fazai-daemon.sock"
    return ProcessConfig.from_environ(environ, root=False).state / "daemon.sock"


def named_state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the state folder that the environment names, where that is not the machine's."""
    text = environ.get("FAZAI_STATE_DIR") or environ.get("FAZAI_STATE")
    if not text or Path(text).absolute() == SYSTEM_STATE:
        return None
    return Path(text)


@lru_cache(maxsize=256)  # each request to the daemon asks, for a few names
def is_loopback(host: str) -> bool:
    """Return whether an address (or `localhost`) is reachable from this machine alone. Any other name is
    not."""
    import ipaddress  # most commands never ask

    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
