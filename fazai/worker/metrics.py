"""Counts and measurements of the worker, as Prometheus text (SPEC.md, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from fazai.compat.timeouts import deadline
from fazai.service.prometheus import CONTENT_TYPE, Family, Histogram, Metric, render_metrics
from fazai.worker.bridge import Progress, Reason
from fazai.worker.stats import Stats

_WAITS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS_S = (0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_RATES = (10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)

_ENDED = Metric("fazai_worker_generations_total", "counter", "Generations that ended.", ("reason",))
_ERRORS = Metric("fazai_worker_errors_total", "counter", "Requests that were refused or failed.", ("code",))
_TOKENS = Metric("fazai_worker_tokens_total", "counter", "Tokens of ended generations.", ("kind",))
_TOKEN_KINDS = ("prompt", "cached", "generated", "forced")
#: Of the engine: the attribute of its Stats, the metric's name without `fazai_worker_`, its help.
_ENGINE = (
    ("sessions", "sessions", "Open sessions."),
    ("running", "running", "Generations that run."),
    ("queued", "queued", "Generations that wait."),
    ("kv_tokens", "kv_tokens", "Tokens of conversations in the KV cache."),
    ("prefix_bytes", "parked_bytes", "Bytes of KV-cache prefixes that are kept from closed sessions."),
    ("evictions", "evictions_total", "Conversations that lost their place in the KV cache."),
    ("decodes", "decodes_total", "Calls of llama_decode."),
    ("decode_s", "decode_seconds_total", "Time in llama_decode."),
    ("short_decodes", "short_decodes_total", "Decodes that ended before the output matrix."),
    ("whole_decodes", "whole_decodes_total", "Decodes whose logits came from the bridge's own kernel."),
    ("rows", "rows_total", "Rows of the output matrix that were multiplied after those."),
    ("rows_limit", "rows_limit", "Allowed tokens up to which a decode ends early; 0: none does."),
    ("drafted_tokens", "drafted_tokens_total", "Tokens that were tried beside a session's own."),
    ("draft_accepted_tokens", "draft_accepted_tokens_total", "Of these, tokens that were said."),
    ("mask_wait_s", "mask_wait_seconds_total", "Time the loop waited for masks."),
)


class Metrics:
    """Counters and histograms of one worker process."""

    def __init__(self) -> None:
        self.first_token = Histogram(
            "fazai_worker_first_token_seconds", "From a request to its first token.", _WAITS_S
        )
        self.token = Histogram("fazai_worker_token_seconds", "Between two tokens.", _TOKENS_S)
        self.queue_wait = Histogram(
            "fazai_worker_queue_seconds", "From a request to its first work.", _WAITS_S
        )
        self.prefill_rate = Histogram(
            "fazai_worker_prefill_tokens_per_second", "Of prompts of 32 tokens or more.", _RATES
        )
        self.ended: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def count_ended(self, progress: Progress) -> None:
        """Count a generation that ended, and how long its parts took."""
        self.ended[progress.reason.name.lower()] += 1
        self.queue_wait.observe(progress.queued_s)
        if progress.reason is Reason.FAILED or not progress.first_token_s:
            return
        self.first_token.observe(progress.first_token_s)
        fresh = progress.prompt_tokens - progress.cached_tokens
        if progress.prefill_s > 0 and fresh >= 32:  # fewer say nothing about the rate
            self.prefill_rate.observe(fresh / progress.prefill_s)

    def text(self, stats: Stats | None) -> str:
        """Return the page; without `stats` (the model is being loaded) what the engine counts is absent."""
        return render_metrics(self._families(stats)).decode()

    def _families(self, stats: Stats | None) -> Iterable[Family]:
        for histogram in (self.first_token, self.token, self.queue_wait, self.prefill_rate):
            yield histogram.family()
        yield _ENDED.by_label(self.ended)
        yield _ERRORS.by_label(self.errors)
        if stats is None:
            return
        yield _TOKENS.by_label({kind: getattr(stats, f"{kind}_tokens") for kind in _TOKEN_KINDS})
        for attribute, name, text in _ENGINE:
            kind: Literal["counter", "gauge"] = "counter" if name.endswith("_total") else "gauge"
            yield Metric(f"fazai_worker_{name}", kind, text).single(getattr(stats, attribute))


async def serve_metrics(port: int, body: Callable[[], str]) -> asyncio.Server:
    """Serve GET /metrics on 127.0.0.1; `body` returns the page. Raises OSError where the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError
        ):
            async with deadline(5):
                head = await reader.readuntil(b"\r\n\r\n")
                found = head.startswith((b"GET /metrics ", b"GET /metrics?"))
                raw = (body() if found else "not found\n").encode()
                status = "200 OK" if found else "404 Not Found"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
                    f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode()
                    + raw
                )
                await writer.drain()
        writer.close()

    # asyncio takes a socket that it may not make for one that it need not make, and serves nothing.
    listening = socket.create_server(("127.0.0.1", port))
    return await asyncio.start_server(answer, sock=listening)
