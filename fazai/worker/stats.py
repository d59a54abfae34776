"""Counters and measurements of the engine, as the native part keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters and measurements of the engine."""

    sessions: int
    running: int
    queued: int
    context_tokens: int
    threads: int
    decodes: int
    decode_s: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    forced_tokens: int
    evictions: int
    mask_wait_s: float
    model_bytes: int
    kv_tokens: int
    prefix_bytes: int  # of closed sessions, kept outside of the KV cache
    chunk_tokens: int
    batch_cost_s: tuple[float, ...]
    plan: tuple[int, ...]
    short_cost_s: tuple[float, ...]  # as batch_cost_s, of decodes that end before the output matrix
    short_decodes: int  # of `decodes`: those that did
    rows: int  # of the output matrix, multiplied after those
    whole_decodes: int  # of `decodes`: all logits came from the bridge's own kernel
    whole_rows: int  # the most rows with logits for which a decode takes that kernel; 0: it never does
    rows_limit: int  # allowed tokens up to which a decode ends early; 0: never, and `rows_why` says why
    rows_why: str
    drafted_tokens: int  # tried
    draft_accepted_tokens: int  # and said
    drafts_limit: int  # tokens of a draft at most; 0: none, and `drafts_why` says why
    drafts_why: str
    turn_tokens: int  # after so many another's turn comes, when one waits
    credit_tokens: int  # of a client, before others go first
    most_passes: int  # so often others start before one that they leave no room for


def read_stats(s: Any, text_of: Callable[[Any], str]) -> Stats:
    """Return what an `fz_stats` of the native part says; `text_of` reads one of its texts."""
    costs, short = s.costs, s.short_costs
    return Stats(
        sessions=s.sessions,
        running=s.running,
        queued=s.queued,
        context_tokens=s.n_ctx,
        threads=s.n_threads,
        decodes=s.decodes,
        decode_s=s.decode_us / 1e6,
        prompt_tokens=s.tokens_prompt,
        cached_tokens=s.tokens_cached,
        generated_tokens=s.tokens_generated,
        forced_tokens=s.tokens_forced,
        evictions=s.evictions,
        mask_wait_s=s.wait_mask_us / 1e6,
        model_bytes=s.model_bytes,
        kv_tokens=s.kv_tokens,
        prefix_bytes=s.parked_bytes,
        chunk_tokens=s.chunk,
        batch_cost_s=tuple(us / 1e6 for us in costs.us[0 : costs.n]),
        plan=tuple(costs.plan[0 : costs.n]),
        short_cost_s=tuple(us / 1e6 for us in short.us[0 : short.n]) if s.rows_limit else (),
        short_decodes=s.short_decodes,
        rows=s.rows,
        whole_decodes=s.whole_decodes,
        whole_rows=s.whole_rows,
        rows_limit=s.rows_limit,
        rows_why=text_of(s.rows_why),
        drafted_tokens=s.drafted,
        draft_accepted_tokens=s.draft_accepted,
        drafts_limit=s.drafts_limit,
        drafts_why=text_of(s.drafts_why),
        turn_tokens=s.turn_tokens,
        credit_tokens=s.credit_tokens,
        most_passes=s.most_passes,
    )
