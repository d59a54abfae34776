"""The provider `local`: its options and sessions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fazai.model import Session, Target
from fazai.providers.hosts.options import read_option
from fazai.providers.hosts.provider import HostProvider
from fazai.providers.hosts.shell.become import become_of, become_problems


class LocalProvider(HostProvider):
    """Provider of the machine that fazai runs on, or of a folder of it."""

    name = "local"

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        return become_problems(target)

    def box_of(self, target: Target) -> str:
        """Name the folder that is the root: two names of one machine are one."""
        return f"local:{os.path.realpath(str(read_option(target, 'root', default='') or '/'))}"

    def connect(self, target: Target) -> Session:
        from fazai.providers.hosts.local.transport import start_local_shell
        from fazai.providers.hosts.session import HostSession

        become = become_of(target)
        root = str(read_option(target, "root", default=""))
        timeout_s = float(read_option(target, "timeout", default=60))
        return HostSession(
            target,
            self.host_kinds,
            lambda: start_local_shell(target.name, become, root, timeout_s=timeout_s),
            timeout_s=timeout_s,
            root=root,
        )


PROVIDER = LocalProvider()
