"""A store that remembers nothing: for runs that cannot write when the state folder cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fazai.errors import StateError
from fazai.store.base import LEASE_S, Action, Lease, Run, TargetMemory, TargetState


class NullStore:
    """Store without a place: reads are empty, records of a run go nowhere, and everything that precedes a
    write is refused."""

    def close(self) -> None:
        pass

    async def run_begin(self, run: Run) -> None:
        pass

    async def run_end(self, run_id: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        pass

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        return TargetMemory()

    def lease(
        self, box: str, run: Run, name: str = "", lease_s: float = LEASE_S
    ) -> AbstractAsyncContextManager[Lease]:
        raise _no_state()

    async def action_begin(self, action: Action, services: Sequence[str]) -> None:
        raise _no_state()

    async def actions_begin(self, begun: Sequence[tuple[Action, Sequence[str]]]) -> None:
        raise _no_state()

    async def action_end(self, action_id: str, status: str, *, ref: str = "", error: str = "") -> None:
        raise _no_state()

    async def activated(self, box: str, service: str, name: str = "") -> None:
        raise _no_state()

    async def settle(self, box: str, name: str = "") -> None:
        pass

    async def adopt(self, box: str, ref: str, kind: str, identity: str, run_id: str) -> None:
        raise _no_state()

    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        pass

    async def history(self, limit: int) -> list[Run]:
        return []

    async def find_run(self, prefix: str) -> Run | None:
        return None

    async def actions(self, run_id: str) -> list[Action]:
        return []

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        return []

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        pass

    async def names(self, known: str) -> dict[str, float]:
        return {}

    async def owners(self, box: str) -> dict[str, tuple[str, ...]]:
        return {}

    async def left(self, target: str) -> str:
        return ""

    async def targets(self) -> dict[str, TargetState]:
        return {}


def _no_state() -> StateError:
    return StateError("nothing is written without a state folder")
