"""Finds what a rule means in a record or event. Whatever stands there, nothing here fails or waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fazai.rules.addresses import parse_address
from fazai.rules.values import Comparison, EventRule, FieldPath, Hit, Network, Source, compile_text

#: Items of a list that are looked at, characters of a text that are, and those of a group's name.
ITEMS_MAX = 1000
TEXT_MAX = 4096
GROUP_MAX = 200
_MISSING = object()


def find_hits(
    rules: Sequence[EventRule], source: Source, type_: str, record: Mapping[str, Any], time: float
) -> Iterator[Hit]:
    """Yield what the rules mean in a record of telemetry or an event of that type, in their order."""
    for rule in rules:
        if rule.source != source or (rule.types and type_ not in rule.types):
            continue
        for item in _items(rule, record):
            if all(_holds(comparison, item, record) for comparison in rule.where):
                group = _group(rule.group_by, item, record)
                if group is not None:
                    yield Hit(rule=rule, group=group, time=time)


def _items(rule: EventRule, record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if rule.each is None:
        return (record,)
    found = _find(rule.each.keys, record)
    if not isinstance(found, list):
        return ()
    return [item for item in found[:ITEMS_MAX] if isinstance(item, Mapping)]


def _group(path: FieldPath | None, item: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """Return the group of a hit; None where the field is absent or no text, number or truth value."""
    if path is None:
        return ""
    value = _find(path.keys, record if path.of_record else item)
    if isinstance(value, str) and value and len(value) <= GROUP_MAX and value.isprintable():
        return value
    return str(value) if isinstance(value, int | float) else None


def _find(keys: Sequence[str], value: Any) -> Any:
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _holds(comparison: Comparison, item: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    value = _find(comparison.path, record if comparison.of_record else item)
    if comparison.operator == "exists":
        return (value is not _MISSING) is comparison.wanted
    if value is _MISSING:
        return False
    return _OPERATORS[comparison.operator](value, comparison.wanted)


def _is(value: Any, wanted: Any) -> bool:
    """Compare without making one type of another: 1 is no truth value, "1" no number."""
    if isinstance(value, bool) is not isinstance(wanted, bool):
        return False
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    return bool(value == wanted) if numbers or type(value) is type(wanted) else False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contains(value: Any, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_is(item, wanted) for item in value[:ITEMS_MAX])
    return isinstance(value, str) and wanted in value[:TEXT_MAX]


def _in(value: Any, networks: tuple[Network, ...]) -> bool | None:
    """Return whether an address is in one of these networks; None where it is no address."""
    address = parse_address(value, zones=True) if isinstance(value, str) else None
    return None if address is None else any(address in network for network in networks)


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": _is,
    "one_of": lambda value, wanted: any(_is(value, each) for each in wanted),
    "at_least": lambda value, wanted: _is_number(value) and value >= wanted,
    "at_most": lambda value, wanted: _is_number(value) and value <= wanted,
    "contains": _contains,
    "matches": lambda value, wanted: (
        isinstance(value, str)
        and len(value) <= TEXT_MAX
        and compile_text(wanted).fullmatch(value) is not None
    ),
    "in": lambda value, wanted: _in(value, wanted) is True,
    "not_in": lambda value, wanted: _in(value, wanted) is False,
}
