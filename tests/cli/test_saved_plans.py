"""Saved plans: what was approved is what runs (docs/approvals.md)."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RESOURCES, World


def test_a_plan_is_applied_as_planned(world: World) -> None:
    world.firewall()
    inventory = world.inventory()
    plan = world.folder / "plan.json"
    assert world.fazai("plan", inventory, "-o", plan).code == 2
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    firewall = world.firewalls["fw-01"]
    assert firewall.api_secret not in plan.read_text()
    assert world.fazai("apply", "--plan", plan).code == 0
    assert world.fazai("drift", inventory).code == 0


def test_a_plan_is_stale_when_the_inventory_was_edited(world: World) -> None:
    world.firewall()
    plan = world.folder / "plan.json"
    world.fazai("plan", world.inventory(), "-o", plan)
    world.inventory(resources=RESOURCES[:2])
    world.forget()
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 6
    assert "the plan is stale" in result.err
    assert list(world.firewalls["fw-01"].requests) == []


def test_a_plan_is_stale_when_a_target_moved_on_and_then_nothing_is_written_anywhere(world: World) -> None:
    world.firewall()
    moved = world.firewall("fw-02")
    plan = world.folder / "plan.json"
    world.fazai("plan", world.inventory(), "-o", plan)
    moved.call(
        "POST",
        "/api/firewall/alias/addItem",
        {"alias": {"name": "x", "type": "host", "content": "192.0.2.1"}},
    )
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 6
    assert world.writes("fw-01") == []
    assert world.writes("fw-02") == ["/api/firewall/alias/addItem"]  # that was somebody else
    assert "the plan is stale for fw-02" in result.out
    assert "note: left as it is: the plan does not hold for all of its targets" in result.out
    (last,) = [line for line in result.out.splitlines() if line.startswith("RESULT")]
    assert last.startswith("RESULT 0 changed, 0 unchanged, 0 failed, 1 stale, 1 skipped   ")
    assert "[left]" in result.out
    assert world.fazai("history").out.splitlines()[0].endswith("1 stale, 1 skipped")
    totals = json.loads(world.fazai("apply", "--plan", plan, "--output", "json").out)["totals"]
    assert (totals["pending"], totals["changed"], totals["stale"], totals["skipped"]) == (0, 0, 1, 1)
    table = world.fazai("apply", "--plan", plan, "--output", "markdown").out
    assert "**0 changed, 0 unchanged, 0 failed, 1 stale, 1 skipped** (exit 6)" in table
    check = world.fazai("apply", "--plan", plan, "--check")
    assert (check.code, "RESULT 3 to change" in check.out) == (6, True)


def test_what_a_stale_plan_did_not_write_is_told_so(world: World) -> None:
    """Its events are those of a run that has ended: nothing of it is still planned or pending."""
    world.firewall()
    moved = world.firewall("fw-02")
    plan = world.folder / "plan.json"
    world.fazai("plan", world.inventory(), "-o", plan)
    alias = {"name": "x", "type": "host", "content": "192.0.2.1"}
    moved.call("POST", "/api/firewall/alias/addItem", {"alias": alias})
    for words, changes, status in (((), {"left"}, "skipped"), (("--check",), {"planned"}, "pending")):
        assert world.fazai("apply", "--plan", plan, *words).code == 6
        run = world.fazai("history").out.split()[0]
        events = json.loads(world.fazai("show", run, "--output", "json").out)["events"]
        assert {e["status"] for e in events if e["type"] == "change"} == changes
        ends = {e["target"]: e for e in events if e["type"] == "outcome"}
        assert (ends["fw-01"]["status"], ends["fw-02"]["status"]) == (status, "stale")
        assert ends["fw-01"]["pending"] == (0 if status == "skipped" else 3)
        note = "left as it is: the plan does not hold for all of its targets, so it was carried out for none"
        assert (note in ends["fw-01"].get("notes", ())) is (status == "skipped")


def test_a_plan_made_in_one_folder_and_applied_in_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.firewall()
    world.inventory()
    (world.folder / "play.yml").write_text(
        json.dumps([{"hosts": "all", "resources": [{"opnsense.category": {"name": "{{ team }}"}}]}])
    )
    (world.folder / "vars.yml").write_text("team: noc")
    password = world.folder / "password"
    password.write_text("x")
    password.chmod(0o600)
    monkeypatch.chdir(world.folder)
    words = ("inventory.yml", "-p", "play.yml", "-e", "@vars.yml", "--vault-password-file", "password")
    assert world.fazai("plan", *words, "-o", "plan.json").code == 2
    monkeypatch.chdir("/")
    plan = world.folder / "plan.json"
    result = world.fazai("apply", "--plan", plan, "--vault-password-file", password)
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("word", ["db_password=hunter2", '{"api_key": "hunter2"}'])
def test_a_secret_of_the_command_line_is_not_saved(world: World, word: str) -> None:
    world.firewall()
    plan = world.folder / "plan.json"
    result = world.fazai("plan", world.inventory(), "-o", plan, "-e", word)
    assert result.code == 3
    assert "a saved plan holds no secret" in result.err
    assert "hunter2" not in result.err
    assert not plan.exists()
    assert list(world.firewalls["fw-01"].requests) == []


def test_an_edited_plan_is_refused(world: World) -> None:
    world.firewall()
    plan = world.folder / "plan.json"
    world.fazai("plan", world.inventory(), "-o", plan)
    plan.write_text(plan.read_text().replace("192.0.2.53", "203.0.113.66"))
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 3
    assert "edited" in result.err
    assert world.writes() == []


# -- everything that the hash binds, one by one ---------------------------------------------------------


def made(world: World, folder: Path) -> Path:
    """A plan for a host that is a folder, made from a file of every sort. Returns the plan's file."""
    folder.mkdir()
    host = folder / "host"
    (host / "etc").mkdir(parents=True)
    (host / "etc/motd").write_text("old\n")
    (folder / "inventory.yml").write_text(
        json.dumps(
            {
                "all": {"vars": {"provider": "local", "mode": "write", "root": "host"}, "hosts": {"h1": {}}},
                "playbooks": ["site.yml"],
            }
        )
    )
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.yml").write_text("greeting: hello\n")
    (folder / "site.yml").write_text(json.dumps([{"hosts": "all", "resources": RESOURCES_OF_A_HOST}]))
    (folder / "more.yml").write_text(
        json.dumps([{"hosts": "all", "resources": [{"host.directory": {"path": "/srv/{{ name }}"}}]}])
    )
    (folder / "vars.yml").write_text("name: web\ncheck: test -s %s\n")
    (folder / "motd").write_text("welcome\n")
    (folder / "key").write_text("not for everybody\n")
    (folder / "app.j2").write_text("{{ greeting }} {{ inventory_hostname }}\n")
    (folder / "password").write_text("x")
    (folder / "password").chmod(0o600)
    plan = folder / "plan.json"
    words = ("-p", folder / "more.yml", "-e", f"@{folder / 'vars.yml'}", "-e", "colour=blue", "--limit", "h1")
    more = ("--vault-password-file", folder / "password", "--skip-tags", "never")
    result = world.fazai("plan", folder / "inventory.yml", *words, *more, "-o", plan)
    assert result.code == 2, result.err
    return plan


