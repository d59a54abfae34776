"""Takes the fields of a mapping of a YAML file, each with its check; gathers every mistake with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from fazai.errors import InputError, spelling_hint
from fazai.policy.arguments import ArgumentRule, compile_pattern
from fazai.policy.names import NamePattern
from fazai.template.filters.base import FilterError
from fazai.template.filters.pattern import SUBJECT_MAX, check_pattern
from fazai.yamltext import YamlList, YamlMap

_SPAN = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,5})s)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?Z)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TEXT_MAX = 1024
_LIST_MAX = 1000
#: Characters that a value may have which a pattern of an argument is tried on.
PATTERN_LENGTH = 4096

T = TypeVar("T")


class WrongValue(Exception):
    """A value that is not what its field wants; the reader adds the place."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


class FieldReader:
    """The fields of a mapping. What is wrong is noted in `problems`; `title` begins its sentences."""

    def __init__(self, node: YamlMap, title: str, known: Collection[str], problems: list[InputError]) -> None:
        self.node, self.title, self.problems = node, title, problems
        for key in node:
            if key not in known:
                hint = spelling_hint(key, known) or f"known are: {', '.join(known)}"
                text = f"{title} knows no {key[:80]!r}"
                problems.append(InputError(text, where=node.key_mark(key), hint=hint))

    @property
    def line(self) -> int:
        """The line that the mapping begins in."""
        return self.node.mark().line

    def note(self, key: str | None, text: str, hint: str | None = None) -> None:
        """Note a mistake at a key, or at the mapping itself."""
        where = self.node.mark(key) if key is not None and key in self.node else self.node.mark()
        self.problems.append(InputError(text, where=where, hint=hint))

    def has(self, key: str) -> bool:
        """Return whether a key is there; one without a value is a mistake that `read` notes."""
        return key in self.node

    def read(self, key: str, reader: Callable[[Any], T], default: T) -> T:
        """Return a value, or the default where the key is absent or its value is wrong."""
        if key not in self.node:
            return default
        try:
            return reader(self.node[key])
        except WrongValue as wrong:
            self.note(key, f"{key} {wrong.text}", wrong.hint)
            return default

    def require(self, key: str, reader: Callable[[Any], T], default: T, hint: str | None = None) -> T:
        """Return a value that must be there; the default where it is not, or is wrong."""
        if key not in self.node:
            self.note(None, f"{self.title} needs `{key}`", hint)
        return self.read(key, reader, default)

    def maps(self, key: str) -> Iterator[YamlMap]:
        """Iterate over the mappings in a list; what is no mapping is a mistake."""
        value = self.node.get(key)
        if key not in self.node:
            return
        if not isinstance(value, YamlList) or len(value) > _LIST_MAX:
            self.note(
                key, f"{key} is a list of at most {_LIST_MAX} mappings", f"{key}: [] where there is none"
            )
            return
        for index, each in enumerate(value):
            if isinstance(each, YamlMap):
                yield each
            else:
                text = f"an item of {key} is a mapping"
                self.problems.append(InputError(text, where=value.mark(index)))


def read_text(value: Any) -> str:
    """Return a text of one line."""
    if not isinstance(value, str) or not value.strip() or len(value) > _TEXT_MAX or not value.isprintable():
        hint = "put it in quotes" if isinstance(value, bool | int | float) else None
        raise WrongValue(f"is a text of one line, of at most {_TEXT_MAX} characters", hint)
    return value


def read_name(value: Any) -> str:
    """Return a name such as `block-scanners`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        hint = "put it in quotes" if isinstance(value, bool | int | float) else None
        raise WrongValue("is a name of letters, digits, `.`, `_` and `-`, at most 64", hint)
    return value


def read_list(one: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Return a reader of one value or a list of them, which is not empty and says nothing twice."""

    def reader(value: Any) -> tuple[T, ...]:
        return read_items(value if isinstance(value, YamlList) else [value], one)

    return reader


def read_items(items: Sequence[Any], one: Callable[[Any], T]) -> tuple[T, ...]:
    """Return the values of a list that is not empty and says nothing twice."""
    if not items or len(items) > _LIST_MAX:
        raise WrongValue(f"lists 1 to {_LIST_MAX} values")
    found = tuple(map(one, items))
    if len(set(found)) < len(found):
        raise WrongValue("says one thing twice")
    return found


