"""Types of the rows with which a model says what it does beyond the generic verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import ConfigEdit, Item
from fazai.lab.engine.schema import Field, ItemModel

Check = Callable[[Box, ItemModel, str, Item], Iterable[tuple[str, str]]]
Computed = Callable[[Box, ItemModel, str, Item], Mapping[str, Any]]
Default = Callable[[Box, ItemModel, Field], str]
Guard = Callable[[Box, ItemModel, str, Item], None]


@dataclass(frozen=True, slots=True)
class CollectionHooks:
    """Differences of one collection's rows and writes from the generic ones."""

    computed: Computed = lambda *_: {}  # the volatile fields of an item
    paths: tuple[str, ...] = ()  # further collections that the rows depend on
    version: Callable[[Box], object] = lambda _: None  # something else they depend on, compared by identity
    add: Callable[[Box, ItemModel, str, Item, dict[str, Any]], None] = lambda *_: (
        None
    )  # adds further keys to a row
    # before validation: may change the new item; after: may add to the same edit
    before: tuple[Callable[[ActionCall, ItemModel, str, Item, dict[str, str]], None], ...] = ()
    after: tuple[Callable[[ActionCall, ConfigEdit, str, Item, Item], None], ...] = ()
    deleted: tuple[Callable[[Box, ConfigEdit, str], None], ...] = ()  # may add to the edit that deletes


@dataclass(frozen=True, slots=True)
class SettingsHooks:
    """Differences of a model's settings from the generic ones."""

    computed: Callable[[Box, Item], Mapping[str, str]] = lambda *_: {}  # the volatile ones
    before: Callable[[Box, dict[str, str]], None] = lambda *_: None  # before validation: may change them
    check: Callable[[Box, Item, Item], Iterable[tuple[str, str]]] = lambda *_: ()  # of the old and the new


@dataclass(frozen=True, slots=True)
class ModelHooks:
    """Rows by name (checks, guards), by type of a field (defaults), by collection, or by model (settings)."""

    checks: Mapping[str, Check] = field(default_factory=dict)
    guards: Mapping[str, Guard] = field(default_factory=dict)
    defaults: Mapping[str, Default] = field(default_factory=dict)
    collections: Mapping[str, CollectionHooks] = field(default_factory=dict)
    settings: Mapping[str, SettingsHooks] = field(default_factory=dict)
