"""Behaviour of single models beyond the generic verbs: checks, computed fields, guards, decorated rows.

Each module in `fazai/lab/models` brings its own rows; they are merged here by name.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Final

from fazai.lab import models
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks, SettingsHooks
from fazai.lab.engine.schema import ItemModel, Model

_PARTS = ("checks", "guards", "defaults", "collections", "settings")


def _merge_hooks() -> ModelHooks:
    names = [found.name for found in pkgutil.iter_modules(models.__path__)]
    hooks = [import_module(f"{models.__name__}.{name}").HOOKS for name in names]
    return ModelHooks(*({n: row for h in hooks for n, row in getattr(h, part).items()} for part in _PARTS))


HOOKS: Final = _merge_hooks()
_NO_HOOKS: Final = CollectionHooks()
_NO_SETTINGS: Final = SettingsHooks()


def hooks_of(model: ItemModel) -> CollectionHooks:
    """Return the differences of a collection from the generic behaviour."""
    return HOOKS.collections.get(model.path, _NO_HOOKS)


def settings_hooks_of(model: Model) -> SettingsHooks:
    """Return the differences of a model's settings from the generic behaviour."""
    return HOOKS.settings.get(model.name, _NO_SETTINGS)
