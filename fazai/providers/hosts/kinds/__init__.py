"""All kinds of hosts: each module of this folder has its `KINDS`; there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from fazai.providers.hosts.kind import HostKind


def load_host_kinds() -> Mapping[str, HostKind]:
    """Return all kinds by name, in the order of the names."""
    found: dict[str, HostKind] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue  # what several kinds share
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        found.update({kind.name: kind for kind in loaded.KINDS})
    return dict(sorted(found.items()))