def read_choice(known: Collection[str]) -> Callable[[Any], str]:
    """Return a reader of one of these words."""

    def reader(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            names = sorted(known)
            hint = spelling_hint(str(value)[:80], names) or f"known are: {', '.join(names)[:300]}"
            raise WrongValue(f"has no {str(value)[:80]!r}", hint)
        return value

    return reader


def read_number(least: int, most: int) -> Callable[[Any], int]:
    """Return a reader of a whole number between two bounds."""

    def reader(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise WrongValue(f"is a whole number from {least} to {most}")
        return value

    return reader


def read_span(least_s: float, most_s: float) -> Callable[[Any], float]:
    """Return a reader of a time such as 90s, 15m, 1h30m or 30d."""

    def reader(value: Any) -> float:
        found = _SPAN.fullmatch(value) if isinstance(value, str) and value else None
        counts = [int(part or 0) for part in found.groups()] if found is not None else []
        seconds = float(sum(n * unit for n, unit in zip(counts, (86400, 3600, 60, 1), strict=False)))
        if found is None or not least_s <= seconds <= most_s:
            raise WrongValue(f"is a time such as 90s, 15m, 1h30m or 30d, from {least_s:g} to {most_s:g} s")
        return seconds

    return reader


def read_date(value: Any) -> float:
    """Return the seconds since the epoch of a day (its beginning) or a time, in UTC."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return datetime.fromisoformat(value.removesuffix("Z")).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            pass
    raise WrongValue("is a day such as 2027-06-30, or a time such as 2027-06-30T12:00:00Z")


def read_switch(value: Any) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise WrongValue("is true or false")
    return value


def read_pattern(value: Any) -> NamePattern:
    """Return a pattern of names."""
    text = read_text(value)
    if not text.isascii() and any(c in text for c in "*?"):
        raise WrongValue("is a pattern with letters that are not ASCII", "write such a name out in full")
    if "**" in text or ".." in re.split(r"[/=:,\s]", text) or any(c in text for c in "[]{}"):
        raise WrongValue(f"has no pattern {text[:80]!r}", "only * and ? stand for something else, no / ever")
    return NamePattern(text)


def read_target_pattern(value: Any) -> NamePattern:
    """Return a pattern of names of targets: no pattern of Ansible's, which could also name a group."""
    pattern = read_pattern(value)
    if any(c in pattern.text for c in "~!&,:/ ") or not pattern.text.isascii():
        raise WrongValue(f"has no pattern {pattern.text[:80]!r}", "a list of names of targets, such as fw-*")
    return pattern


def read_path(value: Any) -> str:
    """Return an absolute path without `.`, `..` and `//`."""
    text = read_text(value)
    if not text.startswith("/") or any(part in ("", ".", "..") for part in text.split("/")[1:]):
        raise WrongValue("is an absolute path without `.`, `..` and `//`", "such as /usr/bin/systemctl")
    return text


_ARGUMENT_KEYS = ("text", "pattern", "optional", "rest", "dash")


def read_arguments(fields: FieldReader, key: str) -> tuple[ArgumentRule, ...]:
    """Read the places of an argument list, as an agent's policy has them (docs/agents.md)."""
    value = fields.node.get(key)
    if key not in fields.node:
        return ()
    if not isinstance(value, YamlList) or len(value) > _LIST_MAX:
        fields.note(key, f"{key} is a list of arguments", "[status, {pattern: '[a-z]+'}]; [] for none")
        return ()
    found = []
    for index, item in enumerate(value):
        if isinstance(item, str) and "\0" not in item:
            found.append(ArgumentRule(literal=item, line=value.mark(index).line))
        elif isinstance(item, YamlMap):
            found.append(_read_argument(FieldReader(item, "an argument", _ARGUMENT_KEYS, fields.problems)))
            if found[-1].rest and index < len(value) - 1:
                fields.problems.append(
                    InputError("`rest: true` belongs to the last argument", where=item.mark())
                )
        else:
            hint = "put it in quotes" if isinstance(item, bool | int | float) else None
            text = "an argument is a text or {pattern: …}"
            fields.problems.append(InputError(text, where=value.mark(index), hint=hint))
    return tuple(found)


def _read_argument(fields: FieldReader) -> ArgumentRule:
    literal = fields.read("text", _read_literal, None)
    pattern = fields.read("pattern", read_regex, None)
    rest, dash = fields.read("rest", read_switch, False), fields.read("dash", read_switch, False)
    if fields.has("text") == fields.has("pattern"):
        fields.note(None, "an argument needs either `pattern` or `text`")
    if fields.has("text") and (rest or dash):
        fields.note(None, "`rest` and `dash` belong to a `pattern`")
    optional = fields.read("optional", read_switch, False)
    return ArgumentRule(literal, pattern, optional, rest, dash, fields.line)


def _read_literal(value: Any) -> str | None:
    if not isinstance(value, str) or "\0" in value or len(value) > PATTERN_LENGTH:
        raise WrongValue("is a text")
    return value


def read_regex(value: Any, *, many: bool = False) -> str | None:
    """Return a regular expression that is one, and cannot take for ever; with `many` not on a whole list of
    values, either."""
    text = read_text(value)
    try:
        check_pattern(text, PATTERN_LENGTH)
        if many:  # as it is matched: from the first character to the last, where the `.` stands for an end
            check_pattern(rf"\A(?:{text}).", SUBJECT_MAX)
        compile_pattern(text)
    except FilterError as error:
        raise WrongValue(f"is no pattern that can be used: {error}", error.hint) from None
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        raise WrongValue(f"is no regular expression: {error}") from None
    return text
