"""Whether the worker is there, as a gauge."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fazai.daemon.exposition import Metric
from fazai.errors import FazaiError

if TYPE_CHECKING:
    from fazai.daemon.services import Services

__all__ = ["WORKER_UP", "Neighbours", "watch"]

_LOOK_S = 15.0
_ANSWER_S = 2.0

WORKER_UP = Metric(
    "fazai_worker_up",
    "gauge",
    "1 while the Gemma worker answers, else 0; absent where there is no socket of one.",
)


class Neighbours:
    """One for the daemon; as of the last `look`."""

    def __init__(self) -> None:
        self.worker: bool | None = None

    async def look(self, services: Services) -> None:
        """A socket that was there once is missed when it has gone; none at all is a choice."""
        there = await asyncio.to_thread(os.path.exists, services.settings.gemma_socket)
        if self.worker is None and not there:
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                await services.sessions.client.status()
        except (FazaiError, TimeoutError):
            self.worker = False
        else:
            self.worker = True

    def metrics(self) -> Iterable[str]:
        """A source of `Exposition`."""
        if self.worker is not None:
            yield WORKER_UP.head().decode() + f"{WORKER_UP.name} {int(self.worker)}"


async def watch(services: Services) -> None:
    """A part: looks from time to time."""
    while True:
        await services.neighbours.look(services)
        await asyncio.sleep(_LOOK_S)
