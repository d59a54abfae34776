"""What the worker counts and measures, as Prometheus text (SPEC.md, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator

from fazai.worker.bridge import Progress, Reason, Stats

__all__ = ["Histogram", "Metrics", "serve"]

_WAITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS = (0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_RATES = (10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)


class Histogram:
    """Cumulative buckets of one measurement."""

    __slots__ = ("_bounds", "_counts", "_sum", "count")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self.count = 0

    def add(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times
        self.count += times

    def lines(self, name: str, text: str) -> Iterator[str]:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            yield f'{name}_bucket{{le="{bound:g}"}} {below}'
        yield f'{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{name}_sum {self._sum:.9g}"
        yield f"{name}_count {self.count}"


class Metrics:
    """Of one worker."""

    def __init__(self) -> None:
        self.first_token = Histogram(_WAITS)
        self.token = Histogram(_TOKENS)
        self.queue_wait = Histogram(_WAITS)
        self.prefill_rate = Histogram(_RATES)
        self.ended: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def ends(self, progress: Progress) -> None:
        """A generation ended."""
        self.ended[progress.reason.name.lower()] += 1
        self.queue_wait.add(progress.queued_s)
        if progress.reason is Reason.FAILED or not progress.first_token_s:
            return
        self.first_token.add(progress.first_token_s)
        fresh = progress.prompt_tokens - progress.cached_tokens
        if progress.prefill_s > 0 and fresh >= 32:  # fewer say nothing about the rate
            self.prefill_rate.add(fresh / progress.prefill_s)

    def text(self, stats: Stats | None) -> str:
        return "\n".join(self._lines(stats)) + "\n"

    def _lines(self, stats: Stats | None) -> Iterator[str]:
        yield from self.first_token.lines(
            "fazai_worker_first_token_seconds", "From a request to its first token."
        )
        yield from self.token.lines("fazai_worker_token_seconds", "Between two tokens.")
        yield from self.queue_wait.lines("fazai_worker_queue_seconds", "From a request to its first work.")
        yield from self.prefill_rate.lines(
            "fazai_worker_prefill_tokens_per_second", "Of prompts of 32 tokens or more."
        )
        yield from _labelled(
            "fazai_worker_generations_total", "Generations that ended.", "reason", self.ended
        )
        yield from _labelled(
            "fazai_worker_errors_total", "Requests that were refused or failed.", "code", self.errors
        )
        if stats is None:
            return
        counters = {
            "prompt": stats.prompt_tokens,
            "cached": stats.cached_tokens,
            "generated": stats.generated_tokens,
            "forced": stats.forced_tokens,
        }
        yield from _labelled("fazai_worker_tokens_total", "Tokens of ended generations.", "kind", counters)
        for name, kind, value, text in (
            ("sessions", "gauge", stats.sessions, "Open sessions."),
            ("running", "gauge", stats.running, "Generations that run."),
            ("queued", "gauge", stats.queued, "Generations that wait."),
            ("kv_tokens", "gauge", stats.kv_tokens, "Tokens of conversations in the KV cache."),
            ("parked_bytes", "gauge", stats.parked_bytes, "Beginnings of closed sessions, outside of it."),
            ("evictions_total", "counter", stats.evictions, "Conversations that lost their place in it."),
            ("decodes_total", "counter", stats.decodes, "Calls of llama_decode."),
            ("decode_seconds_total", "counter", stats.decode_s, "Time in llama_decode."),
            ("mask_wait_seconds_total", "counter", stats.mask_wait_s, "Time the loop waited for masks."),
        ):
            yield f"# HELP fazai_worker_{name} {text}"
            yield f"# TYPE fazai_worker_{name} {kind}"
            yield f"fazai_worker_{name} {value:.9g}"


def _labelled(name: str, text: str, label: str, counts: dict[str, int]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} counter"
    for key in sorted(counts):
        yield f'{name}{{{label}="{key}"}} {counts[key]}'


async def serve(port: int, body: Callable[[], str]) -> asyncio.Server:
    """GET /metrics on 127.0.0.1; `body` is called for the text. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError
        ):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                found = head.startswith((b"GET /metrics ", b"GET /metrics?"))
                raw = (body() if found else "not found\n").encode()
                status = "200 OK" if found else "404 Not Found"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
                    f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode()
                    + raw
                )
                await writer.drain()
        writer.close()

    # asyncio takes a socket that it may not make for one that it need not make, and serves nothing.
    listening = socket.create_server(("127.0.0.1", port))
    return await asyncio.start_server(answer, sock=listening)
