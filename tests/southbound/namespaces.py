"""Two machines and a router between them, as network namespaces of this test's own.

The router can drop all packets without a word, as a cable that is cut far away does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


class Network:
    """Namespaces `a` (agents, 10.77.1.2), `r` (the router) and `d` (the daemon, 10.77.2.2)."""

    daemon_address = "10.77.2.2"

    def __init__(self, mark: str) -> None:
        self._names = {each: f"fz{mark}{each}" for each in "ard"}

    def prefix(self, of: str) -> list[str]:
        return ["ip", "netns", "exec", self._names[of]]

    def make(self) -> None:
        for name in self._names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for end, subnet in (("a", 1), ("d", 2)):
            ours, router = self._names[end], self._names["r"]
            _run(*f"ip -n {ours} link add e0 type veth peer name e{subnet} netns {router}".split())
            _run(*f"ip -n {ours} addr add 10.77.{subnet}.2/24 dev e0".split())
            _run(*f"ip -n {router} addr add 10.77.{subnet}.1/24 dev e{subnet}".split())
            _run(*f"ip -n {ours} link set e0 up".split())
            _run(*f"ip -n {router} link set e{subnet} up".split())
            _run(*f"ip -n {ours} route add default via 10.77.{subnet}.1".split())
        self.mend()

    def cut(self) -> None:
        """Drop every packet between the two: no FIN, no reset, no error."""
        self._forward("0")

    def mend(self) -> None:
        self._forward("1")

    def _forward(self, value: str) -> None:
        command = f"echo {value} > /proc/sys/net/ipv4/ip_forward"
        _run(*self.prefix("r"), "sh", "-c", command)

    def remove(self) -> None:
        for name in self._names.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make the namespaces while the block runs; skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root and the program ip (iproute2)")
    made = Network(f"{os.getpid():x}")
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces can be made here: {error.stderr}")
        yield made
    finally:
        made.remove()
