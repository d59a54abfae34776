"""Several changes in one script: the same as one by one, only with fewer programs."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import FazaiError
from fazai.model import Change, Diff, Resource
from fazai.providers.hosts.kind import Block, FileReplacement
from fazai.providers.hosts.shell import batching as together
from tests.hosts.changes.test_faults import temporary, until
from tests.hosts.conftest import World
from tests.hosts.helpers import HOSTILE, SHELLS, Host, resource, shell_environ


def first_of(diff: Diff) -> tuple[Change, ...]:
    """The changes before the next look."""
    found = []
    for step in diff.steps:
        if not isinstance(step, Change):
            break
        found.append(step)
    return tuple(found)


async def joined(host: Host, *wanted: Resource) -> tuple[int, FazaiError | None]:
    """Write what differs as the engine does; how many were joined at first, and the error."""
    first = 0
    rest: Sequence[Resource] = wanted
    while rest:
        diff = await host.look(*rest)
        rest = diff.later
        changes = first_of(diff)
        while changes:
            count = host.session.join(changes)
            first = first or count
            if count == 1:
                await host.session.write(changes[0])
            else:
                refs, error = await host.session.write_joined(changes[:count])
                if error is not None:
                    return len(refs), error
            changes = changes[count:]
    again = await host.look(*wanted)
    assert (again.changes, again.errors) == ((), ())
    return first, None


def file(path: str, content: str, **more: Any) -> Resource:
    return resource("host.file", {"path": path, "content": content, **more})


def programs(folder: Path, environ: dict[str, str], *names: str) -> Path:
    """Put these programs behind a note of each start; returns where the notes are."""
    shims, log = folder / "shims", folder / "started"
    shims.mkdir()
    for name in names:
        text = f'#!/bin/sh\necho {name} >>"{log}"\nPATH="{environ["PATH"]}" exec {name} "$@"\n'
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)
    environ["PATH"] = f"{shims}:{environ['PATH']}"
    return log


@pytest.mark.parametrize("shell", SHELLS)
def test_many_files_are_one_script(shell: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    modes = ("0644", "0600", "0755", "0444", "4755", "0640")
    wanted = [resource("host.directory", {"path": "/d $(x)", "mode": "2750"})]
    for number, name in enumerate(HOSTILE):
        wanted.append(file(f"/d $(x)/{name}", f"{name}\0\n", mode=modes[number % len(modes)]))
    wanted.append(resource("host.link", {"path": "/d $(x)/l'", "target": "-x y"}))
    wanted.append(resource("host.line", {"path": "/lines", "line": "it's $HOME", "create": True}))
    environ = shell_environ(shell, tmp_path)
    log = programs(tmp_path, environ, "chmod", "sync", "mv")

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            count, error = await joined(host, *wanted)
            assert (count, error) == (len(wanted), None)
            assert host.session.shell.blocks == 3

    asyncio.run(run())
    folder = root / "d $(x)"
    assert folder.stat().st_mode & 0o7777 == 0o2750
    for number, name in enumerate(HOSTILE):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode("utf-8", "surrogateescape")))
        assert path.read_bytes() == f"{name}\0\n".encode("utf-8", "surrogateescape")
        assert f"{path.stat().st_mode & 0o7777:04o}" == modes[number % len(modes)]
    assert os.readlink(folder / "l'") == "-x y"
    assert (root / "lines").read_text() == "it's $HOME\n"
    assert temporary(folder) == []
    if shell != "busybox":  # which starts no program for these
        started = log.read_text().split()
        assert {name: started.count(name) for name in set(started)} == {
            "chmod": len(modes) + 1,  # and that of the folder
            "sync": 1,
            "mv": len(HOSTILE) + 1,
        }


def _acl(path: Path) -> None:
    """A default ACL that gives everybody everything (the kernel's format, version 2)."""
    entries = ((0x01, 7), (0x04, 7), (0x20, 7))
    value = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, 0xFFFFFFFF) for tag, perm in entries
    )
    try:
        os.setxattr(path, "system.posix_acl_default", value)
    except OSError as error:
        pytest.skip(f"this filesystem has no ACL: {error}")


def test_a_default_acl_does_not_change_the_mode(tmp_path: Path) -> None:
    _acl(tmp_path)
    (tmp_path / "probe").write_text("")
    assert (tmp_path / "probe").stat().st_mode & 0o777 == 0o666  # it works
    wanted = [file(f"/{mode}", "x", mode=mode) for mode in ("0600", "0644", "0700", "0440")]
    wanted.append(resource("host.block", {"path": "/b", "block": "x", "create": True}))

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            assert (await joined(host, *wanted))[0] == len(wanted)

    asyncio.run(run())
    for mode in ("0600", "0644", "0700", "0440"):
        assert f"{(tmp_path / mode).stat().st_mode & 0o7777:04o}" == mode
    assert (tmp_path / "b").stat().st_mode & 0o7777 == 0o644


