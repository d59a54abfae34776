"""The files of the telemetry agent: where they are, and what is in them (docs/telemetry-agent.md)."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fazai.model import Secret, Value
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

#: Field -> the agent's setting, for those that are written as they are.
_PLAIN: Final[Mapping[str, str]] = {
    "server": "SERVER",
    "interval": "INTERVAL_S",
    "token": "TOKEN",
    "hostname": "HOSTNAME",
    "sample": "SAMPLE",
    "top": "TOP_N",
    "checks": "CHECKS_DIR",
    "ca_file": "CA_FILE",
    "allow_http": "ALLOW_HTTP",
}
#: Settings that are fields of the resource.
FIELD_SETTINGS: Final = frozenset((*_PLAIN.values(), "KEY", "KEY_PREVIOUS"))
_SECRETS: Final = ("KEY", "KEY_PREVIOUS", "TOKEN")
_PREFIX: Final = "FAZAI_AGENT_"
_HEAD: Final = "# Written by fazai (host.telemetry_agent). What is changed here by hand is put back.\n"
_OLD_HEAD: Final = "# Written by fazai (ssh.telemetry_agent). What is changed here by hand is put back.\n"


def short_name(path: str) -> str:
    """Return the word for one of the agent's files in the name of its temporary."""
    return {SCRIPT_PATH: "script", SETTINGS_PATH: "settings"}.get(path, "service")


def temporary_names(at: Mapping[str, str]) -> str:
    """Return shell patterns of the temporary files that installations make; a killed one leaves them. `at`
    maps each of the agent's paths to the host's."""
    return " ".join(
        f"{quote(posixpath.dirname(at[path]))}/.fazai-*-{short_name(path)}{end}"
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


@cache
def _known_settings() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Map each setting that the agent knows, as its script declares it, to its type and limits."""
    lines = re.findall(r"^    setting ([A-Z_]+) ([a-z]+) (.*)$", agent_script().decode(), re.MULTILINE)
    return {name: (type_, tuple(shlex.split(rest)[1:])) for name, type_, rest in lines}


def known_settings() -> frozenset[str]:
    """Return the names of the settings that the agent knows."""
    return frozenset(_known_settings())


def setting_problem(name: str, text: str) -> str | None:
    """Return what the agent would refuse about the value of a setting that it knows; None: it takes it."""
    type_, limits = _known_settings()[name]
    if type_ == "choice":
        return None if text in limits[0].split() else f"must be one of: {limits[0]}"
    if type_ == "path":
        return None if not text or text.startswith("/") else "must be an absolute path"
    if type_ == "name":
        good = len(text) <= int(limits[1]) and all("!" <= c <= "~" for c in text)
        return None if good else f"must be at most {limits[1]} printable ASCII characters without spaces"
    if type_ in ("count", "seconds"):
        scale = 1000 if type_ == "seconds" else 1
        low, high = (int(limit) / scale for limit in limits)
        form = r"\d{1,8}(\.\d{1,3})?" if type_ == "seconds" else r"\d{1,15}"
        if not re.fullmatch(form, text, re.ASCII) or not low <= float(text) <= high:
            return f"must be {'seconds' if type_ == 'seconds' else 'a number'} from {low:g} to {high:g}"
    return None


def service_file(init: str, interval_s: float) -> bytes:
    """Return the file for the service manager. The interval is rounded to minutes for cron."""
    text = files("fazai.agent").joinpath(SERVICES[init].template).read_text()
    if init == "cron":
        minutes = _cron_minutes(interval_s)
        text = text.replace("\n* * * * * ", f"\n*/{minutes} * * * * " if minutes > 1 else "\n* * * * * ")
    return text.encode()


def _cron_minutes(interval_s: float) -> int:
    """Return the longest step of cron, in minutes, that is no longer than the interval and divides the
    hour."""
    return max(n for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30) if n == 1 or n * 60 <= interval_s)


def keys_of(key: Value) -> list[str]:
    """Return the lines of a key: the one that signs, and the previous one while they change."""
    return [line.strip() for line in key.reveal().splitlines() if line.strip()] if key else []


def settings_of_fields(fields: Mapping[str, Value], init: str) -> dict[str, str]:
    """Return the agent's settings by name, in the order in which they are written."""
    found: dict[str, str] = {}
    for field, name in _PLAIN.items():
        if field in fields:
            found[name] = setting_text(fields[field])
    if init == "cron" and "interval" in fields:
        found["INTERVAL_S"] = str(_cron_minutes(fields["interval"]) * 60)
    for name, key in zip(("KEY", "KEY_PREVIOUS"), keys_of(fields.get("key")), strict=False):
        found[name] = key
    found.update({name.upper(): setting_text(value) for name, value in fields.get("settings", {}).items()})
    return found


def settings_text(pairs: Mapping[str, str]) -> bytes:
    lines = "".join(f'{_PREFIX}{name}="{value}"\n' for name, value in pairs.items())
    return (_HEAD + lines).encode()


def with_current_head(data: bytes) -> bytes:
    """Return a settings file with today's first line in place of that of an earlier release."""
    old = _OLD_HEAD.encode()
    return _HEAD.encode() + data.removeprefix(old) if data.startswith(old) else data


def read_agent_settings(data: bytes) -> dict[str, Value]:
    """Return the values of a settings file by the names of the resource's fields; secrets are wrapped."""
    labels = {name: field for field, name in _PLAIN.items()}
    found: dict[str, Value] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or not name.startswith(_PREFIX):
            continue
        name = name.removeprefix(_PREFIX)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[labels.get(name, name.lower())] = Secret(value) if name in _SECRETS else value
    return found


def setting_text(value: Value) -> str:
    """Return a value as it stands in the settings file."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(value)
    return str(value)
