"""Every kind at every place where another user can lead root elsewhere: what is outside of that user's own
folder never changes, and nothing of it is shown."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import DeviceError, FazaiError
from fazai.model import Resource
from tests.hosts.helpers import SHELLS, Host, resource, shell_environ
from tests.hosts.kinds.test_shared_files import KEY_1

ALICE, BOB = 65534, 65533
SECRET = "root:$6$SECRETHASH:19000::::::"
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be led astray, and plant for others")


@dataclass(frozen=True)
class Way:
    """A kind that is given a path in `folder`, which is alice's."""

    name: str
    kind: str
    fields: Callable[[str], Mapping[str, Any]]
    folder: str = "/home/alice"
    state: str = "present"
    link: str | None = None  # what is said of a link at the path; None: "unsafe step"; "": it is written


def _at(name: str = "path", /, **more: Any) -> Callable[[str], Mapping[str, Any]]:
    return lambda path: {name: path, **more}


def _cron(path: str) -> Mapping[str, Any]:
    return {"name": "job", "cron_file": path.rpartition("/")[2], "user": "root", "job": "true"}


_DOWNLOAD = {"url": "http://127.0.0.1:9/none", "checksum": f"sha256:{'0' * 64}"}
_NO_FOLDER = "there is a link, not a directory"
WAYS = (
    Way("file", "host.file", _at(content="mine\n"), link=""),
    Way("file of hers", "host.file", _at(content="mine\n", owner=str(ALICE), mode="0640"), link=""),
    Way("file with a backup", "host.file", _at(content="mine\n", backup=True), link=""),
    Way("attributes", "host.file", _at(owner=str(ALICE), mode="0666"), link=""),
    Way("file that goes", "host.file", _at(), state="absent", link=""),
    Way("directory", "host.directory", _at(owner=str(ALICE), mode="0777"), link=_NO_FOLDER),
    Way("directory that goes", "host.directory", _at(recurse=True), state="absent", link=_NO_FOLDER),
    Way("link", "host.link", _at(target="elsewhere"), link=""),
    Way("link that goes", "host.link", _at(target="elsewhere"), state="absent", link=""),
    Way("line", "host.line", _at(line="mine", create=True)),
    Way("line that goes", "host.line", _at(regexp="^root:"), state="absent"),
    Way("block", "host.block", _at(block="mine\n", create=True, backup=True)),
    Way("download", "host.download", _at("dest", **_DOWNLOAD), link="there is a link"),
    Way("download, sha512", "host.download", _at("dest", **{**_DOWNLOAD, "checksum": f"sha512:{'0' * 128}"}),
        link="there is a link"),
    Way("key", "host.authorized_key", _at(user="alice", key=KEY_1)),
    Way("key that goes", "host.authorized_key", _at(user="alice", key=KEY_1), state="absent"),
    Way("sysctl", "host.sysctl", _at("sysctl_file", name="vm.swappiness", value="1")),
    Way("cron", "host.cron", _cron, folder="/etc/cron.d"),
)  # fmt: skip


def plant(root: Path, folder: str, case: str) -> str:
    """Make the host as it is in this case; returns the path that a resource names."""
    for name in ("etc/sudoers.d", "home", "tmp", "run", folder[1:]):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/shadow").write_text(f"{SECRET}\n")
    (root / "etc/shadow").chmod(0o600)
    (root / "etc/sudoers.d/rules").write_text("rules\n")
    (root / "etc/passwd").write_text(f"root:x:0:0::/root:\nalice:x:{ALICE}:{ALICE}::/home/alice:\n")
    own = root / folder[1:]
    os.chown(own, ALICE, ALICE)
    name = f"{folder}/f"
    up = "../" * (folder.count("/"))

    def link(target: str, at: str = "f", owner: int = ALICE) -> None:
        os.symlink(target, own / at)
        os.lchown(own / at, owner, owner)

    match case:
        case "link to a file":
            link(f"{up}etc/shadow")
        case "absolute link to a file":
            link("/etc/shadow")
        case "link of root's that came there":
            link(f"{up}etc/shadow", owner=0)
        case "dangling":
            link(f"{up}etc/sudoers.d/new")
        case "loop":
            link("g")
            link("f", at="g")
        case "hard link":
            os.link(root / "etc/shadow", own / "f")
        case "link in a parent":
            link(f"{up}etc/sudoers.d", at="d")
            name = f"{folder}/d/rules"
        case "link of root's in a parent":
            link(f"{up}etc/sudoers.d", at="d", owner=0)
            name = f"{folder}/d/rules"
        case "link in a parent, out and back":
            link(f"{up}etc/sudoers.d/..{folder}", at="d")
            name = f"{folder}/d/e/f"
            link(f"{up}etc/sudoers.d", at="e")
        case "folder of another user":
            (own / "d").mkdir()
            os.chown(own / "d", BOB, BOB)
            (own / "d/f").write_text("bob's\n")
            name = f"{folder}/d/f"
        case "nothing":
            pass
        case _:
            raise AssertionError(case)
    return name


