"""A plain stream of the worker, alone and beside clients that take what they can get.

Each bad client is a process of its own (`python -m bench.gemma_fairness NAME SOCKET`). In a round each of
them has its turn, and the stream alone; ratios are taken within a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import gemma_client
from bench.gemma_client import Worker

ALONE, TOKENS, SLOTS, CONTEXT = "is not there", 160, 4, 8192
READY = "ready\n"
BAD = ("never reads", "asks for everything", "asks for everything, just now", "holds 40 unfinished lines")
_SETTLED = 300  # decodes, after which a client with four streams used its credit up
_WORDS = ("river", "house", "stone", "water", "green", "small", "tree", "road", "night", "morning", "table")


# --- the bad clients, each in a process of its own


async def _session(path: str, **params: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.write(json.dumps({"type": "create_session", "params": params}).encode() + b"\n")
    return reader, writer, json.loads(await reader.readline())["session_id"]


def _request(session_id: str, number: int) -> bytes:
    """For 100,000 tokens: a long prompt, a schema that forces much text, or free text."""
    params: dict[str, Any] = {"max_tokens": 100_000, "timeout_ms": 3_600_000, "temperature": 1.0}
    prompt = f"{number}. Write a long story about a river."
    if number % 3 == 1:
        prompt += " ".join(_WORDS[(number + i * i) % len(_WORDS)] for i in range(1500))
    if number % 3 == 2:
        const = " ".join(_WORDS[(number + i) % len(_WORDS)] for i in range(1500))
        item = {"anyOf": [{"const": const}, {"type": "string", "minLength": 2000}]}
        params["json_schema"] = {"type": "array", "items": item, "minItems": 50}
    message = {"type": "generate", "session_id": session_id, "prompt": prompt, "params": params}
    return json.dumps(message).encode() + b"\n"


async def _ask_for_ever(path: str, number: int) -> None:
    while True:
        reader, writer, session_id = await _session(path)
        writer.write(_request(session_id, number))
        while (event := json.loads(await reader.readline()))["type"] == "token":
            pass
        writer.write(json.dumps({"type": "close_session", "session_id": session_id}).encode() + b"\n")
        await reader.readline()
        writer.close()
        number += 36
        await asyncio.sleep(0.5 if event["type"] == "error" else 0)


async def ask_for_everything(path: str) -> None:
    """Hold all slots and the whole queue."""
    await _stay(*(_ask_for_ever(path, number) for number in range(SLOTS + 32)))


async def _stay(*tasks: Coroutine[Any, Any, None]) -> None:
    """Say that all of it was begun, and stay."""
    running = [asyncio.create_task(task) for task in tasks]
    await asyncio.sleep(2)
    print(READY, end="", flush=True)
    await asyncio.gather(*running, asyncio.Event().wait())


async def never_read(path: str) -> None:
    """Ask on four connections, and read none."""
    kept = []
    for number in range(SLOTS):
        _, writer, session_id = await _session(path)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(_request(session_id, number))
        kept.append(writer)
    await _stay()


async def hold_lines(path: str) -> None:
    """Send 3 MiB of a line on each of 40 connections."""
    part = b'{"type":"generate","prompt":"' + b"x" * (3 << 20)

    async def hold() -> None:
        _, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
        writer.write(part)
        await writer.drain()
        await asyncio.Event().wait()

    await _stay(*(hold() for _ in range(40)))


_RUNS = dict(zip(BAD, (never_read, ask_for_everything, ask_for_everything, hold_lines), strict=True))


@contextlib.contextmanager
def _beside(name: str, worker: Worker) -> Iterator[None]:
    if name == ALONE:
        yield
        return
    command = [sys.executable, "-m", "bench.gemma_fairness", name, str(worker.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != READY:
                raise RuntimeError(f"{name}: it ended")
            while name in BAD[:2] and worker.counters()["fazai_worker_decodes_total"] < _SETTLED:
                time.sleep(0.1)
            yield
        finally:
            process.kill()


# --- the plain stream


@dataclass(frozen=True, slots=True)
class Stream:
    """What one plain stream saw between its first event and its last."""

    gaps_s: Sequence[float]
    first_s: float
    decodes: float  # of anybody, for each of its tokens
    cpu_s: float  # of the worker, for each of its tokens

    def quantile(self, share: float) -> float:
        return sorted(self.gaps_s)[min(len(self.gaps_s) - 1, int(share * len(self.gaps_s)))]

    @property
    def middle_s(self) -> float:
        return statistics.median(self.gaps_s)

    @property
    def late_s(self) -> float:
        return self.quantile(0.99)


async def _stream(worker: Worker, number: int) -> Stream:
    async with (
        worker.session(temperature=1.0, seed=number) as session_id,
        worker.connection() as (reader, writer),
    ):
        message = {"type": "generate", "session_id": session_id, "prompt": f"Story {number}: The river"}
        begun = time.perf_counter()
        writer.write(json.dumps({**message, "params": {"max_tokens": TOKENS}}).encode() + b"\n")
        times: list[float] = []
        before: dict[str, float] = {}
        cpu_s = 0.0
        while (event := json.loads(await reader.readline()))["type"] == "token":
            times.append(time.perf_counter())
            if not before:
                before, cpu_s = worker.counters(), gemma_client.cpu_s(worker.pid)
        after, cpu_s = worker.counters(), gemma_client.cpu_s(worker.pid) - cpu_s
    if event["type"] != "stop":
        raise RuntimeError(f"worker: {event}")
    tokens = event["usage"]["completion_tokens"] - 1
    if tokens < TOKENS // 2:  # the model ended it
        return await _stream(worker, number + 1000)
    decodes = after["fazai_worker_decodes_total"] - before["fazai_worker_decodes_total"]
    gaps = [late - early for early, late in pairwise(times)]
    return Stream(gaps, times[0] - begun, decodes / tokens, cpu_s / tokens)


def _measure(name: str, model: Path, folder: Path, number: int, threads: int) -> Stream:
    """With a worker of its own: what one client left in its cache is nothing to the next."""
    sizes = {"threads": threads, "slots": SLOTS, "context": CONTEXT}
    with gemma_client.running(model, folder, **sizes) as worker, _beside(name, worker):
        return asyncio.run(_stream(worker, number))


def _row(name: str, streams: Sequence[Stream], alone: Sequence[Stream]) -> str:
    def of(value: Callable[[Stream], float]) -> tuple[float, float]:
        ratios = [value(one) / value(other) for one, other in zip(streams, alone, strict=True)]
        return statistics.median(map(value, streams)), statistics.median(ratios)

    cells = [f"{of(lambda s: s.first_s)[0] * 1000:.0f} ms"]
    for value in (lambda s: s.middle_s, lambda s: s.late_s):
        found, times = of(value)
        cells.append(f"{found * 1000:.1f} ms, {times:.2f}")
    cells.append(f"{of(lambda s: s.decodes)[0]:.2f}")
    cpu_s, times = of(lambda s: s.cpu_s)
    return f"| {name} | {' | '.join(cells)} | {cpu_s * 1000:.1f} ms, {times:.2f} |"


def fairness(model: Path, rounds: int, threads: int) -> Iterator[str]:
    """Lines of the table."""
    found: dict[str, list[Stream]] = {name: [] for name in (ALONE, *BAD)}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, streams in found.items():
                streams.append(_measure(name, model, Path(folder), number + 1, threads))
    measures = ("first event", "gap, median", "gap, p99", "decodes a token", "CPU a token")
    yield f"| a plain stream beside one that | {' | '.join(measures)} |"
    yield "|---|---|---|---|---|---|"
    for name, streams in found.items():
        yield _row(name, streams, found[ALONE])
    yield ""
    yield f"{TOKENS} tokens, events of about 40 ms, {threads} threads, {SLOTS} slots."
    yield f"Medians of {rounds} rounds, and of the ratios to the stream alone within each."


if __name__ == "__main__":
    asyncio.run(_RUNS[sys.argv[1]](sys.argv[2]))
