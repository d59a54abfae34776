"""Rights that the options of a target give: whose items, what is pruned, where lists stand. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fazai.providers.opnsense.catalogue.values import compose_name


@dataclass(frozen=True, slots=True)
class ListPlacement:
    """Place of a list among the items of others: `first`, or `before` or `after` the named one."""

    where: str
    name: str = ""


def parse_placement(value: Any) -> ListPlacement | None:
    """Parse one value of the option; None for `last`, where a new list stands anyway.

    Raises ValueError with what is wrong.
    """
    if value in ("first", "last"):
        return ListPlacement("first") if value == "first" else None
    if isinstance(value, Mapping) and len(value) == 1:
        ((where, name),) = value.items()
        if where in ("before", "after") and isinstance(name, str) and name.strip():
            return ListPlacement(where, compose_name(" ".join(name.split())))
    raise ValueError("first, last, {before: NAME} or {after: NAME} is expected")


def parse_placements(option: Mapping[str, Any]) -> dict[str, ListPlacement]:
    """Parse the option `place`, kind by kind; kinds whose list stands last are left out."""
    found = {kind: parse_placement(value) for kind, value in option.items()}
    return {kind: place for kind, place in found.items() if place is not None}


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """The rights that the target's options give: whose items, what is pruned, what is protected."""

    target: str
    owner: str
    mark: str
    adopt: bool
    protected: tuple[str, ...]
    prune: bool | tuple[str, ...]
    max_prune: int | str
    place: Mapping[str, ListPlacement] = field(default_factory=dict)  # kind -> where its list stands
    unmanaged: Mapping[str, frozenset[str]] = field(default_factory=dict)  # kind -> fields left alone


def parse_prune(prune: Any) -> bool | tuple[str, ...]:
    """Return the option `prune` as True, False, or the kinds it names."""
    if isinstance(prune, Mapping):
        return tuple(kind for kind, on in prune.items() if on)
    if isinstance(prune, (list, tuple)):
        return tuple(prune)
    return bool(prune)
