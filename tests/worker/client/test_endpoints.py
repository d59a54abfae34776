"""Several endpoints in the worker's place: tried in order, and never another one within an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fazai.errors import FazaiError, Unreachable
from fazai.providers.gemma.client import GemmaClient, GemmaSession
from fazai.providers.gemma.endpoint import FallbackConversation, FallbackEndpoint
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams
from tests.worker.openai import Completions, chunk, completions

AWAY = "http://127.0.0.1:1/v1"


def _client(folder: Path, *urls: str) -> GemmaClient:
    found = [FallbackEndpoint(url, f"m{number}") for number, url in enumerate(urls)]
    return GemmaClient(folder / "none", connect_timeout_s=0.05, endpoints=found)


@contextlib.asynccontextmanager
async def _two() -> AsyncIterator[tuple[Completions, Completions]]:
    async with completions(["one"]) as first, completions(["two"]) as second:
        yield first, second


async def _collect(session: GemmaSession, found: list[str]) -> None:
    async with session.stream("x") as pieces:
        async for piece in pieces:
            found.append(piece)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_the_next_is_asked_where_one_has_no_time(tmp_path: Path, status: int) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.status = status
            async with _client(tmp_path, AWAY, first.url, second.url).session() as session:
                assert session.endpoint_url == AWAY
                assert await session.generate("hello") == "two"
                assert session.endpoint_url == second.url
            assert (len(first.asked), second.asked[0]["model"]) == (1, "m2")

    asyncio.run(run())


def test_the_conversation_moves_with_its_turns_and_stays_there(tmp_path: Path) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            params = SessionParams(system="be brief")
            async with _client(tmp_path, first.url, second.url).session(params) as session:
                assert await session.generate("a") == "one"
                first.status = 503
                assert await session.generate("b") == "two"
                first.status = 200
                assert await session.generate("c") == "two"
                second.status = 503
                assert await session.generate("d") == "one"
        said = [(turn["role"], turn["content"]) for turn in first.asked[-1]["messages"]]
        assert said == [
            ("system", "be brief"),
            *(("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two")),
            *(("user", "c"), ("assistant", "two"), ("user", "d")),
        ]
        assert (len(first.asked), len(second.asked)) == (3, 3)

    asyncio.run(run())


@pytest.mark.parametrize("lines", [[], [chunk("be")], [chunk("be"), chunk("gin")]])
def test_never_another_one_after_the_first_token(tmp_path: Path, lines: list[str]) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.lines = lines
            async with _client(tmp_path, first.url, second.url).session() as session:
                if not lines:  # it broke off before there was anything
                    assert await session.generate("x") == "two"
                    return
                found: list[str] = []
                with pytest.raises(Unreachable, match="the fallback's answer broke off"):
                    await _collect(session, found)
                assert "".join(found) == "begin"[: 2 if len(lines) == 1 else 5]
                assert second.asked == []
                first.lines = [chunk("whole"), chunk(ended="stop")]
                assert await session.generate("again") == "whole"
                assert [turn["content"] for turn in first.asked[-1]["messages"]] == ["again"]

    asyncio.run(run())


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_told_and_not_passed_on(tmp_path: Path, status: int) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.status, first.body = status, b'{"error":{"message":"no such model"}}'
            async with _client(tmp_path, first.url, second.url).session() as session:
                with pytest.raises(FazaiError, match=f"answered {status}: no such model") as caught:
                    await session.generate("x")
                assert not isinstance(caught.value, Unreachable)
            assert second.asked == []

    asyncio.run(run())


def test_what_breaks_the_format_is_told_and_not_passed_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.lines = ["data: {]"]
            async with _client(tmp_path, first.url, second.url).session() as session:
                with pytest.raises(WireError, match="no stream of completions"):
                    await session.generate("x")
            assert second.asked == []

    asyncio.run(run())


def test_all_endpoints_share_the_time_of_one_answer() -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.lines, first.hangs = [], True
            found = [FallbackEndpoint(first.url, "m"), FallbackEndpoint(second.url, "m")]
            said = FallbackConversation(found, SessionParams()).say("x", None, timeout_s=0.5)
            with pytest.raises(Unreachable, match=r"answers: (ReadTimeout|TimeoutError)"):
                await anext(said)
            assert (len(first.asked), second.asked) == (1, [])

    asyncio.run(run())


def test_where_none_answers_each_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        async with _two() as (first, second):
            first.status = second.status = 503
            async with _client(tmp_path, AWAY, first.url, second.url).session() as session:
                with pytest.raises(Unreachable) as caught:
                    await session.generate("x")
        text = str(caught.value)
        assert "nor any of its 3 endpoints answers" in text
        assert f"{AWAY}: neither the Gemma worker nor its fallback answers: ConnectError" in text
        assert f"{first.url}: the fallback of the Gemma worker answered 503" in text
        assert f"{second.url}: " in text

    asyncio.run(run())
