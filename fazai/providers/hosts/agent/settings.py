"""The settings of the telemetry agent: which there are, their problems, and the file that holds them
(docs/telemetry-agent.md)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from fazai.errors import spelling_hint
from fazai.model import Problem, Secret, Value
from fazai.providers.hosts.agent.files import agent_script, cron_minutes
from fazai.providers.hosts.blob import reveal_text

INTERVAL_S: Final = 60.0
_SHORTEST_S: Final = 0.05
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
_FIELD_SETTINGS: Final = frozenset((*_PLAIN.values(), "KEY", "KEY_PREVIOUS"))
_SECRETS: Final = ("KEY", "KEY_PREVIOUS", "TOKEN")
_PREFIX: Final = "FAZAI_AGENT_"
_HEAD: Final = "# Written by fazai (host.telemetry_agent). What is changed here by hand is put back.\n"
_OLD_HEAD: Final = "# Written by fazai (ssh.telemetry_agent). What is changed here by hand is put back.\n"


@cache
def known_settings() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Map each setting that the agent knows, as its script declares it, to its type and limits."""
    lines = re.findall(r"^    setting ([A-Z_]+) ([a-z]+) (.*)$", agent_script().decode(), re.MULTILINE)
    return {name: (type_, tuple(shlex.split(rest)[1:])) for name, type_, rest in lines}


def setting_problem(name: str, text: str) -> str | None:
    """Return what the agent would refuse about the value of a setting that it knows; None: it takes it."""
    type_, limits = known_settings()[name]
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


def find_setting_problems(fields: Mapping[str, Value]) -> Iterator[Problem]:
    """Iterate over what the agent would refuse of the settings that these fields of the resource make."""
    for index, key in enumerate(keys_of(fields.get("key"))):
        if index > 1:
            yield Problem("key", "has more than two lines", "the key, and the previous one")
        elif not (16 <= len(key) <= 256 and key.isascii() and key.isprintable()) or '"' in key:
            yield Problem("key", 'is 16 to 256 printable ASCII characters, no "', "openssl rand -hex 32")
    if fields.get("interval", INTERVAL_S) < _SHORTEST_S:
        yield Problem("interval", f"must be from {_SHORTEST_S} on")
    yield from _check_settings(fields.get("settings", {}))
    if "hostname" in fields and (wrong := setting_problem("HOSTNAME", fields["hostname"])) is not None:
        yield Problem("hostname", wrong)
    plain = {name: value for name, value in fields.items() if name != "key"}
    for name, value in settings_of_fields(plain, "none").items():
        if "\n" in value:
            yield Problem(name.lower(), "must be one line")


def _check_settings(settings: Mapping[str, Value]) -> Iterator[Problem]:
    for name, value in settings.items():
        if name.upper() not in known_settings():
            near = spelling_hint(name, [each.lower() for each in known_settings()])
            text = f'"{name}" is no setting of the agent'
            yield Problem("settings", text, near or "docs/telemetry-agent.md")
        elif name.upper() in _FIELD_SETTINGS:
            yield Problem("settings", f'"{name}" is a field of its own')
        elif "\n" in str(value):
            yield Problem("settings", f'"{name}" must be one line')
        elif (wrong := setting_problem(name.upper(), _format_setting(value))) is not None:
            yield Problem("settings", f'"{name}" {wrong}')


def keys_of(key: Value) -> list[str]:
    """Return the lines of a key: the one that signs, and the previous one while they change."""
    return [line.strip() for line in key.reveal().splitlines() if line.strip()] if key else []


def settings_of_fields(fields: Mapping[str, Value], init: str) -> dict[str, str]:
    """Return the agent's settings by name, in the order in which they are written."""
    found = {name: _format_setting(fields[field]) for field, name in _PLAIN.items() if field in fields}
    if init == "cron" and "interval" in fields:
        found["INTERVAL_S"] = str(cron_minutes(fields["interval"]) * 60)
    found.update(zip(("KEY", "KEY_PREVIOUS"), keys_of(fields.get("key"))))
    found.update({name.upper(): _format_setting(value) for name, value in fields.get("settings", {}).items()})
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


def _format_setting(value: Value) -> str:
    """Return a value as it stands in the settings file."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(value)
    return reveal_text(value)
