"""The remote agent as it is installed: over a real OpenSSH server, kept by a real systemd, as a user of its
own. What it speaks to is the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts.booted import booted
from tests.hosts.conftest import World
from tests.hosts.machines import Machine, missing
from tests.hosts.sshd import SSHD, Sshd
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet
from tests.supervisor.remote.hub import Hub

pytestmark = pytest.mark.slow

UNIT = "fazai-agent"
STATE = "upper/var/lib/fazai-remote"


@dataclass
class Edge:
    """A machine with a fleet of one."""

    fleet: Fleet
    machine: Machine

    def shown(self, name: str) -> str:
        return self.machine.run(f"systemctl show -P {name} {UNIT}").strip()

    def version(self) -> str:
        row = self.fleet.hub.rows.get("edge-1", {})
        return str(row["version"]) if row.get("state") == "observation" else ""

    def program(self) -> bytes:
        return (self.machine.folder / "upper/opt/fazai/agent/fazai-agent.pyz").read_bytes()


@pytest.fixture
def edge(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    if SSHD is None:
        missing("OpenSSH's server is not installed (sshd)")
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    with (
        Hub(tmp_path / "state", tmp_path / "secrets").serve() as hub,
        booted(tmp_path / "machine", apart=False) as machine,
        Sshd(tmp_path / "sshd", enter=tuple(machine.argv())) as server,
    ):
        monkeypatch.setenv("FAZAI_URL", hub.url)
        machine.run("mkdir -p /run/sshd")
        fleet = Fleet(world, f"https://127.0.0.1:{hub.port}", server)
        fleet.hub = hub
        world.ssh(server, "edge-1", root=None, ansible_user="root", timeout=240)
        del fleet.fields["init"]
        fleet.fields["trial"] = 5
        yield Edge(fleet, machine)


def test_the_life_of_an_agent(edge: Edge) -> None:
    fleet, machine = edge.fleet, edge.machine
    first = fleet.fazai("apply")
    assert first.code == 0, first.out + first.err
    assert edge.version() == "1.0.0"  # it was connected before the run said so
    assert "RESULT 0 changed" in fleet.fazai("apply").out
    user = machine.run(f"ps -o user= -p {edge.shown('MainPID')}").strip()
    assert user == machine.run("id -un fazai-remote").strip() != "root"
    for name, mode in (
        ("/etc/fazai/agent", "700"),
        ("/etc/fazai/agent/key.pem", "600"),
        ("/etc/fazai/agent.yml", "600"),
    ):
        assert machine.run(f"stat -c '%a %U' {name}").strip() == f"{mode} fazai-remote"
    assert edge.shown("NoNewPrivileges") == "yes"

    fleet.version("1.1.0")
    assert fleet.fazai("apply").code == 0
    assert edge.version() == "1.1.0"
    machine.run(f"systemctl stop {UNIT}")
    drift = fleet.fazai("drift", "--output", "json").document["targets"][0]["changes"][0]
    assert drift["before"]["running"] == "inactive"
    assert fleet.fazai("apply").code == 0
    assert edge.version() == "1.1.0"
    before = edge.shown("MainPID")
    assert fleet.fazai("agents", "restart").code == 0
    assert edge.shown("MainPID") != before
    until(lambda: edge.version() == "1.1.0")
    row = json.loads(fleet.fazai("agents", "status", "--output", "json").out)["edge-1"]["remote"]
    assert (row["well"], row["init"], row["running"]) == (True, "systemd", True)

    root = fleet.fazai("apply", reconcile="yes")  # which takes root
    assert root.code == 0, root.out + root.err
    assert machine.run(f"ps -o user= -p {edge.shown('MainPID')}").strip() == "root"
    assert "RESULT 0 changed" in fleet.fazai("apply", reconcile="yes").out
    back = fleet.fazai("apply")
    assert back.code == 0, back.out + back.err
    assert "RESULT 0 changed" in fleet.fazai("apply").out

    assert fleet.fazai("agents", "remove", "--yes").code == 0
    assert machine.run("id fazai-remote 2>&1 || true").startswith("id: ")
    assert edge.shown("LoadState") == "not-found"
    assert "RESULT 0 changed" in fleet.fazai("apply", "--yes", state="absent").out


@pytest.mark.parametrize("build", ["refused", "hangs", "ends"])
def test_an_update_that_is_not_accepted_is_taken_back(build: str, edge: Edge) -> None:
    fleet = edge.fleet
    assert fleet.fazai("apply").code == 0
    old = edge.program()
    fleet.hub.refuses = {"1.1.0"}
    fleet.version("1.1.0", "good" if build == "refused" else build)
    done = fleet.fazai("apply")
    assert done.code == 1, done.out
    assert "what was there before is put back" in done.out
    until(lambda: edge.version() == "1.0.0")
    assert edge.program() == old
    fleet.version("1.0.0")
    assert "RESULT 0 changed" in fleet.fazai("apply").out


def test_a_machine_without_a_python_is_told_what_to_install(edge: Edge) -> None:
    hidden = "for p in /usr/bin/python3* /usr/local/bin/python3*; do [ ! -e $p ] || mv $p $p.gone; done"
    edge.machine.run(f"{hidden}; [ ! -d /root/.pyenv ] || mount -t tmpfs tmpfs /root/.pyenv")
    done = edge.fleet.fazai("plan")
    assert done.code == 1, done.out
    assert "no Python 3.9 or newer is there, and the agent needs one" in done.out
    assert "hint: apt-get install python3" in done.out
    old = "#!/bin/sh\\n[ $1 = -V ] || exit 1\\necho Python 3.6.8\\n"
    edge.machine.run(f"printf '{old}' >/usr/bin/python3; chmod 755 /usr/bin/python3")
    assert "no Python 3.9 or newer is there (there is 3.6.8)" in edge.fleet.fazai("plan").out


def test_a_first_agent_that_is_refused_stays_and_is_drift(edge: Edge) -> None:
    fleet = edge.fleet
    fleet.hub.refuses = {"1.0.0"}
    done = fleet.fazai("apply")
    assert done.code == 1, done.out
    assert "version 1.0.0 is not wanted here" in done.out
    assert edge.shown("ActiveState") == "active"
    until(lambda: fleet.fazai("drift").code == 2)
    drift = fleet.fazai("drift", "--output", "json").document["targets"][0]["changes"][0]
    assert drift["before"]["connection"] == "version 1.0.0 is not wanted here"
    fleet.hub.refuses = set()
    until(lambda: edge.version() == "1.0.0")
    assert "RESULT 0 changed" in fleet.fazai("apply").out
