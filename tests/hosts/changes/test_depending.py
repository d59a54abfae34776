"""Resources of one run that depend on each other: each finds what those before it left."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.cli import main
from fazai.errors import DeviceError, Moved
from tests.hosts.conftest import World
from tests.hosts.helpers import Host, put_first, resource, shell_environ
from tests.hosts.kinds.test_packages import NAME, debian
from tests.hosts.kinds.test_shared_files import KEY_1
from tests.hosts.test_whole_machine import fazai

#: The one file that the package brings.
CONFIG = f"/etc/{NAME}.conf"
PACKAGE = {"host.package": {"name": NAME, "version": "1.0", "update_cache": True}}
NEVER = {"host.command": {"shell": "echo no luck >&2; exit 3", "creates": "/never"}}


def command(text: str, **guard: Any) -> dict[str, Any]:
    """A command in the host's folder."""
    return {"host.command": {"shell": text, "chdir": "/", **guard}}


def line(path: str, text: str, **more: Any) -> dict[str, Any]:
    return {"host.line": {"path": path, "line": text, **more}}


def file(path: str, **more: Any) -> dict[str, Any]:
    return {"host.file": {"path": path, **more}}


def changes(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return of each change its kind, how it ended, and the note."""
    (target,) = document["targets"]
    return [(c["kind"], c["status"], c.get("note", "")) for c in target["changes"]]


# -- what a package brings -----------------------------------------------------------------------------------


@pytest.mark.in_turn("create")
@pytest.mark.parametrize("create", [True, False])
def test_a_line_of_a_file_that_a_package_brings(create: bool, tmp_path: Path) -> None:
    machine = debian(tmp_path)
    wanted = [PACKAGE, line(CONFIG, "set mouse", create=create)]
    out = fazai(machine, "plan", "apply", "apply", resources=wanted)
    assert [word for word in out.splitlines() if word.startswith("EXIT")] == ["EXIT 2", "EXIT 0", "EXIT 0"], (
        out
    )
    assert f"after package {NAME}" in out.partition("EXIT 2")[0], out
    assert (machine.folder / f"upper{CONFIG}").read_text() == "as it came\nset mouse\n"
    results = [word.partition(", 0 failed")[0] for word in out.splitlines() if word.startswith("RESULT")]
    assert results[1:] == ["RESULT 2 changed, 0 unchanged", "RESULT 0 changed, 2 unchanged"], out


@pytest.mark.slow
def test_a_package_that_is_there_causes_no_second_look(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    wanted = [PACKAGE, line(CONFIG, "one"), file("/srv/x", content="x")]
    out = fazai(machine, "apply", "apply", resources=wanted[:2])
    assert out.count("EXIT 0") == 2, out
    planned = fazai(machine, "plan", resources=wanted)
    assert ("1 to change" in planned, "after package" in planned) == (True, False), planned


def test_what_an_undo_leaves_of_a_package_and_what_it_takes_back(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    out = fazai(machine, "apply", resources=[PACKAGE, line(CONFIG, "set mouse"), NEVER])
    assert ("EXIT 1" in out, "no luck" in out, "2 changes taken back" in out) == (True, True, True), out
    kept = machine.folder / f"upper{CONFIG}"  # apt's removal keeps the configuration, as it came
    assert kept.read_text() == "as it came\n"


# -- what a command brings -----------------------------------------------------------------------------------


def test_what_cannot_be_known_yet_is_planned(world: World) -> None:
    """Nothing is refused for what an earlier action may change; what is as wanted is looked at again."""
    root = world.local()
    (root / "f").write_text("x\n")
    (root / "same").write_text("x\n")
    wanted = [
        command("mkdir d; printf '# made\\n' >d/made; rm f; mkdir f", creates="/d"),
        line("/d/made", "more"),
        file("/d/made", mode="0600"),
        {"host.directory": {"path": "/f", "mode": "0700"}},
        file("/same", content="x\n"),
        file("/gone", state="absent"),
    ]
    plan = world.fazai("plan", resources=wanted)
    assert plan.code == 2, plan
    assert plan.out.count("after command mkdir d; printf ") == 4, plan.out
    assert "note: 2 that are as wanted now are looked at again after command mkdir d;" in plan.out
    assert sorted(path.name for path in root.iterdir()) == ["f", "same"]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "RESULT 4 changed, 2 unchanged" in found.out) == (0, True), found
    assert (root / "d/made").read_text() == "# made\nmore\n"
    assert ((root / "d/made").stat().st_mode & 0o777, (root / "f").stat().st_mode & 0o777) == (0o600, 0o700)
    again = world.fazai("apply", resources=wanted)
    assert (again.code, "RESULT 0 changed, 6 unchanged" in again.out) == (0, True), again


def test_what_an_earlier_action_does_not_mend_is_said_at_its_turn(world: World) -> None:
    root = world.local()
    wanted = [command("mkdir d", creates="/d"), file("/e", mode="0600"), file("/f", content="x")]
    assert world.fazai("plan", resources=wanted).code == 2
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "host.file /e: there is no such file" in found.out) == (1, True), found
    assert "host.command mkdir d cannot be taken back: it stays done" in found.out
    assert [path.name for path in root.iterdir()] == ["d"]


def test_what_was_as_wanted_and_is_not_any_more(world: World) -> None:
    """Also what an earlier action undoes for a resource that was found as wanted."""
    root = world.local()
    (root / "a").write_text("x\n")
    wanted = [command("rm a; touch done", creates="/done"), file("/a", content="x\n")]
    assert "1 to change" in world.fazai("plan", resources=wanted).out
    found = world.fazai("apply", "--output", "json", resources=wanted)
    assert (found.code, changes(found.document)) == (
        0,
        [("host.command", "done", ""), ("host.file", "done", "")],
    )
    assert (root / "a").read_text() == "x\n"


def test_what_a_command_made_stays_when_the_run_is_taken_back(world: World) -> None:
    root = world.local()
    wanted = [
        command("echo mine >a; echo mine >b", creates="/a"),
        file("/a", content="other\n"),
        line("/b", "more", create=True),
        file("/c", content="new\n"),
        NEVER,
    ]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "it stays done" in found.out, "3 changes taken back" in found.out) == (1, True, True)
    assert {path.name: path.read_text() for path in root.iterdir()} == {"a": "mine\n", "b": "mine\n"}


def test_what_somebody_changed_after_us_stays_and_the_rest_is_taken_back(world: World) -> None:
    """A command stands for the other hand; nothing says that it may be taken back."""
    root = world.local()
    (root / "a").write_text("old\n")
    (root / "b").write_text("old\n")
    wanted = [
        file("/a", content="new\n"),
        file("/b", content="new\n"),
        {"host.directory": {"path": "/d"}},
        {"host.link": {"path": "/l", "target": "a"}},
        command("echo theirs >a; echo theirs >d/x; ln -sfn b l; touch done", creates="/done"),
        NEVER,
    ]
    found = world.fazai("apply", resources=wanted)
    assert found.code == 1
    for said in (
        "host.file /a: /a is not as this run left it: it stays as it is",
        "host.directory /d: /d is not as this run left it: it stays as it is",
        "host.link /l: /l is not as this run left it: it stays as it is",
        "1 change taken back",
    ):
        assert said in found.out, found.out
    assert "could not be taken back" not in found.out
    assert ((root / "a").read_text(), (root / "b").read_text()) == ("theirs\n", "old\n")
    assert ((root / "d/x").read_text(), (root / "l").readlink().name) == ("theirs\n", "b")


# -- one path, several resources -----------------------------------------------------------------------------


def test_a_file_and_its_lines(world: World) -> None:
    """Each finds what the one before it left, also what it then need not do."""
    root = world.local()
    wanted = [
        file("/a", content="one\ntwo\n", mode="0600"),
        line("/a", "one"),
        {"host.line": {"path": "/b", "regexp": "^x", "line": "both", "create": True}},
        line("/b", "both"),
    ]
    found = world.fazai("apply", "--output", "json", resources=wanted)
    assert (found.code, [status for _, status, _ in changes(found.document)]) == (0, ["done", "done"]), found
    (target,) = found.document["targets"]
    assert target["unchanged"] == 2
    assert ((root / "a").read_text(), (root / "b").read_text()) == ("one\ntwo\n", "both\n")
    assert (root / "a").stat().st_mode & 0o777 == 0o600


def test_resources_that_contradict_each_other_are_not_left_half_way(world: World) -> None:
    root = world.local()
    wanted = [file("/a", content="one\n"), line("/a", "two")]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "after writing, host.file /a" in found.out) == (1, True), found
    assert list(root.iterdir()) == []


def test_what_is_taken_back_is_as_before_the_run_and_not_as_it_was_read_back(world: World) -> None:
    root = world.local()
    (root / "a").write_text("one\n")
    (root / "a").chmod(0o755)
    wanted = [
        {"host.block": {"path": "/a", "block": "b"}},
        file("/a", content="one\n", mode="0600"),
    ]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "2 changes taken back" in found.out) == (1, True), found
    assert ((root / "a").read_text(), (root / "a").stat().st_mode & 0o777) == ("one\n", 0o755)


def test_one_file_under_two_names(world: World) -> None:
    """A link that no resource names: also what was as wanted under the other name is looked at again."""
    root = world.local()
    (root / "real").mkdir()
    (root / "l").symlink_to("real")
    (root / "real/a").write_text("x\n")
    found = world.fazai("apply", resources=[line("/l/a", "y"), file("/real/a", content="x\n")])
    assert (found.code, (root / "real/a").read_text()) == (1, "x\n"), found
    wanted = [line("/l/a", "y"), file("/real/a", content="x\ny\n"), line("/real/a", "z", state="absent")]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "1 changed, 2 unchanged" in found.out) == (0, True), found


def test_through_a_link_that_this_run_makes(world: World) -> None:
    root = world.local()
    (root / "real").mkdir()
    (root / "real/a").write_text("there\n")
    wanted = [{"host.link": {"path": "/l", "target": "real"}}, line("/l/a", "more", create=True)]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, (root / "real/a").read_text()) == (0, "there\nmore\n"), found


# -- saved plans ---------------------------------------------------------------------------------------------

SAVED = [
    command("printf '# made\\n' >conf", creates="/conf"),
    line("/conf", "more"),
    file("/other", content="x\n"),
]


def test_a_saved_plan_holds_what_cannot_be_known_yet(world: World) -> None:
    root = world.local()
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=SAVED).code == 2
    body = json.loads(plan.read_text())
    assert [(c["kind"], c.get("note", "")) for c in body["changes"]] == [
        ("host.command", ""),
        ("host.line", "after command printf '# made\\n' >conf"),
        ("host.file", "after command printf '# made\\n' >conf"),
    ]
    assert main(["apply", "--plan", str(plan)]) == 0
    assert (root / "conf").read_text() == "# made\nmore\n"


def test_a_saved_plan_is_stale_when_what_is_known_moved_on(world: World) -> None:
    root = world.local()
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=SAVED).code == 2
    (root / "other").write_text("y\n")
    assert main(["apply", "--plan", str(plan)]) == 6
    assert [path.name for path in root.iterdir()] == ["other"]


def test_what_an_action_brings_may_be_removed_without_asking(world: World) -> None:
    """A deletion of what was there before is asked about; what this run brings itself nobody can lose."""
    root = world.local()
    wanted = [command("mkdir d; touch d/a d/default", creates="/d"), file("/d/default", state="absent")]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, [path.name for path in (root / "d").iterdir()]) == (0, ["a"]), found


# -- another hand --------------------------------------------------------------------------------------------

SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "cron": ("etc/cron.d/jobs", {"name": "ours", "job": "true", "user": "root", "cron_file": "jobs"}),
    "sysctl": ("etc/sysctl.d/x.conf", {"name": "a.b", "value": "1", "sysctl_file": "/etc/sysctl.d/x.conf"}),
    "authorized_key": ("keys", {"user": "root", "key": KEY_1, "path": "/keys"}),
}


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", SHARED)
def test_a_line_is_not_written_over_another_hand(kind: str, there: bool, tmp_path: Path) -> None:
    """Nothing is lost of what is written into the file while the host changes its line: here it is awk
    itself."""
    root = tmp_path / "root"
    name, fields = SHARED[kind]
    path = root / name
    path.parent.mkdir(parents=True)
    if there:
        path.write_text("# theirs\n")
    environ = shell_environ("dash", tmp_path)
    other = f'[ -z "$fz_count" ] || echo "# theirs, too" >>"{path}"'
    put_first(environ, "awk", f'{other}\nPATH="{environ["PATH"]}"\nexec awk "$@"')

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            (change,) = (await host.look(resource(f"host.{kind}", fields))).changes
            with pytest.raises(Moved, match=f"/{name} was changed by another hand since it was looked at"):
                await host.session.write(change)

    asyncio.run(run())
    assert path.read_text() == ("# theirs\n" if there else "") + "# theirs, too\n"
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


def test_a_command_is_not_run_when_somebody_made_what_it_makes(tmp_path: Path) -> None:
    wanted = resource("host.command", {"shell": "echo ran >x; exit 85", "creates": "/a", "chdir": "/"})

    async def run() -> None:
        host = Host.local(tmp_path)
        said: list[str] = []
        host.session.listen(lambda stream, text: said.append(text))
        async with host.session:
            (change,) = (await host.look(wanted)).changes
            (tmp_path / "a").mkdir()
            with pytest.raises(Moved, match="/a was changed by another hand"):
                await host.session.write(change)
            (tmp_path / "a").rmdir()
            with pytest.raises(DeviceError, match="exit status 85") as caught:  # its own, which means nothing
                await host.session.write(change)
            assert not isinstance(caught.value, Moved)
        assert said == []

    asyncio.run(run())
    assert (tmp_path / "x").read_text() == "ran\n"


def test_a_line_of_ours_that_somebody_changed_stays(world: World) -> None:
    """Kinds that no script compares are looked at before they are taken back."""
    root = world.local()
    jobs = {"user": "root", "cron_file": "jobs"}
    wanted = [
        {"host.cron": {"name": "one", "job": "first", **jobs}},
        {"host.cron": {"name": "two", "job": "second", **jobs}},
        {"host.sysctl": {"name": "a.b", "value": "1"}},
        command("sed -i s/first/theirs/ etc/cron.d/jobs; touch done", creates="/done"),
        NEVER,
    ]
    found = world.fazai("apply", resources=wanted)
    said = "host.cron one (cron.d/jobs): it is not as this run left it: it stays as it is"
    assert (found.code, said in found.out, "2 changes taken back" in found.out) == (1, True, True), found
    assert (root / "etc/cron.d/jobs").read_text() == "#fazai: one\n* * * * * root theirs\n"
    assert not (root / "etc/sysctl.d/99-fazai.conf").exists()


def test_what_a_change_that_fails_has_half_done_is_taken_back(world: World) -> None:
    root = world.local()
    (root / "s").mkdir(0o755)
    nobody = {"owner": "no-such-user"}
    for wanted in (
        [{"host.directory": {"path": "/p/d", **nobody}}],
        [file("/a", content="x"), {"host.directory": {"path": "/p/d", **nobody}}, file("/b", content="x")],
        [{"host.directory": {"path": "/s", "mode": "0700", **nobody}}],
        [{"host.directory": {"path": "/s", "mode": "0700"}}, file("/a", content="x", **nobody)],
    ):
        found = world.fazai("apply", resources=wanted)
        assert (found.code, "invalid user: 'no-such-user" in found.out) == (1, True), found
        assert ([path.name for path in root.iterdir()], (root / "s").stat().st_mode & 0o777) == (["s"], 0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="the owner of a file is for root to change")
def test_one_attribute_of_two_is_taken_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("x")
    environ = shell_environ("dash", tmp_path)
    put_first(environ, "chmod", "echo chmod: no luck >&2\nexit 1")
    wanted = resource("host.file", {"path": "/f", "owner": "65534", "mode": "0600"})

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            (change,) = (await host.look(wanted)).changes
            with pytest.raises(DeviceError, match="no luck"):
                await host.session.write(change)

    asyncio.run(run())
    assert ((root / "f").stat().st_uid, (root / "f").stat().st_mode & 0o777) == (0, 0o644)


def test_folders_that_were_made_on_the_way_go_with_their_directory(world: World) -> None:
    root = world.local()
    (root / "there").mkdir()
    deep = [
        {"host.directory": {"path": "/a/b/c d/é"}},
        {"host.directory": {"path": "/there/x/y"}},
        {"host.directory": {"path": "/k/l/m"}},
        command("touch k/theirs", creates="/k/theirs"),
        NEVER,
    ]
    found = world.fazai("apply", resources=deep)
    assert (found.code, "3 changes taken back" in found.out) == (1, True), found
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["k", "k/theirs", "there"]


# -- handlers ------------------------------------------------------------------------------------------------


def test_a_handler_that_edits_what_a_resource_declares_is_named(world: World) -> None:
    """Once, with both places; what it edits of files that nobody declares is its own affair."""
    root = world.local()
    text = """
- name: web
  hosts: all
  resources:
    - host.file: {path: /a, content: "1\\n"}
      notify: [stamp, other]
    - host.file: {path: /b, content: "1\\n"}
  handlers:
    - name: stamp
      host.command: {shell: "echo stamp >>a; echo log >>log", chdir: /}
    - name: other
      host.command: {shell: "true", chdir: /}
"""
    play = world.folder / "play.yml"
    play.write_text(text)
    for there in ("", "1\nstamp\n"):
        assert not there or (root / "a").read_text() == there
        found = world.fazai("apply", "--playbook", play)
        warnings = [line for line in found.out.splitlines() if "not as declared any more" in line]
        assert (found.code, len(warnings)) == (0, 1), found
        said = (
            f"host.file /a ({play}:5:7) is not as declared any more since the handler stamp ({play}:10:7) or"
        )
        assert f"{said} other ({play}:12:7) ran: " in warnings[0]
        assert "the next run changes it back; let one of the two alone say what is there" in warnings[0]
    play.write_text(text.replace("echo stamp >>a; ", ""))
    assert "not as declared" not in world.fazai("apply", "--playbook", play).out
