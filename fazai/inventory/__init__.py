"""The inventory: hosts, their groups, variables and resources.

It is read the way Ansible reads its YAML format (docs/inventory.md has the differences). `load_inventory`
does all the I/O; what it returns is a value.
"""

from fazai.inventory.loading import load_inventory
from fazai.inventory.nodes import Inventory

__all__ = ["Inventory", "load_inventory"]
