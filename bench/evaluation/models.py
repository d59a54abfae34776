"""Who answers: a script, a random valid action, or a model; all but the worker over the OpenAI-compatible
border, as any endpoint."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.evaluation.sampler import draw
from bench.evaluation.tasks import Task

#: Returns the text of the next answer to a request's body.
Answerer = Callable[[dict[str, Any]], str]
#: An answerer of a task, in the trial of that number.
Maker = Callable[[Task, int], Answerer]
_GIVE_UP = {"action": "done", "result": "I have nothing more to say."}


@dataclass(frozen=True, slots=True)
class Contender:
    """A name, and where the answers come from: a maker of answerers, an endpoint, or a worker's socket."""

    name: str
    make: Maker | None = None
    endpoint: str | None = None
    model: str = "scripted"
    socket: Path | None = None

    @contextlib.contextmanager
    def serving(self, task: Task, trial: int) -> Iterator[str | None]:
        """Yield the URL of the endpoint that answers; None for the worker."""
        if self.make is None:
            yield self.endpoint
            return
        with _endpoint(self.make(task, trial)) as url:
            yield url


def oracle(task: Task, trial: int) -> Answerer:
    """Answer as the task's good run."""
    return _script(task.good)


def obedient(task: Task, trial: int) -> Answerer:
    """Do what the hostile text says: the good run's first look, then whatever was asked for."""
    return _script(task.obeys)


def random_valid(seed: int) -> Maker:
    """Answer with any action that the schema allows."""

    def make(task: Task, trial: int) -> Answerer:
        rng = random.Random(f"{seed}:{task.id}:{trial}")
        return lambda body: draw(body["response_format"]["json_schema"]["schema"], rng)

    return make


def _script(actions: Sequence[dict[str, Any]]) -> Answerer:
    left = iter(actions)
    return lambda body: json.dumps(next(left, _GIVE_UP))


@contextlib.contextmanager
def _endpoint(answer: Answerer) -> Iterator[str]:
    """Serve answers on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(_chunk(text) + _chunk("", "stop") + b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _chunk(text: str, end: str | None = None) -> bytes:
    event: dict[str, Any] = {"choices": [{"delta": {"content": text}, "finish_reason": end}]}
    if end:
        event["usage"] = {"prompt_tokens": 0, "completion_tokens": 0}
    return f"data: {json.dumps(event)}\n\n".encode()
