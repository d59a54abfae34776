"""The client: over a worker's socket, with a worker that ends or says odd things, and with its fallback."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from fazai.errors import FazaiError, InputError, Unreachable
from fazai.files import read_token_file
from fazai.providers.gemma.client import GemmaClient
from fazai.providers.gemma.endpoint import FallbackConversation, FallbackEndpoint
from fazai.wire.base import WireError
from fazai.wire.worker import GenerateParams, SessionParams
from tests.worker.live import live
from tests.worker.openai import Completions, chunk, completions


def test_it_streams_aborts_and_is_told() -> None:
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
                async with session.stream("again") as pieces:
                    await anext(aiter(pieces))
                    assert session.session_id is not None
                    await client.abort(session.session_id)
                    async for _ in pieces:
                        pass
                    assert pieces.reason == "aborted"
            with pytest.raises(WireError) as refused:
                async with client.session(SessionParams(json_schema={"nonsense": 1})) as session:
                    await session.generate("x")
            assert refused.value.code == "schema_unsupported"

    asyncio.run(run())


def test_what_the_worker_refuses_is_said_with_its_own_words() -> None:
    async def run() -> None:
        async with live() as worker:
            client = GemmaClient(worker.path)
            async with client.session() as session:
                for params, wanted in (
                    (GenerateParams(temperature=-1), "temperature"),
                    (GenerateParams(stop=("x" * 300,)), "stop"),
                ):
                    with pytest.raises(WireError, match=wanted) as refused:
                        await session.generate("x", params)
                    assert refused.value.code == "bad_request"
                with pytest.raises(WireError, match="at most"):
                    await session.generate("x" * (5 << 20))
                assert session.session_id is not None
                worker.sessions.close(session.session_id)
                with pytest.raises(WireError) as refused:
                    await session.generate("x")
                assert refused.value.code == "unknown_session"

    asyncio.run(run())


def test_a_slow_taker_is_not_a_slow_worker() -> None:
    """The deadline is the worker's: what it sent in time may be read later than that."""

    async def run() -> None:
        async with live(step_s=0.0) as worker:
            client = GemmaClient(worker.path)
            async with client.session(SessionParams(max_tokens=5, timeout_ms=1000)) as session:
                loop = asyncio.get_running_loop()
                async with session.stream("a b c d e") as pieces:
                    found = [await anext(aiter(pieces))]
                    await worker.until(lambda: worker.sessions.busy == 0)
                    ahead = loop.time() + 3600
                    loop.time = lambda: ahead  # type: ignore[method-assign]
                    try:
                        found += [piece async for piece in pieces]
                    finally:
                        del loop.time
                assert "".join(found) == "A B C D E "

    asyncio.run(run())


