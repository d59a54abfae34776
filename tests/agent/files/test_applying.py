"""file.apply against real files: what is replaced and how, what is refused, what a cancelled one leaves."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.files.applying import apply_file

from .conftest import FAULTS, Machine, in_child, no_confinement

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _at(fault: str, run: Callable[[], object]) -> dict[str, Any]:
    """Return options of apply_file that run something at one fault."""
    return {"fault": lambda name: run() if name == fault else None}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_keeps_what_is_not_said(machine: Machine) -> None:
    file = machine / "etc/app/motd"
    file.write_text("Hello.\n")
    file.chmod(0o640)
    before = file.stat()
    assert machine.set_to("/etc/app/motd", "Welcome.\n") == {"applied": True}
    after = file.stat()
    assert file.read_text() == "Welcome.\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert _names(file.parent) == ["fixed", "motd", "sub"]


def test_a_new_file(machine: Machine) -> None:
    file = machine / "etc/app/sub/new"
    assert machine.set_to("/etc/app/sub/new", "") == {"applied": True}
    assert (file.read_bytes(), file.stat().st_mode & 0o7777, file.stat().st_nlink) == (b"", 0o644, 1)
    machine.apply("/etc/app/blob", content_base64=_base64(b"\x00\xff"), base_sha256="absent", mode="0600")
    assert (machine / "etc/app/blob").read_bytes() == b"\x00\xff"
    assert (machine / "etc/app/blob").stat().st_mode & 0o7777 == 0o600


def test_mode_alone(machine: Machine) -> None:
    file = machine / "etc/app/motd"
    file.write_text("same\n")
    file.chmod(0o600)
    assert machine.set_to("/etc/app/motd", "same\n", mode="0444") == {"applied": True}
    assert file.stat().st_mode & 0o7777 == 0o444
    before = file.stat()
    assert machine.set_to("/etc/app/motd", "same\n", mode="444") == {"applied": True}
    assert file.stat().st_ino == before.st_ino  # nothing was to be done


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_the_owner(machine: Machine) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    os.chown(file, NOBODY.pw_uid, 0)
    machine.set_to("/etc/app/motd", "new\n")
    assert (file.stat().st_uid, file.stat().st_gid) == (NOBODY.pw_uid, 0)
    machine.set_to("/etc/app/motd", "newer\n", owner="root", mode="0604")
    assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (0, 0, 0o604)
    machine.set_to("/etc/app/motd", "newer\n", owner="nobody:root")
    assert (file.stat().st_uid, file.stat().st_gid, file.read_text()) == (NOBODY.pw_uid, 0, "newer\n")


@pytest.mark.skipif(not ROOT, reason="another user is needed")
def test_another_user_may_not_take_a_file_over(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    for folder in (machine.root, machine / "etc"):
        folder.chmod(0o755)
    (machine / "etc/app").chmod(0o1777)
    request = {"path": "/etc/app/motd", "content_base64": "eA==", "base_sha256": _sha(b"old\n")}
    monkeypatch.chdir(machine.root)  # what is above it is root's alone
    machine.config = replace(machine.config, root=".")

    def as_nobody() -> dict[str, Any]:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        return apply_file(request, machine.config, confine=no_confinement)

    answer = in_child(as_nobody)
    assert (answer.get("code"), answer["ended"]) == ("not_allowed", 0)
    assert "the agent's user may not make /etc/app/motd a file of user 0, group 0" in answer["error"]
    assert (file.read_text(), _names(file.parent)) == ("old\n", ["fixed", "motd", "sub"])


def test_extended_attributes_are_kept(machine: Machine) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    try:
        os.setxattr(file, "user.note", b"ours")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    # user::rw-, user:nobody:rw-, group::r--, mask::rw-, other::---
    nobody, none = NOBODY.pw_uid, 0xFFFFFFFF
    entries = ((1, 6, none), (2, 6, nobody), (4, 4, none), (0x10, 6, none), (0x20, 0, none))
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, rights, who in entries
    )
    os.setxattr(file, "system.posix_acl_access", acl)
    mode = file.stat().st_mode
    machine.set_to("/etc/app/motd", "new\n")
    assert (os.getxattr(file, "user.note"), file.stat().st_mode) == (b"ours", mode)
    assert os.getxattr(file, "system.posix_acl_access") == acl
    plain = machine / "etc/app/plain"
    plain.write_text("old\n")
    os.setxattr(plain.parent, "system.posix_acl_default", acl)
    machine.set_to("/etc/app/plain", "new\n")
    assert "system.posix_acl_access" not in os.listxattr(plain)


@pytest.mark.parametrize("mode", ["4755", "2755", "1644", "06755"])
def test_privileged_modes_are_refused(machine: Machine, mode: str) -> None:
    with pytest.raises(Refused, match="set-user-id, set-group-id and sticky are not set here"):
        machine.set_to("/etc/app/motd", "x", mode=mode)


def test_a_privileged_file_is_not_replaced(machine: Machine) -> None:
    file = machine / "etc/app/tool"
    file.write_text("old\n")
    file.chmod(0o4755)
    with pytest.raises(Refused, match="is set-user-id or set-group-id, and not replaced"):
        machine.set_to("/etc/app/tool", "new\n")
    assert (file.read_text(), _names(file.parent)) == ("old\n", ["fixed", "sub", "tool"])


@pytest.mark.parametrize(
    ("owner", "said"), [("nosuchuser", "no user nosuchuser"), ("root:nosuchgrp", "no group nosuchgrp")]
)
def test_an_owner_who_is_not_there(machine: Machine, owner: str, said: str) -> None:
    with pytest.raises(Refused, match=f"there is {said} on this machine") as found:
        machine.set_to("/etc/app/motd", "x", owner=owner)
    assert found.value.code == "not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {"patch": "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1 +1 @@\n-other\n+new\n"},
        {"patch": "--- /dev/null\n+++ /etc/app/motd\n@@ -0,0 +1 @@\n+new\n"},
        {
            "patch": "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1 +1 @@\n-old\n+new\n",
            "base_sha256": "absent",
        },
        {
            "patch": "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1 +1 @@\n-old\n+new\n",
            "base_sha256": "0" * 64,
        },
        {"content_base64": "eA==", "base_sha256": "absent"},
        {"content_base64": "eA==", "base_sha256": _sha(b"other\n")},
    ],
)
def test_a_file_that_moved_on_before(machine: Machine, fields: dict[str, Any]) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    with pytest.raises(Refused, match=r"moved on|is not what") as found:
        machine.apply("/etc/app/motd", **fields)
    assert found.value.code == "conflict"
    assert (file.read_text(), _names(file.parent)) == ("old\n", ["fixed", "motd", "sub"])


def test_a_patch_that_shows_a_part_needs_a_hash(machine: Machine) -> None:
    """Its own, behind the path, or that of the request."""
    file = machine / "etc/app/motd"
    old = "".join(f"{number}\n" for number in range(30))
    file.write_text(old)
    patch = "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1,2 +1,2 @@\n-0\n+zero\n 1\n"
    with pytest.raises(Refused, match="the patch names no hash"):
        machine.apply("/etc/app/motd", patch=patch)
    machine.apply("/etc/app/motd", patch=patch, base_sha256=_sha(old.encode()))
    assert file.read_text() == old.replace("0\n", "zero\n", 1)
    made = machine.diff("/etc/app/motd", old)["patch"]
    assert machine.apply("/etc/app/motd", patch=made) == {"applied": True}
    assert file.read_text() == old


def test_a_patch_for_a_file_that_is_gone_or_no_text(machine: Machine) -> None:
    patch = "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1 +1 @@\n-old\n+new\n"
    with pytest.raises(Refused, match="it is not there any more") as found:
        machine.apply("/etc/app/motd", patch=patch)
    assert found.value.code == "conflict"
    (machine / "etc/app/motd").write_bytes(b"\xff")
    with pytest.raises(Refused, match="is no text") as found:
        machine.apply("/etc/app/motd", patch=patch)
    assert found.value.code == "conflict"
    with pytest.raises(Refused, match="the folder of /etc/app/none/x is not there") as found:
        machine.apply("/etc/app/none/x", patch=patch)
    assert found.value.code == "not_found"


@pytest.mark.parametrize("fault", FAULTS[:3])
@pytest.mark.parametrize("move", ["write", "rename", "remove", "link"])
def test_a_file_that_moves_on_meanwhile(machine: Machine, fault: str, move: str) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    other = machine / "outside/other"
    other.write_text("theirs\n")

    def change() -> None:
        if move == "write":
            file.write_text("theirs\n")
        elif move == "rename":
            other.rename(file)
        elif move == "link":
            file.unlink()
            file.symlink_to(other)
        else:
            file.unlink()

    found = machine.diff("/etc/app/motd", "new\n")
    with pytest.raises(Refused, match="/etc/app/motd moved on while it was written") as refused:
        machine.apply("/etc/app/motd", _at(fault, change), patch=found["patch"])
    assert refused.value.code == "conflict"
    assert _names(file.parent) == (["fixed", "sub"] if move == "remove" else ["fixed", "motd", "sub"])
    assert move == "remove" or file.read_text() == "theirs\n"
    assert move == "rename" or other.read_text() == "theirs\n"


@pytest.mark.parametrize("fault", ["temporary.synced", "checked"])
def test_a_new_file_replaces_nothing(machine: Machine, fault: str) -> None:
    file = machine / "etc/app/new"
    with pytest.raises(Refused, match=r"/etc/app/new (is there now|moved on while)"):
        machine.apply(
            "/etc/app/new",
            _at(fault, lambda: file.write_text("theirs\n")),
            content_base64="eA==",
            base_sha256="absent",
        )
    assert (file.read_text(), _names(file.parent)) == ("theirs\n", ["fixed", "new", "sub"])


def test_a_temporary_file_that_was_swapped(machine: Machine) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")

    def swap() -> None:
        (temporary,) = file.parent.glob(".fazai-*.tmp")
        temporary.unlink()
        temporary.symlink_to(machine / "outside")

    found = machine.diff("/etc/app/motd", "new\n")
    with pytest.raises(Refused, match="somebody meddles with the folder of /etc/app/motd"):
        machine.apply("/etc/app/motd", _at("temporary.synced", swap), patch=found["patch"])
    assert (file.read_text(), _names(file.parent)) == ("old\n", ["fixed", "motd", "sub"])


def test_a_temporary_file_that_was_planted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the random name was guessed."""
    (machine / "etc/app/motd").write_text("old\n")
    planted = machine / f"etc/app/.fazai-{'0' * 32}.tmp"
    planted.symlink_to(machine / "outside/planted")
    monkeypatch.setattr(os, "urandom", bytes)
    with pytest.raises(Refused, match="File exists"):
        machine.set_to("/etc/app/motd", "new\n")
    assert (planted.is_symlink(), _names(machine / "outside")) == (True, [])
    assert (machine / "etc/app/motd").read_text() == "old\n"


