"""/agent/*: over the worker's real socket with an engine without a model, and without a worker."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fazai.wire.events import DoneEvent, ErrorEvent, TokenEvent
from tests.daemon.live import PATIENCE_S, Events, Live, live, stream, token, until
from tests.worker.live import live as worker_live


@pytest.fixture(scope="module")
def worker() -> Iterator[Path]:
    """A worker in a thread; its socket."""
    ready, found = threading.Event(), []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        async with worker_live() as made:
            found.append(made.path)
            loops.append((asyncio.get_running_loop(), asyncio.Event()))
            ready.set()
            await loops[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    yield found[0]
    loops[0][0].call_soon_threadsafe(loops[0][1].set)
    thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def daemon(worker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("agent"), gemma_socket=worker) as found:
        yield found


def _open(client: httpx.Client, **params: object) -> str:
    answer = client.post("/agent/sessions", json={"params": params, "plain": True})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["session_id"])


def test_an_iteration_streams_and_is_in_the_log(daemon: Live) -> None:
    with daemon.client() as client, daemon.client() as other:
        session = _open(client, max_tokens=5)
        with stream(other, f"?session={session}") as log:
            body = {"session_id": session, "objective": "one two", "history": ["zero", {"a": 1}]}
            with client.stream("POST", "/agent/generate", json=body) as answer:
                assert answer.headers["content-type"] == "text/event-stream"
                frames = Events(answer).rest()
            assert (
                "".join(f.event.text for f in frames if isinstance(f.event, TokenEvent)).split()[0] == "ZERO"
            )
            last = frames[-1].event
            assert isinstance(last, DoneEvent)
            assert last.result["stop_reason"] == "length"
            assert last.result["usage"]["completion_tokens"] == 5
            assert log.take(len(frames)) == frames


def test_abort_from_another_connection(daemon: Live) -> None:
    with daemon.client() as client, daemon.client() as other:
        session = _open(client, max_tokens=1_000_000)
        body = {"session_id": session, "objective": "long"}
        with client.stream("POST", "/agent/generate", json=body) as answer:
            events = Events(answer)
            assert isinstance(events.next().event, TokenEvent)
            busy = other.post("/agent/generate", json=body)
            assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
            assert other.post("/agent/abort", json={"session_id": session}).json() == {"ok": True}
            last = events.rest()[-1].event
        assert isinstance(last, DoneEvent)
        assert last.result == {"stop_reason": "aborted"}
        with client.stream("POST", "/agent/generate", json={**body, "objective": "again"}) as answer:
            assert isinstance(Events(answer).next().event, TokenEvent)  # the session is free


def test_a_client_that_goes_away_aborts(daemon: Live) -> None:
    with daemon.client() as client:
        session = _open(client, max_tokens=1_000_000)
        with client.stream(
            "POST", "/agent/generate", json={"session_id": session, "objective": "x"}
        ) as answer:
            Events(answer).next()
    sessions = daemon.services.sessions
    until(lambda: sessions._open[session].running is None)


def test_refusals(daemon: Live) -> None:
    with daemon.client() as client:
        for path, body, status, code in (
            ("/agent/generate", {"session_id": "s-none", "objective": "x"}, 404, "unknown_session"),
            ("/agent/abort", {"session_id": "s-none"}, 404, "unknown_session"),
            ("/agent/generate", {"session_id": "s"}, 422, "bad_request"),
            ("/agent/sessions", {"parameters": {}}, 422, "bad_request"),
            ("/agent/sessions", {"params": {"json_schema": {}, "grammar": "x"}}, 422, "bad_request"),
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert client.get("/agent/status").json()["gemma_worker"] == "available"


def test_without_a_worker(tmp_path: Path) -> None:
    with live(tmp_path, gemma_socket=tmp_path / "none.sock") as daemon, daemon.client() as client:
        status = client.get("/agent/status").json()
        assert (status["agent_system"], status["gemma_worker"]) == ("running", "unavailable")
        assert status["limits"]["max_body_bytes"] == 1 << 20
        answer = client.post("/agent/sessions", json={"plain": True})
        assert (answer.status_code, answer.json()["code"]) == (503, "worker_unavailable")
        assert "retry-after" in answer.headers


def test_a_worker_that_dies_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    async def serve(path: Path, ready: threading.Event, stop: threading.Event) -> None:
        async with worker_live(step_s=0.01) as made:
            os.symlink(made.path, path)
            ready.set()
            await asyncio.to_thread(stop.wait)

    path, ready, stop = tmp_path / "gemma.sock", threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(path, ready, stop)))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        with live(tmp_path, gemma_socket=path) as daemon, daemon.client() as client:
            session = _open(client, max_tokens=1_000_000)
            body = {"session_id": session, "objective": "x"}
            with client.stream("POST", "/agent/generate", json=body) as answer:
                events = Events(answer)
                events.next()
                stop.set()
                last = events.rest()[-1].event
            assert isinstance(last, ErrorEvent)
            assert last.code == "worker_unavailable"
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def test_a_session_belongs_to_who_opened_it(worker: Path, tmp_path: Path) -> None:
    texts = {name: token(tmp_path, name, "operator") for name in ("ana", "bob")}
    with (
        live(tmp_path, gemma_socket=worker) as daemon,
        daemon.client(texts["ana"]) as ana,
        daemon.client(texts["bob"]) as bob,
    ):
        session = _open(ana, max_tokens=1_000_000)
        body = {"session_id": session, "objective": "long"}
        with ana.stream("POST", "/agent/generate", json=body) as answer:
            events = Events(answer)
            assert isinstance(events.next().event, TokenEvent)
            for path, asked in (("/agent/abort", {"session_id": session}), ("/agent/generate", body)):
                refused = bob.post(path, json=asked)
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
                assert "the session is another's" in refused.json()["error"]
            assert ana.post("/agent/abort", json={"session_id": session}).json() == {"ok": True}
            last = events.rest()[-1].event
            assert isinstance(last, DoneEvent)
            assert last.result == {"stop_reason": "aborted"}
        lines = [json.loads(line) for line in daemon.log().splitlines()]
    said = [(line["message"], line["agent_id"]) for line in lines if line.get("session_id") == session]
    assert said == [
        ("token:ana opened a session", "gemma-1"),
        ("an iteration begins, for token:ana", "gemma-1"),
        ("token:ana aborts the iteration", "gemma-1"),
        ("the iteration ended: aborted", "gemma-1"),
    ]
