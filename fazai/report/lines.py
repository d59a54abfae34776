"""The pieces of which reports are made: a change in one line, a change as a unified diff, an error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fazai.errors import FazaiError, Mark
from fazai.model import Change, Verb
from fazai.outcome import RunOutcome, TargetOutcome, TargetStatus, json_value

#: Puts a style ("red", "green", "yellow", "dim", "bold") on text.
Paint = Callable[[str, str], str]

SIGNS = {Verb.CREATE: "+", Verb.UPDATE: "~", Verb.DELETE: "-", Verb.MOVE: ">", Verb.RUN: "!"}
_WIDTH = 100


def unstyled(text: str, style: str) -> str:
    return text


def escape_controls(text: str) -> str:
    """Escape in text from a device or a file what would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable(line: str) -> str:
    """Return a line that a program printed as a terminal may show it: with its tabs as blanks."""
    return escape_controls(line.expandtabs(8))


def activation_lines(outcome: TargetOutcome) -> list[tuple[str, str]]:
    """Return handlers that run and services that are reconfigured besides the changes, each with what is to
    become, or became, of it."""
    if outcome.status is TargetStatus.PENDING:
        return [("to activate", name) for name in outcome.activations]
    found = [("activated", name) for name in outcome.activated]
    return found + ([("not activated", outcome.not_activated)] if outcome.not_activated else [])


def change_title(change: Change) -> str:
    """Name the changed item: `alias blocklist`, `rule "allow dns"`."""
    identity = escape_controls(change.identity)
    quoted = f'"{identity}"' if " " in identity or not identity else identity
    return f"{change.kind.partition('.')[2] or change.kind} {quoted}"


def change_details(change: Change, width: int = _WIDTH) -> str:
    """Describe the difference in one line: `content: +198.51.100.7 -203.0.113.9`, `mode 0644 -> 0600`."""
    parts = [change.note] if change.note else []
    if change.verb is Verb.UPDATE:
        parts += [
            _field_difference(name, json_value(change.before.get(name)), json_value(change.after[name]))
            for name in change.after
        ]
    elif change.verb is Verb.CREATE and not change.note:
        parts += [
            f"{name} {_value_text(json_value(value))}"
            for name, value in change.after.items()
            if value not in ("", (), change.identity)
        ]
    parts += [f"[{name} {_value_text(value)}]" for name, value in json_value(change.options).items()]
    if change.adopts:
        parts.append("(adopted)")
    text = escape_controls("  ".join(parts))
    return text if len(text) <= width else text[: width - 1] + "…"


def _field_difference(name: str, before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        added = [f"+{_value_text(item)}" for item in after if item not in before]
        removed = [f"-{_value_text(item)}" for item in before if item not in after]
        return f"{name}: {' '.join(added + removed) or 'order'}"
    return f"{name} {_value_text(before)} -> {_value_text(after)}"


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return '""' if value in ("", None) else str(value)


def diff_lines(change: Change) -> list[str]:
    """Return the change as a unified diff of its fields, one value a line, secrets masked."""
    before, after = _yaml_lines(json_value(change.before)), _yaml_lines(json_value(change.after))
    after += [f"({line})" for line in _yaml_lines(json_value(change.options))]  # how it is written, not what
    title = f"{change.target} {change_title(change)}"
    lines = difflib.unified_diff(
        before,
        after,
        fromfile="/dev/null" if change.verb is Verb.CREATE else f"{title} (as it is)",
        tofile="/dev/null" if change.verb is Verb.DELETE else f"{title} (as declared)",
        lineterm="",
        n=2,
    )
    return [escape_controls(line) for line in lines]


def _yaml_lines(fields: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name in sorted(fields):
        value = fields[name]
        if isinstance(value, list):
            lines += [f"{name}:", *(f"  - {item}" for item in value)]
        else:
            text = str(value).splitlines() or [""]
            lines += [f"{name}: {text[0]}"] if len(text) == 1 else [f"{name}: |", *(f"  {t}" for t in text)]
    return lines


def result_words(outcome: RunOutcome) -> list[str]:
    """Return the counts of a run that a reader sees first: changes, and all that did not go as declared."""
    totals = outcome.totals()
    if not totals["refused"]:  # nothing of it was reached: a read-only target
        totals["refused"] = sum(target.status is TargetStatus.REFUSED for target in outcome.targets)
    first = f"{totals['pending']} to change" if outcome.check else f"{totals['changed']} changed"
    bad = ("unreachable", "refused", "locked", "stale", "skipped", "undone")
    words = [first, f"{totals['unchanged']} unchanged", f"{totals['failed']} failed"]
    return [*words, *(f"{totals[name]} {name}" for name in bad if totals[name])]


def error_lines(error: FazaiError, paint: Paint = unstyled) -> Iterator[str]:
    """Yield `error: file:line:col: text`, the offending line with a mark under its place, and the hint."""
    for one in error.errors:
        place = f"{one.where}: " if one.where is not None else ""
        yield f"{paint('error:', 'red')} {place}{escape_controls(one.message)}"
        if one.excerpt is not None and isinstance(one.where, Mark):
            yield from _marked_excerpt(one.excerpt, one.where)
        if one.hint:
            yield f"  {paint('hint:', 'dim')} {escape_controls(one.hint)}"


def _marked_excerpt(line: str, mark: Mark) -> Sequence[str]:
    text = escape_controls(line.rstrip("\n").replace("\t", " "))
    if not text.strip():
        return ()
    gutter = f"{mark.line:>5} | "
    if mark.column > len(text):  # a line of a template, which begins further right than where it is quoted
        return (gutter + text[:_WIDTH],)
    start = max(0, mark.column - 80)
    pointer = " " * 5 + " | " + " " * (mark.column - 1 - start) + "^"
    return (gutter + text[start : start + _WIDTH], pointer)
