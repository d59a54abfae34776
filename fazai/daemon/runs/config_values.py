"""Sections and values of the daemon's configuration file: each wrong one is noted with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import time, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fazai.daemon.runs.schedule import DAYS, Window
from fazai.errors import InputError, spelling_hint
from fazai.inventory import Inventory
from fazai.yamltext import YamlList, YamlMap

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TOP = "the configuration"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEPT_DAYS = 3660  # that anything may be kept, by its age
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZE = re.compile(r"([1-9]\d{0,5})([MG])i?B")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_MODES = ("check", "approve", "apply")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

T = TypeVar("T")
D = TypeVar("D")
S = TypeVar("S", bound="DataclassInstance")
#: By key: the field of the value that is read, and its reader.
Readers = Mapping[str, tuple[str, Callable[[Any], Any]]]
#: Returns the inventory of these sources. Raises FazaiError.
Load = Callable[[tuple[str, ...]], "Inventory"]


class WrongValue(Exception):
    """An error of one value; the reader adds the place."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of the file, its problems, and the folder that its paths are relative to."""

    node: YamlMap
    title: str
    problems: list[InputError]
    folder: Path
    load_inventory: Load | None

    def note_problem(self, key: str | None, text: str, hint: str | None = None) -> None:
        """Note a problem, with the place of the key."""
        where = self.node.mark(key) if key in self.node else self.node.mark()
        self.problems.append(InputError(text, where=where, hint=hint))

    def check_keys(self, *known: str) -> None:
        """Note each key that is not among these."""
        for key in self.node:
            if key not in known:
                hint = spelling_hint(key, known) or f"known are: {', '.join(known)}"
                self.note_problem(key, f"{self.title} knows no {key!r}", hint)

    def read(self, key: str, reader: Callable[[Any], T], default: D) -> T | D:
        """Return a value, or the default where it is not given or wrong."""
        value = self.node.get(key)
        if value is not None:
            try:
                return reader(value)
            except WrongValue as wrong:
                self.note_problem(key, f"{key} {wrong.text}", wrong.hint)
        return default

    def require(self, key: str, reader: Callable[[Any], T]) -> T | None:
        """Return a value that must be given; None where it is not, or is wrong."""
        if self.node.get(key) is None:
            self.note_problem(None, f"{self.title} needs {key}")
        return self.read(key, reader, None)

    def read_fields(self, plain: S, readers: Readers) -> S:
        """Return `plain` with what is given here; `readers` has the field of each key, and its reader."""
        return replace(
            plain,
            **{name: self.read(key, reader, getattr(plain, name)) for key, (name, reader) in readers.items()},
        )

    def read_below(self, key: str, plain: S, readers: Readers) -> S:
        """Return `plain` with what the mapping under a key gives, which has no other keys than these."""
        if (below := self.section_below(key)) is None:
            return plain
        below.check_keys(*readers)
        return below.read_fields(plain, readers)

    def section_below(self, key: str) -> Section | None:
        """Return the mapping under a key; None where there is none."""
        value = self.node.get(key)
        if value is None:
            return None
        if not isinstance(value, YamlMap):
            self.note_problem(key, f"{key} is a mapping")
            return None
        title = key if self.title == TOP else f"{self.title}.{key}"
        return replace(self, node=value, title=title)


def read_named(top: Section, key: str, reader: Callable[[str, Section], T | None]) -> Iterator[T]:
    section = top.section_below(key)
    for name in section.node if section is not None else ():
        assert section is not None
        if not _NAME.fullmatch(name):
            section.note_problem(name, f"{name!r} is no name", "letters, digits, dots and dashes, at most 64")
        one = section.section_below(name)
        if one is None:
            if section.node[name] is None:
                section.note_problem(name, f"{key}.{name} is empty")
            continue
        made = reader(name, one)
        if made is not None:
            yield made


def read_window(section: Section, node: Any) -> Window | None:
    if not isinstance(node, YamlMap):
        section.note_problem(
            "windows", "a window is a mapping", "{days: mon-fri, from: '01:00', to: '05:00'}"
        )
        return None
    one = replace(section, node=node, title="a window")
    one.check_keys("days", "from", "to")
    begin, end = one.require("from", read_clock), one.require("to", read_clock)
    days = one.read("days", read_days, frozenset(range(7)))
    return Window(begin, end, days) if begin is not None and end is not None else None


