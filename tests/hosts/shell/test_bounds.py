"""Hosts that are silent, drip, flood and never end: every wait ends, and no answer fills the memory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from fazai.errors import DeviceError, FazaiError, Unreachable
from fazai.model import Secret, Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.local.provider import PROVIDER as LOCAL
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.become import Become
from fazai.providers.hosts.shell.connection import _END
from fazai.providers.hosts.shell.questions import AnswerTooLong, FileAt, Output, OutputOf
from fazai.providers.hosts.ssh.connecting import Connections
from fazai.providers.hosts.ssh.provider import SshProvider
from fazai.providers.hosts.ssh.settings import Hop, SshSettings
from fazai.providers.hosts.ssh.transport import start_ssh_shell as start_ssh
from tests.hosts.conftest import ME, World
from tests.hosts.helpers import SHELLS, Host, resource, shell_environ
from tests.hosts.sshd import Sshd

#: Far more than a shell's own memory, far less than what a flood brings within the time.
FLAT_BYTES = 24 * 2**20
#: A peer in place of `sh`: it reads until it knows the number of the session, and then says what the test
#: wants it to; `@` stands for that number.
PEER = """#!{python}
import sys
text = ""
while "fz_n=" not in text:
    text = sys.stdin.readline()
nonce = text.split("fz_n=")[1].strip()
out = sys.stdout.buffer
def say(text):
    out.write(text.replace("@", nonce).encode())
    out.flush()
{body}
sys.stdin.read()
"""


@contextmanager
def flat() -> Iterator[None]:
    """Assert that the block keeps our memory as it was."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < FLAT_BYTES
    finally:
        tracemalloc.stop()


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which this program comes first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


def session(environ: dict[str, str], timeout_s: float = 1, become: Become | None = None) -> HostSession:
    def begin() -> Any:
        return start_local_shell("box", become or Become(), "", environ, timeout_s)

    return HostSession(Target("box", "local", "write", {}), load_host_kinds(), begin, timeout_s=timeout_s)


def asked(found: HostSession) -> FazaiError:
    """The error of a question."""

    async def run() -> None:
        async with asyncio.timeout(60), found:
            await found.ask(FileAt("/"))

    with pytest.raises(FazaiError) as raised:
        asyncio.run(run())
    return raised.value


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 1000",
        "while :; do printf x; sleep 0.05; done",
        "exec cat /dev/zero",
        "exec cat /dev/zero >&2",
        "trap '' TERM HUP PIPE; while :; do sleep 0.1; done",
    ],
    ids=["silent", "drips", "floods", "floods its errors", "does not end"],
)
def test_a_shell_that_is_none(script: str, tmp_path: Path) -> None:
    environ = program(tmp_path / "bin", "sh", f"#!/bin/sh\n{script}\n")
    with flat():
        error = asked(session(environ))
    assert isinstance(error, Unreachable)
    assert error.message == "box: no answer within 1 s"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (r'say("\n@ begin\n\n@ end abc\n")', "in a way that cannot be understood"),
        (r'say("\n@ begin\n\n@ end -1\n")', "in a way that cannot be understood"),
        (r'say("\n@ begin\n\n@ end \u0663\n")', "in a way that cannot be understood"),
        (r'say("\n@ begin\n\n@ end "); [say("1" * 65536) for _ in range(9999)]', "cannot be understood"),
        (r'say("\n@ begin\n"); [say("x" * 65536) for _ in range(9999)]', "that can be an answer"),
        (r'say("\n@ begin\n\n@ stat 99\n\n@ looked\n\n@ end 0\n")', "cannot be understood"),
        (r'say("\n@ begin\n\n@ end 0\n")', "cannot be understood"),
    ],
)
def test_answers_that_are_nonsense(body: str, said: str, tmp_path: Path) -> None:
    environ = program(tmp_path / "bin", "sh", PEER.format(python=sys.executable, body=body))
    with flat():
        error = asked(session(environ, timeout_s=30))
    assert isinstance(error, Unreachable)
    assert (said in error.message, error.stage) == (True, "answer"), error
    assert "defect" not in str(error)


