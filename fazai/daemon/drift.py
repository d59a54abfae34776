"""What the newest run said of each target, from the ledger: it holds the runs of this machine and those that
were reported from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fazai.daemon.metrics import Metric, escape
from fazai.errors import StateError

if TYPE_CHECKING:
    from fazai.service.log import Log
    from fazai.store.base import TargetState
    from fazai.store.daemon import DaemonStore

__all__ = ["TARGET_METRICS", "Drift", "follow"]

_LOOK_S = 5.0
_GOOD = frozenset({"converged", "changed", "pending"})

TARGET_METRICS = (
    Metric(
        "fazai_target_pending_changes", "gauge", "Changes that the newest run found and that were not made."
    ),
    Metric("fazai_target_failed", "gauge", "1 where the newest run did not succeed, else 0."),
    Metric("fazai_target_last_run_timestamp_seconds", "gauge", "When the newest run ended on the target."),
)


class Drift:
    """One for the daemon. `targets` is as of the last `look`."""

    def __init__(self, store: DaemonStore) -> None:
        self._store = store
        self.targets: Mapping[str, TargetState] = {}

    async def look(self) -> None:
        """Read them anew. Raises StateError."""
        self.targets = await asyncio.to_thread(self._store.ledger.targets)

    def metrics(self) -> Iterable[str]:
        """A source of `Exposition`."""
        states = self.targets
        labels = {name: f'{{target="{escape(name)}"}}' for name in states}
        for metric, value in zip(TARGET_METRICS, (_pending, _failed, _ended), strict=True):
            if states:
                yield metric.head().decode().rstrip("\n")
            for name, state in states.items():
                yield f"{metric.name}{labels[name]} {value(state)}"


def _pending(state: TargetState) -> float:
    return state.pending


def _failed(state: TargetState) -> float:
    return int(state.status not in _GOOD)


def _ended(state: TargetState) -> float:
    return state.time


async def follow(drift: Drift, log: Log) -> None:
    """Keep `drift` and its metrics up to date, for as long as the daemon lives."""
    while True:
        try:
            await drift.look()
        except StateError as error:
            log.say("error", f"the ledger cannot be read: {error}", logger="fazai.daemon.drift")
        await asyncio.sleep(_LOOK_S)
