"""Requests of the worker's socket: what their parameters may be, and the ways in which clients send them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .live import live

#: A parameter and values that it must not have; the same on create_session and on generate.
WRONG_PARAMS: dict[str, list[Any]] = {
    "max_tokens": [0, -1, 1.5, "8", True, []],
    "temperature": [-0.1, "hot", [1], False],
    "top_k": [-1, 0.5, "64"],
    "top_p": [0, 1.01, "1"],
    "min_p": [-0.1, 1.1, {}],
    "repeat_penalty": [0, -1, "1"],
    "seed": [-2, 4_294_967_296, 1.5, "7"],
    "stop": ["text", [""], ["x" * 257], [1], ["a"] * 17],
    "json_schema": ["{}", [], 1],
    "grammar": ["", 7, "x" * 65_537],
    "timeout_ms": [0, 3_600_001, "1000"],
    "maxTokens": [8],
    "temprature": [0.5],
}


@pytest.mark.parametrize("name", WRONG_PARAMS)
def test_parameters_are_checked_where_a_session_is_created_and_where_it_is_asked(name: str) -> None:
    """Refused before it has any effect, naming the field; no session is made of it."""

    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=1)
            asked = {"type": "generate", "session_id": session, "prompt": "x"}
            for value in WRONG_PARAMS[name]:
                for request in ({"type": "create_session"}, asked):
                    answer = await peer.ask({**request, "params": {name: value}})
                    assert (answer["ok"], answer["code"]) == (False, "bad_request"), value
                    assert name in answer["error"]
            assert len(worker.sessions) == 1
            assert worker.sessions.busy == 0
            peer.send(asked)
            assert (await peer.events())[-1]["reason"] == "length"

    asyncio.run(run())


@pytest.mark.parametrize("params", ["x", [], 7])
def test_params_are_an_object(params: Any) -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            answer = await peer.ask({"type": "create_session", "params": params})
            assert (answer["ok"], answer["code"]) == (False, "bad_request")
            assert len(worker.sessions) == 0

    asyncio.run(run())


def test_a_sessions_schema_is_that_of_its_generations() -> None:
    """It is compiled when it is needed: create_session answers at once, generate refuses what cannot be
    enforced, and the request's own grammar puts the session's schema aside."""

    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=2, json_schema={"nonsense": 1})
            asked = {"type": "generate", "session_id": session, "prompt": "x", "stream": False}
            assert (await peer.ask(asked))["code"] == "schema_unsupported"
            answer = await peer.ask({**asked, "params": {"grammar": 'root ::= "x"'}})
            assert answer["stop_reason"] == "length"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"type":"create_session","params":{"temperature":1e999}}', "params.temperature"),
        (b'{"type":"create_session","params":{"seed":' + b"9" * 4000 + b"}}", "params.seed"),
    ],
)
def test_a_number_that_nothing_holds_is_refused_by_its_name(line: bytes, field: str) -> None:
    async def run() -> None:
        async with live() as worker:
            answer = await (await worker.peer()).ask(line)
            assert (answer["ok"], answer["code"]) == (False, "bad_request")
            assert field in answer["error"]

    asyncio.run(run())


def test_a_schema_that_is_too_large_is_not_kept() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            large: dict[str, Any] = {"enum": [{} for _ in range(60_000)]}
            answer = await peer.ask({"type": "create_session", "params": {"json_schema": large}})
            assert (answer["ok"], answer["code"]) == (False, "schema_unsupported")
            assert "131072 bytes" in answer["error"]
            assert len(worker.sessions) == 0

    asyncio.run(run())


def test_a_new_connection_for_every_request() -> None:
    """How FazAI's Node client talks: it reads up to `stop`, and every request has a connection of its own."""

    async def run() -> None:
        async with live() as worker:

            async def once(message: Any) -> list[dict[str, Any]]:
                peer = await worker.peer()
                peer.send(message)
                found = await peer.events()
                peer.close()
                return found

            (status,) = await once({"type": "status"})
            assert (status["ok"], status["status"]) == (True, "running")
            (made,) = await once({"type": "create_session", "params": {"max_tokens": 4}})
            asked = {"type": "generate", "session_id": made["session_id"], "prompt": "a b", "stream": True}
            for _ in range(3):
                *tokens, last = await once(asked)
                assert "".join(token["text"] for token in tokens) == "A B 2 3 "
                assert last["reason"] == "length"
            assert last["usage"]["cached_tokens"] > 0  # one conversation over several connections
            (done,) = await once({"type": "abort", "session_id": made["session_id"]})
            assert done == {"ok": True}
            (done,) = await once({"type": "close_session", "session_id": made["session_id"]})
            assert done == {"ok": True}
            (gone,) = await once(asked)
            assert (gone["type"], gone["code"]) == ("error", "unknown_session")
            await worker.until(lambda: not worker.worker.connections)

    asyncio.run(run())


def test_metrics_are_said_where_they_are_asked_for() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            assert "metrics" not in await peer.ask({"type": "status"})
            await peer.ask(b"nonsense")
            text = (await peer.ask({"type": "status", "metrics": True}))["metrics"]
            assert 'fazai_worker_errors_total{code="bad_json"} 1.0' in text
            assert "fazai_worker_sessions 0.0" in text
            assert (await peer.ask({"type": "status", "metrics": 1}))["code"] == "bad_request"

    asyncio.run(run())


def test_text_that_is_no_utf_8_within_a_line_of_a_megabyte() -> None:
    async def run() -> None:
        async with live() as worker:
            peer = await worker.peer()
            session = await peer.session(max_tokens=1)
            head = f'{{"type":"generate","session_id":"{session}","prompt":"'.encode()
            for text, code in (
                (b"\xff" + b"x" * (1 << 20), "bad_json"),
                (b"x" * (1 << 20) + b"\xc3", "bad_json"),  # half a character at the end
                (b"\xed\xa0\x80", "bad_json"),  # a surrogate
                (b"x" * 2_000_001, "bad_request"),  # one more than a prompt may have
            ):
                answer = await peer.ask(head + text + b'"}')
                assert (answer["ok"], answer["code"]) == (False, code), answer
            answer = await peer.ask(head + "é\\u0000".encode() + b'","stream":false}')
            assert answer["stop_reason"] == "length"

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
