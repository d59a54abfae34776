"""The provider `local`: options, and sessions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fazai.model import Session, Target
from fazai.providers.hosts.provider import HostProvider, option
from fazai.providers.hosts.shell.become import become_of, become_problems

__all__ = ["PROVIDER", "LocalProvider"]


class LocalProvider(HostProvider):
    """The machine that fazai runs on."""

    name = "local"

    def problems(self, target: Target) -> Iterator[tuple[str, str, str | None]]:
        return become_problems(target)

    def box_of(self, target: Target) -> str:
        """The folder that is its root: two names of one machine are one."""
        return f"local:{os.path.realpath(str(option(target, 'root', default='') or '/'))}"

    def connect(self, target: Target) -> Session:
        from fazai.providers.hosts.local.transport import start
        from fazai.providers.hosts.session import HostSession

        become = become_of(target)
        root = str(option(target, "root", default=""))
        timeout_s = float(option(target, "timeout", default=60))
        return HostSession(
            target,
            self.host_kinds,
            lambda: start(target.name, become, root, timeout_s=timeout_s),
            timeout_s=timeout_s,
            root=root,
        )


PROVIDER = LocalProvider()
