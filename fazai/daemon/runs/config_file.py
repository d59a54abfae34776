"""Reads the daemon's configuration file (`fazai daemon --config`, docs/daemon.md). Strict: everything that
is wrong is said at once, with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, time, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fazai.daemon.runs.config import (
    AgentsConfig,
    DaemonConfig,
    GemmaLimits,
    Hook,
    Job,
    Polling,
    Retention,
    Schedule,
)
from fazai.daemon.runs.schedule import DAYS, Rhythm, Window
from fazai.errors import Errors, FazaiError, InputError, spelling_hint
from fazai.inventory import Inventory
from fazai.inventory.patterns import select_hosts
from fazai.yamltext import YamlList, YamlMap, load_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEPT_DAYS = 3660  # that anything may be kept, by its age
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SIZE = re.compile(r"([1-9]\d{0,5})([MG])i?B")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JOB_KEYS = (
    *("inventory", "playbook", "limit", "modes", "delete", "timeout", "plan_ttl", "environment"),
    "schedule",
)
_TOP = "the configuration"
_MODES = ("check", "approve", "apply")
_HOSTS = ("github", "gitlab", "gitea")

T = TypeVar("T")
D = TypeVar("D")
S = TypeVar("S", Job, Polling, Retention, GemmaLimits, AgentsConfig)
#: By key: the field of the value that is read, and its reader.
Readers = Mapping[str, tuple[str, Callable[[Any], Any]]]


class _WrongValue(Exception):
    """An error of one value; the reader adds the place."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


#: Returns the inventory of these sources. Raises FazaiError.
Load = Callable[[tuple[str, ...]], "Inventory"]


def read_daemon_config(path: Path, load_inventory: Load | None = None) -> DaemonConfig:
    """Read the file. With `load_inventory` what it names must be there, too: inventories, playbooks, secrets
    of webhooks, a host for each limit. An inventory that is there and cannot be read now is no reason: a run
    of it says why. Raises YamlError, InputError, Errors with every problem of the file."""
    found = load_yaml(path, what="configuration")
    problems: list[InputError] = []
    if found is None:
        return DaemonConfig()
    if not isinstance(found, YamlMap):
        raise InputError("the daemon's configuration is a mapping", where=found.mark(), hint="runs: …")
    top = _Section(found, _TOP, problems, path.absolute().parent, load_inventory)
    top.check_keys("runs", "webhooks", "opnsense", "gemma", "retention", "agents")
    jobs = {job.name: job for job in _read_named(top, "runs", _read_job)}
    hooks = tuple(_read_named(top, "webhooks", _read_hook))
    _check_hooks(top, hooks, jobs)
    polling, retention = top.read_below("opnsense", Polling(), _POLLING), _read_retention(top)
    gemma = top.read_below("gemma", GemmaLimits(), _GEMMA)
    agents = top.read_below("agents", AgentsConfig(), _AGENTS)
    if top.node.get("agents") is not None:
        agents = replace(agents, configured=True)
    if problems:
        raise problems[0] if len(problems) == 1 else Errors(problems)
    return DaemonConfig(
        jobs=jobs, hooks=hooks, polling=polling, retention=retention, gemma=gemma, agents=agents
    )


@dataclass(frozen=True, slots=True)
class _Section:
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
            except _WrongValue as wrong:
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

    def section_below(self, key: str) -> _Section | None:
        """Return the mapping under a key; None where there is none."""
        value = self.node.get(key)
        if value is None:
            return None
        if not isinstance(value, YamlMap):
            self.note_problem(key, f"{key} is a mapping")
            return None
        title = key if self.title == _TOP else f"{self.title}.{key}"
        return replace(self, node=value, title=title)


def _read_named(top: _Section, key: str, reader: Callable[[str, _Section], T | None]) -> Iterator[T]:
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


def _read_job(name: str, section: _Section) -> Job | None:
    section.check_keys(*_JOB_KEYS)
    inventory = section.require("inventory", _read_texts)
    modes = section.read("modes", _read_modes, ("check", "approve"))
    schedule = _read_job_schedule(section, modes)
    if inventory is None:
        return None
    playbooks = section.read("playbook", _read_texts, ())
    job = Job(
        name=name,
        inventory=tuple(_beside_file(section, each) for each in inventory),
        playbooks=tuple(_beside_file(section, each) for each in playbooks),
        modes=cast("Any", modes),
        schedule=schedule,
    )
    job = section.read_fields(job, _JOB)
    if section.load_inventory is not None and _files_are_there(section, job):
        _check_limit(section, job, section.load_inventory)
    return job


def _files_are_there(section: _Section, job: Job) -> bool:
    there = True
    for key, paths in (("inventory", job.inventory), ("playbook", job.playbooks)):
        for path in paths:
            if "," not in path and not Path(path).exists():
                section.note_problem(
                    key, f"{key} names {path}, and there is no such file", _nearest_name(Path(path))
                )
                there = False
    return there


def _nearest_name(path: Path) -> str | None:
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent}, either"
    return spelling_hint(path.name, names)


