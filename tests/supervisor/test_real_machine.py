"""The agent as it is installed: over a real OpenSSH server, kept by a real systemd, as a user of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai.errors import ExitCode
from fazai.providers.hosts.agent.files import shipped_version
from tests.agent.receiver import Receiver
from tests.hosts.booted import booted
from tests.hosts.conftest import World
from tests.hosts.machines import Machine, missing
from tests.hosts.sshd import SSHD, Sshd
from tests.supervisor.conftest import until

pytestmark = pytest.mark.slow

UNIT = "fazai-telemetry"


def _shown(machine: Machine, name: str) -> str:
    return machine.run(f"systemctl show -P {name} {UNIT}").strip()


def test_the_life_of_an_agent(world: World, tmp_path: Path) -> None:
    if SSHD is None:
        missing("OpenSSH's server is not installed (sshd)")
    with (
        Receiver().serve() as receiver,
        booted(tmp_path / "machine", apart=False) as machine,
        Sshd(tmp_path / "sshd", enter=tuple(machine.argv())) as server,
    ):
        machine.run("mkdir -p /run/sshd")
        world.ssh(server, "web", root=None, ansible_user="root")
        fields = {"server": receiver.url, "interval": 60, "settings": {"backoff_min_s": "0.05"}}

        def apply(state: str = "present", **more: Any) -> dict[str, Any]:
            wanted = {**fields, **more} if state == "present" else {"state": state}
            found = world.fazai(
                "apply", "--yes", "--output", "json", resources=[{"host.telemetry_agent": wanted}]
            )
            assert found.code == ExitCode.OK, found.out + found.err
            (target,) = found.document["targets"]
            assert isinstance(target, dict)
            return target

        assert apply()["status"] == "changed"
        assert receiver.store  # it had delivered before the run said so
        assert apply()["status"] == "converged"
        user = machine.run(f"ps -o user= -p {_shown(machine, 'MainPID')}").strip()
        assert user == machine.run("id -un fazai-agent").strip() != "root"
        assert machine.run("getent passwd fazai-agent").strip().rpartition("/")[2] in ("nologin", "false")
        assert int(_shown(machine, "MemoryMax")) < 2**30  # the unit's limits hold
        assert _shown(machine, "NoNewPrivileges") == "yes"

        first = _shown(machine, "MainPID")
        machine.run(f"systemctl kill -s KILL {UNIT}")
        until(lambda: _shown(machine, "MainPID") not in ("0", first), 60)
        machine.run(f"systemctl stop {UNIT}")
        target = apply()
        assert target["changes"][0]["before"]["running"] == "inactive"
        assert _shown(machine, "ActiveState") == "active"
        script = machine.folder / "upper/opt/fazai/agent/telemetry.sh"
        script.write_text(script.read_text().replace(f"VERSION={shipped_version()}", "VERSION=0.0.9"))
        assert apply(interval=30)["changes"][0]["before"]["version"] == "0.0.9"
        assert apply("absent")["status"] == "changed"
        assert apply("absent")["status"] == "converged"
        assert machine.run("id fazai-agent 2>&1 || true").startswith("id: ")
        assert _shown(machine, "LoadState") == "not-found"
