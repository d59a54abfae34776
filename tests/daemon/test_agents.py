"""GET /agents: the daemon and its worker in the states of their life cycle; the worker's life and death as
the daemon sees it, with a worker that is a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fazai.daemon import agent_states
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.wire.events import AgentEvent, DoneEvent, ErrorEvent, TokenEvent
from tests.worker.openai import Completions, completions
from tests.worker.process import Process, without_model

from .live import PATIENCE_S, Events, live, stream, until


def _row(client: httpx.Client, name: str) -> dict[str, Any]:
    answer = client.get(f"/agents/{name}")
    assert answer.status_code == 200, answer.text
    row = answer.json()["agent"]
    assert name in [one["agent_id"] for one in client.get("/agents").json()["agents"]]
    return dict(row)


def _up(client: httpx.Client) -> float:
    """The gauge, as Prometheus reads it."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    (sample,) = (
        one for family in families for one in family.samples if one.name == agent_states.WORKER_UP.name
    )
    return float(sample.value)


def _open(client: httpx.Client) -> str:
    answer = client.post("/agent/sessions", json={"params": {"max_tokens": 1_000_000}, "plain": True})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["session_id"])


def test_the_daemon_and_a_worker_that_is_not_there(tmp_path: Path) -> None:
    with live(tmp_path, gemma_socket=tmp_path / "none.sock") as daemon, daemon.client() as client:
        until(lambda: "last_error" in _row(client, agent_states.WORKER))
        worker, itself = _row(client, agent_states.WORKER), _row(client, agent_states.DAEMON)
        assert (worker["state"], worker["protocol"]) == ("registration", "unix")
        assert "does not answer" in worker["last_error"]
        assert "last_seen" not in worker
        assert (itself["state"], itself["protocol"]) == ("observation", "http")
        assert itself["version"] == client.get("/health").json()["version"]
        assert client.get("/agents/none").json()["code"] == "not_found"
        assert agent_states.WORKER_UP.name not in client.get("/metrics").text  # none at all is a choice


def test_a_worker_that_is_killed_in_mid_stream_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_states, "_LOOK_S", 0.1)
    model = tmp_path / "none.gguf"
    model.write_bytes(b"")
    with live(tmp_path, gemma_socket=tmp_path / "gemma.sock") as daemon, daemon.client() as client:
        with Process(without_model(), model, tmp_path) as worker, stream(client, "?types=agent") as log:
            worker.told("READY=1")
            other = daemon.client()
            until(lambda: _row(other, agent_states.WORKER)["state"] == "observation")
            session = _open(other)
            body = {"session_id": session, "objective": "x"}
            with other.stream("POST", "/agent/generate", json=body) as answer:
                events = Events(answer)
                assert isinstance(events.next().event, TokenEvent)
                third = daemon.client()
                assert _row(third, agent_states.WORKER)["state"] == "execution"
                assert _row(third, agent_states.DAEMON)["state"] == "execution"
                worker.child.send_signal(signal.SIGKILL)
                last = events.rest()[-1].event
            assert isinstance(last, ErrorEvent)
            assert last.code == "worker_unavailable"
            assert "the connection ended" in last.message
            until(lambda: _row(third, agent_states.WORKER)["state"] == "closing")
            assert _up(third) == 0
            gone = _row(third, agent_states.WORKER)
            assert gone["closed_at"]
            assert _row(third, agent_states.DAEMON)["state"] == "observation"
            told = [frame.event for frame in log.take(2)]
            assert [(one.agent_id, one.state) for one in told if isinstance(one, AgentEvent)] == [
                (agent_states.WORKER, "observation"),
                (agent_states.WORKER, "closing"),
            ]
        (tmp_path / "gemma.sock").unlink(missing_ok=True)
        with Process(without_model(), model, tmp_path) as worker:
            worker.told("READY=1")
            until(lambda: _row(third, agent_states.WORKER)["state"] == "observation")
            assert "closed_at" not in _row(third, agent_states.WORKER)
            assert _up(third) == 1
            again = third.post("/agent/generate", json=body)  # the worker knows nothing of the session
            assert "unknown_session" in again.text
            session = _open(third)
            with third.stream(
                "POST", "/agent/generate", json={"session_id": session, "objective": "x"}
            ) as answer:
                assert isinstance(Events(answer).next().event, TokenEvent)
        other.close()
        third.close()


