"""Budgets of an objective: iterations, tokens, time, bytes of observation (requirement B8)."""

from __future__ import annotations

from msgspec import Struct

from fazai.wire.sessions import Budget


class Spent(Struct, kw_only=True):
    """Counts what an objective has used so far. `since`: when it began, or was resumed; None while it
    rests."""

    iterations: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    since: float | None = None

    def pause(self, at: float) -> None:
        """Stop counting the time."""
        if self.since is not None:
            self.seconds += max(0.0, at - self.since)
            self.since = None

    def resume(self, at: float) -> None:
        """Count the time again."""
        if self.since is None:
            self.since = at

    def elapsed(self, now: float) -> float:
        """Return the seconds that the objective took, its pauses left out."""
        return self.seconds + (max(0.0, now - self.since) if self.since is not None else 0.0)

    def over(self, budget: Budget, now: float) -> str | None:
        """Return which budget is used up, as a sentence; None: none is."""
        if self.iterations >= budget.iterations:
            return f"it has used its {budget.iterations} iterations"
        if self.tokens >= budget.tokens:
            return f"it has used its {budget.tokens} tokens"
        if self.bytes >= budget.bytes:
            return f"it has read its {budget.bytes} bytes of observations"
        if self.elapsed(now) >= budget.seconds:
            return f"it has used its {budget.seconds} s"
        return None
