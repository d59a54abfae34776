"""Filters on lists: choosing, sorting, sets, combining. Semantics: Jinja2 3.1 and ansible-core 2.19."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from jinja2.filters import FILTERS as JINJA
from jinja2.filters import make_attrgetter

from fazai.template.filters.base import FilterError, TemplateFilter, carry, check_count
from fazai.template.filters.data import from_jinja


def _expect_list(value: Any, name: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise FilterError(f"{name} takes a list, not {type(value).__name__}")
    return list(value)


def _freeze_value(value: Any) -> Any:
    """Return what stands for a value in a set: itself, or a form of it that can be hashed."""
    if isinstance(value, Mapping):
        return ("map", frozenset((key, _freeze_value(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(_freeze_value(item) for item in value))
    return value


def unique(
    environment: Any, value: Any, case_sensitive: bool | None = None, attribute: Any = None
) -> list[Any]:
    """The list without repetitions, in its order. As in Ansible, case only counts when it is said to."""
    get: Callable[[Any], Any] = make_attrgetter(environment, attribute) if attribute else lambda item: item
    items = _expect_list(value, "unique")
    return _drop_repeated(items, lambda item: _fold_case(get(item), bool(case_sensitive)))


def intersect(left: Any, right: Any) -> list[Any]:
    seen = set(map(_freeze_value, _expect_list(right, "intersect")))
    return _drop_repeated(item for item in _expect_list(left, "intersect") if _freeze_value(item) in seen)


def difference(left: Any, right: Any) -> list[Any]:
    seen = set(map(_freeze_value, _expect_list(right, "difference")))
    items = _expect_list(left, "difference")
    return _drop_repeated(item for item in items if _freeze_value(item) not in seen)


def union(left: Any, right: Any) -> list[Any]:
    return _drop_repeated(itertools.chain(_expect_list(left, "union"), _expect_list(right, "union")))


def symmetric_difference(left: Any, right: Any) -> list[Any]:
    return difference(union(left, right), intersect(left, right))


def _drop_repeated(values: Iterable[Any], key: Callable[[Any], Any] = lambda value: value) -> list[Any]:
    """Return the values of which each comes with another key, the first of those that are alike."""
    kept: dict[Any, Any] = {}
    for value in values:
        kept.setdefault(_freeze_value(key(value)), value)
    return list(kept.values())


def flatten(value: Any, levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    """Lists inside of the list opened, `levels` deep or all of them; nulls are left out."""
    flat: list[Any] = []
    for item in _expect_list(value, "flatten"):
        if item is None or item in ("None", "null"):
            if not skip_nulls:
                flat.append(item)
        elif isinstance(item, list | tuple) and (levels is None or levels >= 1):
            flat.extend(flatten(item, None if levels is None else int(levels) - 1, skip_nulls))
        else:
            flat.append(item)
    return flat


def zipped(*values: Any) -> Iterator[list[Any]]:
    return (list(items) for items in zip(*values, strict=False))


def zip_longest(*values: Any, fillvalue: Any = None) -> Iterator[list[Any]]:
    return (list(items) for items in itertools.zip_longest(*values, fillvalue=fillvalue))


def product(*values: Any, repeat: int = 1) -> Iterator[list[Any]]:
    check_count(repeat)
    if len(values) * repeat > 16:
        raise FilterError("product takes at most 16 lists")
    return (list(items) for items in itertools.product(*values, repeat=repeat))


def total(environment: Any, value: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    """The sum of numbers, or of lists where `start` is one."""
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    if isinstance(start, list):
        joined = list(start)
        for item in items:
            joined.extend(_expect_list(item, "sum"))
        return joined
    if isinstance(start, str):
        raise FilterError("sum adds numbers", "use join")
    return sum(items, start)


def subelements(obj: Any, subelements: Any, skip_missing: bool = False) -> list[list[Any]]:
    """Pairs of each item of the list and each item of the list inside of it."""
    items = list(obj.values()) if isinstance(obj, Mapping) else _expect_list(obj, "subelements")
    words = subelements.split(".") if isinstance(subelements, str) else subelements
    path = _expect_list(words, "subelements")
    pairs: list[list[Any]] = []
    for item in items:
        inner: Any = item
        for key in path:
            if not isinstance(inner, Mapping):
                raise FilterError(f'subelements finds no mapping where it looks for "{key}"')
            if key not in inner and skip_missing:
                inner = []
                break
            if key not in inner:
                raise FilterError(
                    f'subelements finds no key "{key}"', "skip_missing=true leaves such items out"
                )
            inner = inner[key]
        if not isinstance(inner, list | tuple):
            raise FilterError(f'"{".".join(map(str, path))}" is no list')
        pairs.extend([item, each] for each in inner)
    return pairs


def batch(value: Any, linecount: int, fill_with: Any = None) -> Any:
    check_count(linecount)
    return JINJA["batch"](value, linecount, fill_with)


def rounded(value: Any, precision: int = 0, method: str = "common") -> float:
    check_count(precision)
    if abs(precision) > 15:
        raise FilterError("a precision is -15 to 15")
    return float(JINJA["round"](value, precision, method))


def make_extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    def call(environment: Any, value: Any, case_sensitive: bool = True, attribute: Any = None) -> Any:
        items = list(value)
        if not items:
            return environment.undefined("No aggregated item, sequence was empty.")
        get = make_attrgetter(environment, attribute) if attribute is not None else None
        return choose(items, key=lambda item: _fold_case(get(item) if get else item, case_sensitive))

    return call


def _fold_case(value: Any, case_sensitive: bool) -> Any:
    return value if case_sensitive or not isinstance(value, str) else value.lower()


_FROM_JINJA: Final = (
    *("first", "last", "sort", "groupby", "map", "slice"),
    *("select", "reject", "selectattr", "rejectattr"),
)
FILTERS: Final[Mapping[str, TemplateFilter]] = {
    "list": carry(list),
    "length": carry(len),
    "count": carry(len),
    **{name: from_jinja(name) for name in _FROM_JINJA},
    "reverse": carry(JINJA["reverse"]),
    "min": carry(make_extreme(min), "environment"),
    "max": carry(make_extreme(max), "environment"),
    "sum": carry(total, "environment"),
    "batch": carry(batch),
    "round": carry(rounded),
    "unique": carry(unique, "environment"),
    "intersect": carry(intersect),
    "difference": carry(difference),
    "union": carry(union),
    "symmetric_difference": carry(symmetric_difference),
    "flatten": carry(flatten),
    "zip": carry(zipped),
    "zip_longest": carry(zip_longest),
    "product": carry(product),
    "subelements": carry(subelements),
}