@contextmanager
def _endpoint() -> Iterator[Completions]:
    """An OpenAI-compatible server on a loop of its own."""
    ready, made = threading.Event(), []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        async with completions(["It ", "drifts."]) as found:
            made.append(found)
            loops.append((asyncio.get_running_loop(), asyncio.Event()))
            ready.set()
            await loops[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield made[0]
    finally:
        loops[0][0].call_soon_threadsafe(loops[0][1].set)
        thread.join(PATIENCE_S)


def test_the_fallback_answers_while_the_worker_is_away(tmp_path: Path) -> None:
    with _endpoint() as found:
        fallback = FallbackEndpoint(found.url, "small", "sesame")
        with (
            live(tmp_path, gemma_socket=tmp_path / "none.sock", fallback=fallback) as daemon,
            daemon.client() as client,
        ):
            session = _open(client)
            for _ in range(2):
                body = {"session_id": session, "objective": "Why?"}
                with client.stream("POST", "/agent/generate", json=body) as answer:
                    frames = Events(answer).rest()
                texts = [frame.event.text for frame in frames if isinstance(frame.event, TokenEvent)]
                assert "".join(texts) == "It drifts."
                last = frames[-1].event
                assert isinstance(last, DoneEvent)
                assert last.result["usage"]["completion_tokens"] == 2
            assert found.keys == ["Bearer sesame"] * 2
            assert found.asked[0]["model"] == "small"
            assert len(found.asked[1]["messages"]) > len(found.asked[0]["messages"])  # it remembers
            assert "sesame" not in daemon.log()
            found.status, found.body = 500, b'{"error":{"message":"out of memory"}}'
            with client.stream(
                "POST", "/agent/generate", json={"session_id": session, "objective": "And now?"}
            ) as answer:
                wrong = Events(answer).rest()[-1].event
            assert isinstance(wrong, ErrorEvent)
            assert wrong.code == "worker_unavailable"
            assert "out of memory" in wrong.message


def test_telemetry_hosts_are_agents(tmp_path: Path) -> None:
    """As the table of life cycles says: by their key, while they report, and when they are silent."""
    with live(tmp_path) as daemon, daemon.client() as client:
        assert client.post("/agents/web-3/key", json={"keys": ["k" * 32]}).status_code == 200
        for host in ("web-1", "web-2"):
            record = {"hostname": host, "timestamp": "2026-11-22T03:04:00Z", "agent": {"version": "0.1.0"}}
            assert client.post("/ingest", json=record).status_code == 200
        now_s = daemon.services.ingest._watch._now_s
        daemon.services.ingest._watch._now_s = lambda: now_s() + 301.0
        record = {"hostname": "web-2", "timestamp": "2026-11-22T03:05:00Z"}
        assert client.post("/ingest", json=record).status_code == 200
        daemon.call(daemon.services.ingest.sweep)
        rows = {name: _row(client, name) for name in ("web-1", "web-2", "web-3")}
        assert {name: row["state"] for name, row in rows.items()} == {
            "web-1": "closing",
            "web-2": "observation",
            "web-3": "registration",
        }
        assert {row["protocol"] for row in rows.values()} == {"http"}
        assert rows["web-1"]["closed_at"] == rows["web-1"]["since"] >= rows["web-1"]["last_seen"]
        assert rows["web-1"]["version"] == "0.1.0"
        assert "no record for" in rows["web-1"]["last_error"]
        assert "last_seen" not in rows["web-3"]
        said = [json.loads(line) for line in daemon.log().splitlines()]
        silent = [line for line in said if line.get("agent_id") == "web-1" and line["level"] == "warning"]
        assert [(line["target"], line["logger"]) for line in silent] == [("web-1", "fazai.daemon.ingest")]
        assert "no record for" in silent[0]["message"]
    with live(tmp_path) as daemon, daemon.client() as client:  # after a restart
        assert _row(client, "web-1")["state"] == "closing"
        assert _row(client, "web-2")["state"] == "observation"
