"""What single models do beyond the generic verbs: checks, computed fields, guards, decorated rows.

Each module in `fazai/lab/models` brings its own rows; they are merged here by name.
"""

from __future__ import annotations

from typing import Final

from fazai.lab.engine.hooktypes import ModelHooks
from fazai.lab.models import (
    alias,
    dnsmasq,
    generic,
    interfaces,
    kea,
    routing,
    rules,
    services,
    system,
    trust,
    unbound,
    wireguard,
)

__all__ = ["HOOKS"]

_PARTS = ("checks", "guards", "defaults", "computed", "extra", "cascades")


def _merge_hooks() -> ModelHooks:
    modules = (
        generic,
        alias,
        rules,
        unbound,
        routing,
        interfaces,
        system,
        services,
        trust,
        kea,
        dnsmasq,
        wireguard,
    )
    return ModelHooks(
        *(
            {name: row for module in modules for name, row in getattr(module.HOOKS, part).items()}
            for part in _PARTS
        )
    )


HOOKS: Final = _merge_hooks()
