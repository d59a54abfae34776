"""Machines in which the script of the agent's supervisor is cut at a chosen command, whatever the init."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fazai.model import Resource
from fazai.providers.hosts.agent.files import shipped_version
from tests.agent.receiver import Receiver
from tests.hosts.booted import booted
from tests.hosts.helpers import Host, resource
from tests.hosts.kinds.test_real_services import _SYSINIT
from tests.hosts.machines import Machine
from tests.supervisor.conftest import until

__all__ = ["INITS", "OLD", "Site", "site_of"]

OLD: Final = "0.0.9"
INITS: Final = ("systemd", "openrc", "cron", "none")
#: Everything of the agent that may be on a host.
FILES: Final = (
    "opt/fazai/agent/telemetry.sh",
    "etc/fazai/telemetry.env",
    "etc/init.d/fazai-telemetry",
    "etc/cron.d/fazai-telemetry",
    "etc/systemd/system/fazai-telemetry.service",
)
#: The programs at which a script can be cut: all that it runs one after the other.
_CUT_AT: Final = (
    "mkdir",
    "rmdir",
    "chmod",
    "chown",
    "useradd",
    "userdel",
    "id",
    "mv",
    "cp",
    "rm",
    "sync",
    "su",
    "systemctl",
    "rc-service",
    "rc-update",
)
#: Counts itself while /srv/cut is there ("SIGNAL N"), and at the N-th ends the block of the session's shell
#: (/srv/main): by KILL before that program did anything, by another signal after it did it.
_SHIM: Final = r"""#!/bin/sh
name=${0##*/}; PATH=${PATH#/opt/sh:}
if [ -e "/srv/fails-$name" ]; then . "/srv/fails-$name"; fi
[ -e /srv/cut ] || exec "$name" "$@"
read -r signal at </srv/cut; read -r main </srv/main
# a line each: others may be killed meanwhile
echo >>/srv/n; n=0; while read -r _; do n=$((n + 1)); done </srv/n
[ "$n" = "$at" ] || exec "$name" "$@"
p=$$ parent=$PPID
while [ "$parent" != "$main" ]; do
    p=$parent
    while read -r key value; do [ "$key" != PPid: ] || parent=$value; done <"/proc/$p/status"
done
code=1
[ "$signal" = KILL ] || { "$name" "$@"; code=$?; }
kill "-$signal" "$p"
exit "$code"
"""
_KEEPS: Final = (
    "while :; do /opt/fazai/agent/telemetry.sh --config /etc/fazai/telemetry.env; "
    "[ -e /opt/fazai/agent/telemetry.sh ] || exit 0; sleep 0.1; done"
)


@dataclass
class Site:
    """One machine, its session, and how its init is spoken to."""

    init: str
    machine: Machine
    host: Host
    receiver: Receiver
    cuts: list[int] = field(default_factory=list)

    @property
    def upper(self) -> Path:
        return self.machine.folder / "upper"

    def agent(self, **more: Any) -> Resource:
        settings = {"backoff_min_s": "0.05", "backoff_max_s": "0.1"}
        fields = {"server": self.receiver.url, "sample": ["uptime"], "settings": settings, "interval": 60}
        if self.init == "none":
            fields["init"] = "none"
        return resource("host.telemetry_agent", {**fields, **more})

    @property
    def gone(self) -> Resource:
        return resource("host.telemetry_agent", {"init": "none"} if self.init == "none" else {}, "absent")

    async def run(self, script: str) -> None:
        result = await self.host.session.shell.run(script)
        assert result.exit == 0, result

    async def write(self, wanted: Resource) -> None:
        for change in (await self.host.look(wanted)).changes:
            await self.host.session.write(change)

    async def cut(self, wanted: Resource, signal: str, at: int) -> bool:
        """Write, and tell whether that came to its `at`-th command, where it was cut."""
        from fazai.errors import FazaiError

        diff = await self.host.look(wanted)
        assert diff.changes
        await self.run(f"echo $$ >/srv/main; : >/srv/n; echo {signal} {at} >/srv/cut")
        try:
            with contextlib.suppress(FazaiError):
                await self.host.session.write(diff.changes[0])
        finally:
            await self.run("/usr/bin/rm -f /srv/cut")
        return len((self.upper / "srv/n").read_bytes()) >= at

    async def fails(self, name: str, script: str) -> None:
        """Let this program begin with that script from now on; without one, be itself again."""
        path = f"/srv/fails-{name}"
        await self.run(f"printf %s {shlex.quote(script)} >{path}" if script else f"rm -f {path}")

    async def keep(self) -> None:
        """Keep the agent running by a loop where no init does."""
        if self.init == "none":
            loop = f"setsid sh -c {shlex.quote(_KEEPS)} >/dev/null 2>&1 </dev/null &"
            await self.run(f"su -s /bin/sh -c {shlex.quote(loop)} fazai-agent")
            until(lambda: self.status().get("state") == "running")

    async def end(self) -> None:
        """No loop of this site goes on."""
        if self.init == "none":
            pid = self.status().get("pid", "")
            await self.run(f"rm -f /opt/fazai/agent/telemetry.sh; kill -TERM {pid} 2>/dev/null || :")

    async def older(self) -> None:
        """The host has an earlier version, which runs."""
        pid = self.status().get("pid", "")
        again = {
            "systemd": "systemctl restart fazai-telemetry",
            "openrc": "rc-service fazai-telemetry restart",
            "cron": "su -s /bin/sh -c '/opt/fazai/agent/telemetry.sh --once --config"
            " /etc/fazai/telemetry.env' fazai-agent",
            "none": f"kill -TERM {pid}",
        }[self.init]
        await self.run(
            f"sed -i 's/^readonly VERSION=.*/readonly VERSION={OLD}/' /opt/fazai/agent/telemetry.sh\n{again}"
        )
        until(lambda: self.runs(OLD))

    def status(self) -> dict[str, str]:
        with contextlib.suppress(FileNotFoundError):
            text = (self.upper / "var/lib/fazai-agent/status").read_text()
            return dict(line.partition("=")[::2] for line in text.splitlines())
        return {}

    def runs(self, version: str) -> bool:
        status = self.status()
        if status.get("version") != version:
            return False
        return self.init == "cron" or status.get("state") == "running"

    def script(self) -> str:
        return (self.upper / FILES[0]).read_text()

    def left(self) -> list[str]:
        """Return what is there of the agent; its user, too."""
        found = [name for name in FILES if (self.upper / name).is_file()]
        if (self.upper / "var/lib/fazai-agent").is_dir():
            found.append("var/lib/fazai-agent")
        users = self.upper / "etc/passwd"
        if users.is_file() and "fazai-agent:" in users.read_text():
            found.append("user")
        return found + self.temporary()

    def temporary(self) -> list[str]:
        folders = ("opt/fazai/agent", "etc/fazai", "etc/init.d", "etc/cron.d", "etc/systemd/system")
        return [str(path) for name in folders for path in (self.upper / name).glob(".fazai-*")]

    def untouched(self) -> None:
        """The older version is there, as it was, and runs."""
        assert f"VERSION={OLD}\n" in self.script()
        assert 'INTERVAL_S="60"' in (self.upper / FILES[1]).read_text()
        until(lambda: self.runs(OLD))
        assert self.temporary() == []

    def upgraded(self) -> None:
        assert f"VERSION={shipped_version()}\n" in self.script()
        until(lambda: self.runs(shipped_version()))
        assert self.temporary() == []


@contextlib.contextmanager
def _machine(init: str, folder: Path) -> Iterator[Machine]:
    if init == "systemd":
        with booted(folder, apart=False) as machine:
            yield machine
        return
    machine = Machine.made(folder, "busybox" if init == "openrc" else "dash", apart=False)
    if init == "openrc":
        machine.add("openrc")
        machine.put("/run/openrc/softlevel", "default\n", 0o644)
        machine.run(_SYSINIT)
    elif init == "cron":
        machine.add("cron")
        machine.put("/opt/sh/pgrep", "#!/bin/sh\nexit 0\n")  # cron runs
    try:
        yield machine
    finally:
        if init == "openrc":
            machine.run("rc-service fazai-telemetry stop; true")


@contextlib.contextmanager
def site_of(init: str, folder: Path) -> Iterator[Site]:
    with Receiver().serve() as receiver, _machine(init, folder) as machine:
        machine.run("mkdir -p /srv")
        for name in _CUT_AT:
            machine.put(f"/opt/sh/{name}", _SHIM)
        yield Site(init, machine, machine.host(), receiver)