def alices(folder: Path) -> Path:
    """The root of a new host in this folder, on which alice has a home."""
    root = folder / "fs"
    root.mkdir()
    plant(root, "/home/alice", "nothing")
    return root


def outside(root: Path, folder: str) -> dict[str, Any]:
    """Everything that is not in alice's folder, by its path."""
    found: dict[str, Any] = {}
    for at, folders, files in os.walk(root):
        if at == f"{root}{folder}":
            folders.clear()
            continue
        for name in (*folders, *files):
            path = Path(at) / name
            stat = path.lstat()
            data: Any = None
            if path.is_symlink():
                data = os.readlink(path)
            elif path.is_file():
                data = path.read_bytes()
            found[str(path.relative_to(root))] = (oct(stat.st_mode), stat.st_uid, stat.st_gid, data)
    return found


async def attempt(host: Host, wanted: Resource) -> str:
    """Look, show and write; return what is said then, empty when all of it was done."""
    diff = await host.look(wanted)
    shown = [str(value) for change in diff.changes for value in (change.before, change.after)]
    said = [f"{error}" for error in diff.errors]
    try:
        for change in diff.changes:
            await host.session.write(change)
    except FazaiError as error:
        said.append(str(error))
    assert "SECRETHASH" not in "".join((*shown, *said))
    return "\n".join(said)


#: What is said in each case, unless the kind says otherwise.
CASES: Mapping[str, str] = {
    "link to a file": "unsafe step {folder}/f: a link of",
    "absolute link to a file": "unsafe step {folder}/f: a link of",
    "link of root's that came there": "unsafe step {folder}/f: a link of root in a folder that",
    "dangling": "unsafe step {folder}/f: a link of",
    "loop": "a link that leads back to itself",
    "hard link": "unsafe step {folder}/f: a file of root that has other names",
    "link in a parent": "unsafe step {folder}/d: a link of",
    "link of root's in a parent": "unsafe step {folder}/d: a link of root in a folder that",
    "link in a parent, out and back": "unsafe step {folder}/d",
    "folder of another user": "unsafe step {folder}/d: a folder of",
}


#: The kinds by thirds: in the fast tests each case meets one of them, the next case the next.
THIRDS = pytest.mark.parametrize("third", [0, 1, 2])


@pytest.mark.in_turn("shell", "third")
@THIRDS
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_in_a_case(case: str, shell: str, third: int, tmp_path: Path) -> None:
    environ = shell_environ(shell, tmp_path)

    async def run(way: Way, root: Path) -> None:
        path = plant(root, way.folder, case)
        if way.kind == "host.cron" and path != f"{way.folder}/f":
            return  # it takes a name in its folder, and no path
        before = outside(root, way.folder)
        host = Host.local(root, environ)
        async with host.session:
            said = await attempt(host, resource(way.kind, way.fields(path), way.state))
        assert outside(root, way.folder) == before, way.name
        expected = CASES[case].format(folder=way.folder)
        at_the_path = path == f"{way.folder}/f"
        if at_the_path and case != "hard link" and way.link is not None:
            expected = way.link
        if way.name == "attributes" and not expected:
            return  # a file without a content in the place of a link: nothing to write
        assert (expected in said) if expected else not said, (way.name, said)

    for number, way in enumerate(WAYS[third::3]):
        root = tmp_path / str(number)
        root.mkdir()
        asyncio.run(run(way, root))


# -- what changes between the look and the write --------------------------------------------------------


def _swap_folder(root: Path, folder: str) -> None:
    (root / folder[1:] / "d").rename(root / folder[1:] / "away")
    _link(root, folder, "d", "../" * folder.count("/") + "etc/sudoers.d")


def _swap_link(root: Path, folder: str) -> None:
    with suppress(FileNotFoundError):
        (root / folder[1:] / "d/f").rename(root / folder[1:] / "away")
    _link(root, folder, "d/f", "../../" + "../" * (folder.count("/") - 1) + "etc/shadow")


def _swap_hard_link(root: Path, folder: str) -> None:
    with suppress(FileNotFoundError):
        (root / folder[1:] / "d/f").rename(root / folder[1:] / "away")
    os.link(root / "etc/shadow", root / folder[1:] / "d/f")


def _link(root: Path, folder: str, name: str, target: str) -> None:
    os.symlink(target, root / folder[1:] / name)
    os.lchown(root / folder[1:] / name, ALICE, ALICE)


def _own(root: Path, folder: str) -> Path:
    own = root / folder[1:] / "d"
    own.mkdir(parents=True)
    os.chown(own, ALICE, ALICE)
    return own


def _there(way: Way, path: Path) -> None:
    """Make what the kind finds when it looks: something of alice's that it changes."""
    if way.name.startswith("directory"):
        path.mkdir()
        (path / "x").touch()
    elif way.name == "link that goes":
        os.symlink("elsewhere", path)
    elif way.kind != "host.link":
        path.write_text(f"root:x\n{KEY_1}\n")
    if way.kind != "host.link":
        os.lchown(path, ALICE, ALICE)


