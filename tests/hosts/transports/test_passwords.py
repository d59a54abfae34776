"""-k and -K: asked at the terminal, whatever standard input is, and written nowhere."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from fazai.model import Secret, Target
from fazai.providers.hosts.local.provider import LocalProvider
from fazai.providers.hosts.ssh.provider import SshProvider
from tests.hosts.conftest import World
from tests.hosts.transports.test_server import Recording, shell

PASSWORD = 'it\'s "quite" $HOME long'
SUDO = """#!/bin/sh
# sudo -H -S -p PROMPT -u USER -- sh -c SCRIPT
printf %s "$4" >&2; IFS= read -r said
[ "$said" = "$FZ_RIGHT" ] || { echo 'Sorry, try again.' >&2; exit 1; }
shift 7; exec "$@"
"""


def at_a_terminal(
    words: Sequence[str], typed: Sequence[tuple[str, str]], environ: dict[str, str]
) -> tuple[int, str]:
    """The command with a terminal of its own and nothing on its standard input; each answer is typed once its
    question was asked. Its exit code, and all that stood at the terminal and in its output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["/bin/sh", "-c", 'exec 3<>"$0" && exec "$@" </dev/null', os.ttyname(theirs), *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **environ},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = ""
        waiting = list(typed)
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # the last of them has closed it
                break
            if not more:
                break
            seen += more.decode("utf-8", "replace")
            if waiting and waiting[0][0] in seen:
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
    os.close(ours)
    return process.returncode, seen


def command(world: World, name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "fazai", name, str(world.folder / "inventory.yml"), *words]


def written_down(world: World, text: str) -> list[Path]:
    found = [path for path in (world.folder / "state").rglob("*") if path.is_file()]
    return [path for path in found if text.encode() in path.read_bytes()]


@pytest.mark.parametrize(("typed", "code"), [(PASSWORD, 0), ("another one", 1)])
def test_sudos_password_is_asked_for(typed: str, code: int, world: World) -> None:
    root = world.local(become=True)
    programs = world.folder / "bin"
    programs.mkdir()
    (programs / "sudo").write_text(SUDO)
    (programs / "sudo").chmod(0o755)
    world.fazai("validate", resources=[{"host.file": {"path": "/a", "content": "x"}}])
    environ = {"PATH": f"{programs}:{os.environ['PATH']}", "FZ_RIGHT": PASSWORD}
    found, seen = at_a_terminal(command(world, "apply", "-K"), [("Become password:", typed)], environ)
    assert found == code, seen
    assert (root / "a").exists() is (code == 0)
    assert typed not in seen
    assert written_down(world, typed) == []
    if code:
        assert "sudo did not take the password that it was given for the login user" in seen


@contextmanager
def listening(offered: list[str], key: asyncssh.SSHKey) -> Iterator[int]:
    """A server in a thread that takes the password; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: Recording(PASSWORD, offered),
            server_host_keys=[key],
            process_factory=shell,
            encoding=None,
        )

    async def end(server: Any) -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    try:
        yield server.get_port()
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_logins_password_is_asked_for(world: World) -> None:
    offered: list[str] = []
    key = asyncssh.generate_private_key("ssh-ed25519")
    with listening(offered, key) as port:
        known = world.folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
        host = {"provider": "ssh", "ansible_host": "127.0.0.1", "ansible_port": port, "agent": False}
        world.hosts["web"] = {**host, "user": "me", "known_hosts": str(known)}
        world.fazai("validate", resources=[{"host.file": {"path": "/a", "content": "x"}}])
        _, seen = at_a_terminal(
            command(world, "plan", "--ask-pass", "-K"),
            [("Login password:", PASSWORD), ("Become password (Enter: that of the login):", "")],
            {},
        )
    assert offered == [PASSWORD], seen
    assert PASSWORD not in seen
    assert written_down(world, PASSWORD) == []


@pytest.mark.parametrize("option", ["-k", "-K"])
def test_without_a_terminal_nothing_is_asked(option: str, world: World) -> None:
    """A password does not come from a pipe by accident."""
    world.local()
    world.fazai("validate", resources=[{"host.file": {"path": "/a", "content": "x"}}])
    done = subprocess.run(
        command(world, "apply", option),
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no terminal to ask for a password at" in done.stderr
    assert PASSWORD not in done.stderr


def test_what_the_inventory_says_comes_first() -> None:
    own, asked, sudo = Secret("own"), Secret("asked"), Secret("sudo")
    ssh, local = SshProvider(), LocalProvider()

    def given(provider: SshProvider | LocalProvider, **options: Any) -> dict[str, Any]:
        return dict(
            provider.with_passwords(Target("a", provider.name, "write", options), asked, sudo).options
        )

    assert given(ssh) == {"password": asked, "become_password": sudo}
    assert given(local) == {"become_password": sudo}
    for name in ("password", "ansible_password", "ansible_ssh_pass"):
        assert given(ssh, **{name: own}) == {name: own, "become_password": sudo}
    for name in ("become_password", "ansible_become_pass", "ansible_become_password"):
        assert given(local, **{name: own}) == {name: own}
    assert given(local, become_method="doas") == {"become_method": "doas"}
