"""The provider `local`: its options and sessions."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from fazai.model import Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.provider import ShellProvider
from fazai.providers.hosts.shell.become import become_of
from fazai.providers.hosts.shell.channel import ShellChannel


class LocalProvider(ShellProvider):
    """Provider of the machine that fazai runs on, or of a folder of it."""

    name = "local"

    def box_of(self, target: Target) -> str:
        """Name the folder that is the root: two names of one machine are one."""
        return f"local:{os.path.realpath(str(read_option(target, 'root', default='') or '/'))}"

    def starter(self, target: Target, timeout_s: float) -> Callable[[], Awaitable[ShellChannel]]:
        from fazai.providers.hosts.local.transport import start_local_shell

        root, become = str(read_option(target, "root", default="")), become_of(target)
        return lambda: start_local_shell(target.name, become, root, timeout_s=timeout_s)


PROVIDER = LocalProvider()
