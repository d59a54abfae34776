"""What goes with a folder is a part of what was decided; and a path means the folder to which it led then."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from fazai.providers.hosts.folder_names import inside_question, read_names
from fazai.providers.hosts.shell.questions import Output
from tests.hosts.conftest import World
from tests.hosts.helpers import HOSTILE, SHELLS, Host, resource, shell_environ
from tests.hosts.kinds.test_users import line
from tests.hosts.machines import Machine

GONE = {"host.directory": {"path": "/srv/old", "recurse": True, "state": "absent"}}


def folder(root: Path) -> Path:
    """A folder with two files, one of them deep in it."""
    old = root / "srv/old"
    (old / "deep/er").mkdir(parents=True)
    (old / "a").write_text("1\n")
    (old / "deep/er/b").write_text("2\n")
    return old


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# -- folders that are removed with all that is in them ---------------------------------------------------


@pytest.mark.parametrize("name", ["new", "deep/er/new", "deep/new/newer", "deep/er/b"])
def test_a_saved_plan_removes_only_what_was_there(world: World, name: str) -> None:
    root = world.local(mode="write")
    old = folder(root)
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=[GONE]).code == 2
    (change,) = json.loads(plan.read_text())["changes"]
    assert change["before"]["holds"].startswith("4 names (sha256 ")
    there = name == "deep/er/b"
    if there:
        (old / name).unlink()
    elif name.endswith("newer"):
        (old / name).mkdir(parents=True)
    else:
        (old / name).write_text("somebody's work\n")
    before = everything(root)
    world.hosts.clear()
    result = apply(world, plan)
    assert (result.code, everything(root)) == (6, before), result.out
    assert "the plan is stale for box: it is not in the state in which it was planned" in result.out


def test_a_file_that_grows_does_not_stop_a_saved_plan(world: World) -> None:
    root = world.local(mode="write")
    old = folder(root)
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=[GONE]).code == 2
    (old / "a").write_text("1\n2\n")
    result = apply(world, plan)
    assert (result.code, old.exists()) == (0, False), result.out


def apply(world: World, plan: Path) -> Any:
    from fazai.cli import main
    from tests.hosts.conftest import Result

    world.capsys.readouterr()
    code = main(["apply", "--plan", str(plan)])
    said = world.capsys.readouterr()
    return Result(code, said.out, said.err)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["new", "deep/er/new", "-", "deep/er/new\nline", "deep/er/b"])
def test_what_came_or_went_since_the_look_stops_it(name: str, shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    old = folder(root)
    gone = resource("host.directory", {"path": "/srv/old", "recurse": True}, "absent")

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            (change,) = (await host.look(gone)).changes
            if name == "deep/er/b":
                (old / name).unlink()
            else:
                (old / name).write_text("somebody's work\n")
            before = everything(root)
            with pytest.raises(
                DeviceError, match=": /srv/old was changed by another hand since it was"
            ) as caught:
                await host.session.write(change)
            assert caught.value.hint == "run it again: it looks first"
            assert everything(root) == before
            await host.converge(gone)  # looked at again it goes
            assert not old.exists()

    asyncio.run(run())


@pytest.mark.parametrize("shell", SHELLS)
def test_any_names_are_told_apart(shell: str, tmp_path: Path) -> None:
    """The last of them comes after the look; also into a folder that was empty."""
    root = tmp_path / "root"
    gone = resource("host.directory", {"path": "/d", "recurse": True}, "absent")

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            for number in range(len(HOSTILE)):
                (root / "d").mkdir(parents=True, exist_ok=True)
                for name in HOSTILE[:number]:
                    (root / "d" / name).touch()
                (change,) = (await host.look(gone)).changes
                names = f"{number} name{'' if number == 1 else 's'} (sha256 "
                assert change.before["holds"].startswith(names) or "\n" in "".join(HOSTILE[:number])
                (root / "d" / HOSTILE[number]).touch()
                with pytest.raises(
                    DeviceError, match=": /d was changed by another hand since it was looked at"
                ):
                    await host.session.write(change)
                assert (root / "d" / HOSTILE[number]).exists()

    asyncio.run(run())


@pytest.mark.in_turn("through")
@pytest.mark.parametrize("through", ["/srv/old", "/link/old"])
@pytest.mark.parametrize("first", ["file", "directory", "link", "command", "file that comes"])
def test_what_this_run_did_in_it_is_no_other_hand(world: World, first: str, through: str) -> None:
    root = world.local(mode="write")
    old = folder(root)
    (root / "link").symlink_to("srv")
    (old / "empty").mkdir()
    (old / "l").symlink_to("a")
    kinds: dict[str, dict[str, Any]] = {
        "file": {"host.file": {"path": f"{through}/a", "state": "absent"}},
        "directory": {"host.directory": {"path": f"{through}/empty", "state": "absent"}},
        "link": {"host.link": {"path": f"{through}/l", "state": "absent"}},
        "command": {"host.command": {"argv": ["rm", f"{root}{through}/a"], "removes": f"{through}/a"}},
        "file that comes": {"host.file": {"path": f"{through}/new", "content": "x\n"}},
    }
    result = world.fazai("apply", "--yes", resources=[kinds[first], GONE])
    assert not old.exists(), result.out
    if first == "file that comes":  # the list contradicts itself, which is found when it is read back
        assert result.code == 1
    else:
        assert (result.code, "another hand" in result.out) == (0, False), result.out


def test_a_folder_of_very_many_names() -> None:
    """The host says how many it counted, which is never more than one above the most."""
    said = b"count 100002\n" + b"0" * 64 + b"  -\n"
    assert read_names("/d", {inside_question("/d"): Output(0, said)})[0].startswith(
        "more than 100000 names (sha256 0000"
    )
    empty = b"count 0\n" + b"0" * 64 + b"  -\n"  # there is no `find`
    assert read_names("/d", {inside_question("/d"): Output(0, empty)}) == ("", "")
    assert read_names("/d", {inside_question("/d"): Output(1, b"/d: permission denied")}) == ("", "")


# -- users that go with their home folder ----------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_user_goes_with_the_home_folder_that_was_seen(shell: str, tmp_path: Path) -> None:
    machine = Machine.made(tmp_path, shell)
    user = {"name": "app-1", "home": "/srv/app-1"}

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.converge(resource("host.user", user))
            gone = resource("host.user", {**user, "remove": True}, "absent")
            first = (await host.look(gone)).changes[0]
            seen = await host.session.observe([gone])
            await host.session.shell.run("echo work >/srv/app-1/thesis")
            with pytest.raises(
                DeviceError, match=": /srv/app-1 was changed by another hand since it was looked"
            ):
                await host.session.write(first)
            assert line(machine, "passwd", "app-1") is not None
            assert (machine.folder / "upper/srv/app-1/thesis").read_text() == "work\n"
            assert (await host.session.observe([gone])).digest != seen.digest
            (change,) = await host.converge(gone)
            assert " name" in change.before["home_holds"]
            assert line(machine, "passwd", "app-1") is None
            assert (await host.session.shell.run("[ ! -e /srv/app-1 ]")).exit == 0

    asyncio.run(run())


# -- links on the way that lead elsewhere by then --------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "file": {"host.file": {"path": "/cur/f", "content": "new\n"}},
    "file that is new": {"host.file": {"path": "/cur/deep/g", "content": "new\n"}},
    "file that goes": {"host.file": {"path": "/cur/f", "state": "absent"}},
    "mode": {"host.file": {"path": "/cur/f", "mode": "0600"}},
    "line": {"host.line": {"path": "/cur/f", "line": "new"}},
    "block": {"host.block": {"path": "/cur/f", "block": "new"}},
    "link": {"host.link": {"path": "/cur/l", "target": "new"}},
    "directory": {"host.directory": {"path": "/cur/deep", "mode": "0700"}},
    "directory that goes": {"host.directory": {"path": "/cur/deep", "recurse": True, "state": "absent"}},
}


def versions(root: Path) -> None:
    """Two folders that are alike, and a link to the first."""
    for name in ("v1", "v2"):
        (root / name / "deep").mkdir(parents=True)
        (root / name / "f").write_text("old\n")
        (root / name / "l").symlink_to("old")
    (root / "cur").symlink_to("v1")


def whole(root: Path) -> dict[str, tuple[int, str]]:
    """All there is but the link: mode, content or target."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text(),
        )
        for path in root.rglob("*")
        if path.name != "cur"
    }


