"""The Gemma worker over its socket, beside bare llama_decode of the same library, weights and threads.

Runs are interleaved and medians are shown. llama-server is no contender: llama-cpp-python installs no binary.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fazai.wire.worker import SessionParams
from fazai.worker.client import GemmaClient
from fazai.worker.demo import demo_model

__all__ = ["main"]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
TOKENS = 96
PROMPT = "Tell a long story about a firewall."
WORDS = "word " * 480
ACTION = {
    "type": "object",
    "properties": {
        "action": {"enum": ["plan", "shell", "observe", "done"]},
        "command": {"type": "string", "maxLength": 40},
        "risk": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["action", "command", "risk"],
    "additionalProperties": False,
}

#: Bare llama_decode: prefill of n tokens, then one token at a time, the likeliest by numpy.
_BARE = """
import ctypes, json, os, sys, time
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
import llama_cpp as l
import numpy as np
n_prompt, n_gen = int(sys.argv[2]), int(sys.argv[3])
l.llama_backend_init()
quiet = l.llama_log_callback(lambda *a: None)
l.llama_log_set(quiet, ctypes.c_void_p(0))
model = l.llama_model_load_from_file(sys.argv[1].encode(), l.llama_model_default_params())
p = l.llama_context_default_params()
p.n_ctx, p.n_batch, p.n_ubatch = 2048, 512, 512
p.n_threads = p.n_threads_batch = os.cpu_count()
p.flash_attn_type, p.swa_full = 1, True
ctx = l.llama_init_from_model(model, p)
batch = l.llama_batch_init(512, 0, 1)
def decode(tokens, at):
    batch.n_tokens = len(tokens)
    for i, t in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = t, at + i, 1, 0
        batch.logits[i] = i == len(tokens) - 1
    begun = time.perf_counter()
    assert l.llama_decode(ctx, batch) == 0
    l.llama_synchronize(ctx)
    return time.perf_counter() - begun
decode([5] * 8, 0)
l.llama_memory_clear(l.llama_get_memory(ctx), True)
prefill = decode([5 + i % 1000 for i in range(n_prompt)], 0)
token = [decode([7 + i % 1000], n_prompt + i) for i in range(n_gen)]
print(json.dumps({"prefill_s": prefill, "token_s": sum(token) / max(1, len(token))}))
"""


class _Worker:
    """The worker as a process, with its metrics."""

    def __init__(self, model: Path, folder: Path, slots: int = 8) -> None:
        self.socket = folder / "g.sock"
        self.log = folder / "log"
        command = [str(Path(sys.executable).with_name("fazai")), "worker", "--model", str(model), "--socket"]
        command += [str(self.socket), "--slots", str(slots), "--log-file", str(self.log)]
        self.child = subprocess.Popen(command)
        self.client = GemmaClient(self.socket, connect_timeout_s=60)

    async def wait(self) -> None:
        while (await self.client.status()).status == "starting":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)

    def memory(self) -> dict[str, int]:
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        return {name: int(value) // 1024 for name, value in re.findall(r"(Rss\w+|VmRSS):\s+(\d+) kB", text)}

    def end(self) -> None:
        self.child.terminate()
        self.child.wait(60)


async def _free(
    client: GemmaClient, prompt: str, tokens: int = TOKENS, **params: Any
) -> tuple[int, float, float]:
    """Tokens, seconds from the first to the last, seconds to the first."""
    begun = time.perf_counter()
    first = last = 0.0
    asked = SessionParams(max_tokens=tokens, temperature=0.0, **params)
    async with client.session(asked) as session, session.stream(prompt) as pieces:
        begun = time.perf_counter()
        async for _ in pieces:
            last = time.perf_counter()
            first = first or last
    assert pieces.usage is not None
    return pieces.usage.completion_tokens, last - first, first - begun


async def _many(client: GemmaClient, n: int, **params: Any) -> float:
    """Tokens a second of n at once, in all."""
    begun = time.perf_counter()
    prompts = [f"{PROMPT} Number {number}." for number in range(n)]
    done = await asyncio.gather(*(_free(client, prompt, 64, **params) for prompt in prompts))
    return sum(tokens for tokens, _, _ in done) / (time.perf_counter() - begun)


async def _actions(client: GemmaClient, n: int, each: int) -> tuple[float, float, int]:
    """Tokens a second, actions a second, how many were invalid; n sessions at once."""
    tokens = invalid = 0

    async def one(number: int) -> None:
        nonlocal tokens, invalid
        for turn in range(each):
            asked = SessionParams(
                json_schema=ACTION, max_tokens=120, temperature=0.8, seed=number * 1000 + turn
            )
            async with (
                client.session(asked) as session,
                session.stream(f"Restart unbound on fw-{turn}.") as pieces,
            ):
                text = "".join([piece async for piece in pieces])
            assert pieces.usage is not None
            tokens += pieces.usage.completion_tokens
            try:
                invalid += json.loads(text).keys() != ACTION["properties"].keys()  # type: ignore[attr-defined]
            except ValueError:
                invalid += 1

    begun = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(n)))
    took = time.perf_counter() - begun
    return tokens / took, n * each / took, invalid


async def _second_turn(client: GemmaClient) -> tuple[float, float]:
    """Seconds to the first token: 500 tokens cold, and the next question of that conversation."""
    async with client.session(SessionParams(max_tokens=4, temperature=0.0)) as session:
        times = []
        for prompt in (f"{time.monotonic_ns()} {WORDS}", "And then?"):
            begun = time.perf_counter()
            async with session.stream(prompt) as pieces:
                async for _ in pieces:
                    times.append(time.perf_counter() - begun)
                    break
                async for _ in pieces:
                    pass
        return times[0], times[1]


async def _abort(client: GemmaClient) -> float:
    """Seconds from an abort, on another connection, to the stream's end."""
    async with client.session(SessionParams(max_tokens=500, temperature=0.0)) as session:
        async with session.stream(PROMPT) as pieces:
            count, begun = 0, 0.0
            async for _ in pieces:
                count += 1
                if count == 5:
                    begun = time.perf_counter()
                    await client.abort(str(session.session_id))
        return time.perf_counter() - begun


