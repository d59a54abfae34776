"""Hosts to run programs on: folders of this machine, and a real OpenSSH server."""

from tests.hosts.conftest import keys, server, world

__all__ = ["keys", "server", "world"]