RESOURCES_OF_A_HOST = [
    {"host.file": {"path": "/etc/motd", "src": "motd", "validate": "{{ check }}", "backup": True}},
    {"host.file": {"path": "/etc/key", "src": "key", "mode": "0600"}},
    {"host.file": {"path": "/etc/app.conf", "template": "app.j2"}},
    {
        "host.command": {
            "argv": ["touch", "copy"],
            "creates": "/etc/copy",
            "environment": {"COLOUR": "{{ colour }}"},
            "chdir": "/etc",
        },
        "notify": "tell",
    },
    {"host.command": {"argv": ["true"]}, "listen": "tell"},
]


def tree(folder: Path) -> dict[str, bytes]:
    """All files of the host."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value of a document that is no mapping or list, and to every empty one."""
    if not isinstance(value, dict | list) or not value:
        yield path
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, (*path, key))


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, "x"]
    if isinstance(value, dict):
        return {**value, "x": "x"}
    return f"{value}x" if isinstance(value, str) else None


def test_a_plan_of_which_one_value_was_edited_is_refused(world: World) -> None:
    folder = world.folder / "work"
    plan = made(world, folder)
    before, text = tree(folder / "host"), plan.read_text()
    found = list(leaves(json.loads(text)))
    assert len(found) >= 60
    for path in found:
        if path == ("created",):  # for people; it decides nothing
            continue
        document = json.loads(text)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(place[path[-1]])
        plan.write_text(json.dumps(document))
        result = world.fazai("apply", "--plan", plan)
        assert result.code == 3, (path, result.out, result.err)
        assert (
            "the plan was edited" in result.err or "another release" in result.err or "no plan" in result.err
        ), path
        assert tree(folder / "host") == before, path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inventory.yml", "the inventory, a playbook or a file of variables was edited"),
        ("site.yml", "the inventory, a playbook or a file of variables was edited"),
        ("more.yml", "the inventory, a playbook or a file of variables was edited"),
        ("vars.yml", "the inventory, a playbook or a file of variables was edited"),
        ("group_vars/all.yml", "the inventory, a playbook or a file of variables was edited"),
        ("motd", "a file that a resource takes its content from was edited"),
        ("key", "a file that a resource takes its content from was edited"),
        ("app.j2", "a file that a resource takes its content from was edited"),
        ("host/etc/motd", "it is not in the state in which it was planned"),
    ],
)
def test_a_plan_is_stale_when_a_file_that_it_was_made_from_was_edited(
    world: World, name: str, said: str
) -> None:
    folder = world.folder / "work"
    plan = made(world, folder)
    file = folder / name
    file.write_text(file.read_text() + " \n")
    before = tree(folder / "host")
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 6, (result.out, result.err)
    assert said in result.out + result.err
    assert tree(folder / "host") == before
    file.write_text(file.read_text()[:-2])
    assert world.fazai("apply", "--plan", plan).code == 0


