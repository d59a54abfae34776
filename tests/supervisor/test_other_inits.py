"""The agent under OpenRC and under cron: programs of those systems, in machines to throw away."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.errors import DeviceError
from fazai.model import Resource
from tests.agent.receiver import Receiver
from tests.hosts.helpers import resource
from tests.hosts.kinds.test_real_services import _SYSINIT
from tests.hosts.machines import Machine
from tests.supervisor.conftest import until
from tests.supervisor.cutting import Site, site_of

#: Everything of the agent that may be on a host.
FILES = (
    "opt/fazai/agent/telemetry.sh",
    "etc/fazai/telemetry.env",
    "etc/init.d/fazai-telemetry",
    "etc/cron.d/fazai-telemetry",
    "etc/systemd/system/fazai-telemetry.service",
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serve() as found:
        yield found


def agent(receiver: Receiver, **more: object) -> Resource:
    settings = {"backoff_min_s": "0.05", "backoff_max_s": "0.1"}
    fields = {"server": receiver.url, "sample": ["uptime"], "settings": settings}
    return resource("host.telemetry_agent", {**fields, **more})


def present(machine: Machine) -> list[str]:
    return [name for name in FILES if (machine.folder / "upper" / name).is_file()]


def status(machine: Machine) -> dict[str, str]:
    path = machine.folder / "upper/var/lib/fazai-agent/status"
    with contextlib.suppress(FileNotFoundError):
        return dict(line.partition("=")[::2] for line in path.read_text().splitlines())
    return {}


def process_status(pid: str) -> str:
    """Return what the kernel says of a process."""
    return Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def openrc(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine.made(tmp_path, "busybox", apart=False)
    machine.add("openrc")
    machine.put("/run/openrc/softlevel", "default\n", 0o644)
    machine.run(_SYSINIT)
    yield machine
    machine.run("rc-service fazai-telemetry stop; true")


@pytest.mark.slow
def test_openrc_is_found_at_the_first_install(openrc: Machine, receiver: Receiver) -> None:
    async def run() -> None:
        host = openrc.host()
        async with host.session:
            await host.converge(agent(receiver))
            assert await host.session.verify((await host.look(agent(receiver))).changes) == []
            first = status(openrc)
            assert first["state"] == "running"
            process = process_status(first["pid"])
            assert "NoNewPrivs:\t1" in process
            assert (await host.look(agent(receiver))).changes == ()
            await host.converge(agent(receiver, interval=30))
            assert status(openrc)["interval_s"] == "30.000"
            assert status(openrc)["pid"] != first["pid"]
            await host.converge(resource("host.telemetry_agent", {}, "absent"))

    asyncio.run(run())
    assert receiver.store
    assert present(openrc) == []


def test_cron_is_found_at_the_first_install(tmp_path: Path, receiver: Receiver) -> None:
    machine = Machine.made(tmp_path, apart=False)
    machine.add("cron")
    machine.put("/opt/sh/pgrep", "#!/bin/sh\nexit 0\n")  # cron runs

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(agent(receiver))
            assert "etc/cron.d/fazai-telemetry" in present(machine)
            assert (await host.look(agent(receiver))).changes == ()

    asyncio.run(run())
    assert receiver.store  # by `--once`, when it was installed


def test_a_first_install_that_fails_leaves_nothing(openrc: Machine, receiver: Receiver) -> None:
    openrc.put("/opt/sh/rc-update", "#!/bin/sh\necho 'rc-update: it is broken' >&2\nexit 1\n")

    async def run() -> None:
        host = openrc.host()
        async with host.session:
            diff = await host.look(agent(receiver))
            with pytest.raises(DeviceError, match="it is broken"):
                await host.session.write(diff.changes[0])
            assert (await host.look(agent(receiver))).changes != ()

    asyncio.run(run())
    assert present(openrc) == []
    assert not (openrc.folder / "upper/var/lib/fazai-agent").is_dir()
    assert "fazai-agent" not in openrc.run("cat /etc/passwd")
    assert not list(openrc.folder.glob("upper/**/.fazai-*"))


def test_the_agents_user_steers_no_signal(tmp_path: Path, receiver: Receiver) -> None:
    """He writes the status file: what it says of a process is a number, of a process of his."""
    machine = Machine.made(tmp_path, apart=False)
    kills = tmp_path / "upper/srv/kills"
    machine.put("/srv/kills", "", 0o666)
    declared = agent(receiver, init="none")

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(declared)
            for said in ("../var/lib/fazai-agent/x -1", "-1", "1", "0", "7 -1", "$(kill -1)"):
                await host.session.shell.run(
                    "cd /var/lib/fazai-agent; mkdir -p 'x -1'\n"
                    "printf '/opt/fazai/agent/telemetry.sh\\0' >'x -1/cmdline'\n"
                    f"printf 'pid=%s\\nstate=running\\n' {shlex.quote(said)} >status"
                )
                script = "kill() { printf '%s\\n' \"$*\" >>/srv/kills; }\n"
                host.session.shell._open = None  # a new shell, in which `kill` only tells
                await host.session.shell.run(script)
                changed = agent(receiver, init="none", top=len(said))
                for change in (await host.look(changed)).changes:
                    await host.session.write(change)

    asyncio.run(run())
    assert kills.read_text() == ""


def test_an_agent_of_ours_is_ended(tmp_path: Path, receiver: Receiver) -> None:
    machine = Machine.made(tmp_path, apart=False)

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(agent(receiver, init="none"))
            keeps = (
                "while [ -e /opt/fazai/agent/telemetry.sh ]; do"
                " /opt/fazai/agent/telemetry.sh --config /etc/fazai/telemetry.env; sleep 1; done"
            )
            command = f"setsid sh -c {shlex.quote(keeps)} >/dev/null 2>&1 </dev/null &"
            await host.session.shell.run(f"su -s /bin/sh -c {shlex.quote(command)} fazai-agent")
            until(lambda: status(machine).get("state") == "running")
            first = status(machine)["pid"]
            await host.converge(agent(receiver, init="none", interval=30))
            assert status(machine)["pid"] != first
            await host.converge(resource("host.telemetry_agent", {"init": "none"}, "absent"))

    asyncio.run(run())
    assert present(machine) == []


@pytest.mark.in_turn("init")
@pytest.mark.parametrize("init", ["none", "cron"])
def test_a_key_that_the_server_refuses_is_said_on_every_init(tmp_path: Path, init: str) -> None:
    """Whoever keeps the agent running: it runs with the new key, and every record is refused."""
    with site_of(init, tmp_path / "machine") as site:
        receiver = site.receiver
        receiver.keys = (b"k" * 32,)

        async def run() -> None:
            async with site.host.session:
                await site.host.converge(site.agent(key="k" * 32))
                await site.keep()
                assert await _delivers(site, key="k" * 32) == ""
                assert "status 401" in await _delivers(site, key="w" * 32)
                assert receiver.store
                receiver.keys = (b"n" * 32,)
                assert "status 401" in await _delivers(site, key="k" * 32)
                receiver.keys = (b"k" * 32,)
                assert await _delivers(site, key="k" * 32, top=5) == ""
                await site.end()

        asyncio.run(run())


async def _delivers(site: Site, **more: object) -> str:
    """Return what a run would say in the end."""
    wanted = site.agent(**more)
    diff = await site.host.look(wanted)
    for change in diff.changes:
        await site.host.session.write(change)
    return " ".join(map(str, await site.host.session.verify(diff.changes)))