# -- one value each: they raise WrongValue


def beside_file(section: Section, text: str) -> str:
    """Return a path relative to the file; `web1,web2` is a list of names."""
    return text if "," in text else str(section.folder / text)


def read_string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise WrongValue("is a text")
    return value


def read_texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, YamlList) else [value]
    if not items or not all(isinstance(item, str) and item for item in items):
        raise WrongValue("is a text, or a list of texts")
    return tuple(items)


def read_variables(value: Any) -> tuple[str, ...]:
    for name in read_texts(value):
        if not _VARIABLE.fullmatch(name):
            raise WrongValue(
                f"lists names of variables, and {name[:64]!r} is none", "their values stay outside"
            )
    return read_texts(value)


def read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValue("is true or false")
    return value


def number_reader(least: int, most: int) -> Callable[[Any], int]:
    def reader(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise WrongValue(f"is a number from {least} to {most}")
        return value

    return reader


def read_size(value: Any) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size_bytes = int(found[1]) << (20 if found[2] == "M" else 30) if found else 0
    if not 1 << 20 <= size_bytes <= 1 << 44:
        raise WrongValue(f"is a size such as 256MiB or 8GiB, not {value!r}", "a MiB is the least")
    return size_bytes


def read_span(value: Any, most_days: int = 366) -> float:
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    counts = [int(part or 0) for part in found.groups()] if found is not None else []
    seconds = sum(count * unit for count, unit in zip(counts, (86400, 3600, 60, 1), strict=False))
    if not seconds > 0:
        raise WrongValue(f"is a time such as 90s, 15m, 1h30m or 30d, not {value!r}")
    if seconds > most_days * 86400:
        raise WrongValue(f"is at most {most_days}d, not {value!r}")
    return float(seconds)


def interval_reader(least_s: int) -> Callable[[Any], float]:
    def reader(value: Any) -> float:
        seconds = read_span(value)
        if seconds < least_s:
            raise WrongValue(f"is at least {least_s}s")
        return seconds

    return reader


read_age = partial(read_span, most_days=_KEPT_DAYS)


def read_age_of_days(value: Any, hint: str | None = None) -> float:
    seconds = read_age(value)
    if seconds < 86400:
        raise WrongValue(f"is a day at least, such as 30d, not {value!r}", hint)
    return seconds


def read_pause(value: Any) -> float:
    seconds = read_span(value)
    if seconds > 3600:
        raise WrongValue(f"is at most 1h, not {value!r}")
    return seconds


def read_heartbeat(value: Any) -> float:
    seconds = read_span(value)
    if not 1 <= seconds <= 600:
        raise WrongValue(f"is from 1s to 10m, not {value!r}")
    return seconds


def choice_reader(known: tuple[str, ...]) -> Callable[[Any], str]:
    def reader(value: Any) -> str:
        if value not in known:
            raise WrongValue(f"is one of {', '.join(known)}", spelling_hint(str(value), known))
        return str(value)

    return reader


read_mode = choice_reader(("check", "apply"))


def read_modes(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(choice_reader(_MODES), read_texts(value))))


def read_zone(value: Any) -> tzinfo:
    try:
        return ZoneInfo(read_string(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise WrongValue(f"{value!r} is not known", "such as Europe/Berlin; UTC without it") from None


def read_clock(value: Any) -> time:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1440:
        return time(value // 60, value % 60)  # 10:30 without quotes is 630 in YAML 1.1
    if isinstance(value, str) and _CLOCK.fullmatch(value):
        hour, minute = (int(part) for part in value.split(":"))
        return time(hour % 24, minute)
    if value == 1440:
        return time(0)
    raise WrongValue(f"is a time of day such as '01:30', not {value!r}")


def read_days(value: Any) -> frozenset[int]:
    found: set[int] = set()
    for word in read_texts(value):
        for part in word.split(","):
            first, dash, last = part.strip().lower().partition("-")
            if first not in DAYS or (dash and last not in DAYS):
                raise WrongValue(f"has no day {part!r}", "mon, tue, wed, thu, fri, sat, sun, or mon-fri")
            begin, end = DAYS.index(first), DAYS.index(last or first)
            found.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(found)