def test_nonsense_is_one_sentence_and_exit_4(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.local()
    body = r'say("\n@ begin\n\n@ stat 99\nzz\n\n@ looked\n\n@ end 0\n")'
    environ = program(world.folder / "bin", "sh", PEER.format(python=sys.executable, body=body))
    monkeypatch.setenv("PATH", environ["PATH"])
    found = world.fazai("plan", resources=[{"host.file": {"path": "/a", "content": "x"}}])
    said = "error: box: the answer of its shell cannot be understood"
    assert (found.code, said in found.out + found.err) == (4, True), found


@pytest.mark.parametrize("shell", SHELLS)
def test_an_answer_is_cut_off_on_the_host(shell: str, tmp_path: Path) -> None:
    """Others on the same question are answered; who is cut off is ended, and its exit code is not lost."""
    endless, brief, most = (
        OutputOf("cat /dev/zero"),
        OutputOf("printf abc; exit 7"),
        OutputOf("printf xxxx", limit=4),
    )

    async def run() -> None:
        host = Host.local(tmp_path, shell_environ(shell, tmp_path))
        async with asyncio.timeout(60), host.session:
            answers = await host.session.ask(endless, brief, most)
        assert (answers[brief], answers[most]) == (Output(7, b"abc"), Output(0, b"xxxx"))
        for part in ("exit", "out"):
            with pytest.raises(AnswerTooLong, match="said more than 1 MiB"):
                getattr(answers[endless], part)

    with flat():
        asyncio.run(run())


def test_keys_in_a_huge_file(world: World) -> None:
    """A user may make his file as large as he likes."""
    root = world.local()
    home = root / "home/alice/.ssh"
    home.mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("alice:x:65534:65534::/home/alice:/bin/sh\n")
    with (home / "authorized_keys").open("wb") as file:
        file.truncate(2**30)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a@b"
    with flat():
        found = world.fazai("apply", resources=[{"host.authorized_key": {"user": "alice", "key": key}}])
    assert (found.code, "the host said more than 1 MiB in answer to one question" in found.out) == (1, True)
    assert "defect" not in found.out


# -- commands -------------------------------------------------------------------------------------------


def _gone(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    "script",
    [
        "exec cat /dev/zero",
        pytest.param("cat /dev/zero", marks=pytest.mark.slow),
        "sleep 1000",
        "trap '' TERM; while :; do sleep 0.1; done",
    ],
    ids=["floods", "floods below", "silent", "does not end"],
)
def test_a_command_that_does_not_end(script: str, world: World) -> None:
    """It is ended with all that it started, also what has left its process group."""
    world.local(timeout=2)
    path = world.folder / "pids"
    shell = f"echo $$ >>{path}; setsid sleep 1000 & echo $! >>{path}; {script}"
    with flat():
        found = world.fazai("apply", resources=[{"host.command": {"shell": shell, "creates": "/x"}}])
    assert "no answer within 2 s" in found.out, found
    pids = [int(line) for line in path.read_text().split()]
    assert len(pids) == 2
    assert [pid for pid in pids if not _gone(pid)] == []


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        ("dash", "cat /dev/zero"),
        ("bash", "sleep 1000"),
        ("busybox", "trap '' TERM; while :; do sleep 0.1; done"),
    ],
)
def test_a_command_of_roots_over_ssh_that_does_not_end(
    shell: str, script: str, world: World, server: Sshd
) -> None:
    """sshd passes no signal on to it: a second connection ends it, with all that it started."""
    server.configure(f"SetEnv PATH={shell_environ(shell, world.folder)['PATH']}")
    world.ssh(server, timeout=2)
    path = world.folder / "pids"
    command = f"echo $$ >>{path}; setsid sleep 1000 & echo $! >>{path}; {script}"
    with flat():
        found = world.fazai("apply", resources=[{"host.command": {"shell": command, "creates": "/x"}}])
    assert (found.code, "web: no answer within 2 s, while host.command" in found.out) == (1, True), found
    pids = [int(line) for line in path.read_text().split()]
    assert [pid for pid in pids if not _gone(pid)] == []
    assert len(pids) == 2


