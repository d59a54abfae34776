"""Bounds how many calls of tools run at once. What is beyond is refused, and never waits in a queue."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from fazai.daemon.http.refusal import Refusal


class ToolSlots:
    """Counts the calls that run: `most` in all, `each` of one client."""

    def __init__(self, most: int = 64, each: int = 16) -> None:
        self._most, self._each = most, each
        self._running: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, who: str) -> Iterator[None]:
        """Hold a place while a call runs. Raises Refusal(overloaded)."""
        if self._running[who] >= self._each or self._running.total() >= self._most:
            if not self._running[who]:
                del self._running[who]
            text = f"too many tools run at once, {self._each} of one client and {self._most} in all"
            raise Refusal("overloaded", text, headers=((b"retry-after", b"1"),))
        self._running[who] += 1
        try:
            yield
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]
