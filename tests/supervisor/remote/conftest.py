"""A hub, hosts that are folders behind a real OpenSSH server, and what keeps their agents running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Result, World, keys, server, world
from tests.hosts.sshd import Sshd
from tests.supervisor.conftest import Restarter, restarters
from tests.supervisor.remote.hub import Hub, build_agent

__all__ = ["Fleet", "Keeper", "fleet", "keeper", "keys", "server", "world"]

START = "opt/fazai/agent/fazai-agent.start"


class Keeper(Restarter):
    """Keeps the remote agent of a folder running."""

    LOOP = 'while [ -x "$1" ]; do "$1" 2>>"$2" </dev/null & wait $!; sleep 0.05; done'

    def __init__(self, root: Path, start: str = "") -> None:
        """`start`: the path of the agent's start, from the folder that stands for `/`."""
        state = root / "var/lib/fazai-remote"
        super().__init__(root, start or root / START, state=state, log="fazai-agent.log")


@pytest.fixture
def keeper() -> Iterator[Callable[..., Keeper]]:
    with restarters(Keeper) as start:
        yield start


def process_parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


def kill_trees(found: set[int]) -> None:
    """End these processes and all below them with SIGKILL: nothing of them can tidy up."""
    found = set(found)
    while more := {pid for pid, above in process_parents() if above in found} - found:
        found |= more
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Fleet:
    """Hosts that declare a remote agent, and the command line on them. `hub`: the small agent's other end."""

    hub: Hub

    def __init__(self, world: World, daemon: str, sshd: Sshd) -> None:
        self.world, self._sshd = world, sshd
        self.fields: dict[str, Any] = {
            "daemon": daemon,
            "signing_key": "/etc/fazai/http.key",  # the small agent's address looks like one that needs it
            "agent_id": "{{ inventory_hostname }}",
            "init": "none",
            "trial": 3,
            "grace": 0,
            "file": "agent.pyz",
        }
        self.version("1.0.0")

    def host(self, name: str = "edge-1") -> Path:
        return self.world.ssh(self._sshd, name)

    def version(self, version: str, behaviour: str = "good") -> None:
        """Have the next run install this one."""
        (self.world.folder / "agent.pyz").write_bytes(build_agent(version, behaviour))

    def kill_sessions(self) -> None:
        """End all that runs on the hosts for a controller."""
        kill_trees({child.pid for child in self._sshd.children if child.poll() is None})

    def inventory(self, **more: Any) -> Path:
        agent = {"state": "absent"} if more.get("state") == "absent" else {**self.fields, **more}
        text = json.dumps({"all": {"hosts": self.world.hosts, "resources": [{"host.agent": agent}]}})
        path = self.world.folder / "inventory.yml"
        path.write_text(text)
        return path

    def fazai(self, command: str, *words: str, **more: Any) -> Result:
        from fazai.cli import main

        path = str(self.inventory(**more))
        first = [command] if command != "agents" else [command, words[0]]
        rest = words if command != "agents" else words[1:]
        self.world.capsys.readouterr()
        code = main([*first, path, *rest])
        said = self.world.capsys.readouterr()
        return Result(code, said.out, said.err)


@pytest.fixture
def fleet(world: World, server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    with Hub(tmp_path / "state", tmp_path / "secrets").serve() as hub:
        monkeypatch.setenv("FAZAI_URL", hub.url)
        found = Fleet(world, f"https://127.0.0.1:{hub.port}", server)
        found.hub = hub
        yield found