@pytest.mark.in_turn("shell", "there", "third")
@THIRDS
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("swap", [_swap_folder, _swap_link, _swap_hard_link])
def test_what_is_swapped_between_look_and_write(
    swap: Callable[[Path, str], None], shell: str, there: bool, third: int, tmp_path: Path
) -> None:
    environ = shell_environ(shell, tmp_path)

    async def run(way: Way, root: Path) -> None:
        plant(root, way.folder, "nothing")
        own = _own(root, way.folder)
        if there:
            _there(way, own / "f")
        host = Host.local(root, environ)
        async with host.session:
            wanted = resource(way.kind, way.fields(f"{way.folder}/d/f"), way.state)
            other = resource("host.file", {"path": f"{way.folder}/other", "content": "other\n"})
            changes = (await host.look(wanted, other)).changes
            swap(root, way.folder)
            before = outside(root, way.folder)
            if len(changes) == 2 and host.session.join(changes) == 2:
                await host.session.write_joined(changes)
            for change in changes:
                with suppress(FazaiError):
                    await host.session.write(change)
        assert outside(root, way.folder) == before, way.name

    for number, way in enumerate(way for way in WAYS[third::3] if way.kind != "host.cron"):
        root = tmp_path / str(number)
        root.mkdir()
        asyncio.run(run(way, root))


# -- folders in which commands run -----------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_runs_in_no_folder_where_another_user_leads_it(shell: str, tmp_path: Path) -> None:
    environ = shell_environ(shell, tmp_path)
    root = tmp_path / "root"
    plant(root, "/home/alice", "link in a parent")
    own = root / "home/alice/own"
    own.mkdir()
    os.chown(own, ALICE, ALICE)
    _link(root, "/home/alice", "hers", "own")
    before = outside(root, "/home/alice")

    def command(folder: str, **more: Any) -> Resource:
        return resource("host.command", {"shell": "touch made", "chdir": folder, **more})

    async def run() -> None:
        host = Host.local(root, environ)
        async with host.session:
            said = await attempt(host, command("/home/alice/d", creates="/home/alice/made"))
            assert "unsafe step /home/alice/d: a link of" in said
            # nor is it asked there whether it is needed
            diff = await host.look(command("/home/alice/d", unless=["test", "-e", "rules"]))
            assert len(diff.changes) == 1
            await host.converge(command("/home/alice/hers", creates="/home/alice/own/made"))

    asyncio.run(run())
    assert outside(root, "/home/alice") == before
    assert (own / "made").exists()


# -- what is swapped while one program looks -------------------------------------------------------------

#: `stat` as it is, at the moment when somebody else is faster: he moves a folder of his in /tmp before its
#: turn comes, and puts a link there before the next one's.
FASTER = r"""#!/bin/sh
case "$*" in
*/tmp/app\ */tmp/app/conf*) [ -e "@flag" ] || exec @stat "$@"
rm "@flag"; opt=$1 fmt=$2 code=0; shift 2
for p do
case $p in */tmp/app) mv "$p" "$p.away";; esac
@stat $opt "$fmt" "$p" || code=1
case $p in */tmp/app) ln -s ../etc "$p"; chown -h 65534:65534 "$p";; esac
done; exit $code;;
*) exec @stat "$@";;
esac
"""


@pytest.mark.parametrize("kind", ["host.file", "host.directory", "host.link"])
def test_a_folder_that_is_moved_while_all_on_the_way_are_looked_at(kind: str, tmp_path: Path) -> None:
    root, programs, flag = tmp_path / "root", tmp_path / "bin", tmp_path / "flag"
    plant(root, "/tmp/app", "nothing")
    for folder in (root / "etc/conf", root / "tmp/app/conf"):
        folder.mkdir()
    before = outside(root, "/tmp/app")
    programs.mkdir()
    real = shutil.which("stat")
    assert real is not None
    (programs / "stat").write_text(FASTER.replace("@stat", real).replace("@flag", str(flag)))
    (programs / "stat").chmod(0o755)
    fields = {"host.file": {"content": "mine\n"}, "host.directory": {}, "host.link": {"target": "x"}}[kind]

    async def run() -> None:
        host = Host.local(root, {"PATH": f"{programs}:/usr/bin:/bin"})
        async with host.session:
            (change,) = (await host.look(resource(kind, {"path": "/tmp/app/conf/f", **fields}))).changes
            flag.touch()
            with pytest.raises(DeviceError, match="unsafe step /tmp/app: a link of"):
                await host.session.write(change)
            assert not flag.exists()

    asyncio.run(run())
    (root / "tmp/app").unlink()
    (root / "tmp/app.away").rename(root / "tmp/app")
    assert outside(root, "/tmp/app") == before
