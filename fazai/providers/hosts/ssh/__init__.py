"""Hosts over SSH. `PROVIDER` is what the registry looks for."""

from __future__ import annotations

from fazai.providers.hosts.ssh.provider import SshProvider

__all__ = ["PROVIDER"]

PROVIDER = SshProvider()
