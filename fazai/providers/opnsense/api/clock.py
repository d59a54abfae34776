"""Time and chance as the client of a firewall needs them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class RetryClock(Protocol):
    """Time and chance, handed in so that tests need no waiting."""

    def now_s(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...
    def jitter(self) -> float: ...


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return random.random()  # noqa: S311  spreads retries, guards nothing