#: What the slow run tries as well: its paths are bound to folders as those of the others are.
ALIKE = frozenset({"file that is new", "file that goes", "mode", "block", "link", "directory"})


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in CHANGES]
)
def test_a_saved_plan_is_for_the_folder_to_which_its_path_led(world: World, change: str) -> None:
    root = world.local(mode="write")
    versions(root)
    plan = world.folder / "plan.json"
    assert world.fazai("plan", "-o", plan, resources=[CHANGES[change]]).code == 2
    (root / "cur").unlink()
    (root / "cur").symlink_to("v2")
    before = whole(root)
    result = apply(world, plan)
    assert (result.code, whole(root)) == (6, before), result.out
    assert "the plan is stale for box: it is not in the state in which it was planned" in result.out
    (root / "cur").unlink()
    (root / "cur").symlink_to("v1")
    assert apply(world, plan).code == 0
    assert {name: item for name, item in whole(root).items() if name.startswith("v2")} == {
        name: item for name, item in before.items() if name.startswith("v2")
    }


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "change", ["file", "file that is new", "file that goes", "mode", "link", "directory"]
)
def test_a_link_that_leads_elsewhere_since_the_look(change: str, shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    versions(root)
    ((kind, fields),) = CHANGES[change].items()
    state = fields.get("state", "present")
    wanted = resource(kind, {k: v for k, v in fields.items() if k != "state"}, state)

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            (found,) = (await host.look(wanted)).changes
            (root / "cur").unlink()
            (root / "cur").symlink_to("v2")
            before = whole(root)
            with pytest.raises(
                DeviceError, match="was changed by another hand since it was looked at: nothing"
            ):
                await host.session.write(found)
            assert whole(root) == before
            await host.converge(wanted)
            assert whole(root) != before

    asyncio.run(run())


def test_a_link_on_a_whole_machine(tmp_path: Path) -> None:
    """Where paths are named, not walked, a link on the way is asked about as well."""
    machine = Machine.made(tmp_path)

    async def run() -> None:
        host = machine.host()
        wanted = resource("host.file", {"path": "/opt/cur/f", "content": "new\n"})
        async with host.session:
            script = "for v in v1 v2; do mkdir -p /opt/$v; echo old >/opt/$v/f; done; ln -s v1 /opt/cur"
            await host.session.shell.run(script)
            (found,) = (await host.look(wanted)).changes
            await host.session.shell.run("ln -sfn v2 /opt/cur")
            with pytest.raises(
                DeviceError, match=": /opt/cur/f was changed by another hand since it was looked at"
            ):
                await host.session.write(found)
            assert (
                await host.session.shell.run("cmp /opt/v1/f /opt/v2/f && grep -q old /opt/v2/f")
            ).exit == 0
            await host.converge(wanted)

    asyncio.run(run())
