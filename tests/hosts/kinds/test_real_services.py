"""host.service with the real systemd and the real OpenRC, in machines to throw away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.model import Resource
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.booted import booted
from tests.hosts.helpers import Host, resource
from tests.hosts.machines import Machine

pytestmark = pytest.mark.slow

_UNIT = """[Service]
ExecStart=/bin/sleep {seconds}
ExecReload=/bin/touch /srv/reloaded
[Install]
WantedBy=multi-user.target
"""
_BROKEN = "[Service]\nExecStart=/bin/sh -c 'exit 3'\nType=oneshot\n"
_AGAIN = "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=60\n"
_OPENRC = """#!/sbin/openrc-run
command=/srv/app-of-a-test
command_args=100000
command_background=true
pidfile=/run/app.pid
extra_started_commands=reload
reload() { : >/srv/reloaded; }
"""
#: What the first stage of a start of OpenRC makes.
_SYSINIT = """cd /run/openrc
mkdir starting started stopping inactive wasinactive failed hotplugged daemons options exclusive scheduled tmp
rm -f /etc/init.d/*.sh; mkdir -p /srv
cp /bin/sleep /srv/app-of-a-test  # OpenRC takes all processes of a name for its own: other tests sleep, too
"""
UP = {"name": "app", "state": "started", "enabled": True}
DOWN = {"name": "app", "state": "stopped", "enabled": False}


def _handler(state: str) -> Resource:
    canonical, problems = load_host_kinds()["host.service"].normalise(
        {"name": "app", "state": state}, "notified"
    )
    assert problems == []
    return Resource("host.service", "app", canonical, "notified", name=state, listen=(state,))


async def _up_and_down(host: Host) -> None:
    up, down = resource("host.service", UP), resource("host.service", DOWN)
    assert (await host.look(down)).changes == ()
    changes = await host.converge(up)
    before = host.session.shell.blocks
    assert (await host.look(up)).changes == ()
    assert host.session.shell.blocks == before + 1
    await host.undo(changes)
    assert (await host.look(down)).changes == ()
    await host.converge(up)
    changes = await host.converge(down)
    await host.undo(changes)
    assert (await host.look(up)).changes == ()


async def _handlers(host: Host, *states: str) -> None:
    for state in states:
        handlers = [_handler(state)]
        host.session.diff(handlers, await host.session.observe(handlers), pending=frozenset([state]))
        await host.session.activate(state)


def test_systemd(tmp_path: Path) -> None:
    with booted(tmp_path) as machine:
        asyncio.run(_with_systemd(machine))


async def _with_systemd(machine: Machine) -> None:
    def pid() -> str:
        return machine.run("systemctl show -P MainPID app").strip()

    def unit(name: str, text: str) -> Any:
        return resource("host.file", {"path": f"/etc/systemd/system/{name}.service", "content": text})

    host = machine.host()
    async with host.session:
        await host.converge(unit("app", _UNIT.format(seconds=100000)))
        await _up_and_down(host)
        first = pid()
        await _handlers(host, "reloaded")
        machine.run("rm /srv/reloaded")  # it was there
        assert pid() == first
        await host.converge(unit("app", _UNIT.format(seconds=200000)))
        await _handlers(host, "restarted")
        assert pid() not in ("0", first)
        assert "sleep 200000" in machine.run(f"tr '\\0' ' ' </proc/{pid()}/cmdline")  # the unit was read anew
        await host.converge(resource("host.service", DOWN))
        await _handlers(host, "reloaded")  # what does not run is started
        assert pid() != "0"

        await host.converge(unit("bad", _BROKEN), unit("again", _AGAIN))
        for name, told in (("bad", "status=3"), ("missing", "not found")):
            started = resource("host.service", {"name": name, "state": "started"})
            with pytest.raises(DeviceError, match=told):
                await host.session.write((await host.look(started)).changes[0])
        await host.session.write(
            (await host.look(resource("host.service", {"name": "again", "state": "started"}))).changes[0]
        )
        machine.run("until [ $(systemctl show -P SubState again) = auto-restart ]; do sleep 0.05; done")
        for name in ("bad", "again"):
            started = resource("host.service", {"name": name, "state": "started"})
            (change,) = (await host.look(started)).changes
            assert change.before == {"state": "failed"}
        machine.run(
            "systemctl mask --quiet bad 2>&1 || { rm /etc/systemd/system/bad.service; systemctl mask bad; }"
        )
        masked = resource("host.service", {"name": "bad", "enabled": True})
        (error,) = (await host.look(masked)).errors
        assert "masked" in str(error)


def test_openrc(tmp_path: Path) -> None:
    machine = Machine.made(tmp_path, "busybox")
    machine.add("openrc")
    machine.put("/etc/init.d/app", _OPENRC)
    machine.put("/etc/init.d/bad", "#!/sbin/openrc-run\nstart() { eerror 'it is broken'; return 1; }\n")
    machine.put("/run/openrc/softlevel", "default\n", 0o644)
    machine.run(_SYSINIT)
    try:
        asyncio.run(_with_openrc(machine))
    finally:
        machine.run("rc-service app stop; true")


async def _with_openrc(machine: Machine) -> None:
    pid = machine.folder / "upper/run/app.pid"
    host = machine.host()
    async with host.session:
        await _up_and_down(host)
        first = pid.read_text()
        await _handlers(host, "reloaded")
        assert (machine.folder / "upper/srv/reloaded").exists()
        assert pid.read_text() == first
        await _handlers(host, "restarted")
        assert pid.read_text() != first
        await host.converge(resource("host.service", DOWN))
        await _handlers(host, "reloaded")
        assert pid.exists()
        for name, told in (("bad", "it is broken"), ("missing", "does not exist")):
            started = resource("host.service", {"name": name, "state": "started"})
            with pytest.raises(DeviceError, match=told):
                await host.session.write((await host.look(started)).changes[0])
