"""A store that remembers nothing: for runs that cannot write when the state folder cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never

from fazai.errors import StateError
from fazai.store.base import TargetMemory, TargetState


def _refuse(*_: Any, **__: Any) -> Never:
    raise StateError("nothing is written without a state folder")


async def _refuse_write(*_: Any, **__: Any) -> Never:
    _refuse()


async def _return_nothing(*_: Any, **__: Any) -> None:
    pass


async def _return_list(*_: Any, **__: Any) -> list[Any]:
    return []


async def _return_dict(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


class NullStore:
    """Store without a place: reads are empty, records of a run go nowhere, and everything that precedes a
    write is refused."""

    lease = _refuse
    action_begin = actions_begin = action_end = activated = adopt = _refuse_write
    run_begin = run_end = settle = find_run = _return_nothing
    history = actions = events = _return_list
    names = owners = targets = _return_dict

    def close(self) -> None:
        pass

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        return TargetMemory()

    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        pass

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        pass

    async def left(self, target: str) -> str:
        return ""
