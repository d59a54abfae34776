"""Parts of the worker that need neither a model nor a server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.errors import FazaiError, InputError, Unreachable
from fazai.service import systemd
from fazai.service.log import Log
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams
from fazai.worker import bridge, metrics
from fazai.worker.client import Endpoint, GemmaClient

from .live import live


def test_without_the_native_module_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(InputError) as refused:
        bridge.Engine(tmp_path / "x.gguf", bridge.Options())
    assert "pip install ./native" in str(refused.value)


def test_the_socket_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with systemd.listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(InputError, match="another worker answers"):
            systemd.listen(path)
    with systemd.listen(path):  # the one before left its file behind
        pass
    path.unlink()
    path.write_text("something else")
    with pytest.raises(InputError, match="no socket stands there"):
        systemd.listen(path)
    assert path.read_text() == "something else"
    with pytest.raises(InputError, match="there is no folder"):
        systemd.listen(tmp_path / "none" / "a.sock")
    with pytest.raises(InputError, match="107 bytes"):
        systemd.listen(tmp_path / ("x" * 120))


def test_systemd_is_told_where_it_listens(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        systemd.notify({"NOTIFY_SOCKET": address}, "READY=1")
        assert ear.recv(100) == b"READY=1"
    systemd.notify({"NOTIFY_SOCKET": address}, "READY=1")  # nobody listens any more
    systemd.notify({}, "READY=1")
    assert systemd.inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, 2) is None
    with pytest.raises(InputError, match="hands over 2 sockets"):
        systemd.inherited({"LISTEN_PID": "2", "LISTEN_FDS": "2"}, 2)


def test_histograms_are_cumulative() -> None:
    found = metrics.Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        found.add(value)
    found.add(0.2, 2)
    assert list(found.lines("x_seconds", "Text."))[2:] == [
        'x_seconds_bucket{le="0.1"} 2',
        'x_seconds_bucket{le="1"} 5',
        'x_seconds_bucket{le="+Inf"} 6',
        "x_seconds_sum 8.05",
        "x_seconds_count 6",
    ]


def test_metrics_over_http() -> None:
    async def run() -> None:
        found = metrics.Metrics()
        found.errors["bad_json"] += 3
        server = await metrics.serve(0, lambda: found.text(None))
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/metrics")
            assert answer.status_code == 200
            assert 'fazai_worker_errors_total{code="bad_json"} 3' in answer.text
            assert "fazai_worker_first_token_seconds_count 0" in answer.text
            assert (await http.get(f"http://127.0.0.1:{port}/other")).status_code == 404
        server.close()

    asyncio.run(run())


def test_the_log_is_reopened(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.say("info", "one", session_id="s-1")
    (tmp_path / "log").rename(tmp_path / "old")
    log.reopen()
    log.say("error", "two")
    log.close()
    assert json.loads((tmp_path / "old").read_text())["session_id"] == "s-1"
    assert json.loads((tmp_path / "log").read_text())["message"] == "two"


def test_the_client_streams_aborts_and_is_told() -> None:
    async def run() -> None:
        async with live() as worker:
            client = GemmaClient(worker.path)
            async with client.session(SessionParams(max_tokens=4)) as session:
                assert await session.generate("one two") == "ONE TWO 2 3 "
                async with session.stream("three") as pieces:
                    assert [piece async for piece in pieces]
                    assert pieces.reason == "length"
                    assert pieces.usage is not None
                    assert pieces.usage.cached_tokens > 0
            assert (await client.status()).sessions == 0
            async with client.session(SessionParams(max_tokens=1_000_000)) as session:
                async with session.stream("long") as pieces:
                    async for _ in pieces:
                        break
                await worker.until(lambda: worker.sessions.busy == 0)  # left early: aborted
            with pytest.raises(WireError) as refused:
                async with client.session(SessionParams(json_schema={"nonsense": 1})) as session:
                    await session.generate("x")
            assert refused.value.code == "schema_unsupported"

    asyncio.run(run())


@pytest.fixture
def endpoint_lines() -> list[str]:
    pieces = ["Hel", "lo"]
    chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})  # type: ignore[dict-item]
    return [f"data: {json.dumps(chunk)}" for chunk in chunks] + ["data: [DONE]"]


def test_the_client_falls_back_to_an_endpoint(tmp_path: Path, endpoint_lines: list[str]) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(
            next(line for line in head.lower().split("\r\n") if line.startswith("content-length")).split(":")[
                1
            ]
        )
        asked.append(json.loads(await reader.readexactly(length)))
        assert "authorization: bearer key" in head.lower()
        body = "\n\n".join(endpoint_lines).encode() + b"\n\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body
        )
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        away = tmp_path / "none.sock"
        client = GemmaClient(away, connect_timeout_s=0.05, fallback=Endpoint(url, "gemma", "key"))
        params = SessionParams(system="Short.", json_schema={"type": "string"})
        async with client.session(params) as session:
            async with session.stream("Hi") as pieces:
                assert [piece async for piece in pieces] == ["Hel", "lo"]
                assert pieces.reason == "eos"
            await session.generate("And?")
        assert [turn["role"] for turn in asked[1]["messages"]] == ["system", "user", "assistant", "user"]
        assert asked[0]["response_format"]["json_schema"]["strict"] is True
        async with client.session(SessionParams(grammar='root ::= "a"')) as session:
            with pytest.raises(WireError, match="takes no grammar"):
                await session.generate("x")
        server.close()
        with pytest.raises(Unreachable, match="neither"):
            async with client.session() as session:
                await session.generate("x")
        with pytest.raises(Unreachable) as alone:
            await GemmaClient(away, connect_timeout_s=0.05).status()
        assert alone.value.exit_code == 4
        assert isinstance(alone.value, FazaiError)
        assert "key" not in repr(client.fallback)

    asyncio.run(run())


def test_a_worker_that_ends_within_an_answer(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if b"create_session" in line:
            writer.write(b'{"ok":true,"session_id":"s-1"}\n')
        elif b"generate" in line:
            writer.write(b'{"type":"token","text":"a"}\n{"type":"tok')
        await writer.drain()
        writer.close()

    async def run() -> None:
        path = tmp_path / "s"
        server = await asyncio.start_unix_server(answer, str(path))
        client = GemmaClient(path, connect_timeout_s=0.2)
        got = []
        with pytest.raises(Unreachable, match="ended within the answer"):  # noqa: PT012
            async with client.session() as session, session.stream("x") as pieces:
                async for piece in pieces:
                    got.append(piece)
        assert got == ["a"]
        server.close()

    asyncio.run(run())
    assert os.path.exists(tmp_path / "s")
