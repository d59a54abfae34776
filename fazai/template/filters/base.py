"""Filters and tests as values, the error that they raise, and mappings with secret keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fazai.model import Secret

#: Characters of one text that a template makes.
TEXT_MAX: Final = 1 << 20
_COUNT_MAX: Final = 100_000
#: A width or precision of five digits, or one that is an argument.
_WIDE: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{5}|\*)")


class FilterError(ValueError):
    """A filter or test refuses its input; becomes a TemplateError with the place."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SecretMap(dict[str, Any]):
    """A mapping that came out of a secret text: its keys are secret as well.

    Whoever goes through it is given Secrets for keys; looking one up takes a text or a Secret. Code that may
    see the keys asks for `plain`."""

    __slots__ = ()

    @classmethod
    def of(cls, items: Mapping[Any, Any]) -> SecretMap:
        """The mapping with these entries, whose keys may be Secrets already."""
        entries = items.plain() if isinstance(items, SecretMap) else items.items()
        return cls({_reveal_key(key): value for key, value in entries})

    def plain(self) -> Iterable[tuple[str, Any]]:
        """The entries with their keys as text."""
        return dict.items(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.keys()[::-1])

    def keys(self) -> Any:
        return [Secret(str(key)) for key in dict.keys(self)]

    def items(self) -> Any:
        return [(Secret(str(key)), value) for key, value in dict.items(self)]

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, _reveal_key(key))

    def __getitem__(self, key: Any) -> Any:
        return dict.__getitem__(self, _reveal_key(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return dict.get(self, _reveal_key(key), default)


def _reveal_key(key: Any) -> Any:
    return key.reveal() if isinstance(key, Secret) else key


def plain_entries(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return the entries of a mapping, a secret one's with their keys as text: for code that puts them
    back."""
    return mapping.plain() if isinstance(mapping, SecretMap) else mapping.items()


class Secrecy(StrEnum):
    """The treatment of a secret among the arguments."""

    CARRY = "carry"  # the filter moves values around: a Secret stays the Secret it is
    TAINT = "taint"  # the filter works on the text, and every text in its result is a Secret
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class TemplateFilter:
    """A filter or test. `takes` names what comes before the value: nothing, "context", "environment"."""

    call: Callable[..., Any]
    secrecy: Secrecy
    takes: str = ""
    undefined: bool = False


def carry(call: Callable[..., Any], takes: str = "", *, undefined: bool = False) -> TemplateFilter:
    return TemplateFilter(call, Secrecy.CARRY, takes, undefined)


def taint(call: Callable[..., Any], takes: str = "") -> TemplateFilter:
    return TemplateFilter(call, Secrecy.TAINT, takes)


def refuse(call: Callable[..., Any], takes: str = "") -> TemplateFilter:
    return TemplateFilter(call, Secrecy.REFUSE, takes)


def check_text_length(length: int) -> None:
    """Refuse to make a text of this length if it is too long. Raises FilterError."""
    if length > TEXT_MAX:
        raise FilterError(f"the template makes a text of more than {TEXT_MAX} characters")


def check_count(count: object) -> None:
    """Refuse an argument that says how many, if it is no number or too large a one. Raises FilterError."""
    if not isinstance(count, int):
        raise FilterError(f"expected a whole number, found {type(count).__name__}")
    if abs(count) > _COUNT_MAX:
        raise FilterError(f"{count} is more than {_COUNT_MAX}")


def check_percent(pattern: str) -> None:
    """Refuse a pattern of `%` that asks for a text that is too wide. Raises FilterError."""
    if _WIDE.search(pattern):
        raise FilterError("a width in a % pattern is too large")
