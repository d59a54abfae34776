"""Random sessions, schemas, aborts and dropped connections for a long time: all end, nothing stays, memory is
flat. The long one: FAZAI_SOAK_S=600 python -m pytest tests/worker/running/test_soak.py -s"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fazai.errors import FazaiError
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams
from fazai.worker.demo import find_demo_model
from tests.worker.process import Process, until, with_model, worker_metrics

pytestmark = [pytest.mark.gemma, pytest.mark.slow, pytest.mark.xdist_group("model")]

SOAK_S = float(os.environ.get("FAZAI_SOAK_S", "60"))
CLIENTS = 6
#: What may come of glibc's arenas and of Python's own; a token's logits alone would be 1 MiB each time.
GROWTH_KIB = 24 * 1024
SCHEMA = {"type": "object", "properties": {"go": {"enum": ["plan", "done"]}}, "required": ["go"]}
HOWS = ("ended", "aborted", "dropped", "timeout")
TURNS = 30
MORE_S = 900.0
ALLOWED = {"overloaded", "context_full"}


@dataclass
class Soak:
    """What was done, and the memory that was seen."""

    process: Process
    client: GemmaClient
    done: Counter[str] = field(default_factory=Counter)
    memory_kib: list[tuple[float, int]] = field(default_factory=list)

    async def one(self, chance: random.Random) -> None:
        params = SessionParams(
            max_tokens=chance.randint(1, 40),
            temperature=chance.choice([0.0, 1.0]),
            json_schema=SCHEMA if chance.random() < 0.3 else None,
            system="You answer briefly. " * 20 if chance.random() < 0.5 else None,
            timeout_ms=chance.choice([300, 60_000, 60_000]),
        )
        async with self.client.session(params) as session:
            for _ in range(chance.randint(1, 3)):
                how = chance.choice(["whole", "whole", "drop", "abort", "vanish"])
                prompt = "word " * chance.choice([1, 10, 60, 600])
                async with session.stream(prompt) as pieces:
                    if how == "vanish":
                        return  # never asked
                    async for _ in pieces:
                        if how == "drop":
                            break
                        if how == "abort":
                            await self.client.abort(session.session_id or "")
                self.done[pieces.reason or "dropped"] += 1
                if how == "drop":
                    return  # the session may still be busy with what was dropped

    def seen(self) -> bool:
        """Whether everything happened that is to happen; a slow machine needs longer for it."""
        self.done["ended"] = self.done["eos"] + self.done["length"]  # a small model seldom stops by itself
        return self.turns() >= TURNS and all(self.done[how] for how in HOWS)

    def turns(self) -> int:
        return sum(count for how, count in self.done.items() if how != "ended")

    async def many(self, number: int, until: float) -> None:
        chance, loop = random.Random(number), asyncio.get_running_loop()
        while loop.time() < until or not self.seen():
            try:
                await self.one(chance)
            except WireError as error:
                if error.code not in ALLOWED:
                    raise
                self.done[error.code] += 1

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            text = await asyncio.to_thread(Path(f"/proc/{self.process.child.pid}/status").read_text)
            self.memory_kib.append((loop.time(), int(text.split("RssAnon:")[1].split()[0])))
            await asyncio.sleep(SOAK_S / 120)

    async def run(self) -> None:
        async with self.client.session(SessionParams(max_tokens=4, json_schema=SCHEMA)) as session:
            await session.generate("Warm up.")  # the tokenizer of schemas stays
        until = asyncio.get_running_loop().time() + SOAK_S
        watching = asyncio.create_task(self.watch())
        try:
            async with asyncio.timeout(SOAK_S + MORE_S), asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(self.many(number, until))
        finally:
            watching.cancel()
        async with asyncio.timeout(60):
            while (await self.client.status()).sessions:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


def test_soak(tmp_path: Path) -> None:
    with Process(with_model(), find_demo_model(tmp_path), tmp_path) as process:
        process.told("READY=1")
        soak = Soak(process, GemmaClient(process.socket, connect_timeout_s=10))
        descriptors = len(os.listdir(f"/proc/{process.child.pid}/fd"))
        try:
            asyncio.run(soak.run())
        except* FazaiError as errors:
            pytest.fail(f"{errors.exceptions}: {process.messages()}")
        until(lambda: len(os.listdir(f"/proc/{process.child.pid}/fd")) <= descriptors + 1)
        metrics = asyncio.run(worker_metrics(soak.client))
        process.child.terminate()
        assert process.ended() == (0, "")
    warm = soak.memory_kib[len(soak.memory_kib) // 3 :]  # the tokenizer of schemas, buffers, arenas
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope
    hour_kib = slope * 3600
    print(f"{dict(soak.done)}; {warm[0][1]} to {warm[-1][1]} KiB, {hour_kib:.0f} KiB an hour")
    assert slope * (warm[-1][0] - warm[0][0]) < GROWTH_KIB, (hour_kib, warm)
    assert "fazai_worker_running 0.0" in metrics
    assert "fazai_worker_sessions 0.0" in metrics
    assert 'code="internal"' not in metrics
