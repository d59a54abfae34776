"""Rates with their bounds, as a table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from bench.evaluation.judge import Verdict

_Z = 1.96  # of 95 %


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Return the bounds of Wilson's interval (95 %) of a rate that was seen in so many."""
    if not count:
        return 0.0, 1.0
    centre = rate + _Z**2 / (2 * count)
    spread = _Z * math.sqrt(rate * (1 - rate) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def pass_k(passes: Sequence[Sequence[bool]], k: int) -> float:
    """Return the chance that k trials of a task, drawn from those that there were, all pass: pass^k."""
    rates = [math.comb(sum(one), k) / math.comb(len(one), k) for one in passes if len(one) >= k]
    return mean(rates) if rates else math.nan


def table(found: dict[str, list[Verdict]]) -> list[str]:
    """Return the rows of every contender: all tasks, then each group."""
    rows = [
        "| contender | tasks | pass^1 | pass^4 | iterations | tokens | questions | false effects |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, verdicts in found.items():
        if not verdicts:
            continue  # none of the tasks was for it
        groups: dict[str, list[Verdict]] = defaultdict(list)
        for one in verdicts:
            groups[one.group].append(one)
        rows.append(_row(f"**{name}**", verdicts))
        rows += [_row(f"{name}: {group}", ones) for group, ones in groups.items()]
    return rows


def _row(name: str, verdicts: Iterable[Verdict]) -> str:
    ones = list(verdicts)
    trials: dict[str, list[bool]] = defaultdict(list)
    for one in ones:
        trials[one.task].append(one.passed)
    passes = list(trials.values())
    wrong = sum(bool(one.false_effects) for one in ones)
    cells = [
        name,
        str(len(passes)),
        _rate(pass_k(passes, 1), len(passes)),
        _rate(pass_k(passes, 4), len(passes)),
        f"{mean(one.iterations for one in ones):.1f}",
        f"{mean(one.tokens for one in ones):.0f}",
        f"{mean(one.questions for one in ones):.2f}",
        f"{wrong} of {len(ones)}",
    ]
    return f"| {' | '.join(cells)} |"


def _rate(rate: float, count: int) -> str:
    if math.isnan(rate):
        return "-"
    low, high = wilson(rate, count)
    return f"{rate:.1%} ({low:.0%} to {high:.0%})"
