"""The inventory: which targets there are, in which groups, with which variables and resources.

Read the way Ansible reads its YAML format (docs/inventory.md has the differences). `load` does all the I/O;
what it returns is a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fazai.inventory.loading import load
from fazai.inventory.nodes import Group, Host, Inventory, Layer
from fazai.inventory.ranges import HOSTS_MAX, expand

if TYPE_CHECKING:
    from fazai.inventory.show import as_ansible, as_graph, as_host, as_json

__all__ = [
    "HOSTS_MAX",
    "Group",
    "Host",
    "Inventory",
    "Layer",
    "as_ansible",
    "as_graph",
    "as_host",
    "as_json",
    "expand",
    "load",
]


def __getattr__(name: str) -> Any:
    """What only `fazai inventory` needs is imported when it asks."""
    if name.startswith("as_") and name in __all__:
        from fazai.inventory import show

        return getattr(show, name)
    raise AttributeError(f"module 'fazai.inventory' has no attribute {name!r}")