def test_a_command_over_ssh_that_cannot_be_ended(world: World, server: Sshd) -> None:
    """The error says that no second connection came about."""
    world.ssh(server, timeout=2)
    path = world.folder / "pid"
    command = f"echo $$ >{path}; echo 'ForceCommand echo not again' >>{server.config}; sleep 1000"
    found = world.fazai("apply", resources=[{"host.command": {"shell": command, "creates": "/x"}}])
    os.kill(int(path.read_text()), signal.SIGKILL)
    said = "no answer within 2 s, and what runs there was not ended and may go on: a second connection failed"
    assert (found.code, said in found.out) == (1, True), found


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("tells", ["/proc", "ps"])
def test_what_ends_a_shell_on_any_system(tells: str, shell: str, tmp_path: Path) -> None:
    """`ps` tells of processes where /proc does not, in the words that all have."""
    script = _END if tells == "/proc" else _END.replace("/proc/self/status", "/nowhere")
    environ = shell_environ(shell, tmp_path)
    # It does not end by itself when the two are killed a moment before it.
    trapped = "trap '' TERM; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; echo; wait; exec sleep 1000"
    child = subprocess.Popen(["sh", "-c", trapped], stdout=subprocess.PIPE, text=True, env=environ)
    assert child.stdout is not None
    pids = [int(line) for line in iter(child.stdout.readline, "\n")]
    done = subprocess.run(
        ["sh", "-c", f"fz_k={child.pid}\n{script}"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert (done.returncode, done.stdout, [pid for pid in pids if not _gone(pid)]) == (0, "", [])


def test_what_a_command_prints_last_is_kept(tmp_path: Path) -> None:
    """The end of 40 MiB is kept, and the step after it begins where it should."""
    flood = "head -c 40000000 /dev/zero; echo the last word >&2; exit 3"

    async def run() -> None:
        host = Host.local(tmp_path)
        async with asyncio.timeout(120), host.session:
            wanted = resource("host.command", {"shell": flood, "creates": "/x"})
            (change,) = (await host.look(wanted)).changes
            with pytest.raises(DeviceError, match="exit status 3: the last word"):
                await host.session.write(change)
            await host.converge(resource("host.file", {"path": "/a", "content": "x"}))

    with flat():
        asyncio.run(run())


# -- sudo -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 1000", "neither asked for the password nor started a shell within 1 s"),
        ("while :; do printf x >&2; sleep 0.05; done", "nor started a shell within 1 s"),
        ("exec cat /dev/zero >&2", "said more than 64 KiB before it started a shell"),
        ("exec cat /dev/zero", "nor started a shell within 1 s"),
    ],
    ids=["silent", "drips", "floods", "floods elsewhere"],
)
def test_a_sudo_that_is_none(script: str, said: str, tmp_path: Path) -> None:
    environ = program(tmp_path / "bin", "sudo", f"#!/bin/sh\n{script}\n")
    become = Become("sudo", "root", Secret("never said"), "fz-1-")
    with flat():
        error = asked(session(environ, become=become))
    assert said in error.message
    assert "never said" not in str(error)


# -- SSH ------------------------------------------------------------------------------------------------


def _ssh_target(world: World, server: Sshd, **more: Any) -> Target:
    world.ssh(server, **more)
    options = dict(world.hosts["web"])
    return Target("web", "ssh", "write", {k: v for k, v in options.items() if k not in ("provider", "root")})


def _asked_over_ssh(target: Target) -> FazaiError:
    found = SshProvider().connect(target)
    assert isinstance(found, HostSession)
    return asked(found)


