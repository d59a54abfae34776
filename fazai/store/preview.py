"""Store for the look ahead of a run: it reads what is there and keeps aside what the look would record.

A run that looks before it writes is one run. When the look is all that there is (the plan is stale, a target
does not answer), the run takes over what was kept; else it records the same itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fazai.store.base import Run, Store, TargetMemory, TargetState
from fazai.store.null import NullStore


class PreviewStore(NullStore):
    """Ledger that reads another one, and refuses everything that precedes a write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.events_kept: list[tuple[float, str, str, Mapping[str, Any]]] = []
        self._states: dict[str, tuple[TargetState, str]] = {}

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        return await self._store.memory(box, name)

    async def names(self, known: str) -> dict[str, float]:
        return await self._store.names(known)

    async def owners(self, box: str) -> dict[str, tuple[str, ...]]:
        return await self._store.owners(box)

    async def left(self, target: str) -> str:
        return await self._store.left(target)

    async def targets(self) -> dict[str, TargetState]:
        return await self._store.targets()

    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        self.events_kept.append((time, type_, target, data))

    def retell(self, told: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Say what was kept in other words: by an event's type and its data."""
        self.events_kept = [
            (at, type_, target, told(type_, data)) for at, type_, target, data in self.events_kept
        ]

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        self._states[target] = state, known

    async def record(self, run: Run, exit_code: int, totals: Mapping[str, Any]) -> None:
        """Write what was kept as the whole of the run. Raises StateError."""
        await self._store.run_begin(run)
        for moment, type_, target, data in self.events_kept:
            self._store.event(run.run_id, moment, type_, target, data)
        for target, (state, known) in self._states.items():
            self._store.ended(target, state, known)
        await self._store.run_end(run.run_id, exit_code, totals)