def test_a_new_file_of_variables_makes_a_plan_stale_before_a_secret_of_it_is_read(world: World) -> None:
    folder = world.folder / "work"
    plan = made(world, folder)
    (folder / "host_vars").mkdir()
    ran = folder / "ran"
    (folder / "host_vars/h1.yml").write_text(f"greeting: !cmd [touch, {ran}]\n")
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 6
    assert "the inventory, a playbook or a file of variables was edited" in result.err
    assert not ran.exists()


def test_a_plan_goes_with_its_checkout(world: World) -> None:
    """Planned in one folder, applied in another one that has the same files, from a third."""
    plan = made(world, world.folder / "work")
    assert str(world.folder) not in json.dumps(json.loads(plan.read_text())["arguments"])
    other = world.folder / "elsewhere"
    shutil.copytree(world.folder / "work", other)
    shutil.rmtree(world.folder / "work")
    result = world.fazai("apply", "--plan", other / "plan.json")
    assert result.code == 0, result.err
    assert (other / "host/etc/app.conf").read_text() == "hello h1\n"


def test_a_plan_with_a_host_for_which_nothing_is_declared_can_be_applied(world: World) -> None:
    """That host is not contacted, neither for the plan nor for its apply."""
    (world.folder / "h1/etc").mkdir(parents=True)
    motd = {"host.file": {"path": "/etc/motd", "content": "hello\n"}}
    local = {"provider": "local", "mode": "write"}
    away = {"provider": "ssh", "mode": "write", "host": "127.0.0.1", "port": 9}  # nobody is there
    hosts = {"h1": {**local, "root": "h1", "resources": [motd]}, "h2": away}
    inventory, plan = world.folder / "inv.yml", world.folder / "plan.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    assert world.fazai("plan", inventory, "-o", plan).code == 2
    result = world.fazai("apply", "--plan", plan)
    assert (result.code, result.err) == (0, ""), result.out
    assert (world.folder / "h1/etc/motd").read_text() == "hello\n"


