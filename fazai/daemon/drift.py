"""The state in which the newest run left each target, read from the ledger, which holds the runs of this
machine and those that were reported from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from fazai.errors import StateError
from fazai.service.log import Log
from fazai.service.prometheus import Family, Metric
from fazai.store.base import TargetState
from fazai.store.daemon import DaemonStore

_LOOK_S = 5.0
_GOOD = frozenset({"converged", "changed", "pending"})

TARGET_METRICS = tuple(
    Metric(f"fazai_target_{name}", "gauge", text, ("target",))
    for name, text in (
        ("pending_changes", "Changes that the newest run found and that were not made."),
        ("failed", "1 where the newest run did not succeed, else 0."),
        ("last_run_timestamp_seconds", "When the newest run ended on the target."),
    )
)


class Drift:
    """The newest state of each target, as of the last `refresh`."""

    def __init__(self, store: DaemonStore) -> None:
        self._store = store
        self.targets: Mapping[str, TargetState] = {}

    async def refresh(self) -> None:
        """Read the targets' states anew. Raises StateError."""
        self.targets = await self._store.ledger.targets()

    def families(self) -> Iterable[Family]:
        """Return the metrics of all targets; none while no target is known."""
        states = self.targets
        if not states:
            return
        pending, failed, last_run = TARGET_METRICS
        yield pending.by_label({name: state.pending for name, state in states.items()})
        yield failed.by_label({name: state.status not in _GOOD for name, state in states.items()})
        yield last_run.by_label({name: state.time for name, state in states.items()})


async def follow_ledger(drift: Drift, log: Log) -> None:
    """Keep `drift` and its metrics up to date, until the daemon stops."""
    while True:
        try:
            await drift.refresh()
        except StateError as error:
            log.say("error", f"the ledger cannot be read: {error}", logger="fazai.daemon.drift")
        await asyncio.sleep(_LOOK_S)
