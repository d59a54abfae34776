"""The table of all handlers of a release, by controller and action."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from fazai.lab import actions
from fazai.lab.actions import savepoint
from fazai.lab.actions.common import generic_handlers
from fazai.lab.box import Handler
from fazai.lab.engine.schema import Catalogue, action_key


def _special_handlers() -> dict[str, Handler]:
    """Return what the modules of `actions` bring, found by name."""
    names = [found.name for found in pkgutil.iter_modules(actions.__path__)]
    modules = [import_module(f"{actions.__name__}.{name}") for name in names]
    return {name: row for module in modules for name, row in getattr(module, "ACTIONS", {}).items()}


def build_handlers(catalogue: Catalogue) -> Mapping[str, Handler]:
    """Return handlers by `module/controller/action` (normalised); special ones go before generic ones."""
    table = generic_handlers(catalogue)
    special = _special_handlers()
    if catalogue.release.startswith("26.1"):
        special |= savepoint.ARMED
    for name, handler in special.items():
        controller, _, action = name.rpartition("/")
        table[f"{controller}/{action_key(action)}"] = handler
    return table
