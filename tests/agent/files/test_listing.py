"""file.list against real folders: what may be fetched, and nothing that lies elsewhere."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.config.settings import FilesRoot
from fazai.agent.errors import Refused
from fazai.agent.files import listing, opening
from fazai.agent.files.reading import MAX_READ_BYTES

from .conftest import Machine, in_child

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    roots = (FilesRoot("/etc/app", read=True), FilesRoot("/etc/app/fixed"), FilesRoot("/srv"))
    made.config = replace(made.config, files=roots)
    return made


def refusal(machine: Machine, path: str) -> tuple[str, str]:
    with pytest.raises(Refused) as failed:
        machine.list(path)
    return failed.value.code, failed.value.message


def test_a_folder_is_listed_with_what_may_be_fetched(machine: Machine) -> None:
    folder = machine / "etc/app"
    (folder / "a/b/empty").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three", "fixed/secret"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("/etc")
    (folder / "a/out").symlink_to("../../..")
    os.link(folder / "one", folder / "twice")
    os.mkfifo(folder / "pipe")
    found = machine.list("/etc/app")
    named = {name for name in found["folders"] if not name.startswith("sub")}
    assert named == {"a", "a/b", "a/b/empty"}
    assert found["files"] == ["a/b/three", "a/two"]
    assert (
        found["left_out"] == 6
    )  # the two links, both names of one file, the pipe, the folder of another rule
    below = machine.list("/etc/app/a/")
    assert below == {"folders": ["b", "b/empty"], "files": ["b/three", "two"], "left_out": 1}


def test_what_cannot_be_listed_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine / "etc/app"
    (folder / "file").write_text("x")
    (folder / "link").symlink_to("../../outside")
    (folder / "many").mkdir()
    (folder / "many/x/y").mkdir(parents=True)
    assert refusal(machine, "/srv") == ("not_allowed", "files below /srv are not handed out")
    assert refusal(machine, "/etc/app/fixed")[0] == "not_allowed"
    assert refusal(machine, "/outside")[0] == "not_allowed"
    assert refusal(machine, "/etc/app/none") == ("not_found", "/etc/app/none is not there")
    assert refusal(machine, "/etc/app/link")[0] == "not_allowed"
    assert refusal(machine, "/etc/app/file")[0] in ("not_allowed", "bad_request")
    monkeypatch.setattr(listing, "MAX_ENTRIES", 1)
    assert refusal(machine, "/etc/app/many") == (
        "too_large",
        "/etc/app/many has more than 1 entries",
    )
    monkeypatch.setattr(listing, "MAX_ENTRIES", 9)
    monkeypatch.setattr(listing, "_MAX_DEPTH", 2)
    assert "nested more than 2 deep" in refusal(machine, "/etc/app/many")[1]


def test_the_agents_own_files_are_left_out(machine: Machine) -> None:
    key = machine / "etc/app/key.pem"
    key.write_text("x")
    machine.config = replace(machine.config, key=str(key))
    found = machine.list("/etc/app")
    assert "key.pem" not in found["files"]
    assert found["left_out"] >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_what_the_agents_user_may_not_read_is_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such entry made the whole folder one that could not be fetched."""
    folder = machine / "etc/app"
    for name in ("a", "closed", "named", "unnamed"):
        (folder / name).mkdir()
        (folder / name / "in").write_text("x")
    (folder / "closed").chmod(0o700)
    (folder / "named").chmod(0o744)  # its names may be read, and nothing of them
    (folder / "unnamed").chmod(0o711)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    (folder / "a/one").write_text("x")
    monkeypatch.chdir(machine.root)  # what is above it is root's alone
    machine.config = replace(machine.config, root=".")

    def as_nobody() -> dict[str, Any]:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        return machine.list("/etc/app")

    answer = in_child(as_nobody)
    assert answer == {
        "folders": ["a", "named", "sub"],
        "files": ["a/in", "a/one"],
        "left_out": 5,  # closed, named/in, unnamed, secret, and the folder of another rule
        "ended": 0,
    }


