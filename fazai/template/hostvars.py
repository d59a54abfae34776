"""The variables of other hosts, as templates see them in `hostvars`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from fazai.template.limits import Rendering
from fazai.template.simple import MISSING


class Variables(Protocol):
    """Variables that are rendered when they are asked for (`scope.Scope`)."""

    def find(self, name: str, rendering: Rendering) -> Any:
        """Return the rendered value of a variable, MISSING if there is none."""

    def names(self) -> Iterator[str]:
        """Iterate over the names of all variables."""

    def has(self, name: object) -> bool:
        """Tell whether there is such a variable, whatever its value."""

    def new_rendering(self) -> Rendering:
        """Return the budget of a rendering that begins now."""


class HostVars(Mapping[str, Any]):
    """`hostvars`: the variables of other hosts, each rendered when a template asks for it."""

    what = "hostvars"

    def __init__(self, hosts: Iterable[str], scope: Callable[[str], Variables]) -> None:
        self._hosts = dict.fromkeys(hosts)
        self._scope = scope

    def __getitem__(self, host: str) -> HostView:
        if host not in self._hosts:
            raise KeyError(host)
        return HostView(self._scope(host))

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)


class HostView(Mapping[str, Any]):
    """One host's variables. `rendering` is the one that asks; without it, each look-up has one of its own."""

    what = "the host"

    def __init__(self, scope: Variables, rendering: Rendering | None = None) -> None:
        self._scope = scope
        self._rendering = rendering

    def bound(self, rendering: Rendering) -> HostView:
        return HostView(self._scope, rendering)

    def __getitem__(self, name: str) -> Any:
        value = self._scope.find(name, self._rendering or self._scope.new_rendering())
        if value is MISSING:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return self._scope.has(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._scope.names()))

    def __len__(self) -> int:
        return len(set(self._scope.names()))
