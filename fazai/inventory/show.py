"""The inventory for people and programs, as `ansible-inventory` prints it; secrets print as `***`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from fazai.errors import InventoryError, spelling_hint
from fazai.inventory.nodes import Inventory
from fazai.model import Secret, SecretRef
from fazai.yamltext import UnsafeText

TELLTALE = re.compile(
    r"passw|passphrase|secret|token|api_?key|private_?key|\bpsk\b|_psk\b|credential", re.IGNORECASE
)

#: Variables that Ansible sets itself and never prints.
# fmt: off
_INTERNAL: Final = frozenset(
    (
        "ansible_async_path", "ansible_collection_name", "ansible_config_file",
        "ansible_dependent_role_names", "ansible_diff_mode", "ansible_facts", "ansible_forks",
        "ansible_inventory_sources", "ansible_limit", "ansible_play_batch", "ansible_play_hosts",
        "ansible_play_hosts_all", "ansible_play_role_names", "ansible_playbook_python", "ansible_role_name",
        "ansible_role_names", "ansible_run_tags", "ansible_skip_tags", "ansible_verbosity",
        "ansible_version", "inventory_dir", "inventory_file", "inventory_hostname",
        "inventory_hostname_short", "groups", "group_names", "hostvars", "playbook_dir", "play_hosts",
        "role_name", "role_names", "role_path", "role_uuid",
    )
)
# fmt: on


def as_ansible(inventory: Inventory, limit: Collection[str] | None = None) -> dict[str, Any]:
    """Return the output of `ansible-inventory --list`, for all hosts or those of `limit`."""
    wanted = frozenset(inventory.hosts if limit is None else limit)
    shown = _PrintableVariables(inventory)
    hostvars = {}
    for host in inventory.hosts:
        if host in wanted and (variables := shown.variables(host)):
            hostvars[host] = variables
    groups: dict[str, Any] = {"_meta": {"hostvars": hostvars, "profile": "inventory_legacy"}}
    for name, group in inventory.groups.items():
        entry: dict[str, Any] = {}
        if name != "all" and (hosts := [host for host in group.hosts if host in wanted]):
            entry["hosts"] = hosts
        if group.children:
            entry["children"] = list(group.children)
        if entry:
            groups[name] = entry
    return groups


def as_host_variables(inventory: Inventory, name: str) -> dict[str, Any]:
    """Return the output of `ansible-inventory --host`. Raises InventoryError."""
    inventory.host(name)
    return _PrintableVariables(inventory).variables(name)


def as_graph(inventory: Inventory, group: str = "all") -> str:
    """Return the output of `ansible-inventory --graph`. Raises InventoryError for a group that is not
    there."""
    if group not in inventory.groups:
        hint = spelling_hint(group, inventory.groups)
        raise InventoryError(f'there is no group "{group}" in the inventory', hint=hint)
    lines: list[str] = []
    _draw_group(inventory, group, 0, lines)
    return "\n".join(lines)


def _draw_group(inventory: Inventory, name: str, depth: int, lines: list[str]) -> None:
    branch = "  |" * depth + "--" if depth else ""
    lines.append(f"{branch}@{name}:")
    for child in inventory.groups[name].children:
        _draw_group(inventory, child, depth + 1, lines)
    if name != "all":
        branch = "  |" * (depth + 1) + "--"
        lines += [branch + host for host in inventory.groups[name].hosts]


def as_json(value: Any) -> str:
    """Return JSON as Ansible lays it out: keys sorted, indented by four; text stays as it is."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=4).decode()


class _PrintableVariables:
    """Variables ready to print; what hosts share is prepared once."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._telling: dict[str, bool] = {}
        self._bases: dict[tuple[str, ...], dict[str, Any]] = {}

    def variables(self, host: str) -> dict[str, Any]:
        entry = self._inventory.hosts[host]
        base = self._bases.get(entry.groups)
        if base is None:
            # a host without variables of its own stands for all that share its groups
            base = self._convert_map(self._inventory.shared(entry.groups))
            self._bases[entry.groups] = base
        if not entry.vars and not entry.files:
            return base
        merged = dict(base)
        for scope in (*entry.vars, *entry.files):
            merged.update(self._convert_map(scope))
        return merged

    def _convert_map(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self._convert_named(name, value)
            for name, value in variables.items()
            if name not in _INTERNAL
        }

    def _convert_named(self, name: str, value: Any) -> Any:
        telling = self._telling.get(name)
        if telling is None:
            telling = self._telling[name] = bool(TELLTALE.search(name))
        if telling and value is not None and not isinstance(value, bool):
            return "***"
        return value if type(value) in (str, int) else self._convert_value(value)

    def _convert_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._convert_named(name, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._convert_value(item) for item in value]
        if isinstance(value, SecretRef | Secret):
            return "***"
        if isinstance(value, UnsafeText):
            return {"__ansible_unsafe": str(value)}
        return value