@pytest.mark.skipif(not ROOT, reason="only root may give folders away")
@pytest.mark.parametrize("folder", ["etc/app", "etc/app/sub"])
def test_a_folder_that_another_user_owns(machine: Machine, folder: str) -> None:
    os.chown(machine / folder, NOBODY.pw_uid, 0)
    with pytest.raises(Refused, match=f"belongs to user {NOBODY.pw_uid}") as found:
        machine.set_to("/etc/app/sub/x", "x")
    assert found.value.code == "not_allowed"


def test_a_folder_that_everybody_writes_to(machine: Machine) -> None:
    (machine / "etc/app/sub").chmod(0o777)
    with pytest.raises(Refused, match="everybody may write to the folder of /etc/app/sub/x"):
        machine.set_to("/etc/app/sub/x", "x")
    (machine / "etc/app/sub").chmod(0o1777)
    assert machine.set_to("/etc/app/sub/x", "x") == {"applied": True}


def test_what_was_left_behind_goes_when_it_is_old(machine: Machine) -> None:
    folder = machine / "etc/app"
    old, young = folder / f".fazai-{'a' * 32}.tmp", folder / f".fazai-{'b' * 32}.tmp"
    for file in (old, young, folder / ".fazai-other.tmp"):
        file.write_text("left")
    os.utime(old, (1, 1))
    os.utime(folder / ".fazai-other.tmp", (1, 1))
    machine.set_to("/etc/app/motd", "x")
    assert _names(folder) == [".fazai-" + "b" * 32 + ".tmp", ".fazai-other.tmp", "fixed", "motd", "sub"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cancelled_one_leaves_nothing_beside_the_file(machine: Machine, fault: str) -> None:
    file = machine / "etc/app/motd"
    file.write_text("old\n")
    request = {"path": "/etc/app/motd", "content_base64": _base64(b"new\n"), "base_sha256": _sha(b"old\n")}
    options = _at(fault, lambda: os.kill(os.getpid(), signal.SIGTERM))
    answer = in_child(lambda: apply_file(request, machine.config, confine=no_confinement, **options))
    late = fault in FAULTS[3:]  # once it is checked it is done and told so
    assert answer == ({"applied": True, "ended": 0} if late else {"ended": -signal.SIGTERM})
    assert file.read_text() == ("new\n" if late else "old\n")
    assert _names(file.parent) == ["fixed", "motd", "sub"]


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_one_leaves_the_old_file_or_the_new_one(machine: Machine, fault: str, new: bool) -> None:
    file = machine / "etc/app/motd"
    content = os.urandom(300_000)
    if not new:
        file.write_text("old\n")
    base = "absent" if new else _sha(b"old\n")
    request = {"path": "/etc/app/motd", "content_base64": _base64(content), "base_sha256": base}
    options = _at(fault, lambda: os.kill(os.getpid(), signal.SIGKILL))
    answer = in_child(lambda: apply_file(request, machine.config, confine=no_confinement, **options))
    assert answer == {"ended": -signal.SIGKILL}
    have = file.read_bytes() if file.exists() else None
    assert have == (content if fault in FAULTS[4:] else None if new else b"old\n")
    again = {**request, "base_sha256": _sha(content) if have == content else base}
    assert apply_file(again, machine.config, confine=no_confinement) == {"applied": True}
    assert file.read_bytes() == content
