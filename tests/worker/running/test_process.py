"""`fazai worker` as a process, with the real model: loading, draining, prompts that are left, `kill -9`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.errors import Unreachable
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.worker import SessionParams
from fazai.worker.demo import find_demo_model
from tests.worker.process import Process, until, with_model, worker_metrics

pytestmark = [pytest.mark.gemma, pytest.mark.xdist_group("model")]

LONG = SessionParams(max_tokens=3000, temperature=0.0)
#: About as many tokens as words: a prompt of some seconds.
WORDS = "word " * 3500


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_demo_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def process(model: Path, tmp_path: Path) -> Iterator[Process]:
    with Process(with_model(), model, tmp_path) as made:
        made.told("READY=1")
        yield made


def test_stopped_while_it_loads_it_ends_at_once(model: Path, tmp_path: Path) -> None:
    with Process(with_model(), model, tmp_path) as process:
        process.told("STATUS=loading")
        process.child.terminate()
        assert process.ended() == (0, "")
        assert not process.socket.exists()
        assert process.messages() == ["stopped while the model was being loaded"]


def test_it_drains(process: Process) -> None:
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
    assert process.ended()[0] == 0
    assert not process.socket.exists()
    assert process.messages()[-1].startswith("stopping")


def test_killed_in_mid_stream_clients_are_told_and_recover(
    process: Process, model: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        client = GemmaClient(process.socket)
        with pytest.raises(Unreachable) as gone:  # noqa: PT012
            async with client.session(LONG) as session, session.stream("Tell a long story.") as pieces:
                async for _ in pieces:
                    process.child.kill()
        assert gone.value.stage == "answer"
        process.child.wait(60)
        assert process.socket.exists()  # nobody was left to remove it
        with Process(with_model(), model, tmp_path) as again:  # a stale file is replaced
            again.told("READY=1")
            async with client.session(SessionParams(max_tokens=4)) as session:
                assert await session.generate("Hello.")

    asyncio.run(run())


def test_the_cache_takes_what_the_page_says(model: Path, tmp_path: Path) -> None:
    """docs/worker.md: layers x KV heads x head size x 4 bytes for each token of the context."""
    taken_kib = []
    for context in ("1024", "8192"):
        with Process(with_model(), model, tmp_path, "--context", context) as process:
            process.told("READY=1")
            status = Path(f"/proc/{process.child.pid}/status").read_text()
            taken_kib.append(int(status.split("RssAnon:")[1].split()[0]))
    a_token = (taken_kib[1] - taken_kib[0]) / (8192 - 1024)
    assert a_token == pytest.approx(18 * 1 * 256 * 4 / 1024, rel=0.1)


async def _measure(client: GemmaClient, name: str) -> float:
    """One metric, as the worker says it over its socket; 0 where it has not counted yet."""
    for line in (await worker_metrics(client)).splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


async def _prompting(client: GemmaClient) -> None:
    """Until a prompt is being computed and no token came of it."""
    async with asyncio.timeout(60):
        while not await _measure(client, "fazai_worker_running"):
            pass


@pytest.mark.parametrize("how", ["disconnect", "abort from another connection", "close the session"])
def test_a_prompt_that_nobody_waits_for_any_more_is_left(process: Process, how: str) -> None:
    """It ends within a chunk, generates nothing, and the turn never was."""

    async def run() -> None:
        client = GemmaClient(process.socket)
        async with client.session(SessionParams(max_tokens=8)) as session, client.session() as other:
            reader, writer = await client.connect()
            request = {"type": "generate", "session_id": session.session_id, "prompt": WORDS}
            writer.write(json.dumps(request).encode() + b"\n")
            await _prompting(client)
            before = await _measure(client, "fazai_worker_decodes_total")
            if how == "disconnect":
                writer.close()
            elif how == "close the session":
                await session.close()
            else:
                await client.abort(session.session_id or "")
            async with asyncio.timeout(60):
                while await _measure(client, "fazai_worker_running"):
                    pass
            left = await _measure(client, "fazai_worker_decodes_total") - before
            assert await _measure(client, 'fazai_worker_tokens_total{kind="generated"}') == 0
            assert await _measure(client, 'fazai_worker_generations_total{reason="aborted"}') == 1
            if how != "disconnect":
                assert json.loads(await reader.readline())["reason"] == "aborted"
                writer.close()
            before = await _measure(client, "fazai_worker_decodes_total")
            async with other.stream(WORDS) as pieces:
                await anext(aiter(pieces))
            assert left < await _measure(client, "fazai_worker_decodes_total") - before - 1
            if how != "close the session":
                async with session.stream("Hello.") as pieces:
                    assert [piece async for piece in pieces]
                assert pieces.usage is not None
                assert pieces.usage.prompt_tokens < 50

    asyncio.run(run())
    process.child.terminate()
    assert process.ended() == (0, "")  # an abort is no error: it says nothing to the journal


def _has_children(pid: int) -> bool:
    return any(task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def test_it_stops_while_a_grammar_is_compiled(process: Process) -> None:
    """The one who asked is told at once; nobody waits for the compiler, which would take its five seconds."""
    hostile = {"allOf": [{"type": "string", "pattern": f"^.*a{n}.*$"} for n in range(30)]}

    async def run() -> None:
        client = GemmaClient(process.socket)
        async with client.session(SessionParams(json_schema=hostile)) as session:
            asked = asyncio.create_task(session.generate("x"))
            async with asyncio.timeout(60):
                while not _has_children(process.child.pid):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
            process.child.terminate()
            process.told("STOPPING=1")
            process.child.terminate()
            assert await asked == ""

    asyncio.run(run())
    assert process.ended() == (0, "")
    assert not process.socket.exists()


def test_generate_conforms_from_pipe_to_pipe(process: Process, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type":"object","properties":{"up":{"type":"boolean"}},"required":["up"],'
        '"additionalProperties":false}'
    )
    done = subprocess.run(
        [*with_model(), "generate", "--json-schema", str(schema), "-"],
        input="Is fw-01 up?",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FAZAI_GEMMA_SOCK": str(process.socket)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) in ({"up": True}, {"up": False})


def test_ctrl_c_ends_a_real_generation(process: Process) -> None:
    """Within a token, its session too."""
    child = subprocess.Popen(
        [*with_model(), "generate", "--max-tokens", "3000", "Tell a long story."],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FAZAI_GEMMA_SOCK": str(process.socket)},
    )
    assert child.stdout is not None
    assert child.stdout.read(1)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    client = GemmaClient(process.socket)
    until(lambda: asyncio.run(client.status()).sessions == 0)
    assert asyncio.run(_measure(client, "fazai_worker_running")) == 0