def test_what_is_for_the_owner_alone_is_so_before_it_is_written(tmp_path: Path) -> None:
    _acl(tmp_path)
    environ = shell_environ("dash", tmp_path)
    shims = tmp_path / "seen"
    shims.mkdir()
    (shims / "sync").write_text(f'#!/bin/sh\nstat -c "%a %s" "$@" >"{tmp_path}/log"\n')
    (shims / "chmod").write_text(
        f'#!/bin/sh\n[ "$1" != 0600 ] || cat "$2" >"{tmp_path}/early"\nexec /bin/chmod "$@"\n'
    )
    for path in shims.iterdir():
        path.chmod(0o755)
    environ["PATH"] = f"{shims}:{environ['PATH']}"

    async def run() -> None:
        host = Host.local(tmp_path, environ)
        async with host.session:
            assert (await joined(host, file("/s", "secret", mode="0600"), file("/o", "open")))[0] == 2

    asyncio.run(run())
    assert (tmp_path / "early").read_text() == ""
    assert (tmp_path / "log").read_text() == "600 6\n644 4\n"


def test_an_odd_umask_and_a_setgid_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    before = os.umask(0o777)
    try:

        async def run() -> None:
            host = Host.local(tmp_path)
            async with host.session:
                wanted = resource("host.directory", {"path": "/d"}), file("/d/a", "x"), file("/b", "y")
                assert (await joined(host, *wanted))[0] == 3

        asyncio.run(run())
    finally:
        os.umask(before)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "d/a").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "b").stat().st_mode & 0o7777 == 0o644


def test_a_file_behind_a_link_that_is_made_just_before(tmp_path: Path) -> None:
    """Said as such or through another name: it is looked at behind the link, where that leads in a second
    look of its own."""
    (tmp_path / "real").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "alias").symlink_to("a")

    async def run(path: str, link: str) -> None:
        host = Host.local(tmp_path)
        async with host.session:
            wanted = resource("host.link", {"path": link, "target": "../real"}), file(path, path)
            assert await joined(host, *wanted) == (1, None)
            assert host.session.shell.blocks == (7 if path.startswith(link) else 8)

    asyncio.run(run("/a/l/f", "/a/l"))
    asyncio.run(run("/alias/m/g", "/a/m"))
    assert (tmp_path / "real/f").read_text() == "/a/l/f"
    assert (tmp_path / "real/g").read_text() == "/alias/m/g"


def test_what_does_not_go_together_is_left_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    true = {"validate": "true %s"}
    lines = [resource("host.line", {"path": "/f", "line": line}) for line in ("one", "two")]

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            wanted = file("/a", "a"), *lines, file("/b", "b", **true), file("/big", "x" * 600_000)
            changes = (await host.look(*wanted)).changes
            assert [host.session.join(changes[start:]) for start in range(5)] == [2, 1, 1, 1, 1]
            assert (await joined(host, *wanted))[1] is None
            await host.undo(changes)

    asyncio.run(run())
    assert (tmp_path / "f").read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


def test_one_that_fails_is_told_and_the_others_are_taken_back(world: World) -> None:
    root = world.local()
    (root / "f").write_text("old\n")
    wanted = [
        {"host.file": {"path": "/a", "content": "a"}},
        {"host.line": {"path": "/f", "line": "new"}},
        {"host.file": {"path": "/no/x", "content": "x"}},
        {"host.file": {"path": "/b", "content": "b"}},
    ]
    found = world.fazai("apply", "--output", "json", resources=wanted)
    assert found.code == 1
    (target,) = found.document["targets"]
    assert [change["status"] for change in target["changes"]] == ["undone", "undone", "failed", "left"]
    (error,) = target["errors"]
    assert ("/no/x" in str(error), "host.directory" in str(error)) == (True, True)
    assert (sorted(p.name for p in root.iterdir()), (root / "f").read_text()) == (["f"], "old\n")


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")

    async def run() -> None:
        host = Host.local(tmp_path)
        async with host.session:
            wanted = file("/a", "a"), resource("host.line", {"path": "/f", "line": "new"}), file("/b", "b")
            changes = (await host.look(*wanted)).changes
            (tmp_path / "f").write_text("somebody else's\n")
            assert host.session.join(changes) == 3
            refs, error = await host.session.write_joined(changes)
            assert (len(refs), "/f was changed by another hand" in str(error)) == (1, True)

    asyncio.run(run())
    assert (tmp_path / "f").read_text() == "somebody else's\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "f"]


def _blocking(folder: Path) -> dict[str, str]:
    """A `sync` that says that it was called, and waits to be told to go on."""
    shims = folder / "shims"
    shims.mkdir()
    (shims / "sync").write_text(
        f'#!/bin/sh\n: >"{folder}/called"\nuntil [ -e "{folder}/go" ]; do sleep 0.01; done\n'
    )
    (shims / "sync").chmod(0o755)
    return {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}


