"""One client never holds up another: what each may hold of the worker, and who makes room."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fazai.wire.base import MAX_LINE_BYTES
from fazai.worker import server
from fazai.worker.server import MAX_HELD_BYTES

from .live import Live, live


def test_the_session_that_is_idle_for_longest_makes_room() -> None:
    async def run() -> None:
        async with live(sessions=3) as worker:
            peer, other = await worker.peer(), await worker.peer()
            first, second, busy = [await peer.session(max_tokens=2) for _ in range(3)]
            for used in (second, first):  # the first was used last
                peer.send({"type": "generate", "session_id": used, "prompt": "x"})
                assert (await peer.events())[-1]["reason"] == "length"
            peer.send(
                {"type": "generate", "session_id": busy, "prompt": "x", "params": {"max_tokens": 100_000}}
            )
            await worker.until(lambda: worker.sessions.busy == 1)
            fresh = await other.session(max_tokens=2)
            answers = {
                name: await other.ask({"type": "abort", "session_id": name})
                for name in (first, second, busy, fresh)
            }
            assert answers[second]["code"] == "unknown_session"
            assert "there is no session" in answers[second]["error"]
            assert [name for name, answer in answers.items() if answer["ok"]] == [first, busy, fresh]

    asyncio.run(run())


def test_sessions_that_all_generate_are_refused_a_new_one() -> None:
    async def run() -> None:
        async with live(sessions=2, slots=2) as worker:
            peers = [await worker.peer() for _ in range(3)]
            for peer in peers[:2]:
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: worker.sessions.busy == 2)
            refused = await peers[2].ask({"type": "create_session", "params": {}})
            assert refused["code"] == "overloaded"
            assert "2 sessions are generating" in refused["error"]

    asyncio.run(run())


def test_unfinished_lines_of_all_clients_have_one_budget() -> None:
    """Forty clients with three MiB of a line each: some are refused, and a plain one is answered."""
    part = b'{"type":"generate","prompt":"' + b"x" * (3 << 20)

    async def run() -> None:
        async with live() as worker:
            plain = await worker.peer()
            plain.writer.write(b'{"type":')  # it, too, is within a line
            flooding = [await worker.peer() for _ in range(40)]
            for peer in flooding:
                peer.writer.write(part)
            await worker.until(
                lambda: worker.worker.metrics.errors["overloaded"] >= 40 - MAX_HELD_BYTES // len(part)
            )
            assert worker.worker.held_bytes <= MAX_HELD_BYTES
            plain.writer.write(b'"status"}\n')
            assert (await plain.line())["ok"] is True
            told = await asyncio.gather(*(_told(peer) for peer in flooding))
            assert 30 <= sum(answer is not None for answer in told) < 40
            assert {answer["code"] for answer in told if answer} == {"overloaded"}
            assert all("have sent more than is kept" in answer["error"] for answer in told if answer)
            peer = next(peer for peer, answer in zip(flooding, told, strict=True) if answer)
            peer.writer.write(b'"}\n')  # the rest of its line is not taken for another
            assert (await peer.ask({"type": "status"}))["ok"] is True
            for peer in flooding:
                peer.close()
            await worker.until(lambda: worker.worker.held_bytes == 0)

    asyncio.run(run())


async def _told(peer: Any) -> dict[str, Any] | None:
    try:
        return dict(json.loads(await asyncio.wait_for(peer.reader.readline(), 1)))
    except TimeoutError:
        return None


def test_requests_that_wait_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a running stream its client's prompts wait; the last of them is refused as a stream's end."""
    monkeypatch.setattr(server, "MAX_HELD_BYTES", 2_200_000)

    async def run() -> None:
        async with live() as worker:
            peer, running = await _streaming(worker)
            waiting = {"type": "generate", "session_id": running, "prompt": "y" * 900_000}
            peer.send(waiting, waiting)
            await worker.until(lambda: worker.worker.held_bytes > 1_800_000)
            other, elsewhere = await _streaming(worker)
            other.send({"type": "generate", "session_id": elsewhere, "prompt": "z" * 900_000})
            await worker.until(lambda: worker.worker.metrics.errors["overloaded"] == 1)
            assert worker.worker.held_bytes <= 2_200_000
            peer.send({"type": "abort", "session_id": running})
            assert (await peer.events())[-1]["reason"] == "aborted"
            later = [await peer.events() for _ in range(2)]
            assert [events[-1]["type"] for events in later] == ["stop", "error"]
            assert later[1][-1]["code"] == "overloaded"

    asyncio.run(run())