def _check_limit(section: _Section, job: Job, load_inventory: Load) -> None:
    if not job.limit:
        return
    try:
        inventory = load_inventory(job.inventory)
    except FazaiError:
        return  # a run of it says so
    try:
        select_hosts(inventory, job.limit)
    except FazaiError as error:
        for each in getattr(error, "errors", (error,)):
            section.note_problem("limit", f"limit: {each.message}", each.hint)


def _read_job_schedule(job: _Section, modes: tuple[str, ...]) -> Schedule | None:
    section = job.section_below("schedule")
    if section is None:
        return None
    section.check_keys("every", "jitter", "mode", "windows", "timezone")
    every_s = section.require("every", _interval_reader(10))
    jitter_s = section.read("jitter", _read_span, 0.0)
    mode = section.read("mode", _read_mode, "check")
    zone = section.read("timezone", _read_zone, UTC)
    windows: tuple[Window, ...] = ()
    listed = section.node.get("windows")
    if isinstance(listed, YamlList):
        windows = tuple(filter(None, (_read_window(section, each) for each in listed)))
    elif listed is not None:
        section.note_problem("windows", "windows is a list", "- {days: mon-fri, from: '01:00', to: '05:00'}")
    if mode not in modes:
        section.note_problem(
            "mode", f"the schedule's mode {mode} is none of the job's modes", "add it to modes:"
        )
    if every_s is None:
        return None
    return Schedule(Rhythm(every_s, jitter_s, windows, zone), cast("Any", mode))


def _read_window(section: _Section, node: Any) -> Window | None:
    if not isinstance(node, YamlMap):
        section.note_problem(
            "windows", "a window is a mapping", "{days: mon-fri, from: '01:00', to: '05:00'}"
        )
        return None
    one = replace(section, node=node, title="a window")
    one.check_keys("days", "from", "to")
    begin, end = one.require("from", _read_clock), one.require("to", _read_clock)
    days = one.read("days", _read_days, frozenset(range(7)))
    return Window(begin, end, days) if begin is not None and end is not None else None


def _read_hook(name: str, section: _Section) -> Hook | None:
    section.check_keys("host", "secret_file", "playbook", "mode", "branch")
    host = section.require("host", _choice_reader(_HOSTS))
    secret, job = section.require("secret_file", _read_string), section.require("playbook", _read_string)
    mode = section.read("mode", _read_mode, "check")
    branch = section.require("branch", _read_string) if "branch" in section.node else None
    if host is None or secret is None or job is None:
        return None
    secret_file = Path(_beside_file(section, secret))
    if section.load_inventory is not None and not secret_file.exists():
        text = f"secret_file names {secret_file}, and there is no such file"
        section.note_problem("secret_file", text, "openssl rand -hex 32, in a file of mode 0600")
    return Hook(
        name=name,
        host=cast("Any", host),
        secret_file=secret_file,
        job=job,
        mode=cast("Any", mode),
        branch=branch,
    )


def _check_hooks(top: _Section, hooks: tuple[Hook, ...], jobs: dict[str, Job]) -> None:
    for hook in hooks:
        one = replace(top, node=top.node["webhooks"][hook.name], title=f"webhooks.{hook.name}")
        if hook.job not in jobs:
            one.note_problem("playbook", f"runs: has no {hook.job!r}", spelling_hint(hook.job, jobs))
        elif hook.mode not in jobs[hook.job].modes:
            one.note_problem("mode", f"runs.{hook.job} does not allow {hook.mode}", "add it to its modes:")


def _read_retention(top: _Section) -> Retention:
    section = top.section_below("retention")
    kept = Retention()
    if section is None:
        return kept
    section.check_keys(*_RETENTION_BELOW, *_RETENTION)
    for key, readers in _RETENTION_BELOW.items():
        kept = section.read_below(key, kept, readers)
    return section.read_fields(kept, _RETENTION)


# -- one value each: they raise _WrongValue


def _beside_file(section: _Section, text: str) -> str:
    """Return a path relative to the file; `web1,web2` is a list of names."""
    return text if "," in text else str(section.folder / text)


def _read_string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongValue("is a text")
    return value


def _read_texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, YamlList) else [value]
    if not items or not all(isinstance(item, str) and item for item in items):
        raise _WrongValue("is a text, or a list of texts")
    return tuple(items)


def _read_variables(value: Any) -> tuple[str, ...]:
    for name in _read_texts(value):
        if not _VARIABLE.fullmatch(name):
            raise _WrongValue(
                f"lists names of variables, and {name[:64]!r} is none", "their values stay outside"
            )
    return _read_texts(value)


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongValue("is true or false")
    return value