@pytest.mark.parametrize("said_by", ["--limit", "--limit with others", "--limit with colons", "hosts"])
def test_a_list_of_hosts_is_a_part_of_the_plan(
    world: World, monkeypatch: pytest.MonkeyPatch, said_by: str
) -> None:
    """Else a host that was approved would be left out without a word, and the run would end with 0."""
    inventory, play, names = (world.folder / name for name in ("inv.yml", "play.yml", "names"))
    (world.folder / "elsewhere").mkdir()
    hosts = {}
    for name in ("h1", "h2", "h3"):
        (world.folder / name / "etc").mkdir(parents=True)
        hosts[name] = {"provider": "local", "mode": "write", "root": name}
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    resource = {"host.file": {"path": "/etc/motd", "content": "hello\n"}}
    who = f"@{names}" if said_by == "hosts" else "all"
    play.write_text(json.dumps([{"hosts": who, "resources": [resource]}]))
    names.write_text("h1\nh2\n")
    limit = {
        "--limit": ("--limit", "@names"),
        "--limit with others": ("--limit", "h3,@names,!h3"),
        "--limit with colons": ("--limit", "h3:@names:!h3"),
        "hosts": (),
    }
    plan = world.folder / "plan.json"
    monkeypatch.chdir(world.folder)
    assert world.fazai("plan", inventory, "-p", play, *limit[said_by], "-o", plan).code == 2
    assert [change["target"] for change in json.loads(plan.read_text())["changes"]] == ["h1", "h2"]
    for text in ("h1\n", "h1\nh2\nh3\n", "h1\nh3\n"):
        names.write_text(text)
        result = world.fazai("apply", "--plan", plan)
        assert result.code == 6, (text, result.out)
        assert "or a list of hosts" in result.err
        assert not (world.folder / "h1/etc/motd").exists()
    names.write_text("h1\nh2\n")
    monkeypatch.chdir(world.folder / "elsewhere")
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 0, result.err
    assert [name for name in hosts if (world.folder / name / "etc/motd").exists()] == ["h1", "h2"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("changes",), [1]),
        (("changes",), ["x", None]),
        (("arguments", "kind"), ["\ud800"]),
        (("targets", "\ud800"), {"observed": "", "changes": "", "wanted": ""}),
        (("targets",), {"h1": []}),
        (("arguments",), "x"),
        (("digest",), {}),
    ],
)
def test_a_plan_that_is_nonsense_is_refused(world: World, place: tuple[str, ...], value: Any) -> None:
    plan = made(world, world.folder / "work")
    document = json.loads(plan.read_text())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    plan.write_text(json.dumps(document))
    result = world.fazai("apply", "--plan", plan)
    assert result.code == 3, result.err
    assert "this is not a plan of fazai" in result.err or "the plan was edited" in result.err


def test_a_name_that_no_plan_can_hold(world: World) -> None:
    made(world, world.folder / "work")
    odd = world.folder / "work" / os.fsdecode(b"inv\xff.yml")
    shutil.copy(world.folder / "work/inventory.yml", odd)
    plan = world.folder / "work/odd.json"
    result = world.fazai("plan", odd, "-e", "check=test -s %s", "-e", "colour=x", "-o", plan)
    assert result.code == 3
    assert "a name in the plan is not UTF-8" in result.err
    assert not plan.exists()


