"""Kinds of hosts under the names that they had before, `ssh.*`: read everywhere, and said once a run."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import click
import pytest

from fazai.cli import main
from fazai.cli.commands.completion import complete_kind
from fazai.errors import InputError
from fazai.plan import _sha256, read_plan, write_plan
from fazai.registry import Registry
from tests.hosts.conftest import World

OLD: list[dict[str, Any]] = [
    {"ssh.directory": {"path": "/etc"}},
    {"ssh.file": {"path": "/etc/a", "content": "x\n"}},
]
NEW: list[dict[str, Any]] = [
    {"host.directory": {"path": "/etc"}},
    {"host.file": {"path": "/etc/a", "content": "x\n"}},
]
NOTE = "note: ssh.directory is host.directory now, ssh.file is host.file now; the old names are still read\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [("validate", 0), ("plan", 2), ("drift", 2), ("apply", 0)],
    ids=lambda word: str(word),
)
def test_old_names_work_and_are_said_once(world: World, command: str, code: int) -> None:
    world.local("one")
    world.local("two")
    found = world.fazai(command, resources=OLD)
    assert (found.code, found.err) == (code, NOTE), found
    assert world.fazai(command, resources=NEW).err == ""


def test_quiet_says_nothing_of_old_names(world: World) -> None:
    root = world.local()
    found = world.fazai("apply", "--quiet", resources=OLD)
    assert (found.code, found.err) == (0, ""), found
    assert (root / "etc/a").read_text() == "x\n"


def test_an_item_under_both_names_is_one(world: World) -> None:
    root = world.local(resources=[{"host.file": {"path": "/a", "mode": "0600"}}])
    found = world.fazai("apply", resources=[{"ssh.file": {"path": "/a", "content": "x", "mode": "0644"}}])
    assert (found.code, "1 host, 1 resource" in found.out) == (0, True), found
    assert ((root / "a").read_text(), (root / "a").stat().st_mode & 0o777) == ("x", 0o600)
    other = {"host.file": {"path": "/etc/a", "content": "y\n"}}
    twice = world.fazai("validate", resources=[*OLD, other])
    assert (twice.code, 'host.file "/etc/a" stands twice in this list' in twice.err) == (3, True), twice


@pytest.mark.parametrize("glob", ["ssh.*", "ssh.file", "host.file"])
@pytest.mark.parametrize("resources", [OLD, NEW], ids=["old", "new"])
def test_a_selection_of_kinds_under_either_name(world: World, glob: str, resources: list[Any]) -> None:
    world.local()
    found = world.fazai("plan", "--kind", glob, resources=resources)
    assert (found.code, 'file "/etc/a"' in found.out or "file /etc/a" in found.out) == (2, True), found
    assert ("directory" in found.out) == (glob == "ssh.*"), found
    assert (f"{glob} is host." in found.err) == glob.startswith("ssh"), found


def test_a_kind_is_described_under_its_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kinds", "ssh.file"]) == 0
    old = capsys.readouterr().out
    assert main(["kinds", "host.file"]) == 0
    assert old == capsys.readouterr().out
    assert old.startswith("host.file: ")


def test_a_misspelt_old_name_is_told_the_new_one() -> None:
    with pytest.raises(InputError, match=r'there is no kind "ssh\.fiel"') as caught:
        Registry().kind("ssh.fiel")
    assert caught.value.hint == 'did you mean "host.file"?'


@pytest.mark.parametrize(
    ("typed", "offered"), [("ssh", "host.file"), ("ssh.fi", "host.file"), ("host.fi", "host.file")]
)
def test_completion_offers_new_names(typed: str, offered: str) -> None:
    command = click.Command("x")
    found = complete_kind(click.Context(command), click.Argument(["kind"]), typed)
    assert offered in found
    assert all(name.startswith("host.") for name in found)


def test_a_handler_under_its_old_name_runs_once(world: World) -> None:
    root = world.local()
    handler = {"ssh.command": {"shell": f"echo ran >>{root}/ran"}, "listen": "restart"}
    resources: list[dict[str, Any]] = [OLD[0], {**OLD[1], "notify": "restart"}, handler]
    assert world.fazai("apply", resources=resources).code == 0
    assert (root / "ran").read_text() == "ran\n"
    assert "0 changed, 2 unchanged" in world.fazai("apply", resources=resources).out
    assert (root / "ran").read_text() == "ran\n"


def test_a_plan_of_an_earlier_release_is_stale(world: World) -> None:
    root = world.local()
    path = world.folder / "plan.json"
    assert world.fazai("plan", "-o", path, resources=NEW).code == 2
    plan = read_plan(path)
    changes = tuple({**each, "kind": str(each["kind"]).replace("host.", "ssh.")} for each in plan.changes)
    targets = {"box": replace(plan.targets["box"], changes=_sha256(list(changes)))}
    write_plan(replace(plan, changes=changes, targets=targets), path)
    world.capsys.readouterr()
    assert main(["apply", "--plan", str(path)]) == 6
    said = world.capsys.readouterr().err
    assert "the plan is stale: an earlier release made it, and ssh.directory is host.directory now" in said
    assert "plan again" in said
    assert list(root.iterdir()) == []


def test_what_the_ledger_holds_under_an_old_name_is_carried_out_and_forgotten(world: World) -> None:
    """Two handlers listen to one name, so the second one is remembered with its kind."""
    root = world.local()
    handlers = [
        {"host.command": {"shell": f"echo {name} >>{root}/ran"}, "listen": "restart"}
        for name in ("one", "two")
    ]
    assert world.fazai("apply", resources=[*NEW, *handlers]).code == 0
    label = f"restart (ssh.command echo two >>{root}/ran)"
    with sqlite3.connect(world.folder / "state/fazai.sqlite3") as ledger:
        ledger.execute("INSERT INTO pending VALUES ('box', ?, 'R1', 1.0)", (label,))
        columns = "action_id, run_id, target, kind, identity, verb, before, after, started, status, box"
        values = "'A1', 'R1', 'box', 'ssh.file', '/etc/a', 'update', '{}', '{}', 1.0, 'begun', 'box'"
        ledger.execute(f"INSERT INTO actions ({columns}) VALUES ({values})")
    ledger.close()
    again = world.fazai("apply", resources=[*NEW, *handlers])
    assert again.code == 0, again
    assert "run R1 was cut off during update of ssh.file /etc/a" in again.out
    assert (root / "ran").read_text() == "two\n"
    third = world.fazai("apply", resources=[*NEW, *handlers])
    assert (third.code, "R1" in third.out) == (0, False), third
    assert (root / "ran").read_text() == "two\n"


def test_the_settings_of_an_agent_that_an_earlier_release_wrote_are_as_wanted(world: World) -> None:
    root = world.local()
    agent = [{"ssh.telemetry_agent": {"server": "https://fazai.example.net:3120", "key": "0f" * 16}}]
    assert world.fazai("apply", resources=agent).code == 0
    settings = root / "etc/fazai/telemetry.env"
    text = settings.read_text()
    settings.write_text(text.replace("host.telemetry_agent", "ssh.telemetry_agent"))
    again = world.fazai("apply", resources=agent)
    assert (again.code, "0 changed, 1 unchanged" in again.out) == (0, True), again
    assert "ssh.telemetry_agent" in settings.read_text()
    settings.write_text(f"# mine\n{text}")
    assert "changed by hand" in world.fazai("drift", resources=agent).out