def _number_reader(least: int, most: int) -> Callable[[Any], int]:
    def reader(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _WrongValue(f"is a number from {least} to {most}")
        return value

    return reader


def _read_size(value: Any) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size_bytes = int(found[1]) << (20 if found[2] == "M" else 30) if found else 0
    if not 1 << 20 <= size_bytes <= 1 << 44:
        raise _WrongValue(f"is a size such as 256MiB or 8GiB, not {value!r}", "a MiB is the least")
    return size_bytes


def _read_span(value: Any, most_days: int = 366) -> float:
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    counts = [int(part or 0) for part in found.groups()] if found is not None else []
    seconds = sum(count * unit for count, unit in zip(counts, (86400, 3600, 60, 1), strict=False))
    if not seconds > 0:
        raise _WrongValue(f"is a time such as 90s, 15m, 1h30m or 30d, not {value!r}")
    if seconds > most_days * 86400:
        raise _WrongValue(f"is at most {most_days}d, not {value!r}")
    return float(seconds)


def _interval_reader(least_s: int) -> Callable[[Any], float]:
    def reader(value: Any) -> float:
        seconds = _read_span(value)
        if seconds < least_s:
            raise _WrongValue(f"is at least {least_s}s")
        return seconds

    return reader


_read_age = partial(_read_span, most_days=_KEPT_DAYS)


def _read_age_of_days(value: Any, hint: str | None = None) -> float:
    seconds = _read_age(value)
    if seconds < 86400:
        raise _WrongValue(f"is a day at least, such as 30d, not {value!r}", hint)
    return seconds


def _read_pause(value: Any) -> float:
    seconds = _read_span(value)
    if seconds > 3600:
        raise _WrongValue(f"is at most 1h, not {value!r}")
    return seconds


def _read_heartbeat(value: Any) -> float:
    seconds = _read_span(value)
    if not 1 <= seconds <= 600:
        raise _WrongValue(f"is from 1s to 10m, not {value!r}")
    return seconds


def _choice_reader(known: tuple[str, ...]) -> Callable[[Any], str]:
    def reader(value: Any) -> str:
        if value not in known:
            raise _WrongValue(f"is one of {', '.join(known)}", spelling_hint(str(value), known))
        return str(value)

    return reader


_read_mode = _choice_reader(("check", "apply"))


def _read_modes(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_choice_reader(_MODES), _read_texts(value))))


def _read_zone(value: Any) -> tzinfo:
    try:
        return ZoneInfo(_read_string(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _WrongValue(f"{value!r} is not known", "such as Europe/Berlin; UTC without it") from None


def _read_clock(value: Any) -> time:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1440:
        return time(value // 60, value % 60)  # 10:30 without quotes is 630 in YAML 1.1
    if isinstance(value, str) and _CLOCK.fullmatch(value):
        hour, minute = (int(part) for part in value.split(":"))
        return time(hour % 24, minute)
    if value == 1440:
        return time(0)
    raise _WrongValue(f"is a time of day such as '01:30', not {value!r}")


def _read_days(value: Any) -> frozenset[int]:
    found: set[int] = set()
    for word in _read_texts(value):
        for part in word.split(","):
            first, dash, last = part.strip().lower().partition("-")
            if first not in DAYS or (dash and last not in DAYS):
                raise _WrongValue(f"has no day {part!r}", "mon, tue, wed, thu, fri, sat, sun, or mon-fri")
            begin, end = DAYS.index(first), DAYS.index(last or first)
            found.update(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
    return frozenset(found)


_JOB: Readers = {
    "limit": ("limit", _read_texts),
    "delete": ("deletes", _read_flag),
    "timeout": ("timeout_s", _read_span),
    "plan_ttl": ("plan_ttl_s", _read_span),
    "environment": ("environment", _read_variables),
}
_POLLING: Readers = {
    "poll": ("every_s", _interval_reader(5)),
    "at_once": ("at_once", _number_reader(1, 1000)),
    "timeout": ("timeout_s", _read_span),
}
_GEMMA: Readers = {"sessions": ("sessions", _number_reader(1, 1000)), "idle": ("idle_s", _read_span)}
_AGENTS: Readers = {
    "host": ("host", _read_string),
    "port": ("port", _number_reader(0, 65535)),
    "heartbeat": ("heartbeat_s", _read_heartbeat),
    "output": ("output_bytes", _read_size),
}
_RETENTION_BELOW: Mapping[str, Readers] = {
    "events": {"age": ("events_s", _read_age), "size": ("events_bytes", _read_size)},
    "telemetry": {"age": ("telemetry_s", _read_age), "size": ("telemetry_bytes", _read_size)},
    "actions": {"age": ("actions_s", _read_age_of_days), "size": ("actions_bytes", _read_size)},
    "compaction": {
        "every": ("compact_every_s", _read_pause),
        "index": ("index_records", _number_reader(1000, 10_000_000)),
    },
}
_RETENTION: Readers = {
    "hosts": ("hosts_s", _read_age),
    "runs": ("runs", _number_reader(10, 1_000_000)),
    "ledger": ("ledger", _number_reader(10, 1_000_000)),
    "deliveries": ("deliveries_s", partial(_read_age_of_days, hint="a replay would work after it")),
    "targets": ("targets_s", _read_age_of_days),
}
