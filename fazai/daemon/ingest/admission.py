"""Admission control for received bytes: a bound for all, a fair share for each sender."""

from __future__ import annotations

from collections.abc import Callable

from fazai.daemon.http.refusal import Refusal

_CROWDED = 0.5  # of the limit: below it no sender is held to its share
_LEAST_S, _SPREAD_S = 1.0, 10.0  # of the wait before a refused sender comes again


class Admission:
    """Counts the bytes that were received and are not on disk yet. Used by one event loop.

    `random` gives numbers from 0 to 1: those who are refused must not all come back at once.
    """

    def __init__(self, limit_bytes: int, random: Callable[[], float]) -> None:
        self.limit_bytes = limit_bytes
        self._random = random
        self._held: dict[str, int] = {}
        self.total_bytes = 0
        self.refused = 0

    def hold(self, sender: str, size_bytes: int) -> None:
        """Hold so many bytes for a sender, "" while it is not known (one address may stand for many hosts
        behind a proxy). Raises Refusal(overloaded) with a spread Retry-After."""
        total = self.total_bytes + size_bytes
        if total > self.limit_bytes and self.total_bytes:
            raise self._overloaded("the daemon has received more than it can work off now")
        if sender and total > self.limit_bytes * _CROWDED and self._held:
            own = self._held.get(sender, 0) + size_bytes
            share = self.limit_bytes // (len(self._held) + (sender not in self._held))
            if own > share:
                raise self._overloaded("this sender has more than its share of what waits")
        self.total_bytes = total
        self._held[sender] = self._held.get(sender, 0) + size_bytes

    def release(self, sender: str, size_bytes: int) -> None:
        """Release bytes that are on disk, or given up."""
        self.total_bytes -= size_bytes
        left = self._held[sender] - size_bytes
        if left:
            self._held[sender] = left
        else:
            del self._held[sender]

    def _overloaded(self, text: str) -> Refusal:
        self.refused += 1
        fill = min(1.0, self.total_bytes / self.limit_bytes)
        wait_s = int(_LEAST_S + self._random() * _SPREAD_S * (0.5 + fill) + 0.999)
        return Refusal(
            "overloaded",
            text,
            hint=f"send it again in {wait_s} s",
            headers=((b"retry-after", str(wait_s).encode()),),
        )
