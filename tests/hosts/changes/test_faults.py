"""Failures while a host is written: the file is old or new, never half, and the next run converges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import AccessDenied, DeviceError, FazaiError
from fazai.model import Secret, Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.local.transport import LocalChannel
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become, answer_password_prompt
from tests.hosts.conftest import World
from tests.hosts.helpers import Host, resource
from tests.hosts.sshd import Sshd

OLD = "old\n" * 1000
NEW = "new line\n" * 800_000  # 8 blocks


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that something else brings about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 60 s"
        time.sleep(0.005)


def temporary(root: Path) -> list[Path]:
    return list(root.glob(".fazai-*"))


def begun(root: Path) -> bool:
    """Tell whether some of the new content is on the disk."""
    with contextlib.suppress(OSError):
        return any(path.stat().st_size > 1_000_000 for path in temporary(root))
    return False


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join()


def test_a_connection_that_is_cut_in_mid_write(world: World, server: Sshd) -> None:
    root = world.ssh(server)
    (root / "a").write_text(OLD)
    wanted = [{"host.file": {"path": "/a", "content": NEW}}]

    def cut() -> None:
        until(lambda: begun(root))
        server.cut()

    with meanwhile(cut):
        found = world.fazai("apply", resources=wanted)
    assert found.code == 1, found
    assert "was cut" in found.out + found.err
    assert "it looks first" in found.out + found.err
    assert (root / "a").read_text() == OLD
    until(lambda: temporary(root) == [])
    assert world.fazai("apply", resources=wanted).code == 0
    assert (root / "a").read_text() == NEW


def test_a_controller_that_is_killed_in_mid_write(world: World) -> None:
    root = world.local()
    (root / "a").write_text(OLD)
    wanted = [{"host.file": {"path": "/a", "content": NEW}}]
    assert world.fazai("plan", resources=wanted).code == 2  # writes the inventory
    child = subprocess.Popen(
        [sys.executable, "-m", "fazai", "apply", str(world.folder / "inventory.yml")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: begun(root))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (root / "a").read_text() == OLD
    until(lambda: temporary(root) == [])
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "was cut off during update" in found.out) == (0, True), found
    assert (root / "a").read_text() == NEW


def test_what_fails_is_taken_back(world: World) -> None:
    root = world.local()
    (root / "a").write_text("old\n")
    os.symlink("a", root / "l")
    wanted: list[dict[str, Any]] = [
        {"host.file": {"path": "/a", "content": "new\n", "mode": "0600"}},
        {"host.link": {"path": "/l", "target": "b"}},
        {"host.directory": {"path": "/d"}},
        {"host.file": {"path": "/no/such/folder/x", "content": "x"}},
    ]
    found = world.fazai("apply", resources=wanted)
    assert (found.code, "host.directory" in found.out) == (1, True), found
    assert "3 changes taken back" in found.out
    assert (root / "a").read_text() == "old\n"
    assert (root / "a").stat().st_mode & 0o7777 == 0o644
    assert os.readlink(root / "l") == "a"
    assert not (root / "d").exists()


def test_what_is_not_valid_does_not_take_the_place(world: World) -> None:
    root = world.local()
    (root / "a").write_text("old\n")
    script = root / "check"
    script.write_text('#!/bin/sh\necho "line 1: $(cat "$1") is nonsense" >&2\nexit 3\n')
    script.chmod(0o755)
    fields = {"path": "/a", "content": "password=hunter2\n", "mode": "0600", "validate": f"{script} %s"}
    found = world.fazai("apply", resources=[{"host.file": fields}])
    assert (found.code, "exit status 3" in found.out, "is nonsense" in found.out) == (1, True, True), found
    assert "hunter2" not in found.out + found.err
    assert "***" in found.out
    assert (root / "a").read_text() == "old\n"
    assert temporary(root) == []


def test_a_backup_is_kept_when_asked_for(world: World) -> None:
    root = world.local()
    (root / "a").write_text("old\n")
    (root / "a").chmod(0o604)
    fields = {"path": "/a", "content": "new\n", "backup": True}
    assert world.fazai("apply", resources=[{"host.file": fields}]).code == 0
    (kept,) = root.glob("a.*Z~")
    assert (kept.read_text(), kept.stat().st_mode & 0o7777) == ("old\n", 0o604)
    assert (root / "a").stat().st_mode & 0o7777 == 0o604  # what is not declared stays


# -- filesystems, users ---------------------------------------------------------------------------------


def inside(*words: str, environ: dict[str, str] | None = None, user: str | None = None) -> Callable[[], Any]:
    """Starts the shell inside another program."""

    async def start() -> LocalChannel:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environ, user=user
        )
        return LocalChannel(process, "box", Become())

    return start


def mounted(root: Path, then: str) -> Callable[[], Any]:
    """A shell in a mount namespace of its own, with a small filesystem at `root`."""
    script = f"mount -t tmpfs -o size=64k none '{root}' && echo old >'{root}/a' && {then} exec sh -s"
    words = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script)
    probe = subprocess.run((*words[:-1], script.replace("exec sh -s", "true")), capture_output=True)
    if probe.returncode != 0:
        pytest.skip("this system does not allow a mount namespace")
    return inside(*words)


@pytest.mark.parametrize(
    ("then", "said", "hint"),
    [
        ("", "printf", "df -h"),
        ("mount -o remount,ro none '{root}' &&", "Read-only file system", "mounted read-only"),
    ],
)
def test_a_filesystem_that_takes_nothing(then: str, said: str, hint: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    target = Target("box", "local", "write", {})
    begin = mounted(root, then.replace("{root}", str(root)))
    host = Host(root, HostSession(target, load_host_kinds(), begin, timeout_s=20, root=str(root)))
    old, new = (resource("host.file", {"path": "/a", "content": c}) for c in ("old\n", "n" * 100_000))

    async def run() -> None:
        async with host.session:
            assert (await host.look(old)).changes == ()
            (change,) = (await host.look(new)).changes
            with pytest.raises(DeviceError) as raised:
                await host.session.write(change)
            assert said in str(raised.value)
            assert hint in str(raised.value.hint)
            assert (await host.look(old)).changes == ()
            assert (await host.look(resource("host.directory", {"path": "/"}))).errors == ()

    asyncio.run(run())


NOBODY = pytest.mark.skipif(os.getuid() != 0, reason="only root may start a shell as another user")


@NOBODY
def test_what_this_user_may_not() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _may_not(Path(folder) / "root")


def _may_not(root: Path) -> None:
    (root / "closed").mkdir(parents=True)
    (root / "closed/secret").write_text("x")
    (root / "closed").chmod(0o700)
    (root / "unreadable").write_text("x")
    (root / "unreadable").chmod(0o600)
    root.parent.chmod(0o755)
    begin = inside("sh", "-s", user="nobody")
    host = Host(
        root, HostSession(Target("box", "local", "write", {}), load_host_kinds(), begin, timeout_s=20)
    )

    async def run() -> None:
        async with host.session:
            for name in ("closed/secret", "closed/a/b/c", "unreadable"):
                diff = await host.look(resource("host.file", {"path": f"{root}/{name}", "content": "y"}))
                assert diff.changes == ()
                assert diff.errors[0].hint == "become: true"
            new = resource("host.file", {"path": f"{root}/new", "content": "y"})
            (change,) = (await host.look(new)).changes
            with pytest.raises(AccessDenied, match="Permission denied") as raised:
                await host.session.write(change)
            assert raised.value.hint == "become: true"

    asyncio.run(run())


async def became(become: Become, user: str | None) -> FazaiError | str:
    """Return who we are after becoming another user; or why not."""
    channel: LocalChannel = await inside("sh", "-c", become.command, user=user)()
    channel._become = become
    try:
        await answer_password_prompt(channel, become, "box")
        channel.stdin.write(b"echo I am $(id -un); exit\n")
        said: bytes = await channel.stdout.read()
        if not said:
            return await channel.refusal((await channel.stderr.read()).decode())
        return said.decode().strip()
    except FazaiError as error:
        found: FazaiError = error
        return found
    finally:
        await channel.close()


def programs(tmp_path: Path, *names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


@NOBODY
@pytest.mark.parametrize(
    ("become", "user", "expected"),
    [
        (Become("sudo", "nobody"), None, "I am nobody"),
        (Become("sudo", "nobody", Secret("not needed"), "fz-"), None, "I am nobody"),
        (Become("doas", "nobody"), None, None),
        (Become("sudo", "root"), "nobody", "sudo asks for a password"),
        (Become("sudo", "root", Secret("wrong"), "fz-"), "nobody", "sudo did not take the password"),
        (Become("doas", "root"), "nobody", "doas"),
    ],
    ids=lambda value: f"{value.method}-{value.user}" if isinstance(value, Become) else str(value),
)
def test_becoming_another_user(
    become: Become, user: str | None, expected: str | None, tmp_path: Path
) -> None:
    programs(tmp_path, become.method)
    found = asyncio.run(became(become, user))
    if isinstance(found, str):
        assert found == expected
    else:
        assert isinstance(found, AccessDenied)
        assert (expected or "doas") in found.message
        assert found.hint
        assert "wrong" not in str(found)
