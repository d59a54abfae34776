"""One client never holds up another: what each may hold of the worker, and who makes room."""

from __future__ import annotations

import asyncio
import json
import os
import socket
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
            assert "2 of 2 sessions are generating" in refused["error"]

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
            assert "2 connections are open, and none makes room" in refused["error"]
            assert await late.reader.read() == b""

    asyncio.run(run())


# --- what one client takes of it, others still get


def test_a_session_of_whoever_has_most_makes_room() -> None:
    """Another's idle session stays while one has more; where all generate, the one with most is told."""

    async def run() -> None:
        async with live(sessions=4) as worker:
            plain = (await worker.strangers(1))[0]
            kept = await plain.session(max_tokens=100_000)
            greedy = [await worker.peer() for _ in range(4)]
            theirs = [await peer.session(max_tokens=100_000) for peer in greedy]
            assert (await greedy[0].ask({"type": "abort", "session_id": theirs[0]}))[
                "code"
            ] == "unknown_session"
            for peer, session in ((plain, kept), *zip(greedy[1:], theirs[1:], strict=True)):
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                assert (await peer.line())["type"] == "token"
            other = (await worker.strangers(1))[0]
            made = await other.session(max_tokens=100_000)
            ended = (await greedy[3].events())[-1]
            assert (ended["type"], ended["code"]) == ("error", "overloaded")
            assert "the session's place went to a client that has fewer" in ended["message"]
            other.send({"type": "generate", "session_id": made, "prompt": "x"})
            assert (await other.line())["type"] == "token"
            refused = await greedy[3].ask({"type": "create_session", "params": {}})
            assert refused["code"] == "overloaded"
            assert "4 of 4 sessions are generating" in refused["error"]

    asyncio.run(run())


def test_closed_sessions_whose_streams_nobody_reads_make_room() -> None:
    async def run() -> None:
        async with live(sessions=2, slots=2, step_s=0.00001) as worker:
            deaf = [await worker.peer() for _ in range(2)]
            made = [await peer.session(max_tokens=1_000_000) for peer in deaf]
            for peer, session in zip(deaf, made, strict=True):
                peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: all(each._full for each in worker.worker.connections))
            other = await worker.peer()
            for session in made:
                assert await other.ask({"type": "close_session", "session_id": session}) == {"ok": True}
            for _ in range(2):
                created = await other.ask({"type": "create_session", "params": {}})
                assert created["ok"] is True, created
            assert (await other.ask({"type": "status"}))["sessions"] == 2
            for peer in deaf:  # who reads at last is told how it ended, and may ask again
                peer.reader._transport.resume_reading()  # type: ignore[attr-defined]
                last = (await peer.events())[-1]
                assert (last["type"], last["reason"]) == ("stop", "aborted")
                assert last["usage"]["completion_tokens"] > 100
                assert (await peer.ask({"type": "status"}))["ok"] is True

    asyncio.run(run())


def test_a_session_that_is_closed_makes_room_before_its_decode_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with live(sessions=1) as worker:
            peer, other = await worker.peer(), await worker.peer()
            session = await peer.session(max_tokens=100_000)
            peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            assert (await peer.line())["type"] == "token"
            monkeypatch.setattr(worker.engine, "abort", lambda session: None)  # a long decode
            assert await other.ask({"type": "close_session", "session_id": session}) == {"ok": True}
            created = await other.ask({"type": "create_session", "params": {}})
            assert created["ok"] is True, created
            assert (await peer.events())[-1]["reason"] == "aborted"
            assert (await other.ask({"type": "status"}))["sessions"] == 1

    asyncio.run(run())


def test_a_session_that_is_closed_while_a_schema_is_compiled_makes_room() -> None:
    async def run() -> None:
        async with live(sessions=1) as worker:
            peer, other = await worker.peer(), await worker.peer()
            session = await peer.session(json_schema={"type": "object"})
            worker.masks.gate.clear()
            peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: worker.sessions.preparing)
            other.send(
                {"type": "close_session", "session_id": session}, {"type": "create_session", "params": {}}
            )
            assert await other.line() == {"ok": True}
            created = await other.line()
            assert created["ok"] is True, created
            assert (await peer.line())["reason"] == "aborted"
            worker.masks.gate.set()
            await worker.until(lambda: not worker.sessions.preparing)
            assert worker.worker.metrics.ended["aborted"] == 1

    asyncio.run(run())


