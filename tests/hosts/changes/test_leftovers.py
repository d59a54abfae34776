"""Leftovers of a run: it leaves nothing besides what it was to do, also when it is taken back or is cut
off."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError
from tests.hosts.changes.test_depending import NEVER, command, file, line
from tests.hosts.conftest import ME, World
from tests.hosts.helpers import SHELLS, Host, put_first, resource, shell_environ
from tests.hosts.kinds.test_shared_files import KEY_1, KEY_2

BLOCK = {"host.block": {"path": "/s/c", "block": "more", "backup": True}}


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# -- backups -------------------------------------------------------------------------------------------------


@pytest.mark.in_turn("folder_mode")
@pytest.mark.parametrize("folder_mode", [0o755, 0o777])
def test_backups_of_changes_that_are_taken_back_go_with_them(folder_mode: int, world: World) -> None:
    """Written one by one or in one script, in folders of root's or of others, also twice to one file."""
    root = world.local()
    (root / "s").mkdir()
    (root / "s").chmod(folder_mode)
    for name in "abc":
        (root / "s" / name).write_text("old\n")
    (root / "s/a.20261122T131500Z~").write_text("of an earlier run\n")
    before = names(root)
    wanted = [
        file("/s/a", content="new\n", backup=True),
        file("/s/b", content="new\n", backup=True),
        line("/s/c", "new", backup=True),
        BLOCK,
    ]
    for _ in range(2):
        found = world.fazai("apply", resources=[*wanted, NEVER])
        assert (found.code, "4 changes taken back" in found.out) == (1, True), found
        assert names(root) == before
    assert world.fazai("apply", resources=wanted).code == 0
    assert len(names(root)) == len(before) + 4  # what stays done keeps its backups


def test_a_backup_that_is_not_ours_any_more_stays(world: World) -> None:
    root = world.local()
    for name in "ab":
        (root / name).write_text("old\n")
    touch = command(
        "for f in a.*~; do echo theirs >>$f; done; cp b.*~ x; mv x b.*~; touch done", creates="/done"
    )
    wanted = [
        file("/a", content="new\n", backup=True),
        file("/b", content="new\n", backup=True),
        touch,
        NEVER,
    ]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "2 changes taken back" in found.out) == (1, True), found
    assert [(root / name).read_text() for name in "ab"] == ["old\n", "old\n"]
    assert [path.read_text() for path in sorted(root.glob("*~"))] == ["old\ntheirs\n", "old\n"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_backup_of_what_is_not_replaced_after_all(shell: str, several: bool, tmp_path: Path) -> None:
    """The step behind it fails: `mv` is the one that gives the name."""
    root = tmp_path / "root"
    root.mkdir()
    environ = shell_environ(shell, tmp_path)
    put_first(environ, "mv", "echo mv: no luck >&2\nexit 1")
    wanted = [
        resource("host.file", {"path": f"/{name}", "content": "new", "backup": True})
        for name in ("ab" if several else "a")
    ]
    for name in "ab":
        (root / name).write_text("old")

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            changes = (await host.look(*wanted)).changes
            if several:
                assert host.session.join(changes) == 2
                refs, error = await host.session.write_joined(changes)
                assert (refs, "no luck" in str(error)) == ([], True)
            else:
                with pytest.raises(DeviceError, match="no luck"):
                    await host.session.write(changes[0])

    asyncio.run(run())
    assert names(root) == ["a", "b"]


# -- files and folders that were made for a line -------------------------------------------------------------

LINES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "keys": ([{"host.authorized_key": {"user": ME, "key": KEY_1}}], "home/.ssh/authorized_keys"),
    "keys twice": (
        [{"host.authorized_key": {"user": ME, "key": key}} for key in (KEY_1, KEY_2)],
        "home/.ssh/authorized_keys",
    ),
    "keys elsewhere": ([{"host.authorized_key": {"user": ME, "key": KEY_1, "path": "/keys/me"}}], "keys/me"),
    "sysctl": ([{"host.sysctl": {"name": "a.b", "value": "1"}}], "etc/sysctl.d/99-fazai.conf"),
    "cron": (
        [
            {"host.cron": {"name": name, "job": "true", "user": "root", "cron_file": "x"}}
            for name in ("one", "two")
        ],
        "etc/cron.d/x",
    ),
}


@pytest.mark.in_turn("there")
@pytest.mark.parametrize("there", ["nothing", "folder", "empty file", "other lines"])
@pytest.mark.parametrize("kind", LINES)
def test_what_was_made_for_a_line_goes_with_it(kind: str, there: str, world: World) -> None:
    """A folder that was there before stays, also if it is empty."""
    wanted, name = LINES[kind]
    root = world.local()
    for folder in ("etc", "home", "keys"):
        (root / folder).mkdir()
    (root / "etc/passwd").write_text(f"{ME}:x:{os.getuid()}:{os.getgid()}::/home:/bin/sh\n")
    if kind == "keys elsewhere" and there == "nothing":
        (root / "keys").rmdir()
    if there != "nothing":
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    if there in ("empty file", "other lines"):
        (root / name).write_text("# theirs\n" if there == "other lines" else "")
    before = names(root)
    found = world.fazai("apply", resources=[*wanted, NEVER])
    assert (found.code, "taken back" in found.out, "could not" in found.out) == (1, True, False), found
    assert names(root) == before
    assert not (root / name).exists() or (root / name).read_text() in ("", "# theirs\n")
    made = command(f"touch {Path(name).parent}/theirs", creates="/never")
    found = world.fazai("apply", resources=[*wanted, made])
    assert "could not" not in found.out
    kept = {name} if there in ("empty file", "other lines") else set()
    assert {each for each in names(root) if each.startswith(f"{Path(name).parent}/")} == {
        f"{Path(name).parent}/theirs",
        *kept,
    }, found


# -- temporary files of runs that were killed ----------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="one of them is another user's")
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("mode", [0o755, 0o777])
@pytest.mark.parametrize("shell", SHELLS)
def test_temporary_files_of_killed_runs_are_removed(
    shell: str, mode: int, several: bool, tmp_path: Path
) -> None:
    """The next run that writes there removes them: old ones of ours, and only where nobody else could make
    one."""
    root = tmp_path / "root"
    (root / "s").mkdir(parents=True)
    (root / "s").chmod(mode)
    token = "0123456789abcde"
    ours, link = root / f"s/.fazai-{token}0", root / f"s/.fazai-{token}4"
    kept = [
        root / f"s/.fazai-{end}" for end in (f"{token}1", f"{token}2", f"{token}5-env", f"{token}x", token)
    ]
    for path in (ours, *kept, root / "target"):
        path.write_text("secret")
        os.utime(path, (1e9, 1e9))
    os.utime(kept[0])  # another run may be at work
    os.chown(kept[1], 65534, 65534)
    link.symlink_to("../target")
    os.utime(link, (1e9, 1e9), follow_symlinks=False)
    (root / f"s/.fazai-{token}3").mkdir()
    os.utime(root / f"s/.fazai-{token}3", (1e9, 1e9))
    before = set(names(root))
    wanted = [
        resource("host.file", {"path": f"/s/{name}", "content": "new"}) for name in ("ab" if several else "a")
    ]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = (await host.look(*wanted)).changes
            if several:
                assert host.session.join(changes) == 2
                assert (await host.session.write_joined(changes))[1] is None
            else:
                await host.session.write(changes[0])

    asyncio.run(run())
    made = {f"s/{name}" for name in ("ab" if several else "a")}
    gone = {f"s/{ours.name}"} if mode == 0o755 else set()
    assert set(names(root)) == (before | made) - gone