def _bare(model: Path, prompt: int, tokens: int) -> dict[str, float]:
    out = subprocess.run(
        [sys.executable, "-c", _BARE, str(model), str(prompt), str(tokens)],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(out.stdout.strip().splitlines()[-1]))


async def _measure(model: Path, folder: Path) -> list[str]:
    worker = _Worker(model, folder)
    try:
        await worker.wait()
        client = worker.client
        await _free(client, PROMPT, 8)
        await _actions(client, 1, 1)  # llguidance's tokenizer is made once
        rows: dict[str, list[float]] = {}

        def add(name: str, value: float) -> None:
            rows.setdefault(name, []).append(value)

        for _ in range(ROUNDS):
            bare = _bare(model, 500, TOKENS)
            add("bare llama_decode, tokens/s", 1 / bare["token_s"])
            tokens, seconds, _ = await _free(client, PROMPT)
            add("one stream, tokens/s", (tokens - 1) / seconds)
            add("bare prefill of 500 tokens, s", bare["prefill_s"])
            cold, second = await _second_turn(client)
            add("first token, 500 tokens cold, s", cold)
            add("first token of the second turn, s", second)
            for n in (1, 2, 4, 8):
                add(f"{n} sessions at once, tokens/s", await _many(client, n))
            speed, actions, invalid = await _actions(client, 1, 10)
            add("JSON by schema, one stream, tokens/s", speed)
            add("JSON by schema, one stream, actions/s", actions)
            add("JSON by schema, invalid", invalid)
            speed, _, invalid = await _actions(client, 8, 3)
            add("JSON by schema, 8 sessions, tokens/s", speed)
            add("JSON by schema, 8 sessions, invalid", invalid)
            add("abort to the end, worst of 10, s", max([await _abort(client) for _ in range(10)]))
        memory = worker.memory()
    finally:
        worker.end()
    loaded = next(line for line in worker.log.read_text().splitlines() if "loaded" in line)
    lines = ["| measure | median |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(values):.4g} |" for name, values in rows.items()]
    lines += [f"| memory of the worker, MiB: {name} | {value} |" for name, value in memory.items()]
    return [*lines, "", json.loads(loaded)["message"]]


def main() -> list[str]:
    """Needs `pip install ./native[demo]`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return asyncio.run(_measure(demo_model(folder / "model"), folder))
