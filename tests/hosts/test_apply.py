"""The command line on real hosts: a folder, and a real OpenSSH server."""

from __future__ import annotations

import pytest

from fazai.cli import main
from tests.hosts.conftest import World
from tests.hosts.sshd import Sshd

RESOURCES = [
    {"host.directory": {"path": "/etc/app", "mode": "0750"}},
    {"host.file": {"path": "/etc/app/a.conf", "mode": "0600", "content": "name={{ inventory_hostname }}\n"}},
    {"host.file": {"path": '/etc/app/it\'s "a" $(x) é.conf', "content": "one\ntwo\n"}},
    {"host.link": {"path": "/etc/app/current", "target": "a.conf"}},
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


def test_contents_from_files_and_templates(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world.local(port=8080, ports=[1, 2])
    monkeypatch.setenv("TOKEN", "s3cr3t-token")
    binary = bytes(range(256)) * 500
    (world.folder / "files").mkdir()
    (world.folder / "files/logo.bin").write_bytes(binary)
    text = "port={{ port }}\n{% for p in ports %}\np{{ p }}\n{% endfor %}\nend\n"
    (world.folder / "app.conf.j2").write_text(text)
    (world.folder / "token.j2").write_text("token={{ token }}\n")
    wanted = [
        {"host.file": {"path": "/logo", "src": "logo.bin"}},
        {"host.file": {"path": "/app.conf", "template": "app.conf.j2"}},
        {"host.file": {"path": "/token", "template": "token.j2"}},
    ]
    world.fazai("validate", resources=[])
    world.hosts["box"]["token"] = "@TOKEN@"
    world.fazai("validate", resources=wanted)
    inventory = world.folder / "inventory.yml"
    inventory.write_text(inventory.read_text().replace('"@TOKEN@"', "!env TOKEN"))
    world.hosts.clear()
    found = world.fazai("apply", "--diff")
    assert found.code == 0, found
    assert (root / "logo").read_bytes() == binary
    assert (root / "app.conf").read_text() == "port=8080\np1\np2\nend\n"
    assert (root / "token").read_text() == "token=s3cr3t-token\n"
    assert (root / "token").stat().st_mode & 0o7777 == 0o600  # what holds a secret is for the owner alone
    assert "s3cr3t" not in found.out
    assert "0 changed, 3 unchanged" in world.fazai("apply").out


def test_a_file_that_is_not_there_is_said_before_any_contact(world: World) -> None:
    world.local()
    (world.folder / "app.conf.j2").write_text("{{ nothing_such }}")
    for fields, said in (
        ({"src": "app.cnf.j2"}, 'did you mean "app.conf.j2"'),
        ({"template": "app.conf.j2"}, "nothing_such"),
        ({"template": "app.conf.j2", "content": "x"}, "nothing_such"),
    ):
        found = world.fazai("validate", resources=[{"host.file": {"path": "/a", **fields}}])
        assert (found.code, said in found.err) == (3, True), found


def test_a_host_can_be_read_only(world: World) -> None:
    root = world.local(mode="read")
    found = world.fazai("apply", resources=RESOURCES)
    assert (found.code, "is read-only, 4 changes pending" in found.out) == (7, True), found
    assert list(root.iterdir()) == []


def test_removing_asks_first_and_finds_nothing_then(world: World) -> None:
    root = world.local()
    (root / "a").write_text("x")
    gone = [{"host.file": {"path": "/a", "state": "absent"}}]
    found = world.fazai("apply", resources=gone)
    assert (found.code, "no terminal to ask at" in found.err) == (3, True), found
    assert world.fazai("apply", "--yes", resources=gone).code == 0
    assert list(root.iterdir()) == []
    assert "0 changed, 1 unchanged" in world.fazai("apply", resources=gone).out


def test_a_saved_plan_is_applied_unless_the_host_moved_on(world: World) -> None:
    root = world.local()
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=RESOURCES).code == 2
    (root / "etc/app").mkdir(parents=True)
    world.capsys.readouterr()
    assert main(["apply", "--plan", str(plan)]) == 6
    (root / "etc/app").rmdir()
    (root / "etc").rmdir()
    assert main(["apply", "--plan", str(plan)]) == 0
    assert (root / "etc/app/a.conf").read_text() == "name=box\n"
