"""Changes that a session carries out several at once: what the journal and the report know of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import FazaiError, Rejected, StateError, Unreachable, Unsure
from fazai.model import Activate, Change, Diff, Joining, Session, Step, Target
from fazai.outcome import Status
from fazai.store.base import Action
from fazai.store.sqlite.ledger import SqliteStore

from .device import DeviceProvider, DeviceSession
from .test_engine import Bench, item, only, work

NAMES = ("a", "b", "c", "d")
RESOURCES = tuple(item(name, size="1") for name in NAMES)


class JoiningSession(DeviceSession):
    """Joins up to three changes; those before a fault are done. Each change has a service of its own."""

    def diff(self, *words: Any, **more: Any) -> Diff:
        found = super().diff(*words, **more)
        named = (replace(c, activates=(f"of {c.identity}",)) for c in found.changes)
        services = more.get("pending", frozenset()) | {f"of {c.identity}" for c in found.changes}
        steps: tuple[Step, ...] = (*named, *(Activate(self.target.name, name) for name in sorted(services)))
        return replace(found, steps=steps)

    def join(self, changes: Sequence[Change]) -> int:
        self.device.calls.append(f"join {len(changes)}")
        return min(3, len(changes))

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        refs: list[str] = []
        for change in changes:
            try:
                refs.append(await self.write(change))
            except FazaiError as error:
                return refs, error
        return refs, None


class JoiningProvider(DeviceProvider):
    def connect(self, target: Target) -> Session:
        session = JoiningSession(self.devices[target.name], target)
        assert isinstance(session, Joining)
        return session


@dataclass
class JoiningBench(Bench):
    def engine(self, store: SqliteStore, **settings: Any) -> Engine:
        engine = Bench.engine(self, store, **settings)
        engine.provider = lambda name: JoiningProvider(self.devices)
        return engine

    def journal(self) -> Mapping[str, str]:
        """The actions of the last run, each with its status."""
        with self.store() as store:
            (latest,) = asyncio.run(store.history(1))
            return {one.identity: one.status for one in asyncio.run(store.actions(latest.run_id))}


@pytest.fixture
def bench(tmp_path: Path) -> JoiningBench:
    return JoiningBench(tmp_path / "state")


def failing(at: str, error: FazaiError) -> Callable[[str], None]:
    def before(call: str) -> None:
        if call == at:
            raise error

    return before


def test_all_are_journaled_before_the_first(bench: JoiningBench) -> None:
    device = bench.device("t")
    known: list[int] = []

    def before(call: str) -> None:
        if call == "write create a":
            with bench.store() as other, ThreadPoolExecutor(1) as apart:  # here a loop runs
                memory = apart.submit(asyncio.run, other.memory("t")).result()
                known.append(len(memory.unfinished))

    device.before = before
    outcome = bench.run(work("t", resources=RESOURCES))
    assert (outcome.exit_code, only(outcome).status, known) == (0, Status.CHANGED, [3])
    assert [call for call in device.calls if call.startswith(("join", "write"))] == [
        *("join 4", "write create a", "write create b", "write create c", "write create d"),
    ]
    assert bench.journal() == dict.fromkeys(NAMES, "done")
    assert [action.status for action in only(outcome).actions] == ["done"] * 4


def test_one_that_fails_leaves_the_others_and_takes_back(bench: JoiningBench) -> None:
    device = bench.device("t")
    device.before = failing("write create b", Rejected("no", fields={}))
    outcome = bench.run(work("t", resources=RESOURCES))
    assert [a.status for a in only(outcome).actions] == ["undone", "failed", "left", "left"]
    assert (device.saved, "1 change taken back" in only(outcome).notes) == ({}, True)
    assert {**bench.journal(), "a": ""} == {"a": "", "b": "failed", "c": "left"}
    with bench.store() as store:
        assert asyncio.run(store.memory("t")).unfinished == ()
        assert set(asyncio.run(store.memory("t")).pending) == {"of b"}  # how far it came, nobody knows


@pytest.mark.parametrize("error", [Unsure("cut", where="t"), Unreachable("cut", stage="read", where="t")])
def test_after_a_cut_any_of_the_others_may_be_done(bench: JoiningBench, error: FazaiError) -> None:
    device = bench.device("t", saved={"c": {"size": "1"}})  # it was done, and nobody heard of it
    wanted = tuple(item(name, size="2") for name in ("a", "b", "c"))
    device.before = failing("write create b", error)
    outcome = bench.run(work("t", resources=wanted))
    assert [call for call in device.calls if call.startswith("write")] == [
        *("write create a", "write create b"),
        *("write update c", "write delete b", "write delete a"),
    ]
    assert device.saved == {"c": {"size": "1"}}
    assert "3 changes taken back" in only(outcome).notes


def test_a_journal_that_cannot_be_written_stops_before_the_first(
    bench: JoiningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = bench.device("t")

    async def actions_begin(self: SqliteStore, begun: Sequence[tuple[Action, Sequence[str]]]) -> None:
        if any(action.identity == "b" for action, _ in begun):
            raise StateError("the disk is full")

    monkeypatch.setattr(SqliteStore, "actions_begin", actions_begin)
    outcome = bench.run(work("t", resources=RESOURCES))
    assert (only(outcome).status, device.writes) == (Status.FAILED, [])
    assert "the disk is full" in str(only(outcome).errors[0])
