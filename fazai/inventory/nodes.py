"""The inventory as a value. Variables stay as the files hold them, and are merged when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from fazai.errors import InventoryError, Mark, spelling_hint
from fazai.model import Value
from fazai.yamltext import YamlList, YamlMap

#: Variables as they stand in one place, without `resources`.
VariableMaps = tuple[YamlMap, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """One group. `depth` is the longest way from "all". `files` holds, for each vars folder, what
    `group_vars` says."""

    name: str
    mark: Mark | None
    depth: int
    priority: int
    hosts: tuple[str, ...]  # its own, in order
    children: tuple[str, ...]
    parents: tuple[str, ...]
    vars: VariableMaps = ()
    files: tuple[VariableMaps, ...] = ()
    resources: tuple[YamlList, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `groups` are all that it is in, least specific first. `vars` go before `files`
    (host_vars)."""

    name: str
    mark: Mark | None
    groups: tuple[str, ...]
    source: str  # the first source that names it
    vars: VariableMaps = ()
    files: VariableMaps = ()
    resources: tuple[YamlList, ...] = ()


@dataclass(frozen=True, slots=True)
class _GroupVariables:
    """The variables that all hosts of the same groups have in common."""

    scopes: VariableMaps
    merged: dict[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """Targets, groups, variables and resources; see `load_inventory`. `hosts` are in the order of their
    first mention.

    `digest` covers every byte that was read and the files' names relative to their source. `notes` are
    sentences for the operator about what is odd but not wrong. `whole`: nothing is missing of it; else it
    is the `rest` of an error, and what seems to be nowhere may stand in what could not be read. `skipped`:
    what lies in the folders and is something else; a sentence for each folder.
    """

    sources: tuple[str, ...]
    groups: Mapping[str, Group]
    hosts: Mapping[str, Host]
    playbooks: tuple[tuple[Path, Mark], ...]
    digest: str
    notes: tuple[str, ...] = ()
    whole: bool = True
    skipped: tuple[str, ...] = ()
    _shared: dict[tuple[str, ...], _GroupVariables] = field(default_factory=dict, repr=False)
    _members: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def host(self, name: str) -> Host:
        """Return a host. Raises InventoryError, with the nearest name."""
        if name not in self.hosts:
            hint = spelling_hint(name, self.hosts)
            raise InventoryError(f'there is no host "{name}" in the inventory', hint=hint)
        return self.hosts[name]

    def without_resources(self) -> Inventory:
        """Return the same hosts, groups and variables, and nothing that is declared for them."""
        groups = {name: replace(group, resources=()) for name, group in self.groups.items()}
        hosts = {name: replace(host, resources=()) for name, host in self.hosts.items()}
        return replace(self, groups=groups, hosts=hosts, playbooks=())

    def variables(self, host: str) -> Mapping[str, Value]:
        """The host's variables, merged by Ansible's precedence, raw. Not to be changed: hosts share them."""
        entry = self.host(host)
        shared = self._group_variables(entry.groups)
        if not entry.vars and not entry.files:
            return MappingProxyType(shared.merged)
        merged = dict(shared.merged)
        for scope in (*entry.vars, *entry.files):
            merged.update(scope)
        return merged

    def shared(self, groups: tuple[str, ...]) -> Mapping[str, Value]:
        """The variables of a host that is in exactly these groups (`Host.groups`) and has none of its own."""
        return MappingProxyType(self._group_variables(groups).merged)

    def scopes(self, host: str) -> VariableMaps:
        """The places that the host's variables come from, the weakest first."""
        entry = self.host(host)
        return (*self._group_variables(entry.groups).scopes, *entry.vars, *entry.files)

    def magic(self, host: str) -> Mapping[str, Value]:
        """The variables that every host has by itself, as in Ansible; they win over the user's. `groups`,
        which is the same for all hosts, is made of `members` by who needs it."""
        entry = self.host(host)
        directory = str(Path(entry.source).absolute().parent) if entry.source else None
        return {
            "inventory_hostname": host,
            "inventory_hostname_short": host if _is_ip_address(host) else host.split(".", 1)[0],
            "group_names": sorted(name for name in entry.groups if name != "all"),
            "inventory_file": str(Path(entry.source).absolute()) if entry.source else None,
            "inventory_dir": directory,
        }

    def layers(self, host: str) -> tuple[YamlList, ...]:
        """The lists of resources that apply to the host: "all" first, then its groups by depth, priority and
        name, then its own."""
        entry = self.host(host)
        shared = (resources for name in entry.groups for resources in self.groups[name].resources)
        return (*shared, *entry.resources)

    def members(self, group: str) -> tuple[str, ...]:
        """The hosts of a group and of all groups below it, level by level, each once."""
        if group not in self._members:
            found = (host for name in self._groups_below(group) for host in self.groups[name].hosts)
            self._members[group] = tuple(dict.fromkeys(found))
        return self._members[group]

    def _groups_below(self, group: str) -> list[str]:
        """The group and its descendants, breadth first, in the order of the files."""
        order = [group]
        seen = {group}
        for name in order:  # grows while it is walked
            for child in self.groups[name].children:
                if child not in seen:
                    seen.add(child)
                    order.append(child)
        return order

    def _group_variables(self, groups: tuple[str, ...]) -> _GroupVariables:
        known = self._shared.get(groups)
        if known is None:
            scopes = tuple(self._scopes_of(groups))
            merged: dict[str, Value] = {}
            for scope in scopes:
                merged.update(scope)
            known = self._shared[groups] = _GroupVariables(scopes, merged)
        return known

    def _scopes_of(self, groups: tuple[str, ...]) -> list[YamlMap]:
        """Return the scopes in Ansible's order: inventory files ("all", then groups), group_vars of "all",
        of the groups. Of several vars folders a later one wins over an earlier one, whatever the group."""
        members = [self.groups[name] for name in groups]
        found = [scope for group in members for scope in group.vars]
        everyone = [group for group in members if group.name == "all"]
        others = [group for group in members if group.name != "all"]
        for some in (everyone, others):
            folders = max((len(group.files) for group in some), default=0)
            for index in range(folders):
                found += [scope for group in some for scope in (group.files[index] if group.files else ())]
        return found


def _is_ip_address(name: str) -> bool:
    return ":" in name or (name.count(".") == 3 and name.replace(".", "").isdigit())
