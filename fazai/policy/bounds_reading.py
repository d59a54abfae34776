"""Reads what values a rule lets its fields have: `fields: [description, {content: {each: …}}]`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fazai.masking import MASK
from fazai.policy import fields as read
from fazai.policy.arguments import ArgumentRule
from fazai.policy.bounds import (
    VALUE_LENGTH,
    Bound,
    ListBound,
    NetworkBound,
    NumberBound,
    PatternBound,
    ScalarKey,
    SingleBound,
    ValuesBound,
    make_key,
    read_network,
    sort_networks,
)
from fazai.policy.fields import FieldReader, WrongValue
from fazai.rules.values import Network
from fazai.yamltext import YamlList, YamlMap

#: The forms of a bound, each with its words.
_SINGLE = (("is",), ("one_of",), ("at_least", "at_most"), ("pattern", "dash"), ("within", "least_prefix"))
_LIST = ("each", "most_added", "most_removed")
_VERSIONS = {"ipv4": (4, 32), "ipv6": (6, 128)}
_HINT = "a value, a list of values, or {pattern: …}, {within: …}, {at_least: …, at_most: …}, {each: …}"


def read_fields(
    fields: FieldReader, key: str, one: Callable[[Any], str]
) -> tuple[tuple[str, ...], tuple[tuple[str, Bound], ...]]:
    """Read names of fields, some of them with a bound: {name: bound}. Return all names, and the bounds by the
    name."""
    items = fields.node.get(key)
    if not isinstance(items, YamlList):
        items = [items]
    maps = [item for item in items if isinstance(item, YamlMap)]

    def names(value: Any) -> tuple[str, ...]:
        found: list[Any] = []
        for item in items:
            found += (item or [item]) if isinstance(item, YamlMap) else [item]
        return read.read_items(found, one)

    bounds = []
    for item in maps:
        inner = FieldReader(item, key, tuple(item), fields.problems)
        bounds += [(name, bound) for name in item if (bound := _read_bound(inner, name)) is not None]
    return fields.read(key, names, ()), tuple(bounds)


def _read_bound(fields: FieldReader, name: str) -> Bound | None:
    value = fields.node[name]
    if not isinstance(value, YamlMap) or not any(word in value for word in _LIST):
        return _read_single(fields, name, f"the bound of {name[:80]}", _LIST)
    inner = FieldReader(value, f"the bound of {name[:80]}", _LIST, fields.problems)
    each = _read_single(inner, "each", "each", ()) if inner.has("each") else None
    count = read.read_number(0, 1_000_000)
    return ListBound(each, inner.read("most_added", count, None), inner.read("most_removed", count, None))


def _read_single(fields: FieldReader, key: str, title: str, more: tuple[str, ...]) -> SingleBound | None:
    """Read the bound of a single value. `more`: further words that could stand there."""
    value = fields.node[key]
    if not isinstance(value, YamlMap):
        reader = _read_values if isinstance(value, YamlList) else _read_value
        return fields.read(key, reader, None)
    words = tuple(word for form in _SINGLE for word in form)
    inner = FieldReader(value, title, (*words, *more), fields.problems)
    forms = [form for form in _SINGLE if any(word in value for word in form)]
    if len(forms) != 1:
        if forms or not value:  # else an unknown word was noted
            inner.note(None, f"{title} says {'two things' if forms else 'nothing'}", _HINT)
        return None
    return _READERS[forms[0][0]](inner)


def _read_value(value: Any) -> ValuesBound:
    return ValuesBound(frozenset([_read_key(value)]))


def _read_values(value: Any) -> ValuesBound:
    if not isinstance(value, YamlList):
        raise WrongValue("is a list of values", "[a, b]")
    return ValuesBound(frozenset(read.read_list(_read_key)(value)))


def _read_key(value: Any) -> ScalarKey:
    key = make_key(value)
    if key is None or (isinstance(value, str) and (len(value) > VALUE_LENGTH or MASK in value)):
        raise WrongValue("says no text, number or truth value", _HINT)
    return key


def _read_range(fields: FieldReader) -> NumberBound:
    least = fields.read("at_least", _read_end, None)
    most = fields.read("at_most", _read_end, None)
    if least is not None and most is not None and least > most:
        fields.note(None, f"no number is at least {least} and at most {most}")
    return NumberBound(least, most)


def _read_end(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongValue("is a number")
    return value


def _read_pattern(fields: FieldReader) -> PatternBound | None:
    dash = fields.read("dash", read.read_switch, False)
    if not fields.has("pattern"):
        fields.note("dash", "dash needs `pattern`")
        return None
    pattern = fields.read("pattern", _read_regex, None)
    return None if pattern is None else PatternBound(ArgumentRule(pattern=pattern, dash=dash))


def _read_regex(value: Any) -> str | None:
    return read.read_regex(value, many=True)


def _read_within(fields: FieldReader) -> NetworkBound | None:
    if not fields.has("within"):
        fields.note("least_prefix", "least_prefix needs `within`")
        return None
    networks = sort_networks(fields.read("within", read.read_list(_read_network), ()))
    return NetworkBound(networks, _read_prefixes(fields, networks))


def _read_network(value: Any) -> Network:
    network = read_network(value)
    if not isinstance(network, Network):
        shown = value[:80] if isinstance(value, str) else value
        raise WrongValue(f"has no network {shown!r}", "with its prefix, and no bits beside it: 192.0.2.0/24")
    return network


def _read_prefixes(fields: FieldReader, networks: tuple[Network, ...]) -> tuple[tuple[int, int], ...]:
    """Read how long a prefix is at least: a number, or one for each version of IP where there are both."""
    versions = sorted({network.version for network in networks})
    if not fields.has("least_prefix") or not versions:
        return ()
    value = fields.node["least_prefix"]
    if not isinstance(value, YamlMap):
        if len(versions) > 1:
            hint = "least_prefix: {ipv4: 28, ipv6: 64}"
            fields.note("least_prefix", "least_prefix is one for each version of IP here", hint)
            return ()
        most = 32 if versions == [4] else 128
        return ((versions[0], fields.read("least_prefix", read.read_number(0, most), most)),)
    inner = FieldReader(value, "least_prefix", tuple(_VERSIONS), fields.problems)
    found = []
    for name, (version, most) in _VERSIONS.items():
        if version in versions:
            found.append((version, inner.require(name, read.read_number(0, most), most)))
        elif inner.has(name):
            inner.note(name, f"within has no network of {name}")
    return tuple(found)


_READERS: dict[str, Callable[[FieldReader], SingleBound | None]] = {
    "is": lambda fields: fields.read("is", _read_value, None),
    "one_of": lambda fields: fields.read("one_of", _read_values, None),
    "at_least": _read_range,
    "pattern": _read_pattern,
    "within": _read_within,
}
