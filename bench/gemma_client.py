"""A worker in a process of its own, a client of its socket as lean as the one of llama-server, and turns on a
machine that others use too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import llama_peers
from bench.llama_peers import Answer
from bench.peers import fazai

__all__ = ["Turns", "Worker", "running"]


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


_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_FOREIGN = 0.05  # of the CPU time; a turn with more of it is taken again
_TRIES = 2


class Turns:
    """Every contender once a turn; the first turn does not count.

    What other processes than `pids`, this one and its children took of the CPU is counted: a measurement with
    much of it is taken again, and the least disturbed is kept. `foreign` has the share in each that was kept.
    """

    def __init__(self, pids: Sequence[int], rounds: int) -> None:
        self._pids = pids
        self.rounds = rounds
        self.foreign: list[float] = []

    def run(self, contenders: Mapping[str, Callable[[int], Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {name: [] for name in contenders}
        for number in range(self.rounds + 1):
            for name, contender in contenders.items():
                if number:
                    found[name].append(self._calm(contender, number))
                else:
                    contender(number)
        return found

    def _calm(self, contender: Callable[[int], Any], number: int) -> Any:
        tries: list[tuple[float, Any]] = []
        while not tries or (tries[-1][0] > _FOREIGN and len(tries) < _TRIES):
            all_s, own_s = _busy_s(), self._own_s()
            value = contender(number + 1000 * len(tries))  # another number: nothing is in a cache already
            busy_s = _busy_s() - all_s
            tries.append((max(0.0, busy_s - self._own_s() + own_s) / busy_s, value))
        share, value = min(tries, key=lambda each: each[0])
        self.foreign.append(share)
        return value

    def _own_s(self) -> float:
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        for pid in self._pids:
            own += cpu_s(pid)
        return own


def cpu_s(pid: int) -> float:
    """CPU time that a process took."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _busy_s() -> float:
    """CPU time that all processes took, and the machine's host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK_S
