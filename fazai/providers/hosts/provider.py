"""The base of the providers of hosts: the kinds `host.*`, and the options that every host has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from fazai.errors import InputError, InventoryError
from fazai.model import AgentRegistry, FieldSpec, Secret, Session, Target
from fazai.providers.hosts.kind import HostKind
from fazai.providers.hosts.options import read_option, with_ansible_names
from fazai.providers.hosts.shell.become import BECOME_OPTIONS, become_problems
from fazai.providers.hosts.shell.channel import ShellChannel

if TYPE_CHECKING:
    from typing import Self

COMMON_OPTIONS: tuple[FieldSpec, ...] = (
    FieldSpec(
        "root",
        "path",
        "a folder that takes the place of / for paths: a lab host is just a directory; lab://NAME is one of"
        " the embedded lab",
    ),
    FieldSpec("timeout", "number", "seconds for one step", default=60, minimum=1, maximum=86400),
    *BECOME_OPTIONS,
)


class HostProvider(ABC):
    """Base of the providers of hosts. Light to import: no connection is made here."""

    noun = "host"
    handlers = True  # what is notified must be declared
    default_mode = "write"  # what an SSH user expects; `mode: read` makes a host read-only
    agents: AgentRegistry | None = None

    @property
    @abstractmethod
    def options(self) -> Mapping[str, FieldSpec]:
        """The options of a host."""

    @cached_property
    def kinds(self) -> Mapping[str, HostKind]:
        from fazai.providers.hosts.kinds import load_host_kinds

        return load_host_kinds()

    @abstractmethod
    def connect(self, target: Target) -> Session:
        """Return a session that is not yet connected."""

    def with_passwords(self, target: Target, login: Secret | None, become: Secret | None) -> Target:
        """Return the target with passwords that were asked for, where it takes any and its inventory names
        none of its own."""
        return target

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        """Iterate over what is wrong: the option, the problem, and a hint."""
        return iter(())

    def check(self, target: Target) -> list[InputError]:
        """Return all that is wrong with the options, with the place of each."""
        return [
            InventoryError(f"{target.name}: {name} {text}", where=target.where(name), hint=hint)
            for name, text, hint in self.problems(target)
        ]


class ShellProvider(HostProvider):
    """Base of the providers that reach a host through a shell."""

    @property
    def options(self) -> Mapping[str, FieldSpec]:
        """The options of a host: `COMMON_OPTIONS`, and those that it takes to reach it."""
        return with_ansible_names(COMMON_OPTIONS)

    @abstractmethod
    def starter(self, target: Target, timeout_s: float) -> Callable[[], Awaitable[ShellChannel]]:
        """Return a function that starts a shell on the target, all within the time."""

    def connect(self, target: Target) -> Session:
        from fazai.providers.hosts.session import HostSession

        timeout_s = float(read_option(target, "timeout", default=60))
        root, start = str(read_option(target, "root", default="")), self.starter(target, timeout_s)
        return HostSession(target, self.kinds, start, timeout_s=timeout_s, root=root, agents=self.agents)

    def with_agents(self, agents: AgentRegistry) -> Self:
        """Return the same provider, whose sessions ask this registry of remote agents
        (`model.Registering`)."""
        found = copy(self)
        found.agents = agents
        return found

    def with_passwords(self, target: Target, login: Secret | None, become: Secret | None) -> Target:
        options = dict(target.options)
        if login is not None and "password" in self.options and read_option(target, "password") is None:
            options["password"] = login
        asks_elsewhere = read_option(target, "become_method") == "doas"  # at a terminal
        if become is not None and not asks_elsewhere and read_option(target, "become_password") is None:
            options["become_password"] = become
        return replace(target, options=options)

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        return become_problems(target)
