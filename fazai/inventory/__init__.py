"""The inventory: hosts, their groups, variables and resources.

It is read the way Ansible reads its YAML format (docs/inventory.md has the differences). `load_inventory`
does all the I/O; what it returns is a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fazai.inventory.loading import load_inventory
from fazai.inventory.nodes import Group, Host, Inventory
from fazai.inventory.ranges import HOSTS_MAX, expand_hosts

if TYPE_CHECKING:
    from fazai.inventory.show import as_ansible, as_graph, as_host_variables, as_json

__all__ = [
    "HOSTS_MAX",
    "Group",
    "Host",
    "Inventory",
    "as_ansible",
    "as_graph",
    "as_host_variables",
    "as_json",
    "expand_hosts",
    "load_inventory",
]


def __getattr__(name: str) -> Any:
    """Import what only `fazai inventory` needs when it asks for it."""
    if name.startswith("as_") and name in __all__:
        from fazai.inventory import show

        return getattr(show, name)
    raise AttributeError(f"module 'fazai.inventory' has no attribute {name!r}")
