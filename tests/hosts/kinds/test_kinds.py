"""Every kind under every shell: create, re-run is zero, change, take back, remove; names that are hostile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import Moved
from fazai.model import Verb
from fazai.providers.hosts.kinds import load_host_kinds
from tests.hosts.cases import CASES, Case, Tree
from tests.hosts.conftest import World
from tests.hosts.helpers import HOSTILE, SHELLS, Host, resource, shell_environ


def place(root: Path, tree: Tree) -> None:
    for name, what in tree.items():
        path = root / name.lstrip("/")
        if what == "<dir>":
            path.mkdir(parents=True)
        elif isinstance(what, str) and what.startswith("-> "):
            path.symlink_to(what[3:])
        else:
            path.write_text(what)


def seen(root: Path, tree: Tree) -> dict[str, Any]:
    """Return what is there, in the form in which the tree says it."""
    return {name: _one(root / name.lstrip("/"), what) for name, what in tree.items()}


def _one(path: Path, wanted: Any) -> Any:
    if isinstance(wanted, tuple):
        return (f"{path.lstat().st_mode & 0o7777:04o}", _one(path, wanted[1])) if path.exists() else None
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_dir():
        return "<dir>"
    if not path.exists():
        return None
    return path.read_bytes() if isinstance(wanted, bytes) else path.read_text()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kind(case: Case, shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    place(root, case.before)

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            made = resource(case.kind, case.make)
            changes = await host.converge(made)
            assert len(changes) == 1
            assert seen(root, case.made) == dict(case.made)
            if case.change is not None:
                changes = await host.converge(resource(case.kind, {**case.make, **case.change}))
                assert [change.verb for change in changes] == [Verb.UPDATE]
                assert seen(root, case.changed) == dict(case.changed)
                await host.undo(changes)
                assert (await host.look(made)).changes == ()
                assert seen(root, case.made) == dict(case.made)
            if case.absent is None:
                return
            kind = load_host_kinds()[case.kind]
            identity = {name: case.make[name] for name in kind.identity if name in case.make}
            changes = await host.converge(resource(case.kind, {**identity, **case.absent}, "absent"))
            assert [change.verb for change in changes] == [Verb.DELETE]
            assert seen(root, case.removed) == dict(case.removed)
            await host.undo(changes)
            assert (await host.look(made)).changes == ()

    asyncio.run(run())
    assert sorted(path.name for path in root.rglob(".fazai-*")) == []


@pytest.mark.in_turn("shell", "names")
@pytest.mark.parametrize("names", [HOSTILE[::2], HOSTILE[1::2]], ids=["even", "odd"])
@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_names(shell: str, names: Sequence[str], tmp_path: Path) -> None:
    """All at once, in one block; contents, names and targets as hostile as they get."""
    root = tmp_path / "root"
    root.mkdir()
    wanted = []
    for name in names:
        wanted.append(resource("host.directory", {"path": f"/d {name}"}))
        wanted.append(resource("host.file", {"path": f"/d {name}/{name}", "content": name + "\n\n"}))
        wanted.append(resource("host.link", {"path": f"/d {name}/l{name}", "target": name}))

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = await host.converge(*wanted)
            assert len(changes) == 3 * len(names)
            for name in names:
                data = (root / f"d {name}" / name).read_bytes()
                assert data == (name + "\n\n").encode("utf-8", "surrogateescape")
            before = host.session.shell.blocks
            assert (await host.look(*wanted)).changes == ()
            assert host.session.shell.blocks - before == 1
            (root / f"d {names[0]}" / names[0]).write_text(
                "\nchanged\n" + host.session.shell.nonce[:-1] + "\n\n"
            )
            (change,) = await host.converge(*wanted)
            assert change.before["content"].data.startswith(b"\nchanged\n")
            gone = [resource("host.directory", {"path": f"/d {n}", "recurse": True}, "absent") for n in names]
            assert len(await host.converge(*gone)) == len(names)

    asyncio.run(run())
    assert list(root.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{shell}-bin", "root"]


def test_parts_of_one_file(tmp_path: Path) -> None:
    """Several lines and blocks of one file, at once: none overwrites another; all are taken back."""
    (tmp_path / "c").write_text("a\nb\n")
    wanted = [
        resource("host.line", {"path": "/c", "line": "one"}),
        resource("host.line", {"path": "/c", "regexp": "^b", "line": "bee"}),
        resource("host.block", {"path": "/c", "block": "two\nthree"}),
    ]

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            changes = await host.converge(*wanted)
            assert (tmp_path / "c").read_text() == "a\nbee\none\n# BEGIN fazai\ntwo\nthree\n# END fazai\n"
            await host.undo(changes)
            assert (tmp_path / "c").read_text() == "a\nb\n"

    asyncio.run(run())


def test_a_file_that_somebody_else_changed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a\n")

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            (change,) = (await host.look(resource("host.line", {"path": "/c", "line": "x"}))).changes
            (tmp_path / "c").write_text("other\n")
            with pytest.raises(Moved, match="/c was changed by another hand since it was looked at: nothing"):
                await host.session.write(change)

    asyncio.run(run())
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert (tmp_path / "c").read_text() == "other\n"


@pytest.mark.parametrize(
    ("kind", "there", "said"),
    [
        ("host.link", "directory", "there is a directory, not a link"),
        ("host.link", "file", "there is a file, not a link"),
        ("host.link", "special", "there is a special file, not a link"),
        ("host.directory", "file", "there is a file, not a directory"),
        ("host.directory", "link", "there is a link, not a directory"),
        ("host.file", "directory", "there is a directory, not a file"),
        ("host.file", "special", "there is a special file, not a file"),
    ],
)
def test_something_else_stands_there(kind: str, there: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    makers: dict[str, Callable[[], None]] = {
        "directory": path.mkdir,
        "file": path.touch,
        "special": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/nowhere"),
    }
    makers[there]()
    more = {"host.link": {"target": "y"}, "host.file": {"content": "c"}}.get(kind, {})

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            (error,) = (await host.look(resource(kind, {"path": "/x", **more}))).errors
            assert (error.message, error.hint is not None) == (f"{kind} /x: {said}", True)
            assert "move it away" in str(error.hint)

    asyncio.run(run())
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_link_where_something_came_after_the_look(shell: str, tmp_path: Path) -> None:
    (tmp_path / "root/real").mkdir(parents=True)
    link = resource("host.link", {"path": "/x", "target": "real"})

    async def run(make: Callable[[Path], object]) -> None:
        host = Host.local(tmp_path / "root", shell_environ(shell, tmp_path))
        path = tmp_path / "root/x"
        async with host.session:
            (change,) = (await host.look(link)).changes
            make(path)
            with pytest.raises(Moved, match="/x was changed by another hand") as caught:
                await host.session.write(change)
            assert caught.value.hint == "run it again: it looks first"
            if path.is_symlink():
                assert str(path.readlink()) == "/nowhere" or list((tmp_path / "root/real").iterdir()) == []
                path.unlink()
            else:
                path.rmdir() if path.is_dir() else path.unlink()

    asyncio.run(run(Path.mkdir))
    asyncio.run(run(lambda path: path.symlink_to("real/")))
    asyncio.run(run(lambda path: path.symlink_to("/nowhere")))
    asyncio.run(run(Path.touch))


def test_a_link_where_the_same_run_makes_a_directory(world: World) -> None:
    root = world.local()
    wanted: list[dict[str, Any]] = [
        {"host.directory": {"path": "/x"}},
        {"host.link": {"path": "/x", "target": "y"}},
    ]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "there is a directory, not a link" in found.out) == (1, True), found
    assert list(root.iterdir()) == []
