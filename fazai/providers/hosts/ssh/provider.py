"""The provider `ssh`: its options and sessions. Light to import: asyncssh comes with the first connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from fazai.model import FieldSpec, Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.provider import ShellProvider
from fazai.providers.hosts.shell.become import become_of
from fazai.providers.hosts.shell.channel import ShellChannel
from fazai.providers.hosts.ssh.settings import OPTIONS, Hop, find_ssh_problems, settings_of

if TYPE_CHECKING:
    from fazai.providers.hosts.ssh.connecting import Connections


class SshProvider(ShellProvider):
    """Provider of Linux (and other POSIX) hosts over SSH."""

    name = "ssh"

    @property
    def options(self) -> Mapping[str, FieldSpec]:
        return OPTIONS

    @cached_property
    def connections(self) -> Connections:
        from fazai.providers.hosts.ssh.connecting import Connections

        return Connections()

    @cached_property
    def _loading(self) -> Thread:
        """Imports asyncssh, which takes as long as all the rest and waits for programs that look for a
        library; meanwhile the inventory can be resolved."""
        thread = Thread(target=import_module, args=("fazai.providers.hosts.ssh.transport",), daemon=True)
        thread.start()
        return thread

    def warm(self) -> None:
        """Begin to import asyncssh (`model.Warming`)."""
        self._loading  # noqa: B018 - begins once

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        return find_ssh_problems(target)

    def box_of(self, target: Target) -> str:
        """Name the server that is reached, and the way there; whoever logs in."""
        settings = settings_of(target)
        way = "".join(f" via {_host_and_port(hop)}" for hop in settings.jumps or ())
        config = f" as {settings.config} has it" if settings.config else ""
        return f"ssh://{_host_and_port(settings.hop)}{read_option(target, 'root', default='')}{way}{config}"

    def starter(self, target: Target, timeout_s: float) -> Callable[[], Awaitable[ShellChannel]]:
        from fazai.providers.hosts.ssh.transport import start_ssh_shell

        settings, become = settings_of(target), become_of(target)
        settings = replace(settings, connect_timeout_s=min(settings.connect_timeout_s, timeout_s))
        return lambda: start_ssh_shell(target.name, settings, become, self.connections, timeout_s)


def _host_and_port(hop: Hop) -> str:
    """Return host and port in one notation."""
    return f"{hop.host.lower().removesuffix('.')}:{hop.port or 22}"


PROVIDER = SshProvider()
