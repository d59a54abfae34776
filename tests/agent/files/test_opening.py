"""What may be opened: the longest root decides, nothing is followed, nothing but plain files."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.agent.config.settings import FilesRoot
from fazai.agent.errors import Refused
from fazai.agent.execution.landlock import read_abi
from fazai.agent.files import opening
from fazai.agent.files.applying import apply_file
from fazai.agent.files.opening import open_below, walk_below

from .conftest import Machine, in_child

_ALL_NAMES = sorted(["etc", "app", "fixed", "sub", "link", "srv", "outside", "secret"])


@pytest.fixture(autouse=True)
def secret(machine: Machine) -> Path:
    file = machine / "outside/secret"
    file.write_text("secret\n")
    return file


def _refusal(machine: Machine, path: str) -> tuple[str, str]:
    with pytest.raises(Refused) as found:
        machine.diff(path, "x")
    assert (machine / "outside" / "secret").read_text() == "secret\n"
    return found.value.code, found.value.message


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/etc/application/x", "/etc/ap", "/srv2/x", "/outside/secret", "/x"],
)
def test_outside_of_all_roots(machine: Machine, path: str) -> None:
    assert _refusal(machine, path) == ("not_allowed", f"{path} is below no folder of `files` in agent.yml")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("etc/app/x", "a path is absolute"),
        ("/etc/app/../../outside/secret", r"without `\.` and `\.\.`"),
        ("/etc/app/./x", r"without `\.` and `\.\.`"),
        ("/etc/app/x\n+++ /y", "without control characters"),
        ("/srv/\ud800", "without control characters"),
        ("/etc/app", "is a folder"),
        ("/etc/app/", "is a folder"),
        ("/srv//", "is a folder"),
        ("/", "is a folder"),
        ("/srv/" + "x" * 300, "the path is too long"),
    ],
)
def test_what_is_no_path_of_a_file(machine: Machine, path: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as found:
        machine.diff(path, "x")
    assert found.value.code == "bad_request"


def test_the_longest_root_decides(machine: Machine) -> None:
    (machine / "etc/app/fixed/x").write_text("old\n")
    assert machine.diff("/etc/app/fixed/x", "new\n")["differs"]
    with pytest.raises(Refused, match="files below /etc/app/fixed are only compared") as found:
        machine.set_to("/etc/app/fixed/x", "new\n")
    assert found.value.code == "not_allowed"
    roots = (FilesRoot("/etc/app", write=False), FilesRoot("/etc/app/sub", write=True))
    machine.config = replace(machine.config, files=roots)
    assert machine.set_to("/etc/app//sub/x", "new\n") == {"applied": True}
    with pytest.raises(Refused, match="only compared"):
        machine.set_to("/etc/app/x", "new\n")


_NAMES = st.sampled_from(
    ["etc", "app", "fixed", "sub", "srv", "outside", "secret", "link", "..", ".", "", "x"]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(_NAMES, max_size=7).map(lambda names: "/" + "/".join(names)) | st.text())
def test_any_path_is_refused_or_stands_below_a_root(machine: Machine, path: str) -> None:
    link = machine / "etc/app/link"
    if not link.is_symlink():
        link.symlink_to(machine / "outside")
    try:
        machine.apply(path, content_base64="eA==", base_sha256="absent")
    except Refused:
        done = False
    else:
        done = True
        (machine / path).unlink()
    assert sorted(each.name for each in machine.root.rglob("*")) == _ALL_NAMES
    parts = [part for part in path.split("/") if part]
    assert not done or (parts[:2] == ["etc", "app"] and parts[2] not in ("fixed", "link", ".."))


@pytest.mark.parametrize("absolute", [True, False])
def test_no_part_of_a_path_may_be_a_link(machine: Machine, absolute: bool) -> None:
    target = str(machine / "outside") if absolute else "../../outside"
    (machine / "etc/app/link").symlink_to(target)
    (machine / "etc/app/inner").symlink_to("fixed")
    (machine / "etc/app/file").symlink_to(f"{target}/secret")
    for path in ("/etc/app/link/secret", "/etc/app/inner/x"):
        assert _refusal(machine, path) == ("not_allowed", f"a part of {path} is a link, or no folder")
        with pytest.raises(Refused, match="is a link, or no folder"):
            machine.apply(path, content_base64="eA==", base_sha256="absent")
    assert _refusal(machine, "/etc/app/file") == ("not_allowed", "/etc/app/file is a link")
    assert list((machine / "etc/app/fixed").iterdir()) == []


def test_a_root_that_is_a_link_is_refused(machine: Machine) -> None:
    (machine / "srv").rmdir()
    (machine / "srv").symlink_to("outside")
    assert _refusal(machine, "/srv/secret")[1] == "a part of /srv/secret is a link, or no folder"


def test_only_plain_files_with_one_name(machine: Machine, secret: Path) -> None:
    os.mkfifo(machine / "srv/pipe")
    (machine / "srv/folder").mkdir()
    os.link(secret, machine / "srv/hard")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(machine / "srv/socket"))
        for name in ("pipe", "socket"):
            assert _refusal(machine, f"/srv/{name}") == ("not_allowed", f"/srv/{name} is no regular file")
    assert _refusal(machine, "/srv/folder") == ("bad_request", "/srv/folder is a folder, and a file is meant")
    assert _refusal(machine, "/srv/hard") == ("not_allowed", "/srv/hard has 2 names (hard links)")


def test_the_agents_own_key_and_policy(machine: Machine) -> None:
    root = str(machine.root)
    (machine / "etc/app/state").mkdir()
    beside = ("key.pem.renewing", "key.pem.enrolling.new", "ca.pem.offered", "cert.pem.renewing")
    for name in ("agent.yml", "key.pem", "state/journal", *beside):
        (machine / "etc/app" / name).write_text("own\n")
    (machine / "alias").symlink_to(machine / "etc/app")
    machine.config = replace(
        machine.config,
        file=f"{root}/etc/app/agent.yml",
        key=f"{root}/alias/key.pem",
        ca=f"{root}/etc/app/ca.pem",
        certificate=f"{root}/etc/app/cert.pem",
        state=f"{root}/etc/app/state",
    )
    for name in ("agent.yml", "key.pem", "state/journal", *beside):
        path = f"/etc/app/{name}"
        assert _refusal(machine, path) == ("not_allowed", f"{path} is the agent's own")


@pytest.mark.parametrize("open_folder", [open_below, walk_below])
def test_both_ways_of_opening(tmp_path: Path, open_folder: Callable[[int, tuple[str, ...]], int]) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/b/root").symlink_to("/")
    (tmp_path / "a/b/beside").symlink_to("c")
    (tmp_path / "a/b/file").write_text("")
    (tmp_path / "a/b/process").symlink_to("/proc/self/root")
    descriptors = len(os.listdir("/proc/self/fd"))
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parts in ((), ("a",), ("a", "b", "c")):
            folder = open_folder(root, parts)
            assert os.path.samestat(os.fstat(folder), os.stat(tmp_path.joinpath(*parts)))
            os.close(folder)
        for names in ("a/up", "a/b/root", "a/b/beside", "a/b/file", "a/b/process"):
            for more in ((), ("etc",), ("c",)):
                with pytest.raises(OSError, match=r"symbolic|Not a dir") as found:
                    open_folder(root, (*names.split("/"), *more))
                assert found.value.errno in (errno.ELOOP, errno.ENOTDIR)
        with pytest.raises(FileNotFoundError):
            open_folder(root, ("a", "b", "none", "x"))
        with pytest.raises(OSError, match=r"no name|cross-device"):
            open_folder(root, ("a", "..", "..", "etc"))
    finally:
        os.close(root)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_each_part_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What an old kernel, or a filter of a container, answers."""

    def refuse(*_arguments: object) -> int:
        raise OSError(number, "no")

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(opening, "call_kernel", refuse)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    folder = open_below(root, ("a",))
    assert os.path.samestat(os.fstat(folder), os.stat(tmp_path / "a"))
    os.close(folder)
    os.close(root)


def test_landlock_holds_where_a_folder_is_moved_away(machine: Machine) -> None:
    """The second line: a folder that leaves the root after it was opened cannot be written any more."""
    if read_abi() == 0:
        pytest.skip("this kernel has no Landlock")
    request = {"path": "/etc/app/sub/x", "content_base64": "eA==", "base_sha256": "absent"}

    def confine_and_move(root: int | None) -> None:
        os.rename(machine / "etc/app/sub", machine / "outside/sub")
        opening.forbid_writes(root)

    answer = in_child(lambda: apply_file(request, machine.config, confine=confine_and_move))
    assert answer["code"] == "not_allowed"
    assert "the agent's user may not do that" in answer["error"]
    assert list((machine / "outside/sub").iterdir()) == []
    (machine / "etc/app/sub").mkdir()
    assert in_child(lambda: apply_file(request, machine.config)) == {"applied": True, "ended": 0}
    assert (machine / "etc/app/sub/x").read_text() == "x"
