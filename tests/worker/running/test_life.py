"""The life of a worker's process: signals, its socket's file, systemd, its log. Without a model."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from fazai.errors import InputError, Unreachable
from fazai.providers.gemma.client import GemmaClient
from fazai.service import systemd
from fazai.service.log import Log
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams
from fazai.worker.digest import ModelDigest, identify_model
from tests.worker.process import Process, until, without_model

LONG = SessionParams(max_tokens=1_000_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "none.gguf"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_it_loads_it_ends_at_once(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    with Process(without_model(load_s=3600), model, tmp_path) as process:
        process.told("STATUS=loading")
        client = GemmaClient(process.socket)
        assert asyncio.run(client.status()).status == "starting"
        process.child.send_signal(number)
        assert process.ended() == (0, "")  # long before it would have loaded
        assert not process.socket.exists()
        assert process.messages() == ["stopped while the model was being loaded"]


def test_it_drains_and_takes_no_new_work(model: Path, tmp_path: Path) -> None:
    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")
        assert stat.S_IMODE(process.socket.stat().st_mode) == 0o660
        client = GemmaClient(process.socket)

        async def run() -> None:
            params = SessionParams(max_tokens=800)
            reader, writer = await client.connect()
            async with client.session(params) as session, session.stream("go") as pieces:
                found = [await anext(aiter(pieces))]
                process.child.send_signal(signal.SIGTERM)
                process.told("STOPPING=1")
                with pytest.raises(Unreachable, match="does not answer: No such file or directory"):
                    await client.status(patient=False)  # nobody connects any more
                writer.write(b'{"type":"status"}\n{"type":"create_session","params":{}}\n')
                assert json.loads(await reader.readline())["status"] == "stopping"
                assert json.loads(await reader.readline())["code"] == "overloaded"
                found += [piece async for piece in pieces]
                assert pieces.reason == "length"  # what ran has ended by itself
                assert "799" in "".join(found)
            writer.close()

        asyncio.run(run())
        assert process.ended() == (0, "")
        assert not process.socket.exists()
        assert process.messages()[-1] == "stopping: 1 generations may end"


def test_a_second_signal_aborts_what_runs(model: Path, tmp_path: Path) -> None:
    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")

        async def run() -> str:
            client = GemmaClient(process.socket)
            async with client.session(LONG) as session, session.stream("go") as pieces:
                await anext(aiter(pieces))
                process.child.terminate()
                process.told("STOPPING=1")
                process.child.terminate()
                async for _ in pieces:
                    pass
                return pieces.reason

        assert asyncio.run(run()) == "aborted"
        assert process.ended() == (0, "")


def test_the_next_worker_may_start_while_this_one_drains(model: Path, tmp_path: Path) -> None:
    """The one that ends does not take the other's socket with it."""
    with Process(without_model(), model, tmp_path) as first:
        first.told("READY=1")

        async def run() -> None:
            client = GemmaClient(first.socket)
            async with client.session(LONG) as session, session.stream("go") as pieces:
                await anext(aiter(pieces))
                first.child.terminate()
                first.told("STOPPING=1")
                with Process(without_model(), model, tmp_path) as second:
                    second.told("READY=1")
                    first.child.terminate()
                    async for _ in pieces:
                        pass
                    assert first.ended() == (0, "")
                    assert (await client.status()).status == "running"
                    second.child.terminate()
                    assert second.ended() == (0, "")

        asyncio.run(run())


def test_two_that_start_at_once_do_not_both_listen(model: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:  # both find a stale file
        dead.bind(str(tmp_path / "gemma.sock"))
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(Process(without_model(), model, tmp_path)) for _ in range(3)]
        until(lambda: sum(process.child.poll() is not None for process in many) == 2)
        (living,) = [process for process in many if process.child.poll() is None]
        for process in many:
            if process is not living:
                code, said = process.ended()
                assert code == 3
                assert "another worker answers there" in said
        client = GemmaClient(tmp_path / "gemma.sock")
        assert asyncio.run(client.wait_running(60)).status == "running"
        living.child.terminate()
        assert living.ended()[0] == 0


def test_hangup_opens_the_log_again(model: Path, tmp_path: Path) -> None:
    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")
        old = process.log.rename(process.log.with_suffix(".old"))
        process.child.send_signal(signal.SIGHUP)
        until(process.log.exists)
        kept = process.log.rename(process.log.with_suffix(".kept"))
        process.log.mkdir()  # it cannot be opened: it goes on where it was
        process.child.send_signal(signal.SIGHUP)
        until(lambda: "the log cannot be opened" in kept.read_text())
        process.child.send_signal(signal.SIGTERM)
        assert process.ended() == (0, "")
        assert "answers at" in old.read_text()
        assert "stopping" in kept.read_text()