def test_a_plan_follows_no_link_that_lies_in_its_way(world: World) -> None:
    """The plan is written beside its name first; that name cannot be guessed."""
    plan = made(world, world.folder / "work")
    before = plan.read_bytes()
    victim = world.folder / "victim"
    victim.write_text("keep\n")
    link = plan.with_name(f".{plan.name}.{os.getpid()}")
    link.symlink_to(victim)
    inventory = world.folder / "work/inventory.yml"
    result = world.fazai("plan", inventory, "-e", "check=test -s %s", "-e", "colour=x", "-o", plan)
    assert victim.read_text() == "keep\n"
    assert link.is_symlink()
    assert result.code == 2, result.err
    assert plan.read_bytes() != before


def test_a_plan_alone_says_where_it_looks(world: World) -> None:
    plan = made(world, world.folder / "work")
    lost = world.folder / "other"
    lost.mkdir()
    os.rename(plan, lost / "plan.json")
    result = world.fazai("apply", "--plan", lost / "plan.json")
    assert result.code == 3
    assert 'there is no inventory "' in result.err


def test_the_approved_hash_is_asked_for(world: World) -> None:
    plan = made(world, world.folder / "work")
    before = tree(world.folder / "work/host")
    digest = json.loads(plan.read_text())["digest"]
    result = world.fazai("apply", "--plan", plan, "--plan-hash", digest[:-1] + "x")
    assert result.code == 6
    assert f"the plan is not the approved one: its hash is {digest}" in result.err
    short = world.fazai("apply", "--plan", plan, "--plan-hash", digest[:12])
    assert short.code == 6  # a part of a hash is no hash
    assert tree(world.folder / "work/host") == before
    assert world.fazai("apply", "--plan", plan, "--plan-hash", digest).code == 0
    alone = world.fazai("apply", world.folder / "work/inventory.yml", "--plan-hash", digest)
    assert alone.code == 3
    assert "--plan-hash is the hash of a saved plan" in alone.err


def test_what_runs_something_is_shown_and_saved(world: World) -> None:
    plan = made(world, world.folder / "work")
    document = json.loads(plan.read_text())
    options = {change["identity"]: change.get("options") for change in document["changes"]}
    assert options["/etc/motd"] == {"backup": True, "validate": "test -s %s"}
    (command,) = (o for o in options.values() if o and "environment" in o)
    assert command["environment"] == {"COLOUR": "blue"}
    assert command["chdir"] == "/etc"
    shown = world.fazai(
        "plan",
        world.folder / "work/inventory.yml",
        "-e",
        "name=x",
        "-e",
        "check=test -s %s",
        "-e",
        "colour=red",
        "--diff",
    ).out
    assert "(validate: test -s %s)" in shown
    assert "(environment: {'COLOUR': 'red'})" in shown


def test_a_secret_among_the_options_is_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    folder = world.folder / "work"
    (folder / "host").mkdir(parents=True)
    command = {"argv": ["touch", "copy"], "creates": "/copy", "environment": {"TOKEN": "{{ token }}"}}
    (folder / "inventory.yml").write_text(
        "all:\n  vars: {provider: local, mode: write, root: host, token: !env TOKEN}\n  hosts: {h1: }\n"
        f"  resources: [{{host.command: {json.dumps(command)}}}]\n"
    )
    plan = folder / "plan.json"
    result = world.fazai("plan", folder / "inventory.yml", "--diff", "-o", plan)
    assert result.code == 2, result.err
    assert "hunter2" not in result.out + plan.read_text()
    assert "***" in result.out
    assert json.loads(plan.read_text())["changes"][0]["options"]["environment"] == {"TOKEN": "***"}


def test_a_plan_that_is_a_pipe_is_not_waited_for(world: World) -> None:
    os.mkfifo(world.folder / "plan")
    result = world.fazai("apply", "--plan", world.folder / "plan")
    assert (result.code, "a plan is a file" in result.err) == (3, True)