async def _streaming(worker: Live) -> tuple[Any, str]:
    peer = await worker.peer()
    session = await peer.session(max_tokens=100_000)
    peer.send({"type": "generate", "session_id": session, "prompt": "go"})
    assert (await peer.line())["type"] == "token"
    # What comes from now on is short, so that it is read to its end.
    worker.engine.limit(2_000)
    return peer, session


def test_a_client_reads_no_more_prompts_than_a_lines_worth() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=100_000, timeout_ms=60_000)
            peer.send({"type": "generate", "session_id": session, "prompt": "go"})
            await worker.until(lambda: worker.sessions.busy == 1)
            for _ in range(10):
                peer.send({"type": "generate", "session_id": session, "prompt": "y" * 1_900_000})
            await worker.until(lambda: not next(iter(worker.worker.connections))._reading)
            assert worker.worker.held_bytes < 2 * MAX_LINE_BYTES

    asyncio.run(run())


def test_the_connection_that_is_idle_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)

    async def run() -> None:
        async with live() as worker:
            silent, asking = await worker.peer(), await worker.peer()
            await worker.until(lambda: len(worker.worker.connections) == 2)
            session = await asking.session(max_tokens=100_000)
            asking.send({"type": "generate", "session_id": session, "prompt": "x"})
            await asking.line()
            third = await worker.peer()
            assert (await third.ask({"type": "status"}))["ok"] is True
            fourth = await worker.peer()
            assert (await fourth.ask({"type": "status"}))["ok"] is True
            assert await silent.reader.read() == b""
            assert (await asking.line())["type"] == "token"

    asyncio.run(run())


def test_connections_that_are_all_at_work_are_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    async def run() -> None:
        async with live() as worker:
            for _ in range(2):
                peer = await worker.peer()
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                await peer.line()
            late = await worker.peer()
            refused = await late.line()
            assert (refused["ok"], refused["code"]) == (False, "overloaded")
            assert "2 connections are at work" in refused["error"]
            assert await late.reader.read() == b""

    asyncio.run(run())


HALVES = [
    (rb"a\ud83d", "A\ufffd"),
    (rb"\ud83d\ud83d\ude00 b", "\ufffd\U0001f600 B"),
    (rb"\ude00x", "\ufffdX"),
    (rb"\uD83Dx", "\ufffdX"),
    (rb"\ud83d\u0061", "\ufffdA"),
    (rb"\\ud83d", r"\UD83D"),
    (rb"\\\ud83d", "\\\ufffd"),
    (rb"\ud83d\ude00", "\U0001f600"),
]


@pytest.mark.parametrize(("prompt", "shown"), HALVES)
def test_half_a_character_is_read_as_the_sign_for_it(prompt: bytes, shown: str) -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=len(shown.split()))
            peer.send(
                b'{"type":"generate","session_id":"' + session.encode() + b'","prompt":"' + prompt + b'"}'
            )
            *tokens, last = await peer.events()
            assert last["type"] == "stop"
            assert "".join(event["text"] for event in tokens).strip() == shown
            peer.send(b'{"type":"create_session","params":{"system":"' + prompt + b'"}}')
            assert (await peer.line())["ok"] is True

    asyncio.run(run())
