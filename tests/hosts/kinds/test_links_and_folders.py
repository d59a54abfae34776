"""Changes through links and folders of others that are as they should be: the link stays, its target is
edited, and in a user's own folder all kinds work."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError, FazaiError
from fazai.model import Verb
from tests.hosts.changes.test_faults import NEW, until
from tests.hosts.changes.test_unsafe_ways import ALICE, BOB, SECRET, alices, plant
from tests.hosts.conftest import World
from tests.hosts.helpers import SHELLS, Host, put_first, resource, shell_environ
from tests.hosts.kinds.test_shared_files import KEY_1, KEY_2
from tests.hosts.machines import Machine, missing
from tests.hosts.shell.test_batching import _acl as set_default_acl

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to others")


def state(path: Path) -> tuple[str, int, str]:
    """Mode, owner, content or target."""
    found = path.lstat()
    text = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text()
    return f"{found.st_mode & 0o7777:04o}", found.st_uid, text


def left_over(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(".fazai-")]


# -- links that are root's ------------------------------------------------------------------------------


@pytest.mark.in_turn("shell", "target")
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("target", ["../run/resolv.conf", "/run/resolv.conf", "../etc/./../run//resolv.conf"])
def test_an_edit_means_the_target_of_a_link(target: str, shell: str, tmp_path: Path) -> None:
    """An absolute link of a folder host leads within it."""
    root = tmp_path / "fs"
    for name in ("etc", "run"):
        (root / name).mkdir(parents=True)
    file, link = root / "run/resolv.conf", root / "etc/resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    file.chmod(0o604)
    link.symlink_to(target)
    wanted = [
        resource("host.line", {"path": "/etc/resolv.conf", "line": "options edns0", "backup": True}),
        resource("host.sysctl", {"name": "a.b", "value": "1", "sysctl_file": "/etc/resolv.conf"}),
        resource("host.authorized_key", {"user": "x", "path": "/etc/resolv.conf", "key": KEY_1}),
    ]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = await host.converge(*wanted)
            text = f"nameserver 192.0.2.1\noptions edns0\na.b = 1\n{KEY_1}\n"
            assert (state(file), os.readlink(link)) == (("0604", os.getuid(), text), target)
            (kept,) = file.parent.glob("resolv.conf.*~")
            assert state(kept) == ("0604", os.getuid(), "nameserver 192.0.2.1\n")
            await host.undo(changes)

    asyncio.run(run())
    assert (state(file), os.readlink(link)) == (("0604", os.getuid(), "nameserver 192.0.2.1\n"), target)
    assert not list(root.glob("*/*~"))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_target_that_is_not_there_yet(shell: str, tmp_path: Path) -> None:
    root = tmp_path / "fs"
    for name in ("etc", "run"):
        (root / name).mkdir(parents=True)
    (root / "etc/a").symlink_to("../run/a")
    (root / "etc/b").symlink_to("../none/b")
    line = {"path": "/etc/a", "line": "x"}

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            (error,) = (await host.look(resource("host.line", line))).errors
            assert "there is no such file" in error.message
            made = resource("host.line", {**line, "path": "/etc/b", "create": True})
            (error,) = (await host.look(made)).errors
            assert "a link to ../none/b, where there is no folder" in error.message
            changes = await host.converge(resource("host.line", {**line, "create": True}))
            assert (state(root / "run/a")[2], os.readlink(root / "etc/a")) == ("x\n", "../run/a")
            await host.undo(changes)

    asyncio.run(run())
    assert (os.readlink(root / "etc/a"), os.listdir(root / "run")) == ("../run/a", [])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_behind_a_link_of_roots(shell: str, tmp_path: Path) -> None:
    """/var/run and /lib are such on many systems."""
    root = tmp_path / "fs"
    (root / "run").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    wanted = [
        resource("host.directory", {"path": "/var/run/app/x", "mode": "0750"}),
        resource("host.file", {"path": "/var/run/app/f", "content": "f\n", "mode": "0600"}),
        resource("host.link", {"path": "/var/run/app/l", "target": "f"}),
        resource("host.line", {"path": "/var/run/app/l", "line": "line"}),
    ]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            await host.converge(*wanted[:3])
            await host.converge(wanted[3])

    asyncio.run(run())
    assert state(root / "run/app/x")[:1] == ("0750",)
    assert state(root / "run/app/f") == ("0600", os.getuid(), "f\nline\n")
    assert (os.readlink(root / "run/app/l"), (root / "var/run").is_symlink()) == ("f", True)


@pytest.mark.parametrize("kind", ["host.line", "host.block"])
def test_what_a_link_leads_to_is_hidden_by_its_own_mode(kind: str, world: World) -> None:
    root = world.local()
    (root / "secret").write_text("token=hunter2\nend\n")
    (root / "secret").chmod(0o600)
    (root / "link").symlink_to("secret")
    parts = {"host.line": {"line": "end=1", "regexp": "^token"}, "host.block": {"block": "x=hunter2\n"}}
    found = world.fazai("plan", "--diff", resources=[{kind: {"path": "/link", **parts[kind]}}])
    assert (found.code, "***" in found.out) == (2, True), found
    assert "hunter2" not in found.out + found.err


def test_a_link_does_not_lead_out_of_a_folder_host(tmp_path: Path) -> None:
    root, etc = tmp_path / "fs", tmp_path / "etc"
    root.mkdir()
    etc.mkdir()
    (etc / "x").write_text("outside\n")
    (root / "up").symlink_to("../../../../../../../../../.." + str(etc))
    (root / "abs").symlink_to(str(etc))
    wanted = [
        resource(kind, {"path": f"/{link}/x", **more})
        for link in ("up", "abs")
        for kind, more in (("host.line", {"line": "y"}), ("host.file", {"content": "y\n"}))
    ]

    async def run() -> None:
        host = Host.local(root)
        async with host.session:
            for each in wanted:
                diff = await host.look(each)
                assert "outside" not in str(diff)
                for change in diff.changes:
                    with pytest.raises(DeviceError, match="no such file or directory"):  # in the folder
                        await host.session.write(change)

    asyncio.run(run())
    assert ((etc / "x").read_text(), os.listdir(etc)) == ("outside\n", ["x"])


# -- a user's own folder --------------------------------------------------------------------------------


@pytest.mark.slow
@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_all_kinds_in_a_users_own_folder(shell: str, tmp_path: Path) -> None:
    root = alices(tmp_path)
    home = root / "home/alice"
    (home / "dots").mkdir()
    (home / "dots/rc").write_text("rc\n")
    (home / "log").write_text("log\n")
    for path in (home / "dots", home / "dots/rc", home / "log"):
        os.chown(path, ALICE, ALICE)
    (home / "dots/rc").chmod(0o640)
    for name, target in (("rc", "dots/rc"), ("rc-abs", "/home/alice/dots/rc")):
        os.symlink(target, home / name)
        os.lchown(home / name, ALICE, ALICE)
    opened = (home / "log").stat().st_ino
    hers = {"owner": str(ALICE), "group": str(ALICE)}
    wanted = [
        resource("host.file", {"path": "/home/alice/roots", "content": "roots\n"}),
        resource("host.file", {"path": "/home/alice/hers", "content": "hers\n", "mode": "0600", **hers}),
        resource("host.file", {"path": "/home/alice/log", "mode": "0600"}),
        resource("host.directory", {"path": "/home/alice/a/b", "mode": "2750", **hers}),
        resource("host.directory", {"path": "/home/alice/dots", "mode": "0700"}),
        resource("host.link", {"path": "/home/alice/link", "target": "-x y"}),
        resource("host.line", {"path": "/home/alice/rc", "line": "one"}),
        resource("host.block", {"path": "/home/alice/rc-abs", "block": "two\n", "backup": True}),
        resource("host.authorized_key", {"user": "alice", "key": KEY_1}),
        resource("host.file", {"path": "/home/alice/big", "content": "big\n" * 600_000, **hers}),
    ]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            changes = [change for each in wanted for change in await host.converge(each)]
            assert (await host.look(*wanted)).changes == ()
            assert state(home / "roots") == ("0644", 0, "roots\n")
            assert state(home / "hers") == ("0600", ALICE, "hers\n")
            assert (state(home / "log"), (home / "log").stat().st_ino) == (("0600", ALICE, "log\n"), opened)
            assert state(home / "a/b")[:2] == ("2750", ALICE)
            assert state(home / "dots")[:2] == ("0700", ALICE)
            assert os.readlink(home / "link") == "-x y"
            text = "rc\none\n# BEGIN fazai\ntwo\n# END fazai\n"
            assert (state(home / "dots/rc"), (home / "rc").is_symlink()) == (("0640", ALICE, text), True)
            (kept,) = (home / "dots").glob("rc.*~")
            assert state(kept) == ("0640", ALICE, "rc\none\n")
            keys = home / ".ssh/authorized_keys"
            assert state(keys.parent)[:2] == ("0700", ALICE)
            assert state(keys) == ("0600", ALICE, f"{KEY_1}\n")
            assert state(home / "big") == ("0644", ALICE, "big\n" * 600_000)
            await host.undo(changes)
            gone = resource("host.directory", {"path": "/home/alice/dots", "recurse": True}, "absent")
            await host.converge(gone)

    asyncio.run(run())
    assert sorted(os.listdir(home)) == ["log", "rc", "rc-abs"]
    assert state(home / "log") == ("0644", ALICE, "log\n")
    assert left_over(root) == []


@pytest.mark.in_turn("shell", "folder")
@ROOT
@pytest.mark.parametrize("folder", ["/tmp", "/open"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_folder_to_which_many_may_write(shell: str, folder: str, tmp_path: Path) -> None:
    root = alices(tmp_path)
    (root / "open").mkdir()
    (root / "open").chmod(0o775)
    at = root / folder[1:]
    wanted = [
        resource("host.file", {"path": f"{folder}/f", "content": "f\n", "owner": str(BOB)}),
        resource("host.directory", {"path": f"{folder}/d"}),
        resource("host.file", {"path": f"{folder}/d/f", "content": "f\n"}),
        resource("host.line", {"path": f"{folder}/f", "line": "g"}),
    ]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            for each in wanted:
                await host.converge(each)

    asyncio.run(run())
    assert (state(at / "f"), state(at / "d/f")) == (("0644", BOB, "f\ng\n"), ("0644", 0, "f\n"))
    assert left_over(root) == []


@ROOT
def test_a_file_for_one_user_in_the_folder_of_another(tmp_path: Path) -> None:
    root = alices(tmp_path)
    wanted = [
        resource("host.file", {"path": "/home/alice/x", "content": "x", "owner": str(BOB)}),
        resource("host.directory", {"path": "/home/alice/y", "owner": str(BOB)}),
        resource("host.authorized_key", {"user": "bob", "path": "/home/alice/z/keys", "key": KEY_2}),
    ]
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"bob:x:{BOB}:{BOB}::/home/bob:\n")

    async def run() -> None:
        host = Host.local(root)
        async with host.session:
            for each in wanted:
                (change,) = (await host.look(each)).changes
                said = r"unsafe step /home/alice: a folder of .* is for 65533"
                with pytest.raises(DeviceError, match=said) as found:
                    await host.session.write(change)
                assert "become_user" in str(found.value.hint)

    asyncio.run(run())
    assert os.listdir(root / "home/alice") == []


@ROOT
@pytest.mark.parametrize("fields", [{"mode": "0666"}, {"owner": str(ALICE)}], ids=["mode", "owner"])
def test_what_is_roots_in_a_users_folder_stays_so(fields: Mapping[str, Any], tmp_path: Path) -> None:
    """It may be an old file of root's that she kept under a name of hers. With its content declared it is
    made anew."""
    root = alices(tmp_path)
    file, folder = root / "home/alice/f", root / "home/alice/d"
    file.write_text("old\n")
    file.chmod(0o600)
    folder.mkdir()
    old = file.stat().st_ino

    async def run() -> None:
        host = Host.local(root)
        async with host.session:
            for kind, name in (("host.file", "f"), ("host.directory", "d")):
                path = f"/home/alice/{name}"
                (change,) = (await host.look(resource(kind, {"path": path, **fields}))).changes
                with pytest.raises(DeviceError, match=f"unsafe step {path}: it is of root, in a fol"):
                    await host.session.write(change)
            assert (state(file), state(folder)[1]) == (("0600", 0, "old\n"), 0)
            whole = {"path": "/home/alice/f", "content": "old\n", **fields}
            (change,) = await host.converge(resource("host.file", whole))
            assert (change.verb, file.stat().st_ino != old) == (Verb.UPDATE, True)
            await host.undo((change,))

    asyncio.run(run())
    assert state(file) == ("0600", 0, "old\n")


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_backups_whose_names_are_taken(shell: str, tmp_path: Path) -> None:
    """The names are taken by links to what is root's, by a link into a folder, and by a backup of the same
    second."""
    root = alices(tmp_path)
    environ = shell_environ(shell, tmp_path)
    put_first(environ, "date", "echo 20270102T030405Z")
    home = root / "home/alice"
    (home / "f").write_text("0\n")
    os.chown(home / "f", ALICE, ALICE)
    name = "f.20270102T030405Z"
    taken = {f"{name}~": "../../etc/passwd", f"{name}.1~": "../../etc/sudoers.d", f"{name}.2~": "none"}
    for each, target in taken.items():
        os.symlink(target, home / each)
        os.lchown(home / each, ALICE, ALICE)
    passwd = state(root / "etc/passwd")

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            for text in ("1\n", "2\n"):
                fields = {"path": "/home/alice/f", "content": text, "backup": True}
                await host.converge(resource("host.file", fields))

    asyncio.run(run())
    assert (state(root / "etc/passwd"), os.listdir(root / "etc/sudoers.d")) == (passwd, ["rules"])
    assert {each: os.readlink(home / each) for each in taken} == taken
    if shell != "busybox":  # whose date is a part of it
        assert state(home / f"{name}.3~") == ("0644", ALICE, "0\n")
        assert state(home / f"{name}.4~") == ("0644", ALICE, "1\n")


@pytest.mark.slow
@ROOT
def test_a_controller_that_is_killed_leaves_nothing_in_a_users_folder(world: World) -> None:
    """The file lies in a folder of root's until it is complete; that goes, too."""
    root = world.local()
    plant(root, "/home/alice", "nothing")
    wanted = [{"host.file": {"path": "/home/alice/f", "content": NEW}}]
    assert world.fazai("plan", resources=wanted).code == 2  # writes the inventory
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-m", "fazai", "apply", str(world.folder / "inventory.yml")]
    child = subprocess.Popen(words, **quiet)  # type: ignore[call-overload]
    home = root / "home/alice"
    until(lambda: any(_size(path) > 1_000_000 for path in home.glob(".fazai-*/*")))
    (made,) = home.glob(".fazai-*")
    assert state(made)[:2] == ("0700", 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    until(lambda: os.listdir(home) == [])
    assert world.fazai("apply", resources=wanted).code == 0
    assert state(home / "f") == ("0644", 0, NEW)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


@ROOT
@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined"])
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_link_that_comes_before_a_folder_is_made(shell: str, joined: bool, tmp_path: Path) -> None:
    """Anybody may make one in /tmp, and `mkdir -p` would follow it."""
    root = alices(tmp_path)
    environ = shell_environ(shell, tmp_path)
    came = f"ln -sn ../etc/sudoers.d '{root}/tmp/x' 2>/dev/null && chown -h {ALICE} '{root}/tmp/x'"
    _shim(environ, "mkdir", came)
    wanted = [
        resource("host.directory", {"path": "/tmp/x/y"}),
        resource("host.file", {"path": "/etc/other", "content": "other\n"}),
    ]

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            changes = (await host.look(*wanted)).changes
            if joined:
                assert host.session.join(changes) == 2
                refs, error = await host.session.write_joined(changes)
                assert (refs, error is not None) == ([], True)
            else:
                with pytest.raises(DeviceError, match="it came after the look"):
                    await host.session.write(changes[0])

    asyncio.run(run())
    assert (os.listdir(root / "etc/sudoers.d"), os.readlink(root / "tmp/x")) == (
        ["rules"],
        "../etc/sudoers.d",
    )
    assert left_over(root) == []


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_a_users_folder_with_a_default_acl(shell: str, tmp_path: Path) -> None:
    """It gives everybody everything in what is made there: what is ours is made private before it is used."""
    root = alices(tmp_path)
    set_default_acl(root / "home/alice")
    environ = shell_environ(shell, tmp_path)
    _shim(environ, "mv", f"stat -c %a:%u . >>'{tmp_path}/modes'")

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            fields = {"path": "/home/alice/f", "content": "f\n", "mode": "0600"}
            await host.converge(resource("host.file", fields))

    asyncio.run(run())
    assert state(root / "home/alice/f") == ("0600", 0, "f\n")
    if shell != "busybox":  # whose mv is a part of it
        assert (tmp_path / "modes").read_text() == "700:0\n"
    assert left_over(root) == []


@ROOT
@pytest.mark.parametrize("shell", SHELLS)
def test_attributes_where_many_may_write(shell: str, tmp_path: Path) -> None:
    """Files of another user are changed, and in /tmp those of root: nobody else can have put them there."""
    root = alices(tmp_path)
    (root / "open").mkdir()
    (root / "open").chmod(0o775)
    for name in ("tmp/f", "tmp/d", "open/f", "open/d", "tmp/roots"):
        path = root / name
        path.mkdir() if path.name == "d" else path.write_text("x\n")
        if path.name != "roots":
            os.chown(path, BOB, BOB)
    kinds = {"f": "host.file", "d": "host.directory", "roots": "host.file"}
    names = ("tmp/f", "tmp/d", "open/f", "open/d", "tmp/roots")
    wanted = [resource(kinds[name.split("/")[1]], {"path": f"/{name}", "mode": "0750"}) for name in names]

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            await host.converge(*wanted)

    asyncio.run(run())
    assert {name: state(root / name)[0] for name in names} == dict.fromkeys(names, "0750")
    assert left_over(root) == []


# -- what a system lacks --------------------------------------------------------------------------------


@ROOT
def test_folders_of_others_need_a_safe_mv(tmp_path: Path) -> None:
    root = alices(tmp_path)
    environ = shell_environ("dash", tmp_path)
    _shim(environ, "mv", 'case $1 in -fT|-fh) echo "mv: illegal option -- ${1#-f}" >&2; exit 1;; esac')

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            await host.converge(resource("host.file", {"path": "/etc/x", "content": "x"}))
            diff = await host.look(resource("host.file", {"path": "/home/alice/x", "content": "x"}))
            said = "unsafe step /home/alice: folders of others need mv with -T or -h"
            with pytest.raises(DeviceError, match=said):
                await host.session.write(diff.changes[0])

    asyncio.run(run())
    assert os.listdir(root / "home/alice") == []


def _shim(environ: dict[str, str], name: str, first: str) -> None:
    """Put a program before the real one that does something else first."""
    put_first(environ, name, f'{first}\nexec {shutil.which(name)} "$@"')


#: What BSD's `stat` and `mv` take; the formats that the scripts use are put into GNU's words.
_BSD_STAT = r"""case $1 in -f) ;; *) echo "stat: illegal option -- ${1#-}" >&2; exit 1;; esac
f=$2; shift 2
f=$(printf %s "$f" | sed 's/%Xp/%f/; s/%i/%i/; s/%l/%h/; s/%z/%s/; s/%Su/%U/; s/%Sg/%G/')
[ $# -gt 0 ] || set -- -
set -- -c "$f" -- "$@"
"""
_BSD_MV = (
    r"""case $1 in -fT) echo "mv: illegal option -- T" >&2; exit 1;; -fh) shift; set -- -fT "$@";; esac"""
)


@ROOT
def test_a_bsd(tmp_path: Path) -> None:
    """FreeBSD's options of stat and mv."""
    root = alices(tmp_path)
    (root / "run").mkdir(exist_ok=True)
    (root / "run/r").write_text("r\n")
    (root / "etc/l").symlink_to("../run/r")
    os.symlink("../../etc/shadow", root / "home/alice/s")
    os.lchown(root / "home/alice/s", ALICE, ALICE)
    environ = shell_environ("dash", tmp_path)
    _shim(environ, "stat", _BSD_STAT)
    _shim(environ, "mv", _BSD_MV)
    wanted = [
        resource("host.file", {"path": "/etc/x", "content": "x"}),
        resource("host.line", {"path": "/etc/l", "line": "line"}),
        resource("host.authorized_key", {"user": "alice", "key": KEY_1}),
        resource("host.file", {"path": "/home/alice/f", "content": "f\n", "owner": str(ALICE)}),
        resource("host.line", {"path": "/home/alice/f", "line": "g"}),
        resource("host.file", {"path": "/home/alice/f", "mode": "0600"}),
    ]

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            for each in wanted:
                await host.converge(each)
            (error,) = (await host.look(resource("host.line", {"path": "/home/alice/s", "line": "x"}))).errors
            assert "unsafe step /home/alice/s" in error.message

    asyncio.run(run())
    assert state(root / "run/r")[2] == "r\nline\n"
    assert state(root / "home/alice/f") == ("0600", ALICE, "f\ng\n")
    assert state(root / "home/alice/.ssh/authorized_keys")[:2] == ("0600", ALICE)
    assert (state(root / "etc/shadow")[2], left_over(root)) == (f"{SECRET}\n", [])


# -- the telemetry agent --------------------------------------------------------------------------------


@ROOT
@pytest.mark.parametrize("where", ["opt/fazai", "etc/fazai", "var/lib/fazai-agent"])
@pytest.mark.parametrize("way", ["folder", "link"])
def test_the_agents_files(where: str, way: str, tmp_path: Path) -> None:
    """A folder of hers on the way of what root runs, or a link of hers that root would read as a status."""
    root = alices(tmp_path)
    place = root / where
    place.mkdir(parents=True)
    os.chown(place, ALICE, ALICE)
    names = {"opt/fazai": "agent", "etc/fazai": "telemetry.env", "var/lib/fazai-agent": "status"}
    if way == "link":
        os.symlink("/etc/sudoers.d" if where.startswith("opt") else "/etc/shadow", place / names[where])
        os.lchown(place / names[where], ALICE, ALICE)
    elif where.startswith("var"):
        return  # that is how it is to be
    fields = {"server": "https://fazai.example.net"}
    before = state(root / "etc/shadow")

    async def run() -> str:
        host = Host.local(root)
        async with host.session:
            diff = await host.look(resource("host.telemetry_agent", fields))
            assert "SECRETHASH" not in str(diff)
            try:
                for change in diff.changes:
                    await host.session.write(change)
            except FazaiError as error:
                return error.message
            return "\n".join(error.message for error in diff.errors)

    assert f"unsafe step /{where}" in asyncio.run(run())
    assert state(root / "etc/shadow") == before


# -- whose a link is -------------------------------------------------------------------------------------


@pytest.mark.in_turn("shell", "folder")
@ROOT
@pytest.mark.parametrize("folder", ["/home/alice", "/etc"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_link_that_leads_elsewhere_by_now_is_still_its_owners(
    shell: str, folder: str, tmp_path: Path
) -> None:
    """Were it root's, nothing behind it could be written in her folder, where she can move it."""
    plant(tmp_path, "/home/alice", "nothing")
    at = tmp_path / folder[1:]
    for name in ("1", "2"):
        (at / name).mkdir()
        (at / name / "c").write_text("old\n")
        for path in (at / name, at / name / "c"):
            os.chown(path, ALICE, ALICE)
    (at / "current").symlink_to("1")
    os.lchown(at / "current", ALICE, BOB)
    link = resource("host.link", {"path": f"{folder}/current", "target": "2"})
    line = resource("host.line", {"path": f"{folder}/current/c", "line": "new"})

    async def run() -> None:
        host = Host.local(tmp_path, shell_environ(shell, tmp_path))
        async with host.session:
            made = await host.converge(link, line)
            found = (at / "current").lstat()
            assert (os.readlink(at / "current"), found.st_uid, found.st_gid) == ("2", ALICE, BOB)
            assert (at / "2/c").read_text() == "old\nnew\n"
            await host.undo(made)
            gone = resource("host.link", {"path": f"{folder}/current", "target": "1"}, "absent")
            await host.undo(await host.converge(gone))

    asyncio.run(run())
    found = (at / "current").lstat()
    assert (os.readlink(at / "current"), found.st_uid, found.st_gid) == ("1", ALICE, BOB)
    assert [(at / name / "c").read_text() for name in ("1", "2")] == ["old\n", "old\n"]


# -- access control lists --------------------------------------------------------------------------------

LIST = "system.posix_acl_access"


def _with_list(path: Path) -> bytes:
    """Give a file of root's to user 65533 as well, and not to its group. Its mode then reads 0660."""
    everybody = 0xFFFFFFFF
    entries = ((1, 6, everybody), (2, 6, 65533), (4, 0, everybody), (16, 6, everybody), (32, 0, everybody))
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, LIST, data)
    except OSError:
        missing("the file system keeps no access control lists")
    assert path.stat().st_mode & 0o777 == 0o660
    return os.getxattr(path, LIST)


@pytest.mark.in_turn("shell", "owner")
@ROOT
@pytest.mark.parametrize("owner", [0, ALICE], ids=["root's folder", "alice's folder"])
@pytest.mark.parametrize("shell", SHELLS)
def test_who_may_read_a_file_with_a_list_stays_as_it_is(shell: str, owner: int, tmp_path: Path) -> None:
    """Its mode is what those in the list may at most: as a mode it would open the file to its group. busybox
    shows no list and copies none: there it takes the programs for them."""
    if shell == "busybox" and shutil.which("getfacl") is None:
        missing("getfacl is not installed: tools/test-hosts installs it")
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    names = ("line", "block", "file", "backup", "joined-1", "joined-2")
    for name in names:
        (root / "d" / name).write_text("old\n")
        os.chown(root / "d" / name, owner, owner)
    os.chown(root / "d", owner, owner)
    lists = {name: _with_list(root / "d" / name) for name in names}

    async def run() -> None:
        host = Host.local(root, shell_environ(shell, tmp_path))
        async with host.session:
            made = await host.converge(resource("host.line", {"path": "/d/line", "line": "x"}))
            made += await host.converge(resource("host.block", {"path": "/d/block", "block": "x"}))
            made += await host.converge(resource("host.file", {"path": "/d/file", "content": "x\n"}))
            backup = {"path": "/d/backup", "content": "x\n", "backup": True}
            made += await host.converge(resource("host.file", backup))
            two = [resource("host.line", {"path": f"/d/joined-{n}", "line": "x"}) for n in (1, 2)]
            changes = (await host.look(*two)).changes
            assert host.session.join(changes) == 2
            refs, error = await host.session.write_joined(changes)
            assert (len(refs), error) == (2, None)
            assert {name: os.getxattr(root / "d" / name, LIST) for name in names} == lists
            assert not any((root / "d" / name).read_text() == "old\n" for name in names)
            await host.undo([*made, *changes])
            assert {name: os.getxattr(root / "d" / name, LIST) for name in names} == lists

    asyncio.run(run())
    assert all((root / "d" / name).read_text() == "old\n" for name in names)


def test_a_list_that_cannot_be_copied_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    _with_list(tmp_path / "f")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("cp", "setfacl"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)

    async def run() -> None:
        host = Host.local(tmp_path, {"PATH": f"{programs}:/usr/bin:/bin"})
        async with host.session:
            (change,) = (await host.look(resource("host.line", {"path": "/f", "line": "x"}))).changes
            with pytest.raises(
                DeviceError, match="it has an access control list, which nothing here can copy"
            ):
                await host.session.write(change)
            bare = resource("host.file", {"path": "/f", "content": "new\n", "mode": "0600"})
            await host.converge(bare)

    asyncio.run(run())
    assert (tmp_path / "f").read_text() == "new\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("how", ["-t tmpfs tmpfs", "--bind /srv"])
@pytest.mark.parametrize("where", ["", "/deep", "/deep/a b"])
def test_nothing_is_removed_across_mount_points(where: str, how: str, shell: str, tmp_path: Path) -> None:
    """Neither what is mounted, nor what is beside it: also when it was mounted after the look. A part of the
    same file system that is bound there is one as well."""
    machine = Machine.made(tmp_path, shell)
    point = f"/opt/x{where}"
    gone = resource("host.directory", {"path": "/opt/x", "recurse": True}, "absent")
    quoted = f"'{point}'"

    async def run() -> None:
        host = machine.host()
        async with host.session:
            await host.session.shell.run(f"mkdir -p {quoted} /opt/x-ray; touch /opt/x/kept /srv/kept")
            (change,) = (await host.look(gone)).changes
            done = await host.session.shell.run(f"mount {how} /opt/x-ray; mount {how} {quoted}")
            assert done.exit == 0, done
            said = f"{point} is a mount point: nothing is removed|/opt/x.* was changed by another hand"
            with pytest.raises(DeviceError, match=said):
                await host.session.write(change)
            (error,) = (await host.look(gone)).errors
            assert error.message == f"host.directory /opt/x: {point} is a mount point: nothing is removed"
            assert error.hint == "unmount it before (host.command), or declare absent what is beside it"
            assert (await host.session.shell.run(f"umount {quoted} && ls /opt/x/kept /srv/kept")).exit == 0
            await host.converge(gone)  # a mount beside it, of a name that begins like it, is no matter
            assert (await host.session.shell.run("[ ! -e /opt/x ] && umount /opt/x-ray")).exit == 0

    asyncio.run(run())
