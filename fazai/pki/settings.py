"""Settings of the CA: `pki.yml` in its folder. Without the file all of them are the defaults. Durations are
written as 30m, 12h, 90d."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from fazai.errors import InputError, spelling_hint
from fazai.pki.files import SETTINGS
from fazai.timestamps import parse_duration_s
from fazai.yamltext import load_yaml

DAY_S: Final = 86_400.0

_LEAST_S: Final = {
    "ca_lifetime": DAY_S,
    "agent_lifetime": 3600.0,  # they begin five minutes before they are made
    "listener_lifetime": 3600.0,
    "return_window": 0.0,
    "token_lifetime": 60.0,
}
_MOST_S: Final = {
    "ca_lifetime": 36_500 * DAY_S,
    "agent_lifetime": 3650 * DAY_S,
    "listener_lifetime": 3650 * DAY_S,
    "return_window": 365 * DAY_S,
    "token_lifetime": 7 * DAY_S,
}


@dataclass(frozen=True, slots=True)
class PkiSettings:
    """Durations in seconds. `return_window`: so long after its certificate expired an agent may come back by
    itself; 0: never. `existing_ca`: a file with the certificates of CAs that are trusted instead of ours;
    `existing_crl`: their revocation lists."""

    agent_lifetime: float = 30 * DAY_S
    listener_lifetime: float = 90 * DAY_S
    return_window: float = 30 * DAY_S
    token_lifetime: float = 3600.0
    existing_ca: Path | None = None
    existing_crl: Path | None = None


def read_settings(folder: Path) -> PkiSettings:
    """Read the settings of a folder. Raises InputError with the place, YamlError."""
    path = folder / SETTINGS
    if not path.exists():
        return PkiSettings()
    found = load_yaml(path)
    if found is None:
        return PkiSettings()
    if not isinstance(found, dict):
        raise InputError("settings are a mapping, such as agent_lifetime: 30d", where=str(path))
    known = [field.name for field in fields(PkiSettings)]
    values: dict[str, Any] = {}
    for name, value in found.items():
        if name not in known:
            hint = spelling_hint(str(name), known) or f"known are: {', '.join(known)}"
            raise InputError(f'there is no setting "{name}"', where=str(path), hint=hint)
        if name in _MOST_S:
            values[name] = _read_duration_s(path, name, value)
        else:
            values[name] = _read_path(path, name, value)
    settings = PkiSettings(**values)
    if settings.existing_crl is not None and settings.existing_ca is None:
        text = "existing_crl has no meaning without existing_ca"
        raise InputError(text, where=str(path), hint="ours revokes with: fazai pki revoke NAME")
    return settings


def _read_duration_s(path: Path, name: str, value: object) -> float:
    seconds = 0.0 if value == 0 else parse_duration_s(value) if isinstance(value, str) else None
    if seconds is None:
        raise InputError(f"{name} is no duration", where=str(path), hint="such as 30m, 12h or 90d")
    return check_duration_s(name, seconds, str(path))


def check_duration_s(name: str, seconds: float, where: str) -> float:
    """Return a duration that is within its limits. Raises InputError."""
    if not _LEAST_S[name] <= seconds <= _MOST_S[name]:
        hint = f"{format_duration(_LEAST_S[name])} to {format_duration(_MOST_S[name])}"
        raise InputError(f"{name} is out of its limits", where=where, hint=hint)
    return seconds


def _read_path(path: Path, name: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is the path of a file", where=str(path))
    return path.parent / value  # an absolute one stays as it is


def format_duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 5 min, 3 h, 12 days."""
    for unit_s, name, plural in ((86_400, "day", "days"), (3600, "h", "h"), (60, "min", "min")):
        number = round(seconds / unit_s)
        if number > 1 or seconds > 0.99 * unit_s:
            return f"{number} {name if number == 1 else plural}"
    return f"{seconds:.0f} s"
