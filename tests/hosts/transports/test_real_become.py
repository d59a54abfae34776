"""become: with the real sudo and doas, over a real OpenSSH server, as users of a machine to throw away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import ExitCode
from tests.hosts.conftest import Result, World
from tests.hosts.machines import Machine, missing
from tests.hosts.sshd import SSHD, Sshd

pytestmark = pytest.mark.slow

PASSWORD = 'it\'s "quite" $HOME long'
WRONG = "not this one"
USERS = ("fzadmin", "fzfree", "fznobody", "fzother")
_SUDOERS = """Defaults lecture=always, passwd_tries=3
fzadmin ALL=(ALL) ALL
fzfree ALL=(fzother) NOPASSWD: ALL
"""
_DOAS = "permit nopass fzfree as root\npermit fzadmin as root\n"
_USERS = """set -e
for name; do useradd -m -s /bin/sh "$name"; printf '%s:%s\\n' "$name" "$FZ_PASSWORD" | chpasswd; done
chown root:root /etc/sudoers /etc/doas.conf; chmod 0440 /etc/sudoers /etc/doas.conf
"""
WANTED = [{"host.file": {"path": "/srv/fz/app.conf", "content": "x=1\n", "mode": "0640"}}]


@dataclass
class Box:
    """A machine behind an SSH server; `there` is what was written."""

    machine: Machine
    server: Sshd
    world: World

    @property
    def there(self) -> Path:
        return self.machine.folder / "upper/srv/fz/app.conf"

    def apply(self, user: str, password: str = "", **options: Any) -> Result:
        """Apply as this user; `password` names the variable that holds it."""
        if password:
            options["become_password"] = f"@{password}@"
        self.world.ssh(self.server, "box", ansible_user=user, root=None, become=True, **options)
        inventory = {"all": {"hosts": self.world.hosts, "resources": WANTED}}
        text = json.dumps(inventory).replace(f'"@{password}@"', f"!env {password}")
        (self.world.folder / "inventory.yml").write_text(text)
        self.world.hosts.clear()  # the file is written already
        return self.world.fazai("apply", "--output", "json")

    def refused(self, text: str, user: str, password: str = "", **options: Any) -> None:
        """It says this, and writes nothing; what was tried stands nowhere."""
        found = self.apply(user, password, **options)
        assert found.code == ExitCode.FAILED, found.out + found.err
        assert text in found.out
        assert not self.there.exists()
        assert PASSWORD not in found.out + found.err
        assert WRONG not in found.out + found.err


@pytest.fixture
def box(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    if SSHD is None:
        missing("OpenSSH's server is not installed (sshd)")
    machine = Machine.made(tmp_path / "machine", apart=False)
    machine.put("/etc/sudoers", _SUDOERS, 0o440)
    machine.put("/etc/doas.conf", _DOAS, 0o440)
    machine.put("/run/sshd/.keep", "", 0o644)
    script = f"FZ_PASSWORD={_quoted(PASSWORD)}; set -- {' '.join(USERS)}\n{_USERS}"
    machine.run(f"mkdir -m 1777 /srv/fz\n{script}")
    monkeypatch.setenv("FZ_RIGHT", PASSWORD)
    monkeypatch.setenv("FZ_WRONG", WRONG)
    lines = ("AuthorizedKeysFile /srv/keys",)  # what is below our own folder these users cannot read
    with Sshd(tmp_path / "sshd", lines, enter=tuple(machine.argv())) as server:
        machine.put("/srv/keys", server.authorized.read_text(), 0o644)
        yield Box(machine, server, world)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_sudo_with_the_right_password(box: Box) -> None:
    done = box.apply("fzadmin", "FZ_RIGHT")
    assert done.code == ExitCode.OK, done.out + done.err
    assert box.there.read_text() == "x=1\n"
    assert (box.there.stat().st_uid, box.there.stat().st_mode & 0o777) == (0, 0o640)
    (target,) = box.apply("fzadmin", "FZ_RIGHT").document["targets"]
    assert (target["status"], target["unchanged"]) == ("converged", 1)
    journal = b"".join(path.read_bytes() for path in (box.world.folder / "state").iterdir() if path.is_file())
    assert PASSWORD.encode() not in journal


def test_sudo_that_remembers_who_it_asked(box: Box) -> None:
    """It then asks nothing, and the password must not become a command of the shell."""
    remember = "Defaults timestamp_type=global, timestamp_timeout=5\n"
    box.machine.put("/etc/sudoers", f"{_SUDOERS}{remember}", 0o440)
    for status in ("changed", "converged"):
        (target,) = box.apply("fzadmin", "FZ_RIGHT").document["targets"]
        assert target["status"] == status


def test_sudo_as_somebody_else_without_a_password(box: Box) -> None:
    done = box.apply("fzfree", become_user="fzother")
    assert done.code == ExitCode.OK, done.out + done.err
    uid = int(box.machine.run("id -u fzother"))
    assert box.there.stat().st_uid == uid
    box.there.unlink()
    box.refused("sudo asks for a password", "fzfree")  # as root it may not: sudo asks, and nobody answers


@pytest.mark.parametrize(
    ("user", "password", "options", "text"),
    [
        ("fzadmin", "FZ_WRONG", {}, "sudo did not take the password"),
        ("fzadmin", "", {}, "sudo asks for a password"),
        ("fznobody", "FZ_RIGHT", {}, "sudo does not let this user become root"),
        ("fzadmin", "FZ_RIGHT", {"become_user": "nowhere"}, "sudo knows no user nowhere"),
        ("fzfree", "", {"become_method": "doas", "become_user": "nowhere"}, "doas knows no user nowhere"),
        ("fznobody", "", {"become_method": "doas"}, "doas does not let this user become root"),
        ("fzadmin", "", {"become_method": "doas"}, "doas asks for a password"),
    ],
)
def test_who_is_refused(box: Box, user: str, password: str, options: dict[str, Any], text: str) -> None:
    box.refused(text, user, password, **options)


def test_a_sudo_that_wants_a_terminal(box: Box) -> None:
    box.machine.put("/etc/sudoers", f"Defaults requiretty\n{_SUDOERS}", 0o440)
    box.refused("must have a tty", "fzadmin", "FZ_RIGHT")


def test_doas(box: Box) -> None:
    done = box.apply("fzfree", become_method="doas")
    assert done.code == ExitCode.OK, done.out + done.err
    assert box.there.stat().st_uid == 0


@pytest.mark.parametrize(
    "options",
    [
        {"ansible_user": "fzfree"},
        {"ansible_user": "fzfree", "become": True, "become_user": "fzother"},
        {"ansible_user": "fzfree", "become": True, "become_method": "doas"},
    ],
    ids=["user", "sudo", "doas"],
)
def test_a_command_ends_with_its_time(box: Box, options: dict[str, Any]) -> None:
    """sshd passes its signal on to what the login user runs; below sudo a second connection ends it."""
    path = "/srv/fz/pid"
    command = {"shell": f"trap '' TERM; echo $$ >{path}; sleep 1000 & wait", "creates": "/no/such/file"}
    box.world.ssh(box.server, "box", root=None, timeout=3, **options)
    found = box.world.fazai("apply", resources=[{"host.command": command}])
    assert "no answer within 3 s, while host.command" in found.out, found
    pid = int((box.machine.folder / f"upper{path}").read_text())
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    pytest.fail("it still runs")