def test_the_only_session_of_another_stays_though_it_is_idle() -> None:
    async def run() -> None:
        async with live(sessions=4, slots=4) as worker:
            plain = (await worker.strangers(1))[0]
            kept = await plain.session(max_tokens=2)
            greedy = [await worker.peer() for _ in range(4)]
            for peer in greedy[:3]:
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                assert (await peer.line())["type"] == "token"
            refused = await greedy[3].ask({"type": "create_session", "params": {}})
            assert refused["ok"] is False, refused
            assert refused["code"] == "overloaded"
            assert "3 of 4 sessions are generating, and none makes room" in refused["error"]
            assert await plain.ask({"type": "abort", "session_id": kept}) == {"ok": True}

    asyncio.run(run())


def test_the_only_connection_of_another_stays_though_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)

    async def run() -> None:
        async with live(slots=4) as worker:
            plain = (await worker.strangers(1))[0]
            assert (await plain.ask({"type": "status"}))["ok"] is True
            for _ in range(2):
                peer = await worker.peer()
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                assert (await peer.line())["type"] == "token"
            late = await worker.peer()
            late.send({"type": "status"})
            refused = await late.line()
            assert (refused["ok"], refused.get("code")) == (False, "overloaded")
            assert "3 connections are open, and none makes room" in refused["error"]
            assert (await plain.ask({"type": "status"}))["ok"] is True

    asyncio.run(run())


def test_who_loses_a_session_does_not_take_the_place_back() -> None:
    """Behind its stream the one that has most asks for a session: it is not before the one that has fewer."""

    async def run() -> None:
        async with live(sessions=2, slots=2) as worker:
            greedy = [await worker.peer() for _ in range(2)]
            for peer in greedy:
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                assert (await peer.line())["type"] == "token"
            other = (await worker.strangers(1))[0]
            again = {"type": "create_session", "params": {}}
            greedy[1].send(again)
            await worker.until(lambda: any(each._pending for each in worker.worker.connections))
            created = await other.ask(again)
            assert created["ok"] is True, created
            assert "the session's place went to" in (await greedy[1].events())[-1]["message"]
            refused = await greedy[1].line()
            assert (refused["ok"], refused["code"]) == (False, "overloaded")
            assert (await other.ask({"type": "abort", "session_id": created["session_id"]}))["ok"] is True

    asyncio.run(run())


def test_a_connection_of_whoever_has_most_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)

    async def run() -> None:
        async with live(slots=8) as worker:
            idle = (await worker.strangers(1))[0]
            greedy = []
            for count in (2, 3, 4):
                greedy.append(await worker.peer())
                await worker.until(lambda count=count: len(worker.worker.connections) == count)
            other = (await worker.strangers(1))[0]  # the one of another that is idle for longer stays
            assert (await other.ask({"type": "status"}))["ok"] is True
            assert await greedy[0].reader.read() == b""
            for peer in (idle, other, *greedy[1:]):
                session = await peer.session(max_tokens=100_000)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                assert (await peer.line())["type"] == "token"
            third = (await worker.strangers(1))[0]
            ended = (await greedy[2].events())[-1]
            assert (ended["type"], ended["code"]) == ("error", "overloaded")
            assert "the connection's place went to a client that has fewer" in ended["message"]
            assert await greedy[2].reader.read() == b""
            assert (await third.ask({"type": "status"}))["ok"] is True
            await worker.until(lambda: worker.sessions.busy == 3)

    asyncio.run(run())


def test_a_client_that_does_not_read_makes_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    async def run() -> None:
        async with live(step_s=0.00001) as worker:
            for _ in range(2):
                peer = await worker.peer()
                session = await peer.session(max_tokens=1_000_000)
                peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: all(each._full for each in worker.worker.connections))
            other = (await worker.strangers(1))[0]
            assert (await other.ask({"type": "status"}))["ok"] is True
            await worker.until(lambda: worker.sessions.busy == 1 and len(worker.worker.connections) == 2)

    asyncio.run(run())


