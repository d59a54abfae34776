"""The files of the telemetry agent: where they are, and what is in them (docs/telemetry-agent.md)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fazai.providers.hosts.shell.quoting import quote

SCRIPT_PATH: Final = "/opt/fazai/agent/telemetry.sh"
SETTINGS_PATH: Final = "/etc/fazai/telemetry.env"
HOST_NAME_FILE: Final = "/proc/sys/kernel/hostname"  # which the agent takes where none is declared
STATE_FOLDER: Final = "/var/lib/fazai-agent"
STATUS_PATH: Final = f"{STATE_FOLDER}/status"
LOG_PATH: Final = "/var/log/fazai-telemetry.log"
USER: Final = "fazai-agent"
SERVICE: Final = "fazai-telemetry"


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """The file by which a service manager runs the agent. `template`: its name beside the agent."""

    path: str
    template: str
    mode: str


@dataclass(frozen=True, slots=True)
class AgentFile:
    """A file of the agent with its content and mode."""

    path: str
    data: bytes
    mode: str
    owned: bool = False  # by the agent's user


#: By what keeps the agent running.
SERVICES: Final[Mapping[str, ServiceFile]] = {
    "systemd": ServiceFile(f"/etc/systemd/system/{SERVICE}.service", f"{SERVICE}.service", "0644"),
    "openrc": ServiceFile(f"/etc/init.d/{SERVICE}", f"{SERVICE}.openrc", "0755"),
    "cron": ServiceFile(f"/etc/cron.d/{SERVICE}", f"{SERVICE}.cron", "0644"),
}
SERVICE_PATHS: Final = tuple(service.path for service in SERVICES.values())
#: Every file that the agent may have.
AGENT_PATHS: Final = (SCRIPT_PATH, SETTINGS_PATH, *SERVICE_PATHS)
INITS: Final = (*SERVICES, "none")


def short_name(path: str) -> str:
    """Return the word for one of the agent's files in the name of its temporary."""
    return {SCRIPT_PATH: "script", SETTINGS_PATH: "settings"}.get(path, "service")


def temporary_names(at: Callable[[str], str]) -> str:
    """Return shell patterns of the temporary files that installations make; a killed one leaves them. `at`
    maps a path to the host's."""
    return " ".join(
        f"{quote(posixpath.dirname(at(path)))}/.fazai-*-{short_name(path)}{end}"
        for path in AGENT_PATHS
        for end in ("", "-old")
    )


@cache
def agent_script() -> bytes:
    """Return the agent, one bash file."""
    return files("fazai.agent").joinpath("telemetry.sh").read_bytes()


@cache
def shipped_version() -> str:
    found = re.search(rb"^readonly VERSION=(\S+)$", agent_script(), re.MULTILINE)
    assert found is not None
    return found[1].decode()


def service_file(init: str, interval_s: float) -> bytes:
    """Return the file for the service manager. The interval is rounded to minutes for cron."""
    text = files("fazai.agent").joinpath(SERVICES[init].template).read_text()
    if init == "cron":
        minutes = cron_minutes(interval_s)
        text = text.replace("\n* * * * * ", f"\n*/{minutes} * * * * " if minutes > 1 else "\n* * * * * ")
    return text.encode()


def cron_minutes(interval_s: float) -> int:
    """Return the longest step of cron, in minutes, that is no longer than the interval and divides the
    hour."""
    return max(n for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30) if n == 1 or n * 60 <= interval_s)
