"""file.diff against real files."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd

import pytest

from fazai.agent.errors import Refused
from fazai.agent.files.opening import MAX_FILE_BYTES
from fazai.agent.files.patches import MOST_LINES

from .conftest import Machine


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_differs(machine: Machine) -> None:
    (machine / "etc/app/motd").write_text("Hello.\n")
    assert machine.diff("/etc/app/motd", "Welcome.\n") == {
        "patch": "--- /etc/app/motd\n+++ /etc/app/motd\n@@ -1 +1 @@\n-Hello.\n+Welcome.\n",
        "differs": True,
        "base_sha256": _sha(b"Hello.\n"),
    }


def test_a_file_that_is_as_wanted(machine: Machine) -> None:
    (machine / "srv/motd").write_bytes(b"a\r\nb")
    assert machine.diff("/srv/motd", "a\r\nb") == {
        "patch": "",
        "differs": False,
        "base_sha256": _sha(b"a\r\nb"),
    }


def test_a_file_of_another_mode_or_owner_differs(machine: Machine) -> None:
    (machine / "srv/motd").write_text("same")
    (machine / "srv/motd").chmod(0o644)
    owner = pwd.getpwuid(os.getuid()).pw_name
    other = next(each.pw_name for each in pwd.getpwall() if each.pw_uid != os.getuid())

    def differs(**fields: str) -> bool:
        answer = machine.diff("/srv/motd", "same", **fields)
        assert (answer["patch"], answer["base_sha256"]) == ("", _sha(b"same"))
        return bool(answer["differs"])

    assert not differs(mode="0644", owner=owner)
    assert differs(mode="0600")
    assert differs(owner=other)
    with pytest.raises(Refused, match="there is no user no-such-user on this machine"):
        differs(owner="no-such-user")


@pytest.mark.parametrize("path", ["/srv/none", "/srv/no/folder/none"])
def test_a_file_that_is_not_there(machine: Machine, path: str) -> None:
    assert machine.diff(path, "") == {
        "patch": f"--- /dev/null\n+++ {path}\n",
        "differs": True,
        "base_sha256": "absent",
    }


@pytest.mark.parametrize(("have", "want"), [(b"\xff", b"text"), (b"text", b"\xff\x00"), (b"\xfe", b"\xff")])
def test_what_is_no_text_has_no_patch(machine: Machine, have: bytes, want: bytes) -> None:
    (machine / "srv/blob").write_bytes(have)
    answer = machine.diff("/srv/blob", want_base64=base64.b64encode(want).decode())
    assert answer == {"patch": "", "differs": True, "base_sha256": _sha(have), "binary": True}
    same = machine.diff("/srv/blob", want_base64=base64.b64encode(have).decode())
    assert same == {"patch": "", "differs": False, "base_sha256": _sha(have)}


def test_a_text_that_is_too_long_has_no_patch(machine: Machine) -> None:
    (machine / "srv/long").write_text("\n" * (MOST_LINES + 1))
    assert machine.diff("/srv/long", "\n")["binary"] is True


def test_a_file_over_the_bound_is_refused(machine: Machine) -> None:
    with (machine / "srv/sparse").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(Refused, match=f"{MAX_FILE_BYTES + 1} bytes, {MAX_FILE_BYTES} are the most") as found:
        machine.diff("/srv/sparse", "")
    assert found.value.code == "too_large"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"want": "\ud800"}, "`want` holds half a surrogate pair"),
        ({"want_base64": "a"}, "`want_base64` is no base64"),
        ({"want_base64": "é"}, "`want_base64` is no base64"),
        ({"want_base64": "YQ==\n"}, "`want_base64` is no base64"),
    ],
)
def test_a_wanted_content_that_is_none(machine: Machine, fields: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said) as found:
        machine.diff("/srv/motd", **fields)
    assert found.value.code == "bad_request"


def test_a_hash_is_compared_without_the_content(machine: Machine) -> None:
    (machine / "srv/blob").write_bytes(b"\0 of this")
    (machine / "srv/blob").chmod(0o640)
    digest = hashlib.sha256(b"\0 of this").hexdigest()
    same = {"patch": "", "differs": False, "base_sha256": digest}
    assert machine.diff("/srv/blob", want_sha256=digest) == same
    assert machine.diff("/srv/blob", want_sha256=digest, mode="0600") == {**same, "differs": True}
    other = hashlib.sha256(b"").hexdigest()
    assert machine.diff("/srv/blob", want_sha256=other) == {**same, "differs": True}
    absent = {"patch": "", "differs": True, "base_sha256": "absent"}
    assert machine.diff("/srv/none", want_sha256=other) == absent