@contextmanager
def _talker(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does this with its connections; its port."""
    from threading import Thread

    listener = socket.create_server(("127.0.0.1", 0))
    open_: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_.append(connection)
            try:
                answer(connection)
            except OSError:
                continue

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_:
            connection.close()
        thread.join()


def _banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-silence\r\n")


def _flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"hello there\r\n" * 5000)


@pytest.mark.parametrize("jump", [False, True], ids=["direct", "behind a jump"])
@pytest.mark.parametrize("answer", [lambda _: None, _banner], ids=["silent", "no key exchange"])
def test_a_server_that_says_nothing(
    answer: Callable[[socket.socket], None], jump: bool, world: World, server: Sshd
) -> None:
    """`timeout` holds, whatever connect_timeout says."""
    with _talker(answer) as port:
        way = {"jump": f"{ME}@127.0.0.1:{server.port}"} if jump else {}
        target = _ssh_target(world, server, ansible_port=port, timeout=2, become=True, **way)
        error = _asked_over_ssh(target)
    assert isinstance(error, Unreachable)
    assert f"[127.0.0.1]:{port} did not answer within 2 s" in error.message


def test_a_jump_that_says_nothing(world: World, server: Sshd) -> None:
    with _talker(lambda _: None) as port:
        target = _ssh_target(world, server, timeout=1, jump=f"{ME}@127.0.0.1:{port}")
        error = _asked_over_ssh(target)
    assert isinstance(error, Unreachable)
    assert f"[127.0.0.1]:{port} did not answer within 1 s" in error.message


def test_an_agent_that_says_nothing(world: World, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.folder / "agent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        target = _ssh_target(
            world, server, timeout=2, agent=None, ansible_ssh_private_key_file=None, key=str(server.user_key)
        )
        error = _asked_over_ssh(target)
    assert isinstance(error, Unreachable)
    assert "did not answer within 2 s" in error.message


@pytest.mark.parametrize("command", ["sleep 1000", "cat /dev/zero"], ids=["silent", "floods"])
def test_a_proxy_command_that_is_none(command: str, world: World, server: Sshd) -> None:
    config = world.folder / "config"
    pid = world.folder / "pid"
    program(world.folder / "bin", "way", f"#!/bin/sh\necho $$ >{pid}; exec {command}\n")
    config.write_text(f"Host *\n  ProxyCommand {world.folder}/bin/way\n")
    with flat():
        error = _asked_over_ssh(_ssh_target(world, server, timeout=2, ssh_config=str(config)))
    assert isinstance(error, Unreachable)
    assert _gone(int(pid.read_text()))


def test_a_proxy_command_that_was_killed_is_waited_for(
    world: World, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a busy machine, on which its end is noticed late."""
    waitpid, ended = os.waitpid, []

    def late(pid: int, options: int) -> tuple[int, int]:
        found = waitpid(pid, options)
        sleep(0.3)
        ended.append(pid)
        return found

    monkeypatch.setattr(os, "waitpid", late)
    config, pid = world.folder / "config", world.folder / "pid"
    program(world.folder / "bin", "way", f"#!/bin/sh\necho $$ >{pid}; exec cat /dev/zero\n")
    config.write_text(f"Host *\n  ProxyCommand {world.folder}/bin/way\n")
    error = _asked_over_ssh(_ssh_target(world, server, timeout=20, ssh_config=str(config)))
    assert "broke the connection off" in error.message
    assert int(pid.read_text()) in ended


def test_a_server_that_floods(world: World, server: Sshd) -> None:
    with _talker(_flood) as port, flat():
        target = _ssh_target(world, server, ansible_port=port, timeout=2)
        error = _asked_over_ssh(target)
    assert isinstance(error, Unreachable)


@pytest.mark.parametrize(
    "command",
    ["exec sleep 1000", "exec cat /dev/zero", "exec cat /dev/zero >&2"],
    ids=["silent", "out", "err"],
)
def test_a_shell_over_ssh_that_is_none(command: str, world: World, server: Sshd) -> None:
    server.configure(f"ForceCommand {command}")
    with flat():
        error = _asked_over_ssh(_ssh_target(world, server, timeout=1))
    assert isinstance(error, Unreachable)
    assert error.message == "web: no answer within 1 s"


def test_a_host_that_stops_in_mid_conversation(world: World, server: Sshd) -> None:
    """It keeps the connection, and neither reads nor answers: closing has its end, too."""
    settings = SshSettings(
        Hop("127.0.0.1", server.port, ME),
        key=str(server.user_key),
        known_hosts=(str(server.known_hosts(world.folder / "known_hosts")),),
        agent=False,
    )

    async def run() -> None:
        connections = Connections(str(world.folder), {})

        def begin() -> Any:
            return start_ssh("web", settings, Become(), connections, 5)

        found = HostSession(Target("web", "ssh", "write", {}), load_host_kinds(), begin, timeout_s=1)
        async with asyncio.timeout(60), found:
            await found.ask(FileAt("/"))
            for child in server.children:
                os.killpg(child.pid, signal.SIGSTOP)
                os.kill(child.pid, signal.SIGSTOP)
            with pytest.raises(Unreachable, match="no answer within 1 s"):
                await found.ask(OutputOf("echo more"))

    asyncio.run(run())


@pytest.mark.parametrize("way", ["local", "ssh"])
def test_an_interrupt_twice_ends_what_a_command_started(way: str, world: World, server: Sshd) -> None:
    if way == "ssh":
        world.ssh(server)
    else:
        world.local()
    path = world.folder / "pid"
    shell = f"echo $$ >{path}; kill -INT {os.getpid()}; sleep 0.5; kill -INT {os.getpid()}; sleep 1000"
    found = world.fazai("apply", resources=[{"host.command": {"shell": shell, "creates": "/x"}}])
    assert found.code == 130, found
    assert _gone(int(path.read_text()))


@pytest.mark.parametrize("turns", range(8))
def test_a_look_that_is_cancelled_at_any_moment_ends(turns: int) -> None:
    """Also while its shell is just being started."""

    async def run() -> bool:
        async def look() -> None:
            async with LOCAL.connect(Target("h1", "local", "read", {})) as session:
                await session.observe([])

        task = asyncio.ensure_future(look())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=30)
        return bool(done) and task.cancelled()

    assert asyncio.run(run())


def test_a_local_shell_is_one_process() -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            channel = await start_local_shell("box", Become(), "")
            try:
                channel.stdin.write(b"echo $$ $PPID\n")
                assert (await channel.stdout.readline()).split()[1] == b"%d" % os.getpid()
            finally:
                await channel.close()

    asyncio.run(run())
