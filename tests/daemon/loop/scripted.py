"""A model that says what a test wants it to say: an OpenAI-compatible server on loopback, over real HTTP."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from fazai.daemon.settings import ServerLimits
from fazai.loop.replay import replay_journal
from fazai.providers.gemma.endpoint import FallbackEndpoint
from fazai.wire.base import encode
from tests.contract import SseFrame
from tests.daemon.live import Events, Live
from tests.daemon.runs_world import World, world

#: An answer: text, an action, or what makes one of the conversation's messages.
Answer = str | dict[str, Any] | Callable[[list[dict[str, str]]], "str | dict[str, Any]"]
DONE: dict[str, Any] = {"action": "done", "result": "nothing left to do"}


@dataclass
class ScriptedModel:
    """Answers in order, the last one again and again; `asked` are the messages of each request."""

    answers: list[Answer]
    asked: list[list[dict[str, str]]] = field(default_factory=list)
    schemas: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    hold: threading.Event = field(default_factory=threading.Event)  # cleared: answers wait

    def next_text(self, body: dict[str, Any]) -> str:
        messages = body["messages"]
        self.asked.append(messages)
        if "response_format" in body:
            self.schemas.append(body["response_format"]["json_schema"]["schema"])
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        said = answer(messages) if callable(answer) else answer
        return said if isinstance(said, str) else json.dumps(said)

    def said(self, number: int = -1) -> str:
        """What the model was told last in a request."""
        return self.asked[number][-1]["content"]


def _chunk(text: str, end: str | None = None) -> bytes:
    event: dict[str, Any] = {"choices": [{"delta": {"content": text}, "finish_reason": end}]}
    if end:
        event["usage"] = {"prompt_tokens": 7, "completion_tokens": 5}
    return f"data: {json.dumps(event)}\n\n".encode()


@contextlib.contextmanager
def scripted(*answers: Answer) -> Iterator[ScriptedModel]:
    """A server that answers so."""
    model = ScriptedModel(list(answers))
    model.hold.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = model.next_text(body)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(_chunk(text[: len(text) // 2]))
                self.wfile.flush()
                model.hold.wait(60)
                self.wfile.write(_chunk(text[len(text) // 2 :]) + _chunk("", "stop") + b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        model.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class LoopWorld:
    """A daemon with one lab firewall that lacks an alias, and a model that follows a script."""

    world: World
    model: ScriptedModel

    @property
    def daemon(self) -> Live:
        return self.world.daemon

    @property
    def client(self) -> httpx.Client:
        return self.world.client

    def open(self, **body: Any) -> str:
        answer = self.client.post("/agent/sessions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["session_id"])

    def ask(self, session: str, objective: str = "what has drifted?", **body: Any) -> list[SseFrame]:
        """The events of an objective until the session rests."""
        asked = {"session_id": session, "objective": objective, **body}
        with self.client.stream("POST", "/agent/generate", json=asked) as answer:
            assert answer.status_code == 200, answer.read()
            return Events(answer).rest()

    def run(self, *answers: Answer, **body: Any) -> list[dict[str, Any]]:
        """The events of a new session whose model says this, without tokens, as JSON."""
        self.model.answers[:] = answers
        return plain(self.ask(self.open(), **body))

    def session(self, session: str) -> dict[str, Any]:
        row: dict[str, Any] = self.client.get(f"/agent/sessions/{session}").json()["session"]
        return row

    def journal(self, session: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.client.get(f"/agent/sessions/{session}/journal", params={"since": len(found)}).json()
            found += page["entries"]
            if "next" not in page:
                return found

    def post(self, what: str, session: str, shown: dict[str, Any], **more: Any) -> httpx.Response:
        """Approve or reject what was shown with an action."""
        body = {"session_id": session, "action_id": shown["action_id"], "plan_hash": shown["plan_hash"]}
        return self.client.post(f"/agent/{what}", json={**body, **more})


def plain(frames: Sequence[SseFrame]) -> list[dict[str, Any]]:
    """The events without tokens, as they stood on the wire."""
    events = [json.loads(encode(frame.event)) for frame in frames]
    return [event for event in events if event["type"] != "token"]


def of_type(events: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == name]


@contextlib.contextmanager
def loop_world(
    folder: Path,
    *answers: Answer,
    inventory: tuple[str, ...] = (),
    replays: bool = True,
    limits: ServerLimits | None = None,
    **config: Any,
) -> Iterator[LoopWorld]:
    """A daemon whose model is a script, and that watches an inventory. `replays`: no test writes into a
    journal by itself, so each has to replay at the end."""
    with scripted(*(answers or (DONE,))) as model:
        endpoint = FallbackEndpoint.checked(model.url, "scripted", None, "test")
        more = {"fallback": endpoint, "inventory": inventory, "limits": limits or ServerLimits()}
        with world(folder, daemon=more, **config) as found:
            yield LoopWorld(found, model)
            if replays:
                _check_replays(found.daemon)


def _check_replays(daemon: Live) -> None:
    """Whatever a test did with its sessions, their journals lead to the same decisions again."""
    for session in daemon.services.loop.all():
        found = replay_journal(session.journal(), tainted=session.record.source == "rule")
        wrong = [(one.number, one.differences) for one in found if one.differences]
        assert not wrong, str(wrong)
