"""A hub, hosts that are folders behind a real OpenSSH server, and what keeps their agents running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Result, World, keys, server, world
from tests.hosts.sshd import Sshd
from tests.supervisor.remote.hub import Hub, build_agent

__all__ = ["Fleet", "Keeper", "fleet", "keeper", "keys", "server", "world"]

START = "opt/fazai/agent/fazai-agent.start"


class Keeper:
    """Starts the installed agent of a folder, and starts it again whenever it ends, as an init would."""

    LOOP = 'while [ -x "$1" ]; do "$1" 2>>"$2" </dev/null & wait $!; sleep 0.05; done'

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "var/log").mkdir(parents=True, exist_ok=True)
        self.log = root / "var/log/fazai-agent.log"
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", self.LOOP, "init", root / START, self.log],
            env={"PATH": os.environ["PATH"]},
            start_new_session=True,
        )

    def status(self) -> dict[str, str]:
        try:
            text = (self.root / "var/lib/fazai-remote/status").read_text()
        except FileNotFoundError:
            return {}
        return dict(line.partition("=")[::2] for line in text.splitlines())

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ends by itself when the agent is removed
            os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture
def keeper() -> Iterator[Callable[[Path], Keeper]]:
    started: list[Keeper] = []

    def start(root: Path) -> Keeper:
        started.append(Keeper(root))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def process_parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


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
        """End all that runs on the hosts for a controller, with SIGKILL: nothing of it can tidy up."""
        found = {child.pid for child in self._sshd.children if child.poll() is None}
        while more := {pid for pid, above in process_parents() if above in found} - found:
            found |= more
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

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
