"""Modes and owners that are not as declared when they are set by name, and what is made for nobody's use."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from tests.hosts.changes.test_unsafe_ways import ALICE, BOB, alices
from tests.hosts.conftest import World
from tests.hosts.helpers import SHELLS, Host, put_first, resource, shell_environ
from tests.hosts.kinds.test_links_and_folders import left_over
from tests.hosts.kinds.test_shared_files import KEY_1

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to others")


def mode(path: Path) -> str:
    return f"{path.lstat().st_mode & 0o7777:04o}"


@pytest.mark.parametrize(
    "more", [[], [{"host.file": {"path": "/b", "content": "b"}}]], ids=["alone", "joined"]
)
@pytest.mark.parametrize(
    "before", [[], [{"host.link": {"path": "/a", "target": "real"}}]], ids=["there", "new"]
)
def test_a_mode_for_a_link_does_not_reach_its_target(
    more: list[dict[str, Any]], before: list[dict[str, Any]], world: World
) -> None:
    """`chmod` follows links: a file that only root may read became one for all."""
    root = world.local()
    (root / "real").write_text("secret\n")
    (root / "real").chmod(0o600)
    if not before:
        (root / "a").symlink_to("real")
    wanted = [*before, {"host.file": {"path": "/a", "mode": "0644"}}, *more]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, mode(root / "real")) == (1, "0600"), found
    assert "host.file /a: there is a link to real, and no content is declared" in found.out
    assert not (root / "b").exists()


@pytest.mark.in_turn("shell", "above")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("above", [0o2755, 0o2775], ids=["closed", "open"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_without_the_group_of_the_one_above(
    shell: str, above: int, together: bool, tmp_path: Path
) -> None:
    """A folder hands its set-group-id bit down, and GNU's `chmod 0755` leaves it."""
    root = tmp_path / "fs"
    (root / "srv/old").mkdir(parents=True)
    (root / "srv").chmod(above)
    (root / "srv/old").chmod(0o2755)
    wanted = [
        resource("host.directory", {"path": "/srv/new", "mode": "0755"}),
        resource("host.directory", {"path": "/srv/group", "mode": "2750"}),
    ]
    here = {"new": "0755", "group": "2750", "old": "2755"}
    if above == 0o2755:  # what is root's where others may write is left alone
        wanted.append(resource("host.directory", {"path": "/srv/old", "mode": "0750"}))
        here["old"] = "0750"

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            if together and above == 0o2755:
                changes = (await host.look(*wanted)).changes
                assert host.session.join(changes) == len(changes)
                assert (await host.session.write_joined(changes))[1] is None
                assert (await host.look(*wanted)).changes == ()
            else:
                changes = await host.converge(*wanted)
            assert {path.name: mode(path) for path in (root / "srv").iterdir()} == here
            await host.undo(changes)

    asyncio.run(run())
    assert {path.name: mode(path) for path in (root / "srv").iterdir()} == {"old": "2755"}


# -- what is made behind a link of another user ----------------------------------------------------------

MADE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("host.file", {"content": "x"}),
    ("host.directory", {}),
    ("host.directory", {"path": "/home/alice/d/new/below", "mode": "0700"}),
    ("host.link", {"target": "x"}),
    ("host.sysctl", {"name": "a.b", "value": "1"}),
)


@pytest.mark.in_turn("shell", "kind", "fields")
@ROOT
@pytest.mark.parametrize(("kind", "fields"), MADE)
@pytest.mark.parametrize("shell", SHELLS)
def test_behind_a_users_link_only_what_is_hers_is_made(
    shell: str, kind: str, fields: Mapping[str, Any], tmp_path: Path
) -> None:
    """A file of root's behind it is an unsafe step for each later look, and for its undo: it was made,
    refused at the read-back, and stayed."""
    root = alices(tmp_path)
    (root / "home/alice/own").mkdir()
    os.chown(root / "home/alice/own", ALICE, ALICE)
    os.symlink("own", root / "home/alice/d")
    os.lchown(root / "home/alice/d", ALICE, ALICE)
    name = "sysctl_file" if kind == "host.sysctl" else "path"

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            (change,) = (await host.look(resource(kind, {name: "/home/alice/d/new", **fields}))).changes
            said = (
                "unsafe step /home/alice/d: a link of .*, and what is made behind it would be somebody else's"
            )
            with pytest.raises(DeviceError, match=said):
                await host.session.write(change)
            assert os.listdir(root / "home/alice/own") == []
            if kind in ("host.file", "host.directory") and "path" not in fields:
                hers = resource(kind, {"path": "/home/alice/d/new", **fields, "owner": str(ALICE)})
                await host.undo(await host.converge(hers))

    asyncio.run(run())
    assert left_over(root) == []


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_that_comes_before_ours_leaves_nothing(shell: str, tmp_path: Path) -> None:
    """The folder that was made for it beside it goes again."""
    root = alices(tmp_path)
    environ = shell_environ(shell, tmp_path)
    programs = Path(environ["PATH"].partition(":")[0])
    real = (programs / "mkdir").resolve() if (programs / "mkdir").exists() else shutil.which("mkdir")
    hers = root / "home/alice/d"
    name = f"{real} mkdir" if shell == "busybox" else str(real)
    put_first(environ, "mkdir", f'{name} "$@" && {name} -p {hers}')

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            (change,) = (await host.look(resource("host.directory", {"path": "/home/alice/d"}))).changes
            with pytest.raises(DeviceError, match="there is something else by now"):
                await host.session.write(change)

    asyncio.run(run())
    assert left_over(root) == []


