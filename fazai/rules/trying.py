"""Tries rules on records that were kept: what would have been done, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fazai.errors import InputError
from fazai.rules.addresses import explain_protection, parse_address
from fazai.rules.matching import find_hits
from fazai.rules.values import EntryAction, Firing, RuleSet, Source
from fazai.rules.windows import RuleWindows
from fazai.timestamps import format_time


@dataclass(frozen=True, slots=True)
class TriedAction:
    """One action that a rule would have taken at a time; `refused` says why it would not have been."""

    line: int
    firing: Firing
    what: str
    refused: str | None = None

    def text(self) -> str:
        """Return it as one line for people."""
        not_done = f" (not done: {self.refused})" if self.refused else ""
        time = format_time(self.firing.time)
        return f"line {self.line}, {time}: {self.firing.rule.name}: {self.what}{not_done}"

    def row(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "line": self.line,
            "time": format_time(self.firing.time),
            "rule": self.firing.rule.name,
            "group": self.firing.group,
            "count": self.firing.count,
            "action": self.what,
            "refused": self.refused,
        }


def try_rules(rules: RuleSet, records: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[TriedAction]:
    """Yield what the rules would have done with these records, each with its line, by the records' own times.
    Raises InputError for a record without one."""
    windows = RuleWindows()
    now = float("-inf")
    for line, record in records:
        time = _time_of(line, record)
        now = max(now, time)
        type_ = record.get("type")
        source: Source = "event" if isinstance(type_, str) else "telemetry"
        for hit in find_hits(rules.rules, source, str(type_ or "telemetry"), record, time):
            firing = windows.note(hit, now)
            if firing is not None:
                yield _describe(rules, line, firing)


def _describe(rules: RuleSet, line: int, firing: Firing) -> TriedAction:
    action = firing.rule.then
    if not isinstance(action, EntryAction):
        text = action.text.format(group=firing.group, count=firing.count, rule=firing.rule.name)
        return TriedAction(line, firing, f"starts the objective {text!r}")
    address = parse_address(firing.group)
    what = f"puts {firing.group} into {action.alias} for {action.for_s:g} s, by {action.job}"
    if address is None:
        return TriedAction(line, firing, what, "it is no address")
    refused = explain_protection(address, never=rules.never, own=(), private=action.private)
    return TriedAction(line, firing, what, refused)


def _time_of(line: int, record: Mapping[str, Any]) -> float:
    value = record.get("timestamp")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise InputError("the record has no `timestamp`", where=f"line {line}") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