def test_a_connection_that_is_given_up_and_not_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has less unread than would pause its client, and yet too much to wait until that is read."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    async def run() -> None:
        async with live() as worker:
            peer, deaf = await worker.peer(), await worker.peer()
            session = await deaf.session(json_schema={"type": "object"})
            await worker.until(lambda: len(worker.worker.connections) == 2)
            given_up = max(worker.worker.connections, key=lambda each: each.made_s)
            transport = given_up._transport
            assert transport is not None
            deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
            while not transport.get_write_buffer_size():
                used_s = given_up.used_s
                deaf.send({"type": "status"})
                await worker.until(lambda used_s=used_s: given_up.used_s > used_s)
            worker.masks.gate.clear()
            deaf.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: worker.sessions.preparing)
            assert not given_up._full
            session = await peer.session(max_tokens=100_000)
            peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            assert (await peer.line())["type"] == "token"
            other = (await worker.strangers(1))[0]
            assert (await other.ask({"type": "status"}))["ok"] is True
            assert given_up not in worker.worker.connections
            assert transport.get_extra_info("socket").fileno() == -1
            worker.masks.gate.set()

    asyncio.run(run())


def test_many_small_lines_of_one_client_are_refused_before_a_large_one_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_HELD_BYTES", 1_000_000)

    async def run() -> None:
        async with live() as worker:
            plain = (await worker.strangers(1))[0]
            session = await plain.session(max_tokens=2)
            asked = json.dumps({"type": "generate", "session_id": session, "prompt": "x" * 300_000}).encode()
            plain.writer.write(asked)
            await worker.until(lambda: worker.worker.held_bytes == len(asked))
            flooding = [await worker.peer() for _ in range(10)]
            for peer in flooding:
                peer.writer.write(b"x" * 100_000)
            await worker.until(lambda: worker.worker.metrics.errors["overloaded"] >= 3)
            plain.writer.write(b"\n")
            assert (await plain.events())[-1]["reason"] == "length"

    asyncio.run(run())


def test_lines_that_wait_for_room_are_paid_for_by_whoever_sent_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines of a client that does not read cannot be refused: it loses a connection, others nothing."""
    monkeypatch.setattr(server, "MAX_HELD_BYTES", 300_000)

    async def run() -> None:
        async with live() as worker:
            plain = (await worker.strangers(1))[0]
            await worker.until(lambda: worker.worker.connections)
            (own,) = known = set(worker.worker.connections)
            flooding = []
            for _ in range(3):
                flooding.append(flood := socket.socket(socket.AF_UNIX))
                flood.connect(str(worker.path))
                await worker.until(lambda: worker.worker.connections - known)
                (made,) = worker.worker.connections - known
                known.add(made)
                assert flood.send(b"\n" * 200_000, socket.MSG_DONTWAIT) > 120_000
                await worker.until(
                    lambda made=made: made.held_bytes > 100_000 or made not in worker.worker.connections
                )
            plain.writer.write(b'{"type":' + b" " * 50_000)
            await plain.writer.drain()
            await worker.until(lambda: own.refusable_bytes > 50_000 or own._skipping)
            assert not own._skipping
            assert worker.worker.held_bytes <= 300_000
            plain.writer.write(b'"status"}\n')
            assert (await plain.line())["ok"] is True
            for flood in flooding:
                flood.close()
            await worker.until(lambda: worker.worker.held_bytes == 0)

    asyncio.run(run())


def test_generations_are_counted_for_the_process_that_asks() -> None:
    async def run() -> None:
        async with live() as worker:
            for peer in (await worker.peer(), *await worker.strangers(1)):
                session = await peer.session(max_tokens=2)
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
                await peer.events()
            (user, own), (other_user, other) = worker.engine.clients
            assert (user, own, other_user) == (os.getuid(), os.getpid(), os.getuid())
            assert other not in (0, own)

    asyncio.run(run())
