"""The agent itself under its own unit: a real systemd, a real daemon, what it runs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai import __version__
from tests.daemon.southbound.client import execute, local_relay
from tests.hosts.booted import booted
from tests.hosts.conftest import World
from tests.hosts.machines import missing
from tests.hosts.sshd import SSHD, Sshd
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet
from tests.supervisor.remote.test_real_agent import altered, program, row_of, serving

__all__ = ["program"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("reconcile", ["look", "yes"])
def test_it_runs_what_its_policy_allows(
    reconcile: str, world: World, program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SSHD is None:
        missing("OpenSSH's server is not installed (sshd)")
    with (
        serving(tmp_path, monkeypatch) as daemon,
        booted(tmp_path / "machine", apart=False) as machine,
        Sshd(tmp_path / "sshd", enter=tuple(machine.argv())) as server,
    ):
        machine.run("mkdir -p /run/sshd /srv/app && chmod 777 /srv/app")
        fleet = Fleet(world, f"wss://127.0.0.1:{daemon.daemon.agent_addresses[0][1]}", server)
        world.ssh(server, "edge-1", root=None, ansible_user="root", timeout=240)
        for name in ("init", "signing_key"):
            del fleet.fields[name]
        fleet.fields |= {
            "trial": 30,
            "reconcile": reconcile,
            "programs": [
                {"path": "/usr/bin/id", "args": ["-un"]},
                {"path": "/usr/bin/touch", "args": [{"pattern": "/(etc|srv/app)/mark"}]},
            ],
            "files": [{"root": "/srv/app", "write": True}],
        }
        pyz = world.folder / "agent.pyz"
        pyz.write_bytes(program)
        done = fleet.fazai("apply")
        assert done.code == 0, done.out + done.err
        row = row_of(daemon, "edge-1")
        assert (row["version"], row["reconcile"]) == (__version__, reconcile)
        assert "RESULT 0 changed" in fleet.fazai("apply").out

        with local_relay(tmp_path / "agents.sock") as relay:

            def run(number: int, command: str, *args: str) -> dict[str, Any]:
                message = execute(f"act-{number}", *args, command=command)
                found: dict[str, Any] = relay.ask("edge-1", message)["answer"]
                return found

            own = machine.run("id -un fazai-remote || true").strip()
            assert run(1, "/usr/bin/id", "-un")["stdout"].strip() == ("root" if reconcile == "yes" else own)
            assert run(2, "/usr/bin/touch", "/srv/app/mark")["exit_code"] == 0
            held = run(3, "/usr/bin/touch", "/etc/mark")
            assert (held["exit_code"] == 0) is (reconcile == "yes"), held
        pyz.write_bytes(altered(program, "fazai/agent/__init__.py", '"""', '"""', "9.1.0"))
        updated = fleet.fazai("agents", "update")
        assert updated.code == 0, updated.out + updated.err
        assert row_of(daemon, "edge-1")["version"] == "9.1.0"
        assert fleet.fazai("agents", "remove", "--yes").code == 0
        until(lambda: row_of(daemon, "edge-1").get("state") == "closing")
