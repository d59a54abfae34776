"""Tests (`x is defined`). Semantics: Jinja2 3.1 and ansible-core 2.19. A secret is tested by its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import Undefined

from fazai.template.filters.base import FilterError, TemplateFilter, carry, taint
from fazai.template.filters.data import boolean

_LOOSE: Final = re.compile(r"\d+|[A-Za-z]+")
_OPERATORS: Final[Mapping[str, Callable[[int], bool]]] = {
    sign: verdict
    for signs, verdict in (
        (("==", "=", "eq"), lambda order: order == 0),
        (("!=", "<>", "ne"), lambda order: order != 0),
        (("<", "lt"), lambda order: order < 0),
        (("<=", "le"), lambda order: order <= 0),
        ((">", "gt"), lambda order: order > 0),
        ((">=", "ge"), lambda order: order >= 0),
    )
    for sign in signs
}


def defined(value: Any) -> bool:
    return not undefined(value)


def undefined(value: Any) -> bool:
    return isinstance(value, Undefined) and value.absent()


def contains(value: Any, item: Any) -> bool:
    return item in value


def truthy(value: Any, convert_bool: bool = False) -> bool:
    """Test Python's truth; with `convert_bool`, "no" and "off" are false as well."""
    return bool(boolean(value)) if convert_bool and isinstance(value, str) else bool(value)


def falsy(value: Any, convert_bool: bool = False) -> bool:
    return not truthy(value, convert_bool)


def subset(value: Iterable[Any], other: Any) -> bool:
    return all(item in other for item in value)


def superset(value: Any, other: Iterable[Any]) -> bool:
    return all(item in value for item in other)


def version(
    value: Any,
    version: Any,
    operator: str = "eq",
    strict: bool | None = None,
    version_type: str | None = None,
) -> bool:
    """Compare versions piece by piece: numbers as numbers, words as words."""
    if strict or version_type not in (None, "loose"):
        raise FilterError("versions are compared loosely here", "leave strict and version_type away")
    verdict = _OPERATORS.get(operator)
    if verdict is None:
        raise FilterError(f'versions have no operator "{operator}"', "it is one of <, <=, ==, !=, >=, >")
    if not str(value) or not str(version):
        raise FilterError("a version cannot be empty")
    left, right = _version_pieces(value), _version_pieces(version)
    try:
        return verdict((left > right) - (left < right))
    except TypeError:
        raise FilterError("these versions cannot be compared: a number meets a word") from None


def _version_pieces(value: Any) -> list[int | str]:
    return [int(piece) if piece.isdigit() else piece for piece in _LOOSE.findall(str(value)[:200])]


def divisible(value: Any, number: Any) -> bool:
    return bool(value % number == 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TESTS: Final[Mapping[str, TemplateFilter]] = {
    "defined": carry(defined, undefined=True),
    "undefined": carry(undefined, undefined=True),
    "none": carry(lambda value: value is None),
    "true": carry(lambda value: value is True),
    "false": carry(lambda value: value is False),
    "boolean": carry(lambda value: isinstance(value, bool)),
    "string": taint(lambda value: isinstance(value, str)),
    "number": carry(_is_number),
    "integer": carry(lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": carry(lambda value: isinstance(value, float)),
    "mapping": carry(lambda value: isinstance(value, Mapping)),
    "sequence": taint(lambda value: isinstance(value, list | tuple | str | Mapping | range)),
    "iterable": taint(lambda value: isinstance(value, Iterable)),
    "even": taint(lambda value: divisible(value, 2)),
    "odd": taint(lambda value: not divisible(value, 2)),
    "divisibleby": taint(divisible),
    "lower": taint(lambda value: str(value).islower()),
    "upper": taint(lambda value: str(value).isupper()),
    "contains": taint(contains),
    "truthy": taint(truthy),
    "falsy": taint(falsy),
    "subset": taint(subset),
    "issubset": taint(subset),
    "superset": taint(superset),
    "issuperset": taint(superset),
    "version": taint(version),
    "version_compare": taint(version),
    "any": taint(any),
    "all": taint(all),
}
