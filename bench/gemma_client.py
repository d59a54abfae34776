"""A worker in a process of its own, and a client of its socket that is as lean as the one of llama-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import llama_peers
from bench.llama_peers import Answer
from bench.peers import fazai

__all__ = ["Worker", "running"]


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker."""

    path: Path
    pid: int
    metrics_port: int

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, **message: Any) -> dict[str, Any]:
        async with self.connection() as (reader, writer):
            writer.write(json.dumps(message).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline())
        if not answer["ok"]:
            raise RuntimeError(f"worker: {answer}")
        return answer

    @contextlib.asynccontextmanager
    async def session(self, **params: Any) -> AsyncIterator[str]:
        session_id = (await self.ask(type="create_session", params=params))["session_id"]
        try:
            yield session_id
        finally:
            await self.ask(type="close_session", session_id=session_id)

    async def generate(self, session_id: str, prompt: str, **params: Any) -> Answer:
        message = {"type": "generate", "session_id": session_id, "prompt": prompt, "stream": True}
        begun = time.perf_counter()
        answer, pieces = Answer(), []
        async with self.connection() as (reader, writer):
            writer.write(json.dumps({**message, "params": params}).encode() + b"\n")
            while True:
                event = json.loads(await reader.readline())
                now = time.perf_counter() - begun
                if event["type"] != "token":
                    break
                pieces.append(event["text"])
                answer.first_s, answer.last_s = answer.first_s or now, now
        if event["type"] != "stop":
            raise RuntimeError(f"worker: {event}")
        usage = event["usage"]
        answer.text, answer.reason, answer.end_s = "".join(pieces), event["reason"], now
        answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        answer.cached_tokens = usage["cached_tokens"]
        return answer

    async def once(self, prompt: str, *, system: str | None = None, **params: Any) -> Answer:
        async with self.session(**({"system": system} if system else {})) as session_id:
            return await self.generate(session_id, prompt, **params)

    def counters(self) -> dict[str, float]:
        with socket.create_connection(("127.0.0.1", self.metrics_port), timeout=5) as asked:
            asked.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            with asked.makefile("r") as answer:
                lines = [line.rsplit(" ", 1) for line in answer if line.startswith("fazai_worker_")]
        return {name: float(value) for name, value in lines}


@contextlib.contextmanager
def running(model: Path, folder: Path, *, threads: int, slots: int, context: int) -> Iterator[Worker]:
    """A worker that answers; its socket and log are in `folder`."""
    path, port = folder / "gemma.sock", llama_peers.free_port()
    command = [fazai(), "worker", "--model", str(model), "--socket", str(path), "--threads", str(threads)]
    command += ["--slots", str(slots), "--context", str(context), "--metrics-port", str(port)]
    with (
        (folder / "worker.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            made = Worker(path, process.pid, port)
            until = time.monotonic() + 60
            while not _up(made):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(
                        f"the worker does not start: {(folder / 'worker.log').read_text()[-2000:]}"
                    )
                time.sleep(0.1)
            yield made
        finally:
            llama_peers.stop(process)


def _up(made: Worker) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(asyncio.run(made.ask(type="status"))["status"] == "running")
    return False
