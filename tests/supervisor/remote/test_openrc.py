"""The remote agent under OpenRC, with busybox, in a machine to throw away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.agents.registry import DaemonAgents
from fazai.errors import DeviceError
from fazai.model import Resource
from tests.hosts.helpers import Host, resource
from tests.hosts.kinds.test_real_services import _SYSINIT
from tests.hosts.machines import Machine
from tests.supervisor.conftest import until
from tests.supervisor.remote.hub import Hub, build_agent
from tests.supervisor.test_other_inits import process_status

pytestmark = pytest.mark.slow


@pytest.fixture
def openrc(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine.made(tmp_path / "machine", "busybox", apart=False)
    machine.add("openrc")
    machine.put("/run/openrc/softlevel", "default\n", 0o644)
    machine.run(_SYSINIT)
    yield machine
    machine.run("rc-service fazai-agent stop; true")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("FAZAI_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "state"))
    with Hub(tmp_path / "state", tmp_path / "secrets").serve() as found:
        monkeypatch.setenv("FAZAI_URL", found.url)
        yield found


def agent(hub: Hub, version: str, state: str = "present", **more: Any) -> Resource:
    fields = {
        "daemon": f"https://127.0.0.1:{hub.port}",
        "signing_key": "/etc/fazai/http.key",
        "agent_id": "edge-1",
        "trial": 5,
        "grace": 60,
        "file": build_agent(version),
    }
    return resource("host.agent", {**fields, **more} if state == "present" else {}, state)


def managed(machine: Machine) -> Host:
    host = machine.host()
    host.session._agents = DaemonAgents()
    return host


def test_the_life_of_an_agent(openrc: Machine, hub: Hub) -> None:
    def version() -> str:
        row = hub.rows["edge-1"]
        return str(row["version"]) if row["state"] == "observation" else ""

    async def run() -> None:
        host = managed(openrc)
        async with host.session:
            await host.converge(agent(hub, "1.0.0"))
            until(lambda: version() == "1.0.0")
            # its files are read here: a second overlay on the same folder would spoil the first one
            script = openrc.folder / "upper/etc/init.d/fazai-agent"
            assert script.read_text().startswith("#!/sbin/openrc-run")
            assert (await host.look(agent(hub, "1.0.0"))).changes == ()
            await host.converge(agent(hub, "1.1.0"))
            until(lambda: version() == "1.1.0")
            hub.refuses = {"1.2.0"}
            (change,) = (await host.look(agent(hub, "1.2.0"))).changes
            with pytest.raises(DeviceError, match=r"version 1\.2\.0 is not wanted here"):
                await host.session.write(change)
            until(lambda: version() == "1.1.0")
            pid = (openrc.folder / "upper/var/lib/fazai-remote/pid").read_text().strip().removeprefix("pid=")
            process = process_status(pid)
            assert "NoNewPrivs:\t1" in process
            assert "Uid:\t0" not in process
            await host.converge(agent(hub, "1.1.0", "absent"))

    asyncio.run(run())
    left = [path for path in openrc.folder.glob("upper/**/*fazai*") if path.is_file()]
    assert left == []
