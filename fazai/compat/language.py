"""Dataclasses with slots, text enumerations, and zip of lists of one length, for Python 3.9 as well.

A type checker, and a newer Python, have their own.
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

if TYPE_CHECKING or sys.version_info >= (3, 11):  # mypy looks for these very names
    from dataclasses import dataclass  # novm
    from enum import StrEnum  # novm
else:
    import dataclasses
    from enum import Enum

    def dataclass(class_: Any = None, *, slots: bool = False, **options: Any) -> Any:
        """Make a dataclass; without slots, which save memory and nothing else."""

        def make(found: Any) -> Any:
            return dataclasses.dataclass(found, **options)

        return make if class_ is None else make(class_)

    class StrEnum(str, Enum):
        """An enumeration whose members are texts, and print as such."""

        def __str__(self) -> str:
            return str(self.value)

        __format__ = str.__format__


__all__ = ["StrEnum", "dataclass", "zip_equal"]

_First = TypeVar("_First")
_Second = TypeVar("_Second")
_MISSING = object()


def zip_equal(first: Iterable[_First], second: Iterable[_Second]) -> Iterator[tuple[_First, _Second]]:
    """Iterate over pairs of two iterables. Raises ValueError where one is longer."""
    for one, other in zip_longest(first, second, fillvalue=_MISSING):
        if one is _MISSING or other is _MISSING:
            raise ValueError("one is longer than the other")
        yield one, other  # type: ignore[misc]
