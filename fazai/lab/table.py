"""All handlers of a release, by controller and action."""

from __future__ import annotations

from collections.abc import Mapping

from fazai.lab.actions import (
    aliases,
    backups,
    core,
    diagnostics,
    groups,
    interfaces,
    kea,
    routing,
    rules,
    savepoint,
    services,
    sheets,
    system,
    trust,
    unbound,
    wireguard,
)
from fazai.lab.actions.common import generic_handlers
from fazai.lab.box import Handler
from fazai.lab.engine.schema import Catalogue, action_key

__all__ = ["build_handlers"]

_MODULES = (
    aliases,
    backups,
    core,
    diagnostics,
    groups,
    interfaces,
    kea,
    routing,
    rules,
    savepoint,
    services,
    sheets,
    system,
    trust,
    unbound,
    wireguard,
)


def build_handlers(catalogue: Catalogue) -> Mapping[str, Handler]:
    """`module/controller/action` (normalised) -> handler; special ones go before generic ones."""
    table = generic_handlers(catalogue)
    special = {name: handler for module in _MODULES for name, handler in module.ACTIONS.items()}
    if catalogue.release.startswith("26.1"):
        special |= savepoint.ARMED
    for name, handler in special.items():
        controller, _, action = name.rpartition("/")
        table[f"{controller}/{action_key(action)}"] = handler
    return table
