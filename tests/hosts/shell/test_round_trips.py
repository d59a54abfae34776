"""Counts that make a run over many hosts fast: one login, one program, one question a host."""

from __future__ import annotations

import asyncio
import getpass
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.hosts.conftest import World

HOSTS = ("web-1", "web-2", "web-3")
RESOURCES: list[dict[str, Any]] = [
    {"host.directory": {"path": "/etc/app", "mode": "0755"}},
    {"host.file": {"path": "/etc/app/limits.conf", "mode": "0644", "content": "files=4096\n"}},
    {"host.file": {"path": "/etc/app/app.conf", "mode": "0600", "content": "level info\n"}},
    {"host.link": {"path": "/etc/app/current", "target": "limits.conf"}},
    {"host.line": {"path": "/etc/profile", "line": "export APP=1", "create": True}},
    {"host.block": {"path": "/etc/hosts", "block": "server a\nserver b", "create": True}},
]


class _Server(asyncssh.SSHServer):
    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._counts["connections"] += 1

    def auth_completed(self) -> None:
        self._counts["logins"] += 1

    def begin_auth(self, username: str) -> bool:
        return True


@dataclass
class Counting:
    """A server in a thread of its own that runs what it is asked to, and counts. A *question* is the client
    speaking after the host had said all it had to say (or nothing yet)."""

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def __enter__(self) -> Counting:
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._user_key = asyncssh.generate_private_key("ssh-ed25519")
        self._user_key.write_private_key(str(self.folder / "key"))
        (self.folder / "authorized").write_bytes(self._user_key.export_public_key())
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(20)
        known = self._host_key.export_public_key().decode()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {known}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Server(self.counts),
            server_host_keys=[self._host_key],
            authorized_client_keys=str(self.folder / "authorized"),
            process_factory=self._process,
            encoding=None,
        )
        self.port = server.get_port()
        ready.set()
        async with server:
            await self._end.wait()

    async def _process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.counts["programs"] += 1
        shell = await asyncio.create_subprocess_shell(
            process.command or "", stdin=-1, stdout=-1, stderr=-1, start_new_session=True
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stderr is not None
        answered = True  # by nothing: the first words are a question

        async def hear(reader: asyncio.StreamReader, writer: asyncssh.SSHWriter[bytes]) -> None:
            nonlocal answered
            while data := await reader.read(65536):
                answered = True
                writer.write(data)

        hearing = asyncio.gather(hear(shell.stdout, process.stdout), hear(shell.stderr, process.stderr))
        try:
            while data := await process.stdin.read(65536):
                self.counts["questions"] += answered
                answered = False
                shell.stdin.write(data)
        except asyncssh.Error:
            pass  # the client left without a word; so does the shell
        shell.stdin.close()
        await hearing
        await shell.wait()


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    with Counting(tmp_path) as server:
        yield server


def _apply(world: World, server: Counting) -> dict[str, Any]:
    server.counts.clear()
    for name in HOSTS:
        (world.folder / name).mkdir(exist_ok=True)
        world.hosts[name] = {
            "provider": "ssh",
            "host": "127.0.0.1",
            "port": server.port,
            "user": getpass.getuser(),
            "key": str(world.folder / "key"),
            "known_hosts": str(world.folder / "known_hosts"),
            "agent": False,
            "root": str(world.folder / name),
        }
    result = world.fazai("apply", "--output", "json", resources=RESOURCES)
    assert result.code == 0, result.out + result.err
    return result.document


def test_nothing_to_do_is_one_question_a_host(world: World, counting: Counting) -> None:
    _apply(world, counting)
    assert counting.counts["connections"] == len(HOSTS)
    assert counting.counts["programs"] == len(HOSTS)
    first = counting.counts["questions"]
    targets = _apply(world, counting)["targets"]
    assert [(target["status"], target["unchanged"]) for target in targets] == [("converged", 6)] * len(HOSTS)
    assert counting.counts == Counter(
        connections=len(HOSTS), logins=len(HOSTS), programs=len(HOSTS), questions=len(HOSTS)
    )
    assert first > counting.counts["questions"]  # or the counting does not tell a question from an answer
