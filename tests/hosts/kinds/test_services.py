"""host.service: the real systemctl where none is needed that runs; what it, OpenRC and rc do otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError, Moved
from fazai.model import Verb
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.helpers import Host, resource
from tests.hosts.machines import Machine, shim

UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"

#: What cannot run in a machine without a process 1, in the words of systemctl(1): `enable` and its kin are
#: the real ones.
SYSTEMD = """
echo "$*" >>/tmp/said; verb=$1; [ "$1" != -q ] || { shift; verb=$1; }
for name; do :; done; unit=/etc/systemd/system/$name.service; state=/tmp/$name.state
case $verb in
show)
case $* in *NeedDaemonReload*) echo "NeedDaemonReload=$(cat /tmp/need 2>/dev/null || echo no)"; exit ;; esac
[ -e "$unit" ] || { echo LoadState=not-found; echo ActiveState=inactive; echo UnitFileState=; exit 0; }
if [ -h "$unit" ]; then echo LoadState=masked; else echo LoadState=loaded; fi
echo "ActiveState=$(cat "$state" 2>/dev/null || echo inactive)"; echo SubState=dead
echo "UnitFileState=$(SYSTEMD_OFFLINE=1 /usr/bin/systemctl is-enabled "$name" 2>/dev/null)" ;;
start|restart|reload) [ -e "$unit" ] || { echo "Unit $name.service not found." >&2; exit 5; }
if grep -q broken "$unit"; then echo failed >"$state"; echo "Job for $name.service failed." >&2; exit 1; fi
echo active >"$state" ;;
stop) echo inactive >"$state" ;;
is-active) [ "$(cat "$state" 2>/dev/null)" = active ] ;;
status) echo "the last words of $name"; exit 3 ;;
daemon-reload) rm -f /tmp/need ;;
*) SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl "$@" ;;
esac
"""
#: openrc-run(8), rc-service(8), rc-update(8)
OPENRC = {
    "rc-service": """
echo "rc-service $*" >>/tmp/said
if [ "$1" = -e ]; then [ -e "/etc/init.d/$2" ]; exit; fi
[ -e "/etc/init.d/$1" ] || { echo " * rc-service: service \\`$1' does not exist" >&2; exit 1; }
case $2 in status) [ -e "/tmp/$1.on" ] || exit 3 ;; start|restart|reload) : >"/tmp/$1.on" ;;
stop) rm -f "/tmp/$1.on" ;; *) exit 1 ;; esac
""",
    "rc-update": """
case $1 in add) mkdir -p "/etc/runlevels/$3"; ln -s "/etc/init.d/$2" "/etc/runlevels/$3/$2" ;;
delete) rm "/etc/runlevels/$3/$2" ;; *) exit 1 ;; esac
""",
}
#: service(8), rc(8)
FREEBSD = {
    "service": """