@ROOT
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", ["host.directory", "host.sysctl"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_link_that_comes_before_a_folder_on_the_way(
    shell: str, kind: str, together: bool, tmp_path: Path
) -> None:
    """`mkdir -p` follows in a sticky folder, too, a link that another user made a moment before, and what
    gives the folder its owner goes where that leads."""
    root = alices(tmp_path)
    environ = shell_environ(shell, tmp_path)
    link = root / "tmp/a"
    put_first(
        environ,
        "mkdir",
        f"[ -e {link} ] || [ -h {link} ] || {{ ln -s ../etc {link}; chown -h {ALICE} {link}; }}\n"
        f'PATH={environ["PATH"]} exec {"busybox " if shell == "busybox" else ""}mkdir "$@"',
    )
    before = sorted(os.listdir(root / "etc"))
    fields = {
        "host.directory": {"path": "/tmp/a/b/c", "mode": "0777", "owner": str(ALICE)},
        "host.sysctl": {"name": "x.y", "value": "1", "sysctl_file": "/tmp/a/b/f"},
    }[kind]
    wanted = [resource(kind, fields)]
    if together:
        wanted.append(resource("host.directory", {"path": "/run/x"}))

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            changes = (await host.look(*wanted)).changes
            if together and host.session.join(changes) > 1:
                refs, error = await host.session.write_joined(changes)
                assert (refs, isinstance(error, DeviceError)) == ([], True)
            else:
                with pytest.raises(DeviceError, match=r"there is something else by now|unsafe step /tmp/a"):
                    await host.session.write(changes[0])

    asyncio.run(run())
    assert sorted(os.listdir(root / "etc")) == before
    assert left_over(root) == []


@pytest.mark.parametrize("kind", ["host.line", "host.block", "host.download", "host.file"])
@pytest.mark.parametrize("there", ["directory", "special file"])
def test_what_is_no_file_is_called_so(kind: str, there: str, world: World) -> None:
    """A pipe was a file that `become: true` would let us read."""
    root = world.local()
    (root / "x").mkdir() if there == "directory" else os.mkfifo(root / "x")
    fields = {
        "host.line": {"path": "/x", "line": "a"},
        "host.block": {"path": "/x", "block": "a"},
        "host.file": {"path": "/x", "content": "a"},
        "host.download": {"dest": "/x", "url": "http://127.0.0.1/", "checksum": f"sha256:{'0' * 64}"},
    }[kind]
    found = world.fazai("plan", resources=[{kind: fields}])
    assert (found.code, f"/x: there is a {there}, not a file" in found.out.replace("/x: a:", "/x:")) == (
        1,
        True,
    ), found


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_of_ours_in_a_sticky_one(shell: str, tmp_path: Path) -> None:
    """It is nobody else's to move. A folder in an open one is; a file with another name may be any file."""
    root = alices(tmp_path)
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    for path in (root / "tmp/ours", root / "tmp/hers", root / "open/ours"):
        path.mkdir()
    os.chown(root / "tmp/hers", ALICE, ALICE)
    (root / "etc/secret").write_text("old\n")
    (root / "tmp/linked").hardlink_to(root / "etc/secret")  # as alice may on old systems
    (root / "open/linked").hardlink_to(root / "etc/secret")
    given = {"mode": "0700", "owner": str(BOB)}

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = await host.converge(resource("host.directory", {"path": "/tmp/ours", "mode": "1700"}))
            assert mode(root / "tmp/ours") == "1700"
            await host.undo(changes)
            assert mode(root / "tmp/ours") == "0755"
            for kind, path in (
                ("host.directory", "/open/ours"),
                ("host.file", "/tmp/linked"),
                ("host.file", "/open/linked"),
            ):
                diff = await host.look(resource(kind, {"path": path, **given}))
                if diff.errors:  # at the look already
                    assert f"unsafe step {path}: " in str(diff.errors[0])
                    continue
                with pytest.raises(DeviceError, match=f"unsafe step {path}: "):
                    await host.session.write(diff.changes[0])

    asyncio.run(run())
    assert mode(root / "etc/secret") == "0644"


def test_a_home_that_is_not_absolute_is_below_the_root(tmp_path: Path) -> None:
    """A `root:` folder's passwd led to a folder beside it."""
    root, beside = tmp_path / "fs", tmp_path / "fsbeside"
    (root / "etc").mkdir(parents=True)
    (root / "beside").mkdir()
    beside.mkdir()
    (root / "etc/passwd").write_text(f"a:x:{os.getuid()}:{os.getgid()}::beside:\n")

    async def run() -> None:
        host = Host.local(root)
        async with host.session:
            await host.converge(resource("host.authorized_key", {"user": "a", "key": KEY_1}))

    asyncio.run(run())
    assert (root / "beside/.ssh/authorized_keys").read_text() == f"{KEY_1}\n"
    assert os.listdir(beside) == []
