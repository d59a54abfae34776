"""The inventory while it is being read: groups and hosts that still grow."""

from __future__ import annotations

from dataclasses import dataclass, field

from fazai.errors import FazaiError, InventoryError, Mark
from fazai.inventory.nodes import Group, Host, VariableMaps
from fazai.yamltext import YamlList, YamlMap


@dataclass(slots=True)
class GroupDraft:
    name: str
    mark: Mark | None
    node: YamlMap | None = None  # where it is named first
    priority: int = 1
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    vars: list[YamlMap] = field(default_factory=list)
    files: tuple[VariableMaps, ...] = ()  # from each folder of group_vars, once one has some
    resources: list[YamlList] = field(default_factory=list)


@dataclass(slots=True)
class HostDraft:
    name: str
    node: YamlMap  # where it is named first: its mark is made when the host is
    key: str
    source: str
    vars: list[YamlMap] = field(default_factory=list)
    files: VariableMaps = ()  # from host_vars
    resources: list[YamlList] = field(default_factory=list)


class InventoryDraft:
    """Groups and hosts by name. "all" and "ungrouped" are always there."""

    def __init__(self) -> None:
        self.groups = {"all": GroupDraft("all", None), "ungrouped": GroupDraft("ungrouped", None)}
        self.hosts: dict[str, HostDraft] = {}
        self.adopt("all", "ungrouped")

    def group(self, name: str, node: YamlMap) -> GroupDraft:
        """The group that stands as a key of `node`; a new one when it comes for the first time."""
        draft = self.groups.setdefault(name, GroupDraft(name, None))
        if draft.node is None:
            draft.mark, draft.node = node.key_mark(name), node
        return draft

    def adopt(self, parent: str, child: str) -> None:
        """Make one group the child of another. Raises ValueError for a loop."""
        if child in self.groups[parent].children:
            return
        if child == parent:
            raise ValueError(f'the group "{child}" is its own child')
        if child in self._groups_above(parent):
            raise ValueError(f'the group "{child}" is above "{parent}" already: the groups would form a loop')
        self.groups[parent].children[child] = None
        self.groups[child].parents[parent] = None

    def settle(self) -> list[FazaiError]:
        """Apply Ansible's rules for what no file says: every group is below "all", every host in some group.

        Returns what is wrong with the whole."""
        errors: list[FazaiError] = []
        for name, group in self.groups.items():
            if name != "all" and not group.parents:
                try:
                    self.adopt("all", name)
                except ValueError:
                    text = f'the group "all" is a child of "{name}", or of a group below it'
                    errors.append(_draft_error(text, group.node, name, "every group is below all by itself"))
        for name in sorted(self.groups.keys() & self.hosts.keys()):
            host = self.hosts[name]
            hint = "rename one of them: Ansible would give the host's variables to the group"
            errors.append(_draft_error(f'"{name}" is a group and a host', host.node, host.key, hint))
        self._settle_ungrouped()
        return errors

    def _settle_ungrouped(self) -> None:
        direct = self._direct_groups()
        ungrouped = self.groups["ungrouped"].hosts
        above: dict[tuple[str, ...], set[str]] = {}
        for name in self.hosts:
            own = tuple(direct.get(name, ()))
            if own not in above:
                above[own] = {group for start in own for group in self._groups_above(start)}
            others = above[own] - {"all", "ungrouped"}
            if others:
                ungrouped.pop(name, None)
            elif "ungrouped" not in above[own]:
                ungrouped[name] = None

    def finish(self) -> tuple[dict[str, Group], dict[str, Host]]:
        """Return the finished groups and hosts."""
        depths = self._measure_depths()
        groups = {
            name: Group(
                name,
                draft.mark,
                depths[name],
                draft.priority,
                tuple(draft.hosts),
                tuple(draft.children),
                tuple(draft.parents),
                tuple(draft.vars),
                draft.files,
                tuple(draft.resources),
            )
            for name, draft in self.groups.items()
        }
        direct = self._direct_groups()
        closed: dict[tuple[str, ...], tuple[str, ...]] = {}
        hosts: dict[str, Host] = {}
        for name, host in self.hosts.items():
            own = tuple(direct[name])
            if own not in closed:
                names = {group for start in own for group in self._groups_above(start)} | {"all"}
                closed[own] = tuple(sorted(names, key=lambda n: (groups[n].depth, groups[n].priority, n)))
            hosts[name] = Host(
                name,
                host.node.key_mark(host.key),
                closed[own],
                host.source,
                tuple(host.vars),
                host.files,
                tuple(host.resources),
            )
        return groups, hosts

    def _direct_groups(self) -> dict[str, list[str]]:
        direct: dict[str, list[str]] = {}
        for name, group in self.groups.items():
            for host in group.hosts:
                direct.setdefault(host, []).append(name)
        return direct

    def _groups_above(self, group: str) -> set[str]:
        """The group and all groups above it."""
        seen = {group}
        open_ = [group]
        while open_:
            for parent in self.groups[open_.pop()].parents:
                if parent not in seen:
                    seen.add(parent)
                    open_.append(parent)
        return seen

    def _measure_depths(self) -> dict[str, int]:
        """The longest way from "all" to each group: a group is settled when all its parents are."""
        waiting = {name: len(group.parents) for name, group in self.groups.items()}
        depths = dict.fromkeys(self.groups, 0)
        ready = [name for name, parents in waiting.items() if parents == 0]
        while ready:
            name = ready.pop()
            for child in self.groups[name].children:
                depths[child] = max(depths[child], depths[name] + 1)
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)
        return depths


def _draft_error(message: str, node: YamlMap | None, key: str, hint: str) -> InventoryError:
    if node is None:
        return InventoryError(message, hint=hint)
    where = node.key_mark(key)
    return InventoryError(message, where=where, hint=hint, excerpt=node.source.excerpt(where))