@contextlib.asynccontextmanager
async def _says(path: Path, lines: Sequence[bytes]) -> AsyncIterator[GemmaClient]:
    """A worker that answers every generate with these bytes, and then ends the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if b"create_session" in line:
            writer.write(b'{"ok":true,"session_id":"s-1"}\n')
        elif b"generate" in line:
            writer.write(b"".join(lines))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    try:
        yield GemmaClient(path)
    finally:
        server.close()


TOKEN = b'{"type":"token","text":"a"}\n'
STOP = b'{"type":"stop","reason":"eos"}\n'


def test_a_worker_that_ends_within_an_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with _says(tmp_path / "s", [TOKEN, b'{"type":"tok']) as client:
            got = []
            with pytest.raises(Unreachable, match="ended within the answer") as gone:  # noqa: PT012
                async with client.session() as session, session.stream("x") as pieces:
                    async for piece in pieces:
                        got.append(piece)
            assert got == ["a"]
            assert gone.value.stage == "answer"

    asyncio.run(run())


def test_events_of_a_later_version_are_skipped(tmp_path: Path) -> None:
    async def run() -> None:
        later = b'{"type":"thought","text":"hm"}\n'
        more = b'{"type":"token","text":"b","probability":0.5}\n'
        async with (
            _says(tmp_path / "s", [later, TOKEN, later, more, STOP]) as client,
            client.session() as session,
        ):
            assert await session.generate("x") == "ab"
        async with _says(tmp_path / "t", [b"nonsense\n"]) as client, client.session() as session:
            with pytest.raises(WireError) as refused:
                await session.generate("x")
            assert refused.value.code == "bad_json"

    asyncio.run(run())


def test_it_waits_for_a_worker_that_starts(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "late.sock"
        client = GemmaClient(path, connect_timeout_s=60)
        task = asyncio.create_task(client.status())
        await asyncio.sleep(0)
        assert not task.done()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b'{"ok":true,"status":"running","model":"m","sessions":0,"slots":1}\n')
            writer.close()

        server = await asyncio.start_unix_server(answer, str(path))
        assert (await task).model == "m"
        server.close()
        with pytest.raises(Unreachable) as away:
            await GemmaClient(tmp_path / "none", connect_timeout_s=0.05).status()
        assert (away.value.stage, away.value.exit_code) == ("connect", 4)

    asyncio.run(run())


def _client(tmp_path: Path, server: Completions) -> GemmaClient:
    away = tmp_path / "none.sock"
    return GemmaClient(
        away, connect_timeout_s=0.05, endpoints=[FallbackEndpoint(server.url, "gemma", "the-key")]
    )


def test_it_falls_back_to_an_endpoint(tmp_path: Path) -> None:
    async def run() -> None:
        async with completions(["Hel", "lo"]) as server:
            client = _client(tmp_path, server)
            session_params = SessionParams(system="Short.", json_schema={"type": "string"}, max_tokens=7)
            async with client.session(session_params) as session:
                async with session.stream("Hi", GenerateParams(temperature=0.5, seed=-1)) as pieces:
                    assert [piece async for piece in pieces] == ["Hel", "lo"]
                    assert pieces.reason == "eos"
                    assert pieces.usage is not None
                    assert pieces.usage.prompt_tokens == 9
                assert (
                    await session.generate("And?", GenerateParams(json_schema={"type": "number"})) == "Hello"
                )
                with pytest.raises(WireError, match="takes no grammar"):
                    await session.generate("x", GenerateParams(grammar='root ::= "a"'))
            first, second = server.asked
            assert (first["max_tokens"], first["temperature"]) == (7, 0.5)
            assert "seed" not in first
            assert first["response_format"]["json_schema"]["strict"] is True
            assert second["response_format"]["json_schema"]["schema"] == {"type": "number"}
            assert [turn["role"] for turn in second["messages"]] == ["system", "user", "assistant", "user"]
            assert second["messages"][2]["content"] == "Hello"
            assert set(server.keys) == {"Bearer the-key"}
            assert "key" not in repr(client.endpoints)

    asyncio.run(run())


REFUSALS: list[tuple[int, bytes, type[FazaiError], str]] = [
    (401, b'{"error":{"message":"wrong the-key here"}}', FazaiError, "401: wrong [*]{3} here"),
    (400, b'{"error":"no such model"}', FazaiError, "400: no such model"),
    (503, b"<html>", Unreachable, "answered 503"),
    (429, b'{"error":{}}', Unreachable, "answered 429"),
]


@pytest.mark.parametrize(("status", "body", "kind", "wanted"), REFUSALS)
def test_an_endpoint_that_refuses(
    tmp_path: Path, status: int, body: bytes, kind: type[FazaiError], wanted: str
) -> None:
    async def run() -> None:
        async with completions([]) as server:
            server.status, server.body = status, body
            async with _client(tmp_path, server).session() as session:
                with pytest.raises(FazaiError, match=wanted) as refused:
                    await session.generate("x")
            assert type(refused.value) is kind
            assert "the-key" not in str(refused.value)

    asyncio.run(run())


STREAMS: list[tuple[list[str], type[FazaiError], str]] = [
    ([chunk("half")], Unreachable, "broke off"),
    ([chunk("half"), 'data: {"error":{"message":"out of memory"}}'], WireError, "failed within"),
    (["data: nonsense"], WireError, "no stream of completions"),
    (['data: {"choices":[7]}'], WireError, "no stream of completions"),
]


@pytest.mark.parametrize(("lines", "kind", "wanted"), STREAMS)
def test_an_endpoint_that_breaks_off(
    tmp_path: Path, lines: list[str], kind: type[FazaiError], wanted: str
) -> None:
    """A cut answer is never taken for a whole one, and is not kept as a turn."""

    async def run() -> None:
        async with completions(["Hello"]) as server, _client(tmp_path, server).session() as session:
            whole, server.lines = server.lines, lines
            with pytest.raises(kind, match=wanted):
                await session.generate("first")
            server.lines = whole
            assert await session.generate("second") == "Hello"
            assert [turn["content"] for turn in server.asked[1]["messages"]] == ["second"]

    asyncio.run(run())


def test_an_endpoint_that_is_left_or_is_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with completions(["a"]) as server:
            server.lines, server.hangs = server.lines[:1], True
            client = _client(tmp_path, server)
            async with client.session() as session:
                async with session.stream("x") as pieces:
                    assert await anext(aiter(pieces)) == "a"
                async with asyncio.timeout(60):
                    await server.left.wait()  # leaving the stream closed its connection
        async with client.session() as session:
            with pytest.raises(Unreachable, match="neither the Gemma worker nor"):
                await session.generate("x")

    asyncio.run(run())


def test_an_endpoint_that_dribbles_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def run() -> None:
        async with completions(["a"]) as server:
            server.lines, server.hangs = [chunk("a")], True
            loop, ahead = asyncio.get_running_loop(), 3600.0
            async with _client(tmp_path, server).session() as session, session.stream("x") as pieces:
                assert await anext(aiter(pieces)) == "a"
                now = loop.time
                loop.time = lambda: now() + ahead  # type: ignore[method-assign]
                try:
                    with pytest.raises(Unreachable, match="TimeoutError"):
                        await anext(aiter(pieces))
                finally:
                    del loop.time
            async with asyncio.timeout(60):
                await server.left.wait()

    asyncio.run(run())


def test_an_endpoint_that_dribbles_its_head_is_not_waited_for_for_ever() -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.transport.abort()
        gone.set()

    gone = asyncio.Event()

    async def run() -> None:
        async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            talk = FallbackConversation([FallbackEndpoint(url, "m")], SessionParams())
            with pytest.raises(Unreachable, match=r"neither .* answers: TimeoutError"):
                async with asyncio.timeout(60):
                    await anext(talk.say("x", None, timeout_s=1.0))
            async with asyncio.timeout(60):
                await gone.wait()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("ftp://x/v1", "http://HOST"),
        ("http://", "http://HOST"),
        ("http://[::1", "http://HOST"),
        ("http://x:99999/v1", "http://HOST"),
        ("http://x y/v1", "http://HOST"),
        ("http://x/v1?key=sesame", "ends with its path"),
        ("https://me:sesame@x/v1", "no password"),
    ],
)
def test_a_url_that_cannot_be_a_fallback(url: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as refused:
        FallbackEndpoint.from_environ(
            {"FAZAI_GEMMA_FALLBACK_URL": url, "FAZAI_GEMMA_FALLBACK_MODEL": "m"}, read_token_file
        )
    assert "sesame" not in str(refused.value)


def test_settings_of_the_fallback(tmp_path: Path) -> None:
    assert FallbackEndpoint.from_environ({}, read_token_file) is None
    found = FallbackEndpoint.from_environ(
        {"FAZAI_GEMMA_FALLBACK_URL": "http://x/v1", "FAZAI_GEMMA_FALLBACK_MODEL": "m"}, read_token_file
    )
    assert found == FallbackEndpoint("http://x/v1", "m", None)
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("one\ntwo\n")
    with pytest.raises(FazaiError, match="it holds no token") as refused:
        FallbackEndpoint.from_environ(
            {
                "FAZAI_GEMMA_FALLBACK_URL": "https://x/v1",
                "FAZAI_GEMMA_FALLBACK_MODEL": "m",
                "FAZAI_GEMMA_FALLBACK_KEY_FILE": str(tmp_path / "key"),
            },
            read_token_file,
        )
    assert "two" not in str(refused.value)


def test_a_proxy_hears_nothing_of_an_endpoint_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with completions(["here"]) as endpoint, completions(["there"]) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
            monkeypatch.delenv("no_proxy", raising=False)
            client = GemmaClient(tmp_path / "none", endpoints=[FallbackEndpoint(endpoint.url, "m", "key")])
            async with client.session() as session:
                assert await session.generate("x") == "here"
            assert (proxy.asked, endpoint.keys) == ([], ["Bearer key"])

    asyncio.run(run())


def test_an_endpoint_that_packs_what_it_says_is_left(tmp_path: Path) -> None:
    """A gzip bomb is nothing that a bound of bytes on the line holds up."""
    bomb = gzip.compress(b"data: " + b"x" * (80 << 20))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"accept-encoding: identity" in head
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + bomb)
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the client goes
        writer.transport.abort()
        gone.set()

    gone = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with GemmaClient(
            tmp_path / "none", endpoints=[FallbackEndpoint(url, "m")]
        ).session() as session:
            with pytest.raises(WireError, match="packs its answer"):
                await session.generate("x")
        await gone.wait()
        server.close()

    asyncio.run(run())


def test_an_endpoint_that_floods_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end, an answer without an end, and a refusal as long."""
    monkeypatch.setattr("fazai.providers.gemma.endpoint.MAX_ANSWER_BYTES", 16 << 20)

    async def run() -> None:
        async with completions([]) as endpoint:
            client = GemmaClient(tmp_path / "none", endpoints=[FallbackEndpoint(endpoint.url, "m")])
            endpoint.lines = ["data: " + "x" * (9 << 20)]
            async with client.session() as session:
                with pytest.raises(WireError, match="does not end"):
                    await session.generate("x")
            endpoint.lines = [chunk("y" * 1_000_000) for _ in range(20)]
            async with client.session() as session:
                with pytest.raises(WireError, match="the fallback endpoint's answer does not end"):
                    await session.generate("x")
            endpoint.status, endpoint.body = 400, b"z" * (20 << 20)
            async with client.session() as session:
                with pytest.raises(FazaiError, match="answered 400"):
                    await session.generate("x")

    asyncio.run(run())


def test_a_peer_that_floods_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands at the socket writes a line, or an answer, that does not end."""
    monkeypatch.setattr("fazai.providers.gemma.client.MAX_ANSWER_BYTES", 16 << 20)
    piece = b'{"type":"token","text":"' + b"x" * 1_000_000 + b'"}\n'

    async def run() -> None:
        floods = [b"x" * (5 << 20), piece * 20]

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if json.loads(await reader.readline())["type"] == "generate":
                writer.write(floods.pop(0))
                await reader.read()  # until the client goes
            else:
                writer.write(b'{"ok":true,"session_id":"s-1"}\n')
            writer.close()

        server = await asyncio.start_unix_server(flood, str(tmp_path / "s"))
        client = GemmaClient(tmp_path / "s")
        for wanted in ("limit", "the Gemma worker's answer does not end"):
            async with client.session() as session:
                with pytest.raises((Unreachable, WireError), match=wanted):
                    await session.generate("x")
        server.close()

    asyncio.run(run())
