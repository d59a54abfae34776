"""Conditions on events for `fazai tail`: `type=outcome,status=failed|unreachable`."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fazai.errors import UsageError, spelling_hint

_TERM = re.compile(
    r"\A\s*(?P<field>[A-Za-z_][\w.]*)\s*(?P<op>>=|<=|!=|=|>|<)\s*(?P<value>.*?)\s*\Z", re.DOTALL
)
_NUMBERS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class _ConditionTerm:
    field: str
    op: str
    values: tuple[str, ...]

    def holds(self, event: Mapping[str, Any]) -> bool:
        found = _find_field(event, self.field)
        if self.op in _NUMBERS:
            number = isinstance(found, int | float) and not isinstance(found, bool)
            return number and _NUMBERS[self.op](found, float(self.values[0]))
        texts = map(_comparable_text, found if isinstance(found, list) else [found])
        same = any(fnmatchcase(text, value) for text in texts for value in self.values)
        return same if self.op == "=" else not same


@dataclass(frozen=True, slots=True)
class EventCondition:
    """A condition on events: all of its terms hold."""

    text: str
    terms: tuple[_ConditionTerm, ...]

    def holds(self, event: Mapping[str, Any]) -> bool:
        return all(term.holds(event) for term in self.terms)


def parse_condition(text: str) -> EventCondition:
    """Parse terms with commas between: FIELD=VALUE (with * and |), !=, and >, <, >=, <= for numbers; a
    field of a field with a dot (`totals.failed>0`). Raises UsageError."""
    terms = []
    for part in text.split(","):
        found = _TERM.match(part)
        if found is None:
            hint = "such as type=outcome,status=failed|unreachable or exit_code>0"
            raise UsageError(f"{part!r} is no condition", hint=hint)
        values = tuple(value.strip() for value in found["value"].split("|"))
        if found["op"] in _NUMBERS:
            try:
                float(found["value"])
            except ValueError:
                raise UsageError(f"{part!r}: {found['op']} compares numbers") from None
        terms.append(_ConditionTerm(found["field"], found["op"], values))
    return EventCondition(text, tuple(terms))


def check_event_types(words: Iterable[str]) -> tuple[str, ...]:
    """Return the types of events that these words name, all types for no word. Raises UsageError for an
    unknown one: nothing would ever be shown."""
    from fazai.wire.events import EVENT_TYPES

    known = tuple(sorted(EVENT_TYPES))
    found = tuple(words)
    for word in found:
        if word not in known:
            hint = spelling_hint(word, known) or f"there are: {', '.join(known)}"
            raise UsageError(f'there are no events of the type "{word}"', hint=hint)
    return found or known


def check_condition(condition: EventCondition, types: Iterable[str]) -> None:
    """Refuse a condition that no event of these types can ever fit: a field, a type or a word for a state
    that there is not. Raises UsageError."""
    for term in condition.terms:
        if term.field == "type" and term.op in ("=", "!="):
            every = check_event_types(())
            for value in term.values:
                if not any(fnmatchcase(name, value) for name in every):
                    check_event_types((value,))
            types = [name for name in types if term.holds({"type": name})]
    types = sorted(types)
    fields = _event_fields(types)
    for term in condition.terms:
        name = term.field.partition(".")[0]
        if name not in fields:
            which = "no event" if len(types) != 1 else f"no event of the type {types[0]}"
            hint = spelling_hint(name, fields) or f"there are: {', '.join(sorted(fields))}"
            raise UsageError(f'{condition.text!r}: {which} has a field "{name}"', hint=hint)
        words = fields[name]
        for value in filter(None, term.values) if words and term.op in ("=", "!=") else ():
            if not any(fnmatchcase(word, value) for word in words):
                hint = spelling_hint(value, words) or f"one of: {', '.join(sorted(words))}"
                raise UsageError(f'{condition.text!r}: {name} is never "{value}"', hint=hint)


def _event_fields(types: Iterable[str]) -> dict[str, set[str]]:
    """Map the fields of these types of events to the words that each can hold; to none where it can hold
    anything."""
    from fazai.wire.actions import ProposedAction
    from fazai.wire.events import PlainEvent

    classes = {str(each.__struct_config__.tag): [each] for each in get_args(PlainEvent)}
    classes["action"] = list(get_args(ProposedAction))
    found: dict[str, set[str]] = {"id": set(), "type": set()}
    free: set[str] = {"id", "type"}
    for each in [each for name in types for each in classes[name]]:
        if "action" in each.__struct_config__.tag_field:
            found["action"] = set()
        hints = get_type_hints(each, include_extras=True)
        for name, encoded in zip(each.__struct_fields__, each.__struct_encode_fields__, strict=True):
            words = _literal_words(hints[name])
            found.setdefault(encoded, set()).update(words)
            if not words:
                free.add(encoded)
    return {name: set() if name in free else words for name, words in found.items()}


def _literal_words(hint: Any) -> set[str]:
    """Return the words that a field can hold; none when it can hold anything."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    known = [_words_of_part(part) for part in parts if part is not type(None)]
    return set().union(*known) if all(known) else set()


def _words_of_part(part: Any) -> set[str]:
    if get_origin(part) is Literal:
        return {str(word) for word in get_args(part)}
    if isinstance(part, type) and issubclass(part, Enum):
        return {str(word) for word in part}
    schemas = [getattr(meta, "extra_json_schema", None) or {} for meta in getattr(part, "__metadata__", ())]
    return {word for schema in schemas for word in schema.get("enum", ())}


def _find_field(event: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(event, Mapping):
            return None
        event = event.get(name)
    return event


def _comparable_text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