def test_what_cannot_be_asked_for_is_left_out(machine: Machine) -> None:
    deep = machine / "etc/app/sub"
    (deep / "next\x85line").write_text("x")
    (deep / "control\x9f").mkdir()
    (deep / "bell\x07").write_text("x")
    (deep / "no-break\xa0space").write_text("x")
    for name, size in (("large", MAX_READ_BYTES), ("larger", MAX_READ_BYTES + 1)):
        (deep / name).touch()
        os.truncate(deep / name, size)
    found = machine.list("/etc/app/sub")
    assert found == {"folders": [], "files": ["large", "no-break\xa0space"], "left_out": 4}


def test_what_no_path_reaches_is_left_out(machine: Machine) -> None:
    name = "n" * 250
    at = os.open(machine / "etc/app/sub", os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir(name, dir_fd=at)
            below = os.open(name, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
    finally:
        os.close(at)
    found = machine.list("/etc/app/sub")
    assert found["folders"] == ["/".join([name] * depth) for depth in range(1, 17)]
    assert (found["files"], found["left_out"]) == ([], 1)
    assert machine.read(f"/etc/app/sub/{found['folders'][-1]}/none")["size"] == 0


def test_what_becomes_a_link_meanwhile_is_left_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine / "etc/app/sub"
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
    (folder / "file").write_text("x")
    opened = opening.open_below

    def replaced(at: int, parts: tuple[str, ...]) -> int:
        if parts == ("a",):
            for name in ("a", "b"):
                (folder / name).rmdir()
            (folder / "a").symlink_to("/etc")
            (folder / "b").write_text("a file")
        return opened(at, parts)

    monkeypatch.setattr(listing, "open_below", replaced)
    assert machine.list("/etc/app/sub") == {"folders": ["c"], "files": ["b", "file"], "left_out": 1}


def test_no_more_entries_are_read_than_the_bound(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out counts, too: a folder of links alone was read to its end."""
    folder = machine / "etc/app/sub"
    (folder / "below").mkdir()
    for number in range(20):
        (folder / "below" / f"link-{number}").symlink_to("nowhere")
    read: list[str] = []
    scandir = os.scandir

    class Counting:
        def __init__(self, folder: int) -> None:
            self._entries = scandir(folder)

        def __enter__(self) -> Iterator[Any]:
            for entry in self._entries:
                read.append(os.fsdecode(entry.name))
                yield entry

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Counting)
    assert machine.list("/etc/app/sub")["left_out"] == 20
    del read[:]
    monkeypatch.setattr(listing, "MAX_ENTRIES", 5)
    assert refusal(machine, "/etc/app/sub") == ("too_large", "/etc/app/sub has more than 5 entries")
    assert len(read) == 6


def test_the_agents_own_files_are_looked_up_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were for each entry: most of the time that a long listing took."""
    folder = machine / "etc/app/sub"
    (folder / "file").touch()
    looked: list[str] = []
    realpath = os.path.realpath

    def count(path: str, **options: Any) -> str:
        looked.append(path)
        return realpath(path, **options)

    monkeypatch.setattr(os.path, "realpath", count)
    assert len(machine.list("/etc/app/sub")["files"]) == 1
    before = len(looked)
    assert before >= len(machine.config.own_files)
    for number in range(30):
        (folder / f"file-{number}").touch()
    del looked[:]
    assert len(machine.list("/etc/app/sub")["files"]) == 31
    assert len(looked) == before


def test_no_more_bytes_of_paths_are_named_than_the_bound(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = machine / "etc/app/sub"
    for name in ("é" * 4, "five."):
        (folder / name).touch()
    monkeypatch.setattr(listing, "MAX_PATHS_BYTES", 13)
    assert machine.list("/etc/app/sub")["files"] == ["five.", "é" * 4]
    monkeypatch.setattr(listing, "MAX_PATHS_BYTES", 12)
    assert refusal(machine, "/etc/app/sub") == (
        "too_large",
        "the paths below /etc/app/sub have more than 12 bytes",
    )
