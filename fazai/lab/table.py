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


def special_handlers() -> dict[str, Handler]:
    """Return what the modules of `actions` bring, found by name."""
    names = [found.name for found in pkgutil.iter_modules(actions.__path__)]
    modules = [import_module(f"{actions.__name__}.{name}") for name in names]
    return {name: row for module in modules for name, row in getattr(module, "ACTIONS", {}).items()}


def build_handlers(catalogue: Catalogue) -> Mapping[str, Handler]:
    """Return handlers by `module/controller/action` (normalised); special ones go before generic ones."""
    found = {
        f"{name}/{action}": handler
        for name, controller in catalogue.controllers.items()
        for action, handler in generic_handlers(controller, catalogue).items()
    }
    found |= special_handlers()
    if catalogue.release.startswith("26.1"):
        found |= savepoint.ARMED
    table = {}
    for name, handler in found.items():
        controller_name, _, action = name.rpartition("/")
        if (key := action_key(action)) in catalogue.endpoints[controller_name]:
            table[f"{controller_name}/{key}"] = handler
    return table
