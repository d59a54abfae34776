"""Argument lists that may be run: each argument in its place, a text or a pattern that fits all of it.

A value that a pattern stands for may not begin with `-` (unless `dash: true`), have a part `..` or hold
control characters, whatever the pattern says. Nothing is looked up in PATH, expanded or split. The remote
agent's own policy (agent.yml) and the daemon's (policy.yml) match alike; it works with Python 3.9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTROL = re.compile("[\x00-\x1f\x7f]")
_PART = re.compile(r"[/=:,\s]")
SHOWN = 80


@dataclass(frozen=True)
class ArgumentRule:
    """One place in an argument list: either `literal` or `pattern` is given."""

    literal: str | None = None
    pattern: str | None = None
    optional: bool = False
    rest: bool = False  # as many as there are, at least one unless `optional`; only in the last place
    dash: bool = False  # a value may begin with `-`
    line: int = 0


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern as it is matched, with the digits, letters and spaces of ASCII. Raises re.error."""
    return re.compile(pattern, re.ASCII)


def match_arguments(args: Sequence[str], rules: Sequence[ArgumentRule]) -> tuple[int, str | None]:
    """Match a whole argument list; return how many arguments fit, and why the next does not (None: all do).

    Each state is the number of rules that are done with; the last rule may go on where it has `rest`.
    """
    states = _skip_optional({0}, rules)
    for index, value in enumerate(args):
        following: set[int] = set()
        reasons: list[str] = []
        for state in sorted(states):
            more = state == len(rules) and bool(rules) and rules[-1].rest
            rule = rules[-1] if more else rules[state] if state < len(rules) else None
            reason = "nothing more is allowed" if rule is None else explain_value(value, rule)
            if reason is None:
                following.add(state if more else state + 1)
            else:
                reasons.append(reason)
        if not following:
            return index, f"argument {index + 1}, {quote_value(value)}, is not allowed: {_join(reasons)}"
        states = _skip_optional(following, rules)
    if len(rules) in states:
        return len(args), None
    missing = rules[min(states)]
    what = (
        quote_value(missing.literal)
        if missing.literal is not None
        else f"a value that matches {missing.pattern}"
    )
    return len(args), f"argument {len(args) + 1} is missing: {what}"


def _skip_optional(states: set[int], rules: Sequence[ArgumentRule]) -> set[int]:
    found = set(states)
    for state in range(len(rules)):
        if state in found and rules[state].optional:
            found.add(state + 1)
    return found


def explain_value(value: str, rule: ArgumentRule) -> str | None:
    """Return why a value does not fit a place; None where it does."""
    if rule.literal is not None:
        return None if value == rule.literal else f"{quote_value(rule.literal)} is expected"
    assert rule.pattern is not None
    if value.startswith("-") and not rule.dash:
        return "a value that begins with - may be taken for an option"
    if ".." in _PART.split(value):
        return 'it has a part ".."'
    if CONTROL.search(value):
        return "it holds a control character"
    if compile_pattern(rule.pattern).fullmatch(value) is None:
        return f"it does not match {rule.pattern}"
    return None


def quote_value(value: str) -> str:
    """Quote a value for people, on one line, cut where it is long."""
    text = value if len(value) <= SHOWN else f"{value[:SHOWN]}…"
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) + '"'


def _join(reasons: Sequence[str]) -> str:
    return "; or ".join(dict.fromkeys(reasons))
