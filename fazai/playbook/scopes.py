"""The variables of a host by precedence: inventory, play, extra variables, and fazai's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fazai.errors import Mark
from fazai.inventory import Inventory
from fazai.model import Value
from fazai.playbook.nodes import Play
from fazai.template import HostVars, Scope, Templates
from fazai.yamltext import YamlMap


class HostScopes:
    """Builds a scope when one is asked for: most hosts share all they have, and many need none."""

    def __init__(self, inventory: Inventory, templates: Templates, extra: Mapping[str, Value]) -> None:
        self.inventory = inventory
        self.templates = templates
        self.extra = extra
        self._groups: dict[str, Value] = {}
        self._others: dict[str, Scope] = {}
        self._hostvars = HostVars(inventory.hosts, self._other_scope)

    def host(self, host: str, play: Play | None = None) -> Scope:
        """The variables of a host, in a play if one is given. The later wins: inventory, play, extra
        variables, and what fazai itself says of the host."""
        scope = self.templates.scope(self.inventory.variables(host), partial(self.place, host))
        if play is not None and play.vars:
            scope = scope.child(play.vars, play.vars.mark)
        if self.extra:
            scope = scope.child(self.extra)
        own = self._own_variables(host)
        if play is not None:
            own["playbook_dir"] = str(play.path.absolute().parent)
        return scope.having(own)

    def raw(self, host: str) -> Mapping[str, Value]:
        """The variables of a host, not rendered."""
        found = self.inventory.variables(host)
        return {**found, **self.extra} if self.extra else found

    def place(self, host: str, name: str) -> Mark | None:
        """Return the place of the value that wins."""
        scope = self.node(host, name)
        return scope.mark(name) if scope is not None else None

    def node(self, host: str, name: str) -> YamlMap | None:
        """The mapping in which the value that wins stands."""
        if name in self.extra:
            return self.extra if isinstance(self.extra, YamlMap) else None
        return next((scope for scope in reversed(self.inventory.scopes(host)) if name in scope), None)

    def _other_scope(self, host: str) -> Scope:
        scope = self._others.get(host)
        if scope is None:
            scope = self._others[host] = self.host(host)
        return scope

    def _own_variables(self, host: str) -> dict[str, Value]:
        """Return fazai's own variables of the host; those that all hosts share are made once."""
        if not self._groups:
            self._groups = {name: list(self.inventory.members(name)) for name in self.inventory.groups}
        return {**self.inventory.magic(host), "groups": self._groups, "hostvars": self._hostvars}