def test_killed_in_mid_stream_clients_are_told_and_recover(model: Path, tmp_path: Path) -> None:
    async def run(process: Process) -> None:
        client = GemmaClient(process.socket)
        with pytest.raises(Unreachable, match="ended within the answer") as gone:  # noqa: PT012
            async with client.session(LONG) as session, session.stream("Tell a long story.") as pieces:
                async for _ in pieces:
                    process.child.kill()
        assert gone.value.stage == "answer"
        assert process.child.wait(60) == -signal.SIGKILL
        with pytest.raises(Unreachable, match="fazai worker --model") as away:
            await client.status(patient=False)
        assert away.value.stage == "connect"
        assert process.socket.exists()  # nobody was left to remove it
        with Process(without_model(0.5), model, tmp_path) as again:  # a stale file is replaced
            patient = GemmaClient(process.socket, connect_timeout_s=60)
            await patient.wait_running(60)
            with pytest.raises(WireError) as lost:  # a conversation does not outlive its worker
                await session.generate("And then?")
            assert lost.value.code == "unknown_session"
            async with client.session(SessionParams(max_tokens=4)) as other:
                assert await other.generate("Hello.")
            again.child.terminate()
            assert again.ended()[0] == 0

    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")
        asyncio.run(run(process))


def test_systemd_hands_its_socket_over(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as given:
        given.bind(str(path))
        given.listen()
        code = (
            f"import os, sys\nos.dup2({given.fileno()}, 3)\nos.set_inheritable(3, True)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        command = without_model()
        words = ("worker", "--model", str(model), "--socket", str(tmp_path / "unused.sock"))
        with socket.socket(socket.AF_UNIX) as early:  # it was asked before it was started
            early.connect(str(path))
            early.sendall(b'{"type":"status"}\n')
            child = subprocess.Popen(
                [command[0], "-c", code, *command, *words],
                pass_fds=[given.fileno()],
                stderr=subprocess.DEVNULL,
            )
            try:
                early.settimeout(60)
                assert json.loads(early.makefile().readline())["ok"] is True
                client = GemmaClient(path)
                assert asyncio.run(client.wait_running(60)).status == "running"
                child.terminate()
                assert child.wait(60) == 0
                assert path.exists()  # it is systemd's
                assert not (tmp_path / "unused.sock").exists()
            finally:
                child.kill()
                child.wait()


def test_what_cannot_be_opened_is_said_before_the_model_is_loaded(model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, wanted in (
            (("--metrics-port", port), "the metrics port cannot be opened: Address already in use"),
            (("--log-file", str(tmp_path / "no" / "log")), "the log cannot be opened: No such file"),
        ):
            with Process(without_model(load_s=3600), model, tmp_path, *words) as process:
                code, said = process.ended()
                assert code == 3, said
                assert wanted in said
                assert not process.socket.exists()


def test_metrics_are_served_while_it_loads_and_runs(model: Path, tmp_path: Path) -> None:
    with socket.socket() as free, contextlib.ExitStack() as stack:
        # Kept, so that nobody else is given it; the worker may take it, for nobody listens there.
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        process = stack.enter_context(Process(without_model(), model, tmp_path, "--metrics-port", str(port)))
        process.told("READY=1")

        async def run() -> None:
            async with GemmaClient(process.socket).session(SessionParams(max_tokens=3)) as session:
                await session.generate("x")

        asyncio.run(run())
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'fazai_worker_generations_total{reason="length"} 1.0' in text
        assert "fazai_worker_running 0.0" in text
        process.child.terminate()
        assert process.ended() == (0, "")


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    log = Log(Path("/dev/full"))
    log.say("info", "lost")
    with contextlib.suppress(OSError):
        log.close()
    with pytest.raises(InputError, match="cannot be opened"):
        Log(tmp_path / "none" / "log")


def test_a_socket_with_a_full_backlog_is_a_living_worker(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(path))
        with pytest.raises(InputError, match="another worker answers there"):
            systemd.listen(path)


def test_status_tells_the_digest_of_the_models_file(model: Path, tmp_path: Path) -> None:
    model.write_bytes(b"GGUF" * 700_000)
    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")
        client = GemmaClient(process.socket)
        until(lambda: asyncio.run(client.status()).model_sha256 is not None)
        found = asyncio.run(client.status()).model_sha256
        assert found == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_digest_that_takes_long_holds_up_neither_start_nor_end(model: Path, tmp_path: Path) -> None:
    with model.open("wb") as file:
        file.truncate(1 << 42)  # nobody reads as much within a test
    with Process(without_model(), model, tmp_path) as process:
        process.told("READY=1")
        client = GemmaClient(process.socket)

        async def ask() -> str:
            async with client.session(SessionParams(max_tokens=3)) as session:
                return await session.generate("go")

        assert asyncio.run(ask()).startswith("GO")
        assert asyncio.run(client.status()).model_sha256 is None
        nices = [
            int(path.read_text().rpartition(")")[2].split()[16])
            for path in Path(f"/proc/{process.child.pid}/task").glob("*/stat")
        ]
        assert (max(nices), nices.count(19)) == (19, 1)  # the one thread goes behind all others
        process.child.send_signal(signal.SIGTERM)
        assert process.ended()[0] == 0


@pytest.mark.parametrize("change", ["replaced", "written to", "removed"])
def test_a_file_that_is_not_the_one_that_was_loaded_has_no_digest(model: Path, change: str) -> None:
    loaded = identify_model(model)
    assert loaded is not None
    if change == "replaced":
        other = model.with_name("other")
        other.write_bytes(b"")
        other.rename(model)
    elif change == "written to":
        model.write_bytes(b"more")
    else:
        model.unlink()
    found: list[str] = []
    digest = ModelDigest(model, loaded, found.append)
    digest._thread.join()
    assert found == []
