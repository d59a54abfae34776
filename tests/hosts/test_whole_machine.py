"""The command line on a whole machine: all an application needs in one run, again, and taken back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.kinds.test_packages import NAME, debian
from tests.hosts.kinds.test_services import SYSTEMD, UNIT
from tests.hosts.kinds.test_shared_files import KEY_1
from tests.hosts.machines import Machine, shim

HASH = "$6$salt$nothing/that.opens"
RESOURCES: list[dict[str, Any]] = [
    {"host.package": {"name": NAME, "version": "1.0", "update_cache": True}},
    {"host.group": {"name": "app", "system": True}},
    {"host.user": {"name": "app", "group": "app", "home": "/srv/app", "password": "{{ hash }}"}},
    {"host.authorized_key": {"user": "app", "key": KEY_1}},
    {"host.file": {"path": "/srv/app/.profile", "content": "x=1\n", "owner": "app", "group": "app"}},
    {"host.file": {"path": "/etc/systemd/system/app.service", "content": UNIT}, "notify": "restart app"},
    {"host.service": {"name": "app", "state": "started", "enabled": True}},
    {"host.sysctl": {"name": "net.ipv4.ip_forward", "value": 1}},
    {
        "host.cron": {
            "name": "clean",
            "special_time": "daily",
            "user": "app",
            "cron_file": "app",
            "job": "true",
        }
    },
]
HANDLER = {
    "name": "restart app",
    "host.service": {"name": "app", "state": "restarted"},
    "listen": "restart app",
}


def prepared(folder: Path) -> Machine:
    machine = debian(folder)
    machine.put("/run/systemd/system/.keep", "")
    shim(machine, "systemctl", SYSTEMD)
    return machine


def fazai(machine: Machine, *words: str, resources: list[dict[str, Any]]) -> str:
    """Its output on the machine itself, of several commands in one visit: each line of `words` is one."""
    hosts = {"box": {"provider": "local"}}
    inventory = {"all": {"hosts": hosts, "vars": {"hash": HASH}, "resources": [*resources, HANDLER]}}
    machine.put("/srv/inventory.yml", json.dumps(inventory), 0o600)
    program = f"{sys.executable} -m fazai"
    lines = [f"{program} {line} /srv/inventory.yml 2>&1; echo EXIT $?" for line in words]
    begin = "export FAZAI_STATE_DIR=/srv/state; sysctl -qw net.ipv4.ip_forward=0\n"
    return machine.run(begin + "\n".join(lines))


@pytest.mark.slow
def test_all_kinds_in_one_run(tmp_path: Path) -> None:
    machine = prepared(tmp_path)
    out = fazai(machine, "apply", "apply", resources=RESOURCES)
    upper = machine.folder / "upper"
    assert [line for line in out.splitlines() if line.startswith("EXIT")] == ["EXIT 0"] * 2, out
    assert HASH not in out
    assert (upper / "srv/app/.ssh/authorized_keys").read_text() == f"{KEY_1}\n"
    said = (upper / "tmp/said").read_text().splitlines()
    assert [line.split()[0] for line in said].count("restart") == 1
    results = [line.partition(", 0 failed")[0] for line in out.splitlines() if line.startswith("RESULT")]
    assert results == ["RESULT 9 changed, 0 unchanged", "RESULT 0 changed, 9 unchanged"], out


@pytest.mark.slow
def test_what_fails_takes_everything_back(tmp_path: Path) -> None:
    """The last resource is refused: no package, no user, no key, no unit is left."""
    machine = prepared(tmp_path)
    broken = [*RESOURCES, {"host.file": {"path": "/etc/app.conf", "content": "x", "validate": "false %s"}}]
    out = fazai(machine, "apply", resources=broken)
    assert "EXIT 1" in out, out
    assert "taken back" in out, out
    check = f"dpkg-query -W -f '${{db:Status-Status}}' {NAME}; id app 2>&1; cat /etc/group; ls /etc/cron.d"
    left = machine.run(f"{check}; ls /etc/systemd/system /etc/sysctl.d /srv/app/.ssh 2>&1; true")
    assert "no such user" in left
    assert "app:x" not in left
    assert "app.service" not in left
    assert "99-fazai" not in left
    assert left.startswith(("config-files", "dpkg-query: no packages found")), left
