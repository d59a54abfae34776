"""The ledger as one program or file for many targets sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from fazai.store.base import LEASE_S, Action, Lease, Run, Store, TargetMemory, TargetState


class FanoutStore:
    """Records the run, its actions and events, and holds boxes, as a reconcile does. It knows nothing of how
    targets are: what is declared for them was not looked at, so neither their state nor what an earlier run
    left pending is touched."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def close(self) -> None:
        self._store.close()

    async def run_begin(self, run: Run) -> None:
        await self._store.run_begin(run)

    async def run_end(self, run_id: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        await self._store.run_end(run_id, exit_code, summary)

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        return replace(await self._store.memory(box, name), pending={}, unfinished=(), holder=None)

    def lease(
        self, box: str, run: Run, name: str = "", lease_s: float = LEASE_S
    ) -> AbstractAsyncContextManager[Lease]:
        return self._store.lease(box, run, name, lease_s)

    async def action_begin(self, action: Action, services: Sequence[str]) -> None:
        await self._store.action_begin(action, services)

    async def actions_begin(self, begun: Sequence[tuple[Action, Sequence[str]]]) -> None:
        await self._store.actions_begin(begun)

    async def action_end(self, action_id: str, status: str, *, ref: str = "", error: str = "") -> None:
        await self._store.action_end(action_id, status, ref=ref, error=error)

    async def activated(self, box: str, service: str, name: str = "") -> None:
        pass

    async def adopt(self, box: str, ref: str, kind: str, identity: str, run_id: str) -> None:
        pass

    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        self._store.event(run_id, time, type_, target, data)

    async def names(self, known: str) -> dict[str, float]:
        return await self._store.names(known)

    async def owners(self, box: str) -> dict[str, tuple[str, ...]]:
        return {}

    async def settle(self, box: str, name: str = "") -> None:
        pass

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        pass

    async def left(self, target: str) -> str:
        return ""  # not known: so each outcome is recorded, as news

    async def targets(self) -> dict[str, TargetState]:
        return await self._store.targets()

    async def history(self, limit: int) -> list[Run]:
        return await self._store.history(limit)

    async def find_run(self, prefix: str) -> Run | None:
        return await self._store.find_run(prefix)

    async def actions(self, run_id: str) -> list[Action]:
        return await self._store.actions(run_id)

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        return await self._store.events(run_id)
