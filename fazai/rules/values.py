"""Event rules as values: what they look at, how often it has to be, and what is done then."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Literal

Source = Literal["telemetry", "event"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What a field may be compared by.
OPERATORS = ("is", "one_of", "at_least", "at_most", "contains", "matches", "in", "not_in", "exists")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a field. `path` are its keys from the outside; `of_record`: they begin at the whole
    record where the rule looks at the items of a list in it."""

    path: tuple[str, ...]
    operator: str
    wanted: Any
    of_record: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPath:
    """A field by its keys from the outside."""

    keys: tuple[str, ...]
    of_record: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryAction:
    """Put the group, an address, into an alias for a time, by a job of the daemon. `most`: entries that the
    alias may have at a time; `private`: also addresses of private networks."""

    job: str
    alias: str
    for_s: float
    most: int = 256
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveAction:
    """Start a session of the action loop. `text` may have `{group}`, `{count}`, `{rule}`."""

    text: str


Action = EntryAction | ObjectiveAction


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """One rule. It acts once a group was met `threshold` times within `within_s`, not again on that group
    within `throttle_s`, and `per_hour` times within any hour."""

    name: str
    line: int
    source: Source
    then: Action
    types: tuple[str, ...] = ()
    each: FieldPath | None = None
    where: tuple[Comparison, ...] = ()
    group_by: FieldPath | None = None
    threshold: int = 1
    within_s: float = 600.0
    throttle_s: float = 3600.0
    per_hour: int = 20
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """All rules of a file. `never`: networks of which no address gets into an alias. `broken`: what is wrong
    with the file; then there are no rules, and `never` is what is known from before."""

    file: str = ""
    generation: str = ""
    rules: tuple[EventRule, ...] = ()
    never: tuple[Network, ...] = ()
    broken: str | None = None

    def aliases(self) -> dict[str, set[str]]:
        """Return the aliases that the rules fill, by job."""
        found: dict[str, set[str]] = {}
        for rule in self.rules:
            if isinstance(rule.then, EntryAction):
                found.setdefault(rule.then.job, set()).add(rule.then.alias)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A record or event, or an item of one, that a rule means. `time`: seconds since the epoch."""

    rule: EventRule
    group: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A rule that is to act on a group now. `count`: hits that it was met with."""

    rule: EventRule
    group: str
    time: float
    count: int

    @property
    def why(self) -> str:
        """One sentence for people."""
        span = f" within {self.rule.within_s:g} s" if self.rule.threshold > 1 else ""
        times = f"{self.count} hit{'' if self.count == 1 else 's'}{span}"
        return f"{self.rule.name}: {times}" + (f"; {self.rule.reason}" if self.rule.reason else "")


def compile_text(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of `matches`. Raises re.error."""
    return re.compile(pattern)
