"""file.list against real folders: what may be fetched, and nothing that lies elsewhere."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.agent.config.settings import FilesRoot
from fazai.agent.errors import Refused
from fazai.agent.files import listing

from .conftest import Machine


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
        "/etc/app/many has more than 1 files and folders",
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