def test_a_controller_that_is_killed_between_them(world: World) -> None:
    root = world.local()
    names = ("a", "b", "c")
    for name in names:
        (root / name).write_text("old")
    wanted = [{"host.file": {"path": f"/{name}", "content": "new"}} for name in names]
    assert world.fazai("plan", resources=wanted).code == 2  # writes the inventory
    command = [sys.executable, "-m", "fazai", "apply", str(world.folder / "inventory.yml")]
    child = subprocess.Popen(
        command,
        env=_blocking(world.folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((world.folder / "called").exists)
    assert len(temporary(root)) == 3
    assert {(root / name).read_text() for name in names} == {"old"}
    child.send_signal(signal.SIGKILL)
    child.wait()
    (world.folder / "go").touch()
    until(lambda: temporary(root) == [])
    assert {(root / name).read_text() for name in names} <= {"old", "new"}
    found = world.fazai("apply", resources=wanted)
    assert (found.code, found.out.count("was cut off during update")) == (0, 3), found
    assert {(root / name).read_text() for name in names} == {"new"}


@pytest.mark.parametrize("whole", [False, True])
def test_a_shell_that_is_killed_between_them(
    world: World, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that writes, by the kernel for instance; or all of it: then nobody knows how far it came."""
    root, shims = world.local(), world.folder / "shims"
    shims.mkdir()
    mark = world.folder / "killed"
    parent = '$(cut -d" " -f4 /proc/$PPID/stat)' if whole else '"$PPID"'
    (shims / "sync").write_text(
        f'#!/bin/sh\n[ -e "{mark}" ] && exit\n: >"{mark}"\nkill -9 {parent}; exit 1\n'
    )
    (shims / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    wanted = [{"host.file": {"path": f"/{name}", "content": name}} for name in ("a", "b", "c")]
    found = world.fazai("apply", resources=wanted)
    assert mark.exists()
    assert found.code == (1 if whole else 0), found
    if whole:
        assert "and 2 more were written" in found.out
        assert "it looks first" in found.out
        found = world.fazai("apply", resources=wanted)
        assert found.code == 0, found
    assert {path.name: path.read_text() for path in root.iterdir()} == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("said", "fails"),
    [("dd: fsync failed for 'x': Input/output error", True), ("dd: invalid conversion", False)],
)
def test_what_does_not_reach_the_disk_takes_no_name(
    count: int, said: str, fails: bool, tmp_path: Path
) -> None:
    """`dd` that cannot synchronise at all is no failure of the disk: all of it is synchronised instead."""
    root, shims = tmp_path / "root", tmp_path / "shims"
    root.mkdir()
    shims.mkdir()
    (shims / "sync").write_text(f'#!/bin/sh\necho "$#" >>"{tmp_path}/synced"\n[ $# = 0 ]\n')
    (shims / "dd").write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    for path in shims.iterdir():
        path.chmod(0o755)
    environ = shell_environ("dash", tmp_path)
    environ["PATH"] = f"{shims}:{environ['PATH']}"
    wanted = [file(f"/{name}", "x") for name in range(count)]

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            if not fails:
                assert (await joined(host, *wanted))[1] is None
                return
            changes = (await host.look(*wanted)).changes
            host.session.join(changes)
            refs, error = await host.session.write_joined(changes)
            assert (refs, "Input/output error" in str(error)) == ([], True)
            assert list(root.iterdir()) == []

    asyncio.run(run())
    assert ("0" in (tmp_path / "synced").read_text().split()) is not fails


@pytest.mark.parametrize(
    ("blocks", "groups"),
    [
        ((("at", "/d"), ("put", "/d/a"), ("put", "/b")), [1, 2]),
        ((("put", "/a"), ("at", "/l"), ("put", "/b")), [3]),
        ((("put", "/a"), ("at", "/l"), ("put", "/l/b"), ("put", "/c")), [2, 2]),
        ((("at", "/d"), ("put", "/dd/a")), [2]),
    ],
)
def test_where_the_script_is_cut(blocks: Sequence[tuple[str, str]], groups: list[int]) -> None:
    def block(kind: str, path: str) -> Block:
        if kind == "at":
            return Block(f"walk to {path}", at=path, plain=f"make {path}")
        return Block("", f"{path}.tmp", put=FileReplacement(path, (b"fill\n",), "0644", "", f"name {path}"))

    made = [block(*words) for words in blocks]
    text = b"".join(together.batch_script(made)).decode()
    parts = text.split("fz_sync")
    assert len(parts) - 1 == sum(1 for group in together._split_groups(made) if any(b.put for b in group))
    assert [len(group) for group in together._split_groups(made)] == groups
    places = [text.index(f"{'make' if kind == 'at' else 'name'} {path}\n") for kind, path in blocks]
    assert places == sorted(places)
