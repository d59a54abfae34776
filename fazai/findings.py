"""The state of a target as it would be declared: items, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from fazai.compat.language import dataclass


@dataclass(frozen=True, slots=True)
class FoundItem:
    """One item of a target, as it would be declared: fields in YAML's types, nested ones as maps.

    `left` are the fields that are not among them, each with the reason. `apart` is what tells it from others
    of its name, `ordered`: its place among those of its kind means something.
    """

    kind: str
    identity: str
    fields: Mapping[str, Any]
    left: tuple[tuple[str, str], ...] = ()
    apart: str = ""
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found on a target: items that can be declared, in the order of a list, and what cannot be,
    each with kind, name and reason. An empty name stands for the whole kind."""

    items: tuple[FoundItem, ...]
    left: tuple[tuple[str, str, str], ...] = ()


@runtime_checkable
class Importing(Protocol):
    """A session that can say what its target holds as resources."""

    async def find_items(self, kinds: Sequence[str]) -> Findings:
        """Return all items of these kinds, those of every kind where none is named. Applied as they are, they
        change nothing. Raises Unreachable, DeviceError."""
