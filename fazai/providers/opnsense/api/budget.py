"""The memory that large answers may take, shared by all firewalls of a process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

MIB = 1024 * 1024
SMALL_BYTES = MIB  # an answer up to this is read without asking: there are few connections
TOTAL_BYTES = 64 * MIB


class Budget:
    """Bytes that answers in flight may take; who asks first is served first."""

    def __init__(self, total_bytes: int = TOTAL_BYTES) -> None:
        self.total_bytes = total_bytes
        self.taken_bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, count: int) -> int:
        """Wait until so many bytes are free; returns how many were taken: never more than there are."""
        count = min(count, self.total_bytes)
        if not self._waiting and self.taken_bytes + count <= self.total_bytes:
            self.taken_bytes += count
            return count
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, count))
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self.give(count)
            else:
                self._waiting = deque(one for one in self._waiting if one[0] is not ready)
                self._serve_waiting()
            raise
        return count

    def give(self, count: int) -> None:
        """Take back what `take` returned."""
        self.taken_bytes -= count
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting and self.taken_bytes + self._waiting[0][1] <= self.total_bytes:
            ready, count = self._waiting.popleft()
            if not ready.done():
                self.taken_bytes += count
                ready.set_result(None)


class AnswerLease:
    """One answer's share of the budget: all that it may grow to, once it is no longer small."""

    def __init__(self, budget: Budget, limit_bytes: int) -> None:
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0

    async def cover(self, size_bytes: int) -> None:
        """Wait until an answer of this size may be held."""
        if size_bytes > SMALL_BYTES and not self._taken_bytes:
            self._taken_bytes = await self._budget.take(self._limit_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._taken_bytes:
            self._budget.give(self._taken_bytes)
            self._taken_bytes = 0
