"""The command line on real hosts: a folder, and a real OpenSSH server."""

from __future__ import annotations

import pytest

from tests.hosts.conftest import World
from tests.hosts.sshd import Sshd

RESOURCES = [
    {"ssh.directory": {"path": "/etc/app", "mode": "0750"}},
    {"ssh.file": {"path": "/etc/app/a.conf", "mode": "0600", "content": "name={{ inventory_hostname }}\n"}},
    {"ssh.file": {"path": '/etc/app/it\'s "a" $(x) é.conf', "content": "one\ntwo\n"}},
    {"ssh.link": {"path": "/etc/app/current", "target": "a.conf"}},
]


@pytest.mark.parametrize("provider", ["local", "ssh"])
def test_apply_twice_changes_once(provider: str, world: World, request: pytest.FixtureRequest) -> None:
    if provider == "local":
        root = world.local("web")
    else:
        root = world.ssh(request.getfixturevalue("server"))
    planned = world.fazai("plan", resources=RESOURCES)
    assert (planned.code, "4 to change" in planned.out) == (2, True), planned
    assert list(root.iterdir()) == []
    first = world.fazai("apply", resources=RESOURCES)
    assert (first.code, "RESULT 4 changed, 0 unchanged" in first.out) == (0, True), first
    assert "1 host, 4 resources" in first.out
    assert (root / "etc/app/a.conf").read_text() == "name=web\n"
    assert (root / "etc/app/a.conf").stat().st_mode & 0o7777 == 0o600
    assert (root / "etc/app").stat().st_mode & 0o7777 == 0o750
    assert (root / "etc/app/current").readlink().name == "a.conf"
    second = world.fazai("apply", resources=RESOURCES)
    assert (second.code, "RESULT 0 changed, 4 unchanged" in second.out) == (0, True), second
    (root / "etc/app/a.conf").write_text("name=other\n")
    drift = world.fazai("drift", resources=RESOURCES)
    assert (drift.code, "1 to change, 3 unchanged" in drift.out) == (2, True), drift
    assert "other" not in drift.out  # a file that others may not read is not shown


def test_one_connection_and_one_block_for_a_run_without_change(world: World, server: Sshd) -> None:
    world.ssh(server)
    assert world.fazai("apply", resources=RESOURCES).code == 0
    before = server.connections
    assert world.fazai("apply", resources=RESOURCES).code == 0
    assert server.connections - before == 1