echo "service $*" >>/tmp/said
[ -e "/etc/init.d/$1" ] || { echo "$1 does not exist in /etc/rc.d or the local startup" >&2; exit 1; }
case $2 in rcvar) ;; enabled) [ -e "/tmp/$1.rc" ] ;; enable) : >"/tmp/$1.rc" ;; disable) rm "/tmp/$1.rc" ;;
onestatus) [ -e "/tmp/$1.on" ] ;; onestart|onerestart|onereload) : >"/tmp/$1.on" ;;
onestop) rm "/tmp/$1.on" ;; *) exit 1 ;; esac
"""
}


def systemd(folder: Path) -> Machine:
    machine = Machine.made(folder)
    machine.put("/run/systemd/system/.keep", "")
    machine.put("/etc/systemd/system/app.service", UNIT, 0o644)
    shim(machine, "systemctl", SYSTEMD)
    return machine


def openrc(folder: Path) -> Machine:
    machine = Machine.made(folder, "busybox")
    machine.put("/etc/init.d/app", "#!/sbin/openrc-run\n")
    for name, script in OPENRC.items():
        shim(machine, name, script)
    return machine


def freebsd(folder: Path) -> Machine:
    machine = Machine.made(folder)
    machine.put("/etc/init.d/app", "")
    machine.put("/etc/rc.subr", "")
    for name, script in FREEBSD.items():
        shim(machine, name, script)
    return machine


def said(machine: Machine) -> list[str]:
    path = machine.folder / "upper/tmp/said"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("system", [systemd, openrc, freebsd])
def test_a_service_is_started_stopped_and_taken_back(system: Any, tmp_path: Path) -> None:
    machine = system(tmp_path)
    up = resource("host.service", {"name": "app", "state": "started", "enabled": True})
    down = resource("host.service", {"name": "app", "state": "stopped", "enabled": False})

    async def run() -> None:
        host = machine.host()
        async with host.session:
            assert (await host.look(down)).changes == ()
            changes = await host.converge(up)
            assert changes[0].verb is Verb.UPDATE
            assert changes[0].before == {"state": "stopped", "enabled": False}
            before = host.session.shell.blocks
            assert (await host.look(up)).changes == ()
            assert host.session.shell.blocks == before + 1
            await host.undo(changes)
            assert (await host.look(down)).changes == ()
            await host.converge(up)
            await host.undo(await host.converge(down))
            assert (await host.look(up)).changes == ()
            only = await host.converge(resource("host.service", {"name": "app", "enabled": False}))
            assert only[0].after == {"enabled": False}
            assert (
                await host.look(resource("host.service", {"name": "app", "state": "started"}))
            ).changes == ()

    asyncio.run(run())


OTHERS = {
    systemd: ("systemctl stop app", "systemctl disable app", "echo failed >/tmp/app.state"),
    openrc: ("rc-service app stop", "rm /etc/runlevels/default/app", ""),
    freebsd: ("service app onestop", "service app disable", ""),
}


@pytest.mark.parametrize("system", OTHERS)
def test_a_service_that_somebody_changed_after_us_is_not_taken_back(system: Any, tmp_path: Path) -> None:
    """Only what this run wrote counts; a service that fell down by itself is taken back as ever."""
    machine = system(tmp_path)
    stopped, disabled, fell = OTHERS[system]
    runs = resource("host.service", {"name": "app", "state": "started"})
    on = resource("host.service", {"name": "app", "enabled": True})

    async def run() -> None:
        host = machine.host()
        async with host.session:
            for wanted, other in ((runs, stopped), (on, disabled)):
                for looked in (True, False):  # read back before, or not
                    (change,) = (await host.look(wanted)).changes
                    await host.session.write(change)
                    if looked:
                        assert (await host.look(wanted)).changes == ()
                    assert (await host.session.shell.run(other)).exit == 0
                    begun = len(said(machine))
                    with pytest.raises(Moved, match="it is not as this run left it"):
                        await host.undo([change])
                    assert [w for w in said(machine)[begun:] if "stop" in w or "disable" in w] == []
            changes = await host.converge(on)
            await host.session.shell.run(f"{stopped}\n{fell}")  # of which nothing was ours
            await host.undo(changes)
            (again,) = (await host.look(on)).changes
            assert again.before == {"enabled": False}
            if fell:
                await host.session.shell.run(stopped)
                changes = await host.converge(runs)
                await host.session.shell.run(fell)
                await host.undo(changes)
                assert said(machine)[-1].startswith("stop ")

    asyncio.run(run())


@pytest.mark.parametrize("system", [systemd, openrc, freebsd])
def test_handlers_restart_and_reload_what_runs_and_start_what_does_not(system: Any, tmp_path: Path) -> None:
    machine = system(tmp_path)
    kind = load_host_kinds()["host.service"]

    def handler(state: str) -> Any:
        fields = {"name": "app", "state": state, "daemon_reload": True}
        canonical, problems = kind.normalise(fields, "notified")
        assert problems == []
        found = resource("host.service", {"name": "app", "enabled": False}, listen=(state,))
        object.__setattr__(found, "fields", canonical)
        return found

    async def run() -> None:
        host = machine.host()
        async with host.session:
            handlers = [handler("restarted"), handler("reloaded")]
            for each in ("reloaded", "restarted", "reloaded"):
                seen = await host.session.observe(handlers)
                host.session.diff(handlers, seen, pending=frozenset([each]))
                await host.session.activate(each)

    asyncio.run(run())
    verbs = [w for line in said(machine) for w in line.split() if w in ("start", "restart", "reload")]
    verbs += [
        w.removeprefix("one")
        for line in said(machine)
        for w in line.split()
        if w in ("onestart", "onerestart", "onereload")
    ]
    assert verbs == ["start", "restart", "reload"]
    if system is systemd:
        assert said(machine).count("daemon-reload") == 3


@pytest.mark.parametrize("system", [systemd, openrc, freebsd])
def test_a_service_that_is_not_there_fails_when_it_is_started(system: Any, tmp_path: Path) -> None:
    """It may come with a package before it in the list, so a look alone is no error."""
    machine = system(tmp_path)
    up = resource("host.service", {"name": "nope", "state": "started"})

    async def run() -> None:
        host = machine.host()
        async with host.session:
            diff = await host.look(up)
            assert diff.errors == ()
            with pytest.raises(DeviceError, match="nope"):
                await host.session.write(diff.changes[0])

    asyncio.run(run())


def test_a_service_that_fails_says_its_last_words(tmp_path: Path) -> None:
    machine = systemd(tmp_path)
    machine.put("/etc/systemd/system/bad.service", UNIT + "# broken\n", 0o644)
    (machine.folder / "upper/etc/systemd/system/off.service").symlink_to("/dev/null")

    async def run() -> None:
        host = machine.host()
        async with host.session:
            diff = await host.look(resource("host.service", {"name": "bad", "state": "started"}))
            with pytest.raises(DeviceError, match="the last words of bad"):
                await host.session.write(diff.changes[0])
            failed = resource("host.service", {"name": "bad", "state": "started"})
            assert (await host.look(failed)).changes[0].before == {"state": "failed"}
            stopped = resource("host.service", {"name": "bad", "state": "stopped"})
            assert (await host.look(stopped)).changes == ()
            (error,) = (await host.look(resource("host.service", {"name": "off", "enabled": True}))).errors
            assert "masked" in str(error)

    asyncio.run(run())


def test_the_real_systemctl_enables_where_systemd_does_not_run(tmp_path: Path) -> None:
    """An image that is being built is such a machine."""
    machine = Machine.made(tmp_path, "bash")
    machine.put("/etc/systemd/system/app.service", UNIT, 0o644)
    machine.put("/etc/systemd/system/fixed.service", "[Service]\nExecStart=/bin/true\n", 0o644)
    wants = machine.folder / "upper/etc/systemd/system/multi-user.target.wants/app.service"

    async def run() -> None:
        host = machine.host()
        async with host.session:
            on = resource("host.service", {"name": "app.service", "enabled": True})
            changes = await host.converge(on)
            assert wants.is_symlink()
            await host.undo(changes)
            assert not wants.is_symlink()
            await host.converge(on)
            await host.converge(resource("host.service", {"name": "app.service", "enabled": False}))
            for enabled in (True, False):  # nothing enables it, and nothing is to be done
                fixed = resource("host.service", {"name": "fixed", "enabled": enabled})
                assert (await host.look(fixed)).changes == ()
            running = resource("host.service", {"name": "app", "state": "started"})
            (error,) = (await host.look(running)).errors
            assert "systemd does not run here" in str(error)
            assert error.hint == "declare enabled: alone"

    asyncio.run(run())


def test_a_unit_whose_file_changed_is_read_before_it_is_started(tmp_path: Path) -> None:
    machine = systemd(tmp_path)
    machine.put("/tmp/need", "yes\n")

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(resource("host.service", {"name": "app", "state": "started"}))
            await host.converge(resource("host.service", {"name": "app", "state": "stopped"}))

    asyncio.run(run())
    verbs = [line.split()[0] for line in said(machine) if not line.startswith("show")]
    assert verbs == ["daemon-reload", "start", "stop"]


def test_a_folder_has_no_services_and_its_handlers_touch_none_of_ours(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            wanted = resource("host.service", {"name": "app", "enabled": True})
            assert "needs a running machine" in str((await host.look(wanted)).errors[0])
            handler = resource("host.service", {"name": "app", "enabled": True}, listen=("again",))
            seen = await host.session.observe([handler])
            diff = host.session.diff([handler], seen, pending=frozenset(["again"]))
            assert "needs a running machine" in str(diff.errors[0])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fields", "state", "text"),
    [
        ({"state": "restarted"}, "present", "every time"),
        ({"state": "reloaded"}, "present", "every time"),
        ({"state": "started"}, "notified", "restarted or reloaded"),
        ({"enabled": True}, "notified", "restarted or reloaded"),
        ({}, "present", "says nothing"),
        ({"enabled": True}, "absent", "cannot be absent"),
        ({"name": "-x", "enabled": True}, "present", "no name"),
        ({"name": "a b", "enabled": True}, "present", "no name"),
        ({"name": "$(reboot)", "enabled": True}, "present", "no name"),
        ({"name": "a;b\n", "enabled": True}, "present", "no name"),
    ],
)
def test_what_is_wrong_before_any_contact(fields: dict[str, Any], state: str, text: str) -> None:
    _, problems = load_host_kinds()["host.service"].normalise({"name": "app", **fields}, state)
    assert [text in problem.message for problem in problems] == [True]
