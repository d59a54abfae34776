"""What providers of hosts have in common: the kinds `host.*`, and the options that every host has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from fazai.errors import InputError, InventoryError
from fazai.model import FieldSpec, Kind, Secret, Target, Value
from fazai.providers.hosts.kind import HostKind
from fazai.providers.hosts.shell.become import BECOME, BECOME_PASSWORD

__all__ = ["COMMON", "HostProvider", "option"]

COMMON: tuple[FieldSpec, ...] = (
    FieldSpec(
        "root",
        "path",
        "a folder that takes the place of / for paths: a lab host is just a directory; lab://NAME is one of"
        " the embedded lab",
    ),
    FieldSpec("timeout", "number", "seconds for one step", default=60, minimum=1, maximum=86400),
    *BECOME,
)


_LOGIN_PASSWORD = ("ansible_password", "ansible_ssh_pass", "password")


class HostProvider:
    """Base of the providers of hosts. Light to import: no connection is made here."""

    noun = "host"
    handlers = True  # what is notified must be declared
    default_mode = "write"  # what an SSH user expects; `mode: read` makes a host read-only

    @property
    def options(self) -> Mapping[str, FieldSpec]:
        """The options of a host; `COMMON`, and what it takes to reach it."""
        return {spec.name: spec for spec in COMMON}

    @cached_property
    def host_kinds(self) -> Mapping[str, HostKind]:
        from fazai.providers.hosts.kinds import all_kinds

        return all_kinds()

    @property
    def kinds(self) -> Mapping[str, Kind]:
        return self.host_kinds

    def with_passwords(self, target: Target, login: Secret | None, become: Secret | None) -> Target:
        """The target with passwords that were asked for, where its inventory names none of its own."""
        options = dict(target.options)
        if login is not None and "password" in self.options and option(target, *_LOGIN_PASSWORD) is None:
            options["password"] = login
        asks_elsewhere = option(target, "ansible_become_method", "become_method") == "doas"  # at a terminal
        if become is not None and not asks_elsewhere and option(target, *BECOME_PASSWORD) is None:
            options["become_password"] = become
        return replace(target, options=options)

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        """Option, what is wrong with it, and a hint."""
        return iter(())

    def check(self, target: Target) -> list[InputError]:
        """All that is wrong with the options, with the place of each."""
        return [
            InventoryError(f"{target.name}: {name} {text}", where=target.where(name), hint=hint)
            for name, text, hint in self.problems(target)
        ]


def option(target: Target, *names: str, default: Value = None) -> Value:
    """The first of these options that is set: Ansible's name stands before ours."""
    for name in names:
        value = target.options.get(name)
        if value is not None:
            return value
    return default
