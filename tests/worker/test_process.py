"""`fazai worker` as a process, with the real model: signals, its socket's file, what clients see."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.errors import Unreachable
from fazai.providers.gemma import GemmaClient
from fazai.wire.worker import SessionParams
from fazai.worker.demo import demo_model

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

#: The command of this installation.
FAZAI = str(Path(sys.executable).with_name("fazai"))
LONG = SessionParams(max_tokens=3000, temperature=0.0)


class Process:
    def __init__(self, model: Path, folder: Path, *more: str, environ: dict[str, str] | None = None) -> None:
        self.socket = folder / "gemma.sock"
        self.log = folder / "worker.log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(folder / "notify")
        Path(address).unlink(missing_ok=True)
        self.notify.bind(address)
        self.notify.settimeout(30)
        self.child = subprocess.Popen(
            [
                *(
                    FAZAI,
                    "worker",
                    "--model",
                    str(model),
                    "--socket",
                    str(self.socket),
                ),
                *("--context", "4096", "--log-file", str(self.log), *more),
            ],
            env={**os.environ, "NOTIFY_SOCKET": address, **(environ or {})},
        )

    def wait_ready(self) -> None:
        assert b"READY=1" in self.notify.recv(4096)

    def end(self) -> int:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(30)
        self.notify.close()
        return self.child.returncode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def process(model: Path, tmp_path: Path) -> Iterator[Process]:
    made = Process(model, tmp_path)
    try:
        made.wait_ready()
        yield made
    finally:
        made.end()


def test_it_serves_drains_and_leaves_no_socket(process: Process) -> None:
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o660

    async def run() -> None:
        client = GemmaClient(process.socket)
        assert (await client.status()).status == "running"
        params = SessionParams(max_tokens=60, temperature=0.0)
        async with client.session(params) as session, session.stream("Why is the sky blue?") as pieces:
            text = await anext(aiter(pieces))
            process.child.send_signal(signal.SIGTERM)
            text += "".join([piece async for piece in pieces])
            assert pieces.reason in ("length", "eos")  # what ran has ended by itself
            assert text

    asyncio.run(run())
    assert process.child.wait(30) == 0
    assert not process.socket.exists()
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert any(line["message"].startswith("stopping") for line in lines)


def test_hangup_opens_the_log_again(process: Process) -> None:
    process.log.rename(process.log.with_suffix(".old"))
    process.child.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while not process.log.exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.child.terminate()
    assert process.child.wait(30) == 0
    assert "stopping" in process.log.read_text()


def test_killed_in_mid_stream_clients_are_told_and_recover(
    process: Process, model: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        client = GemmaClient(process.socket, connect_timeout_s=0.5)
        with pytest.raises(Unreachable) as gone:  # noqa: PT012
            async with client.session(LONG) as session, session.stream("Tell a long story.") as pieces:
                async for _ in pieces:
                    process.child.kill()
        assert gone.value.stage == "answer"
        process.child.wait(10)
        with pytest.raises(Unreachable) as away:
            await client.status()
        assert away.value.stage == "connect"
        assert process.socket.exists()  # nobody was left to remove it
        again = Process(model, tmp_path)  # a stale file is replaced
        try:
            again.wait_ready()
            async with client.session(SessionParams(max_tokens=4)) as session:
                assert await session.generate("Hello.")
        finally:
            again.end()

    asyncio.run(run())


def test_a_second_worker_does_not_take_the_socket(process: Process, model: Path) -> None:
    other = subprocess.run(
        [FAZAI, "worker", "--model", str(model), "--socket", str(process.socket)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.returncode == 3
    assert "another worker answers there" in other.stderr


def test_generate_streams_to_a_terminal_and_conforms(process: Process, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type":"object","properties":{"up":{"type":"boolean"}},"required":["up"],'
        '"additionalProperties":false}'
    )
    done = subprocess.run(
        [FAZAI, "generate", "--json-schema", str(schema), "-"],
        input="Is fw-01 up?",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FAZAI_GEMMA_SOCK": str(process.socket)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) in ({"up": True}, {"up": False})


def test_systemd_hands_its_socket_over(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as given:
        given.bind(str(path))
        given.listen()
        code = (
            "import os, sys\n"
            f"os.dup2({given.fileno()}, 3)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            "os.set_inheritable(3, True)\n"
            f"os.execv({FAZAI!r}, ['fazai', 'worker', '--context', '2048',"
            f" '--model', {str(model)!r}, '--socket', {str(tmp_path / 'unused.sock')!r}])\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[given.fileno()], stderr=subprocess.DEVNULL
        )
    try:

        async def run() -> None:
            client = GemmaClient(path)
            while (await client.status()).status == "starting":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            async with client.session(SessionParams(max_tokens=4)) as session:
                assert await session.generate("Hello.")

        asyncio.run(asyncio.wait_for(run(), 60))
        child.terminate()
        assert child.wait(30) == 0
        assert path.exists()  # it is systemd's
        assert not (tmp_path / "unused.sock").exists()
    finally:
        child.kill()
        child.wait()


def test_soak(process: Process) -> None:
    """Random sessions, schemas, aborts and dropped connections: all end, nothing stays, memory is flat.

    FAZAI_SOAK_S=600 for the long one.
    """
    seconds = float(os.environ.get("FAZAI_SOAK_S", "12"))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    done: Counter[str] = Counter()

    def memory_kib() -> int:
        text = Path(f"/proc/{process.child.pid}/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0])

    async def one(client: GemmaClient, chance: random.Random) -> None:
        params = SessionParams(
            max_tokens=chance.randint(1, 40),
            temperature=chance.choice([0.0, 1.0]),
            json_schema=schema if chance.random() < 0.3 else None,
            system="You answer briefly. " * 20 if chance.random() < 0.5 else None,
        )
        async with client.session(params) as session:
            for _ in range(chance.randint(1, 3)):
                drop = chance.random() < 0.3
                async with session.stream("word " * chance.randint(1, 60)) as pieces:
                    async for _ in pieces:
                        if drop:
                            break
                done[pieces.reason or "dropped"] += 1
                if drop:
                    return  # the session may still be busy with what was dropped

    async def run() -> tuple[int, int]:
        client, loop = GemmaClient(process.socket, connect_timeout_s=10), asyncio.get_running_loop()
        begun, middle = loop.time(), 0

        async def many(number: int) -> None:
            nonlocal middle
            chance = random.Random(number)
            while loop.time() < begun + seconds:
                await one(client, chance)
                if not middle and loop.time() > begun + seconds / 2:
                    middle = memory_kib()

        await asyncio.gather(*(many(number) for number in range(6)))
        async with asyncio.timeout(20):
            while (await client.status()).sessions:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return middle, memory_kib()

    middle, end = asyncio.run(run())
    assert sum(done.values()) > seconds / 2, done
    assert done["dropped"] > 0
    assert done["eos"] + done["length"] > 0
    assert end - middle < 24 * 1024, (middle, end)
    print(dict(done), middle, end)
