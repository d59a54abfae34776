"""file.read against real files: closed by default, and nothing outside of what is named."""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.agent.config.settings import FilesRoot
from fazai.agent.errors import Refused
from fazai.agent.files import reading
from fazai.agent.files.reading import MAX_READ_BYTES

from .conftest import Machine
from .test_race import Racer, way

__all__ = ["way"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    roots = (FilesRoot("/etc/app", write=True, read=True), FilesRoot("/etc/app/fixed"), FilesRoot("/srv"))
    made.config = replace(made.config, files=roots)
    return made


def refusal(machine: Machine, path: str) -> tuple[str, str]:
    try:
        found = machine.read(path)
    except Refused as error:
        return error.code, error.message
    return "handed out", str(found)


def test_a_file_is_handed_out_whole(machine: Machine) -> None:
    data = os.urandom(3_000_000)
    (machine / "etc/app/x").write_bytes(data)
    (machine / "etc/app/x").chmod(0o4640)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": "0640"}
    assert machine.read("/etc/app/x", content=False) == about
    found = machine.read("/etc/app/x")
    assert base64.b64decode(found.pop("content_base64")) == data
    assert found == about
    assert machine.read("/etc/app/none") == {"sha256": "absent", "size": 0}
    assert machine.read("/etc/app/no/folder") == {"sha256": "absent", "size": 0}


def test_it_is_closed_unless_the_longest_root_opens_it(machine: Machine) -> None:
    for name in ("etc/app/fixed/x", "srv/x", "outside/x"):
        (machine / name).write_text("secret")
    closed = "files below {} are not handed out"
    assert refusal(machine, "/srv/x") == ("not_allowed", closed.format("/srv"))
    assert refusal(machine, "/etc/app/fixed/x") == ("not_allowed", closed.format("/etc/app/fixed"))
    assert refusal(machine, "/outside/x")[0] == "not_allowed"
    assert refusal(machine, "/etc/app/../../outside/x")[0] == "bad_request"


def test_no_link_leads_out(machine: Machine) -> None:
    secret = machine / "outside/secret"
    secret.write_text("secret")
    (machine / "etc/app/file").symlink_to(secret)
    (machine / "etc/app/link").symlink_to("../../outside")
    (machine / "etc/app/inner").symlink_to("sub")
    os.link(secret, machine / "etc/app/hard")
    os.mkfifo(machine / "etc/app/pipe")
    assert refusal(machine, "/etc/app/file") == ("not_allowed", "/etc/app/file is a link")
    for path in ("/etc/app/link/secret", "/etc/app/inner/x"):
        assert refusal(machine, path) == ("not_allowed", f"a part of {path} is a link, or no folder")
    assert refusal(machine, "/etc/app/hard")[1] == "/etc/app/hard has 2 names (hard links)"
    assert refusal(machine, "/etc/app/pipe")[1] == "/etc/app/pipe is no regular file"
    assert refusal(machine, "/etc/app/sub")[1] == "/etc/app/sub is a folder, and a file is meant"


def test_the_agents_own_stays_its_own(machine: Machine) -> None:
    (machine / "etc/app/key.pem").write_text("own")
    machine.config = replace(machine.config, key=f"{machine.root}/etc/app/key.pem")
    assert refusal(machine, "/etc/app/key.pem") == ("not_allowed", "/etc/app/key.pem is the agent's own")


def test_a_file_that_is_too_large(machine: Machine) -> None:
    with (machine / "etc/app/big").open("wb") as file:
        file.truncate(MAX_READ_BYTES + 1)
    code, said = refusal(machine, "/etc/app/big")
    assert (code, said.endswith(f"{MAX_READ_BYTES} are the most that are read")) == ("too_large", True)


@pytest.mark.parametrize("change", ["grows", "is rewritten"])
def test_a_file_that_changes_meanwhile(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = machine / "etc/app/log"
    path.write_text("one\n")
    os.utime(path, (1, 1))

    def read_late(file: int, name: str) -> bytes:
        path.write_text("one\ntwo\n" if change == "grows" else "ONE\n")
        return os.pread(file, 100, 0)

    monkeypatch.setattr(reading, "read_whole", read_late)
    assert refusal(machine, "/etc/app/log") == ("conflict", "/etc/app/log changed while it was read")


@pytest.mark.usefixtures("way")
def test_a_race_hands_nothing_else_out(machine: Machine) -> None:
    """A13, for reading: whoever swaps files and folders for links gets no other content out."""
    (machine / "outside/motd").write_text("secret\n")
    (machine / "outside/secret").write_text("secret\n")
    seen: set[bytes] = set()
    racer = Racer(machine)
    with racer.running():
        while racer.swaps < 3000 or not seen:
            racer.check()
            for folder in ("sub", "away"):
                try:
                    (machine / f"etc/app/{folder}/motd.new").write_text("mine\n")
                    os.rename(machine / f"etc/app/{folder}/motd.new", machine / f"etc/app/{folder}/motd")
                except OSError:
                    continue
            with suppress(Refused):
                seen.add(base64.b64decode(machine.read("/etc/app/sub/motd").get("content_base64", "")))
            seen.discard(b"")  # it is not there, or was just begun
    assert seen == {b"mine\n"}
