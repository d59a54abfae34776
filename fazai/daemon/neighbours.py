"""Who is there beside the hosts: the worker and the firewalls, as gauges."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fazai.daemon.exposition import Metric, escape
from fazai.errors import FazaiError, StateError

if TYPE_CHECKING:
    from fazai.daemon.services import Services
    from fazai.store.daemon import FirewallRecord

__all__ = ["NEIGHBOUR_METRICS", "Neighbours", "firewall_up", "watch"]

_LOOK_S = 15.0
_ANSWER_S = 2.0

_WORKER = Metric(
    "fazai_worker_up",
    "gauge",
    "1 while the Gemma worker answers, else 0; absent where there is no socket of one.",
)
_FIREWALL = Metric(
    "fazai_firewall_up", "gauge", "1 when the newest call to the firewall was answered, else 0."
)
NEIGHBOUR_METRICS = (_WORKER, _FIREWALL)


def firewall_up(one: FirewallRecord) -> bool | None:
    """None: nobody asked it yet."""
    if one.last_seen is None and one.last_error_at is None:
        return None
    return (one.last_seen or 0.0) > (one.last_error_at or 0.0)


class Neighbours:
    """One for the daemon; as of the last `look`."""

    def __init__(self) -> None:
        self.worker: bool | None = None
        self.firewalls: dict[str, bool] = {}

    async def look(self, services: Services) -> None:
        """Raises StateError."""
        self.worker = await self._worker(services)
        known = await asyncio.to_thread(services.store.firewalls)
        self.firewalls = {one.name: up for one in known if (up := firewall_up(one)) is not None}

    async def _worker(self, services: Services) -> bool | None:
        """A socket that was there once is missed when it has gone; none at all is a choice."""
        there = await asyncio.to_thread(os.path.exists, services.settings.gemma_socket)
        if self.worker is None and not there:
            return None
        try:
            async with asyncio.timeout(_ANSWER_S):
                await services.sessions.client.status()
        except (FazaiError, TimeoutError):
            return False
        return True

    def metrics(self) -> Iterable[str]:
        """A source of `Exposition`."""
        if self.worker is not None:
            yield _WORKER.head().decode() + f"{_WORKER.name} {int(self.worker)}"
        if self.firewalls:
            yield _FIREWALL.head().decode().rstrip("\n")
        for name, up in self.firewalls.items():
            yield f'{_FIREWALL.name}{{firewall="{escape(name)}"}} {int(up)}'


async def watch(services: Services) -> None:
    """A part: looks from time to time."""
    while True:
        try:
            await services.neighbours.look(services)
        except StateError as error:
            services.log.say("error", f"the registry cannot be read: {error}", logger="fazai.daemon")
        await asyncio.sleep(_LOOK_S)
