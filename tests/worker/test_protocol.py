"""The worker's section of SPEC.md on a real socket: framing, order, backpressure, abort."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from fazai.wire.worker import decode_worker_event
from tests.contract import WORKER_CODES

from .fake import CONTEXT
from .live import Live, live

SPEC = (Path(__file__).parents[2] / "SPEC.md").read_text()
VALID = re.findall(r"^```json worker\.request (\w+)\n(.+)\n```", SPEC, re.MULTILINE)
REFUSED = re.findall(r"^```json-refused worker\.request (\w+)\n(.+)\n```", SPEC, re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert {kind for kind, _ in VALID} >= {"create_session", "generate", "generate_stream", "abort", "status"}
    assert {code for code, _ in REFUSED} >= {"bad_json", "unknown_type", "bad_request"}


@pytest.mark.parametrize(("kind", "text"), VALID)
def test_each_request_of_the_page(kind: str, text: str) -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=3)
            peer.send(text.replace("s-7f3a", session).encode())
            if kind.startswith("generate"):
                *tokens, last = await peer.events()
                assert tokens
                assert last["type"] == "stop"
                assert last["usage"]["completion_tokens"] >= 3
            else:
                assert (await peer.line())["ok"] is True

    asyncio.run(run())


@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_each_refusal_of_the_page_leaves_the_connection_usable(code: str, text: str) -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            answer = await peer.ask(text.encode())
            assert answer["ok"] is False
            assert answer["code"] == code
            assert answer["error"]
            assert (await peer.ask({"type": "status"}))["ok"] is True

    asyncio.run(run())


BAD = [
    (b"\xff\xfe{}", "bad_json"),
    (b'{"type":"status","type":"status"', "bad_json"),
    (b"[]", "bad_request"),
    (b"", "bad_json"),
    (b'{"type":"status","more":1}', "bad_request"),
    (b'{"type":7}', "bad_request"),
    (b'{"type":"generate","session_id":"s"}', "bad_request"),
    (b'{"type":"generate","session_id":"a b","prompt":""}', "bad_request"),
    (b'{"type":"generate_stream","session_id":"s","prompt":"","stream":false}', "bad_request"),
    (b'{"type":"create_session","params":{"temperature":-1}}', "bad_request"),
    (b'{"type":"create_session","params":{"stop":["' + b"x" * 257 + b'"]}}', "bad_request"),
    (b'{"type":"abort","session_id":"s-none"}', "unknown_session"),
    (b'{"type":"close_session","session_id":"s-none"}', "unknown_session"),
    (b'{"type":"generate","session_id":"s-none","prompt":"x","stream":false}', "unknown_session"),
]


@pytest.mark.parametrize(("line", "code"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_is_refused(line: bytes, code: str) -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            answer = await peer.ask(line)
            assert (answer["ok"], answer["code"]) == (False, code)
            assert answer["code"] in WORKER_CODES
            assert (await peer.ask({"type": "status"}))["sessions"] == 0

    asyncio.run(run())


def test_a_stream_that_fails_ends_with_an_error_event() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            event = await peer.ask({"type": "generate", "session_id": "s-none", "prompt": "x"})
            assert event["type"] == "error"
            assert event["code"] == "unknown_session"
            session = await peer.session(json_schema={"nonsense": 1})
            event = await peer.ask({"type": "generate", "session_id": session, "prompt": "x"})
            assert (event["type"], event["code"]) == ("error", "schema_unsupported")
            session = await peer.session(json_schema={"broken": 1})
            event = await peer.ask({"type": "generate", "session_id": session, "prompt": "x"})
            assert (event["type"], event["code"]) == ("error", "internal")
            session = await peer.session()
            event = await peer.ask(
                {"type": "generate", "session_id": session, "prompt": "x " * (CONTEXT // 2)}
            )
            assert (event["type"], event["code"]) == ("error", "context_full")
            assert worker.sessions.busy == 0

    asyncio.run(run())


def test_a_stream_and_an_answer_say_the_same() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            first, second = await peer.session(max_tokens=9), await peer.session(max_tokens=9)
            peer.send({"type": "generate", "session_id": first, "prompt": "two words"})
            *tokens, last = await peer.events()
            for event in (*tokens, last):
                decode_worker_event(json.dumps(event))
            whole = await peer.ask(
                {"type": "generate", "session_id": second, "prompt": "two words", "stream": False}
            )
            assert whole["ok"] is True
            assert whole["text"] == "".join(event["text"] for event in tokens) == "TWO WORDS 2 3 4 5 6 7 8 "
            assert (whole["usage"], whole["stop_reason"]) == (last["usage"], last["reason"])
            assert last["reason"] == "length"

    asyncio.run(run())


def test_parameters_of_the_request_win_over_the_sessions() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=50, stop=["5"])
            peer.send({"type": "generate", "session_id": session, "prompt": "a"})
            assert (await peer.events())[-1]["reason"] == "stop"
            peer.send({"type": "generate", "session_id": session, "prompt": "b", "params": {"max_tokens": 2}})
            last = (await peer.events())[-1]
            assert last["reason"] == "length"
            assert last["usage"]["cached_tokens"] > 0

    asyncio.run(run())


def test_byte_by_byte_and_glued() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            for byte in b'{"type":"status"}\n':
                peer.writer.write(bytes([byte]))
                await peer.writer.drain()
                await asyncio.sleep(0)
            assert (await peer.line())["status"] == "running"
            session = await peer.session(max_tokens=2)
            generate = {"type": "generate", "session_id": session, "prompt": "x"}
            glued = b"".join(json.dumps(m).encode() + b"\n" for m in (generate, {"type": "status"}, generate))
            peer.writer.write(glued + b'{"type":"sta')
            assert (await peer.events())[-1]["type"] == "stop"
            assert (await peer.line())["ok"] is True
            assert (await peer.events())[-1]["type"] == "stop"
            peer.writer.write(b'tus"}\n')
            assert (await peer.line())["ok"] is True

    asyncio.run(run())


def test_lines_of_a_megabyte_and_one_that_is_too_long() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=1)
            prompt = "é" * 300_000 + " x"
            answer = await peer.ask(
                {"type": "generate", "session_id": session, "prompt": prompt, "stream": False}
            )
            assert answer["usage"]["prompt_tokens"] > 300_000
            answer = await peer.ask(b'{"type":"status"' + b" " * (5 << 20) + b"}")
            assert (answer["ok"], answer["code"]) == (False, "bad_request")
            assert (await peer.ask({"type": "status"}))["ok"] is True

    asyncio.run(run())


async def _start(worker: Live, tokens: int = 100_000) -> tuple[Any, str]:
    peer = await worker.peer()
    session = await peer.session(max_tokens=tokens)
    peer.send({"type": "generate", "session_id": session, "prompt": "go"})
    assert (await peer.line())["type"] == "token"
    return peer, session


def test_abort_from_this_and_from_another_connection() -> None:
    async def run() -> None:
        async with live() as worker:
            peer, session = await _start(worker)
            peer.send({"type": "abort", "session_id": session})
            assert (await peer.events())[-1]["reason"] == "aborted"
            assert await peer.line() == {"ok": True}  # its own answer follows
            peer.send({"type": "generate", "session_id": session, "prompt": "again"})
            await peer.line()
            other = await worker.peer()
            assert await other.ask({"type": "abort", "session_id": session}) == {"ok": True}
            assert (await peer.events())[-1]["reason"] == "aborted"
            assert await other.ask({"type": "abort", "session_id": session}) == {"ok": True}

    asyncio.run(run())


def test_a_busy_session_and_one_that_is_closed_while_it_runs() -> None:
    async def run() -> None:
        async with live() as worker:
            peer, session = await _start(worker)
            other = await worker.peer()
            answer = await other.ask(
                {"type": "generate", "session_id": session, "prompt": "x", "stream": False}
            )
            assert answer["code"] == "session_busy"
            assert await other.ask({"type": "close_session", "session_id": session}) == {"ok": True}
            assert (await peer.events())[-1]["reason"] == "aborted"
            assert (await other.ask({"type": "abort", "session_id": session}))["code"] == "unknown_session"
            assert (await other.ask({"type": "status"}))["sessions"] == 0

    asyncio.run(run())


def test_the_end_of_a_connection_aborts_its_generation() -> None:
    async def run() -> None:
        async with live() as worker:
            peer, session = await _start(worker)
            peer.close()
            await worker.until(lambda: worker.sessions.busy == 0)
            assert worker.engine.aborts == 1
            again = await worker.peer()  # the session lives on, for another connection
            answer = await again.ask(
                {
                    "type": "generate",
                    "session_id": session,
                    "prompt": "x",
                    "stream": False,
                    "params": {"max_tokens": 1},
                }
            )
            assert answer["usage"]["cached_tokens"] > 0

    asyncio.run(run())


def test_a_half_closed_connection_gets_its_answers_and_its_end_is_noticed() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=40)
            peer.send({"type": "generate", "session_id": session, "prompt": "x"}, {"type": "status"})
            peer.writer.write_eof()
            assert (await peer.events())[-1]["reason"] == "length"
            assert (await peer.line())["ok"] is True
            assert await peer.reader.read() == b""
            peer, session = await _start(worker)
            peer.writer.write_eof()
            await peer.line()
            peer.close()
            await worker.until(lambda: worker.sessions.busy == 0)

    asyncio.run(run())


def test_a_last_line_without_an_end_is_said() -> None:
    async def run() -> None:
        async with live() as worker:
            for last, wanted in ((b'{"type":"status"}', "no end"), (b" " * (5 << 20), "at most")):
                peer = await worker.peer()
                peer.send({"type": "status"})
                peer.writer.write(last)
                peer.writer.write_eof()
                assert (await peer.line())["status"] == "running"
                refused = await peer.line()
                assert refused["ok"] is False
                assert wanted in refused["error"]
                assert await peer.reader.read() == b""
            peer = await worker.peer()  # nothing was begun: nothing to say
            peer.writer.write_eof()
            assert await peer.reader.read() == b""

    asyncio.run(run())


def test_overloaded_says_how_many_wait() -> None:
    async def run() -> None:
        async with live(slots=1, queue=2, sessions=5) as worker:
            peers = [await worker.peer() for _ in range(5)]
            sessions = [await peer.session(max_tokens=100_000) for peer in peers]
            for peer, session in zip(peers[:3], sessions, strict=False):
                peer.send({"type": "generate", "session_id": session, "prompt": "x"})
            await worker.until(lambda: worker.sessions.busy == 3)
            event = await peers[3].ask({"type": "generate", "session_id": sessions[3], "prompt": "x"})
            assert (event["type"], event["code"]) == ("error", "overloaded")
            assert re.search(r"\d generations wait", event["message"])

    asyncio.run(run())


def test_a_slow_reader_stalls_only_itself() -> None:
    async def run() -> None:
        async with live(slots=2, step_s=0.00001) as worker:
            slow = socket.socket(socket.AF_UNIX)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(str(worker.path))
            slow.setblocking(False)
            peer = await worker.peer()
            session = await peer.session(max_tokens=1_000_000, timeout_ms=3_600_000)
            slow.send(json.dumps({"type": "generate", "session_id": session, "prompt": "x"}).encode() + b"\n")
            stalled = 0
            made = -1
            async with asyncio.timeout(60):
                while stalled < 20:  # it makes no more, for nobody takes it
                    await asyncio.sleep(0.01)
                    now = next(iter(worker.engine._sessions.values())).made
                    stalled = stalled + 1 if now == made and now > 100 else 0
                    made = now
            other = await peer.session(max_tokens=300)
            peer.send({"type": "generate", "session_id": other, "prompt": "quick"})
            assert (await peer.events())[-1]["reason"] == "length"
            slow.close()
            await worker.until(lambda: worker.sessions.busy == 0)

    asyncio.run(run())


def test_two_hundred_connections() -> None:
    async def run() -> None:
        async with live(slots=4, queue=300, sessions=300, step_s=0.00005) as worker:

            async def one(number: int) -> str:
                peer = await worker.peer()
                session = await peer.session(max_tokens=12)
                peer.send({"type": "generate_stream", "session_id": session, "prompt": f"client{number}"})
                text = "".join(event.get("text", "") for event in await peer.events())
                assert await peer.ask({"type": "close_session", "session_id": session}) == {"ok": True}
                peer.close()
                return text

            texts = await asyncio.gather(*(one(number) for number in range(200)))
            assert all(text.startswith(f"CLIENT{number} 1 2") for number, text in enumerate(texts))
            assert worker.engine.most_running == 4
            await worker.until(lambda: not worker.worker.connections)
            assert len(worker.sessions) == 0

    asyncio.run(run())


def test_pipelined_requests_are_bounded_and_answered_in_order() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=2)
            wanted = 500

            async def send() -> None:
                for number in range(wanted):
                    peer.send(
                        {"type": "generate", "session_id": session, "prompt": f"n{number}", "stream": False}
                    )
                    await peer.writer.drain()

            task = asyncio.create_task(send())
            for number in range(wanted):
                assert (await peer.line())["text"].startswith(f"N{number} ")
            await task

    asyncio.run(run())


def test_a_flood_of_lines_is_answered_no_faster_than_it_is_read() -> None:
    """A packet may hold thousands of lines; their answers must not gather in memory, nor hold up anybody."""

    async def run() -> None:
        async with live() as worker:
            flood = socket.socket(socket.AF_UNIX)
            flood.connect(str(worker.path))
            flood.setblocking(False)
            loop, lines = asyncio.get_running_loop(), 60_000
            sending = asyncio.create_task(loop.sock_sendall(flood, b"\n" * lines))
            await worker.until(lambda: worker.worker.connections)
            (connection,) = worker.worker.connections
            await worker.until(lambda: connection._full)
            transport = connection._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 128 * 1024
            other = await worker.peer()
            assert (await other.ask({"type": "status"}))["ok"] is True
            answered = 0
            async with asyncio.timeout(60):
                while answered < lines:
                    answered += (await loop.sock_recv(flood, 1 << 20)).count(b"\n")
                    assert transport.get_write_buffer_size() < 128 * 1024
            await sending
            assert answered == lines
            flood.close()

    asyncio.run(run())


def test_a_client_that_does_not_read_may_abort() -> None:
    async def run() -> None:
        async with live(step_s=0.00001) as worker:
            deaf = socket.socket(socket.AF_UNIX)
            deaf.connect(str(worker.path))
            peer = await worker.peer()
            session = await peer.session(max_tokens=1_000_000, timeout_ms=3_600_000)
            for kind in ("generate", "abort"):
                if kind == "abort":
                    await worker.until(lambda: any(found._full for found in worker.worker.connections))
                more = {"prompt": "x"} if kind == "generate" else {}
                deaf.send(json.dumps({"type": kind, "session_id": session, **more}).encode() + b"\n")
            await worker.until(lambda: worker.engine.aborts == 1)
            deaf.close()
            await worker.until(lambda: worker.sessions.busy == 0)

    asyncio.run(run())


def test_starting_and_stopping() -> None:
    async def run() -> None:
        async with live(loaded=False) as worker:
            peer = await worker.peer()
            status = await peer.ask({"type": "status"})
            assert (status["status"], status["model"]) == ("starting", None)
            assert (await peer.ask({"type": "create_session", "params": {}}))["code"] == "overloaded"
        async with live() as worker:
            peer, _ = await _start(worker, 400)
            worker.sessions.draining = True
            other = await worker.peer()
            assert (await other.ask({"type": "status"}))["status"] == "stopping"
            assert (await other.ask({"type": "create_session", "params": {}}))["code"] == "overloaded"
            await worker.sessions.wait_idle(60)
            assert (await peer.events())[-1]["reason"] == "length"  # what ran has ended by itself

    asyncio.run(run())


def test_sessions_that_nobody_closes_go_when_they_are_old() -> None:
    async def run() -> None:
        async with live(sessions=3, idle_s=0.0) as worker:
            peer = await worker.peer()
            for _ in range(20):
                await peer.session()
            assert len(worker.sessions) == 1

    asyncio.run(run())


def test_an_end_while_a_schema_is_compiled() -> None:
    """The end of the generation before must not be taken for that of the one that is being prepared."""

    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=3)
            asked = {"type": "generate", "session_id": session, "prompt": "x"}
            peer.send(asked)
            await peer.events()
            worker.masks.gate.clear()
            params: dict[str, Any] = {"json_schema": {"type": "object"}}
            constrained = {**asked, "params": params}
            peer.send(constrained)
            await worker.until(lambda: worker.sessions.busy == 1)
            other = await worker.peer()
            assert (await other.ask({**asked, "stream": False}))["code"] == "session_busy"
            worker.sessions.on_ready()
            assert worker.sessions.busy == 1
            await other.ask({"type": "abort", "session_id": session})
            nothing = {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}
            assert await peer.line() == {"type": "stop", "reason": "aborted", "usage": nothing}
            assert worker.sessions.preparing  # it goes on, and nobody waits for it
            late = {**asked, "params": {**params, "timeout_ms": 50}}
            assert await peer.ask(late) == {"type": "stop", "reason": "timeout", "usage": nothing}
            peer.send(constrained)
            await worker.until(lambda: worker.sessions.busy == 1)
            peer.close()
            await worker.until(lambda: worker.sessions.busy == 0)
            worker.masks.gate.set()
            await worker.until(lambda: not worker.sessions.preparing)
            assert worker.masks.compiled == 1
            assert (await other.ask({**asked, "stream": False}))["stop_reason"] == "length"

    asyncio.run(run())
