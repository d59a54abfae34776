"""Conditions on events for `fazai tail`: `type=outcome,status=failed|unreachable`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fazai.errors import UsageError

__all__ = ["Condition", "parse"]

_TERM = re.compile(
    r"\A\s*(?P<field>[A-Za-z_][\w.]*)\s*(?P<op>>=|<=|!=|=|>|<)\s*(?P<value>.*?)\s*\Z", re.DOTALL
)
_NUMBERS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True, slots=True)
class _Term:
    field: str
    op: str
    values: tuple[str, ...]

    def holds(self, event: Mapping[str, Any]) -> bool:
        found = _lookup(event, self.field)
        if self.op in _NUMBERS:
            number = isinstance(found, int | float) and not isinstance(found, bool)
            return number and _NUMBERS[self.op](found, float(self.values[0]))
        texts = [_text(one) for one in found] if isinstance(found, list) else [_text(found)]
        same = any(fnmatchcase(text, value) for text in texts for value in self.values)
        return same if self.op == "=" else not same


@dataclass(frozen=True, slots=True)
class Condition:
    """All terms hold."""

    text: str
    terms: tuple[_Term, ...]

    def holds(self, event: Mapping[str, Any]) -> bool:
        return all(term.holds(event) for term in self.terms)


def parse(text: str) -> Condition:
    """Terms with commas between: FIELD=VALUE (with * and |), !=, and >, <, >=, <= for numbers; a field of
    a field with a dot (`totals.failed>0`). Raises UsageError."""
    terms = []
    for part in text.split(","):
        found = _TERM.match(part)
        if found is None:
            raise UsageError(
                f"{part!r} is no condition",
                hint="such as type=outcome,status=failed|unreachable or exit_code>0",
            )
        values = tuple(value.strip() for value in found["value"].split("|"))
        if found["op"] in _NUMBERS:
            try:
                float(found["value"])
            except ValueError:
                raise UsageError(f"{part!r}: {found['op']} compares numbers") from None
        terms.append(_Term(found["field"], found["op"], values))
    return Condition(text, tuple(terms))


def _lookup(event: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(event, Mapping):
            return None
        event = event.get(name)
    return event


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
