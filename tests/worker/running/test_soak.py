"""Random sessions, schemas, drafts, long prompts, aborts and dropped connections for a long time: all end,
nothing stays, memory is flat. A minute in CI; ten minutes, on one thread:
FAZAI_SOAK_S=600 FAZAI_SOAK_THREADS=1 python -m pytest tests/worker/running/test_soak.py -s"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import FazaiError, Unreachable
from fazai.providers.gemma.client import GemmaClient
from fazai.wire.base import WireError
from fazai.wire.worker import SessionParams
from fazai.worker.demo import find_demo_model
from tests.worker.process import Process, until, with_model, worker_metrics

pytestmark = [pytest.mark.gemma, pytest.mark.slow, pytest.mark.xdist_group("model")]

SOAK_S = float(os.environ.get("FAZAI_SOAK_S", "60"))
CLIENTS = 6
#: What the median of the last third may be above that of the second: glibc's arenas and what Python keeps
#: differ by some MiB from one minute to the next; half of the samples have to be higher before a median is.
#: A row of logits that stayed with each of a thousand generations would be 1 GiB.
GROWTH_KIB = 16 * 1024
SCHEMA = {"type": "object", "properties": {"go": {"enum": ["plan", "done"]}}, "required": ["go"]}
TEXT = {"type": "string", "maxLength": 24}
#: Forced, narrow, wide and numbers; the second is copied from its prompt.
SCHEMAS: tuple[dict[str, Any] | None, ...] = (
    None,
    None,
    SCHEMA,
    {"type": "array", "items": TEXT, "minItems": 3, "maxItems": 3},
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 4},
    {"enum": [f"edge-{place}-{n:03}" for place in ("porto", "faro", "lagos") for n in range(200)]},
)
NAMES = "edge-porto-01.example.net, core-faro-02.example.net, edge-lagos-03.example.net; "
HOWS = ("ended", "aborted", "dropped", "timeout")
TURNS = 30
PARTS = 9  # one of the first client alone in each third of the time
MORE_S = 900.0
ALLOWED = {"overloaded", "context_full"}
TOLD = ("fazai_worker_draft", "fazai_worker_decodes_total", "fazai_worker_short_decodes_total")


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
            json_schema=chance.choice(SCHEMAS),
            system="You answer briefly. " * 20 if chance.random() < 0.5 else None,
            timeout_ms=chance.choice([300, 60_000, 60_000]),
        )
        async with self.client.session(params) as session:
            for _ in range(chance.randint(1, 3)):
                how = chance.choice(["whole", "whole", "drop", "abort", "vanish"])
                words = chance.choice([1, 10, 60, 600])
                prompt = chance.choice(["word " * words, (NAMES * 20)[: 2 * words + 60]])
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
        """One client's work until then, and until everything was seen. In every third part of the time the
        first is alone: there are drafts only for a session that decodes alone."""
        chance, loop = random.Random(number), asyncio.get_running_loop()
        while loop.time() < until or not self.seen():
            left_s = until - loop.time()
            if number and left_s > 0 and int(left_s / SOAK_S * PARTS) % 3 == 1:
                await asyncio.sleep(0.1)
                continue
            try:
                await self.one(chance)
            except WireError as error:
                if error.code not in ALLOWED:
                    raise
                self.done[error.code] += 1
            except Unreachable as error:
                # 512 tokens in one decode, which nothing ends that is not alone in it, take ten seconds where
                # others have the processor. What never ends is seen behind the soak: no session stays.
                if "it took too long" not in str(error):
                    raise
                self.done["late"] += 1

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            text = await asyncio.to_thread(Path(f"/proc/{self.process.child.pid}/status").read_text)
            self.memory_kib.append((loop.time(), int(text.split("RssAnon:")[1].split()[0])))
            await asyncio.sleep(SOAK_S / 120)

    async def run(self) -> None:
        for schema in SCHEMAS:  # the tokenizer of schemas stays; and 300 ms are not enough to compile one
            async with self.client.session(SessionParams(max_tokens=4, json_schema=schema)) as session:
                await session.generate("Warm up.")
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


def metrics_of(text: str) -> list[tuple[str, float]]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return [(name, float(value)) for name, value in lines]


def test_soak(tmp_path: Path) -> None:
    threads = ("--threads", os.environ.get("FAZAI_SOAK_THREADS", "2"))
    with Process(with_model(), find_demo_model(tmp_path), tmp_path, *threads) as process:
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
    third = len(soak.memory_kib) // 3  # the first: the tokenizer of schemas, buffers, arenas
    second, last = (
        int(statistics.median(kib for _, kib in part))
        for part in (soak.memory_kib[third : 2 * third], soak.memory_kib[2 * third :])
    )
    said = {name: value for name, value in metrics_of(metrics) if name.startswith(TOLD)}
    print(f"{dict(soak.done)}; {said}; median of the second third {second} KiB, of the last {last}")
    assert last - second < GROWTH_KIB, soak.memory_kib
    assert said["fazai_worker_short_decodes_total"] > 0
    if SOAK_S >= 600:  # in a minute on a busy machine there may be none that pays
        assert said["fazai_worker_draft_accepted_tokens_total"] > 0
    assert "fazai_worker_running 0.0" in metrics
    assert "fazai_worker_sessions 0.0" in metrics
    assert 'code="internal"' not in metrics
