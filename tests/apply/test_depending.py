"""Changes on which others depend: at a LookAgain, when something moved, and in an undo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import FazaiError, Moved, Rejected, Unreachable
from fazai.model import Change, Diff, Following, LookAgain, Resource, Session, Step
from fazai.outcome import Status
from fazai.plan import Expected, changes_digest
from fazai.store.sqlite.ledger import SqliteStore

from .device import DeviceProvider, DeviceSession
from .test_engine import Bench, item, only, work


class FollowingSession(DeviceSession):
    """What is called "maker" may alter anything behind it; `ours` says what explains that something moved."""

    def diff(self, *words: Any, **more: Any) -> Diff:
        found = super().diff(*words, **more)
        wanted: Sequence[Resource] = words[0]
        steps: list[Step] = []
        for step in found.steps:
            steps.append(step)
            names = [resource.identity for resource in wanted]
            if isinstance(step, Change) and step.identity.startswith("maker"):
                rest = tuple(wanted[names.index(step.identity) + 1 :])
                steps += [LookAgain(self.target.name, rest, step.identity)] if rest else []
        return replace(found, steps=tuple(steps))

    async def explains(self, moved: Moved, changes: Sequence[Change]) -> bool:
        self.device.calls.append(f"explains {[change.identity for change in changes]}")
        return "ours" in moved.path and bool(changes)

    def affected(self, changes: Sequence[Change], resources: Sequence[Resource]) -> Sequence[Resource]:
        return ()

    def exposed(self, resources: Sequence[Resource]) -> Sequence[Resource]:
        return ()


class FollowingProvider(DeviceProvider):
    def connect(self, target: Any) -> Session:
        session = FollowingSession(self.devices[target.name], target)
        assert isinstance(session, Following)
        return session


@dataclass
class FollowingBench(Bench):
    def engine(self, store: SqliteStore, **settings: Any) -> Engine:
        engine = Bench.engine(self, store, **settings)
        engine.provider = lambda name: FollowingProvider(self.devices)
        return engine


@pytest.fixture
def bench(tmp_path: Path) -> FollowingBench:
    return FollowingBench(tmp_path / "state")


def once(at: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Before the first call of that name."""
    left = [act]

    def before(call: str) -> None:
        if call == at and left:
            left.pop()()

    return before


def raising(error: FazaiError) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


THREE = (item("a", size="1"), item("maker", size="1"), item("b", size="1"))


def test_what_is_behind_is_observed_and_compared_anew(bench: FollowingBench) -> None:
    """Also what was as wanted, and what needs nothing any more."""
    wanted = (*THREE, item("c", size="1"))
    device = bench.device("t", saved={"c": {"size": "1"}})
    brought = {"b": {"size": "1"}, "c": {"size": "0"}}
    device.before = once("write create maker", lambda: device.saved.update(brought))
    outcome = bench.run(work("t", resources=wanted))
    assert device.calls == [
        *("observe", "write create a", "write create maker", "observe", "write update c"),
        *("observe", "hold", "activate service", "probe", "verify", "close"),
    ]
    assert [(a.change.identity, a.status) for a in only(outcome).actions] == [
        ("a", "done"),
        ("maker", "done"),
        ("c", "done"),
    ]
    assert (outcome.exit_code, only(outcome).unchanged) == (0, 1)
    assert bench.run(work("t", resources=wanted)).totals()["changed"] == 0


def test_what_cannot_be_done_then_is_taken_back(bench: FollowingBench) -> None:
    device = bench.device("t")
    wanted = (*THREE, item("foreign", size="1"))
    device.before = once("write create maker", lambda: None)
    outcome = bench.run(work("t", resources=wanted))
    assert (only(outcome).status, device.saved) == (Status.REFUSED, {})  # it is known before


def test_what_an_earlier_action_moved_is_looked_at_again(bench: FollowingBench) -> None:
    device = bench.device("t")
    moved = Moved("moved", path="/ours", where="t")
    device.before = once("write create b", raising(moved))
    wanted = (item("a", size="1"), item("b", size="1"))
    outcome = bench.run(work("t", resources=wanted))
    assert device.calls[:6] == [
        *("observe", "write create a", "write create b", "explains ['a']", "observe", "write create b"),
    ]
    assert [(a.change.identity, a.status) for a in only(outcome).actions] == [("a", "done"), ("b", "done")]
    assert outcome.exit_code == 0
    assert not [event for event in bench.events if event.data.get("status") == "failed"]
    with bench.store() as store:
        actions = asyncio.run(store.actions(asyncio.run(store.history(1))[0].run_id))
    assert {action.identity: action.status for action in actions} == {"a": "done", "b": "done"}


def test_what_moves_again_and_again_is_somebody_else(bench: FollowingBench) -> None:
    """A second look needs an action of this run since the first."""
    device = bench.device("t")

    def before(call: str) -> None:
        if call == "write create b":
            raise Moved("/ours was changed by another hand", path="/ours", where="t")

    device.before = before
    outcome = bench.run(work("t", resources=(item("a", size="1"), item("b", size="1"))))
    explained = [call for call in device.calls if call.startswith("explains")]
    assert explained == ["explains ['a']", "explains []"]
    assert (outcome.exit_code, device.saved) == (1, {})
    assert "changed by another hand" in str(only(outcome).errors[0])
    assert [(a.change.identity, a.status) for a in only(outcome).actions] == [
        ("a", "undone"),
        ("b", "failed"),
    ]


def test_what_somebody_else_moved_is_not_written(bench: FollowingBench) -> None:
    device = bench.device("t")
    device.before = once("write create b", raising(Moved("by another hand", path="/theirs", where="t")))
    outcome = bench.run(work("t", resources=(item("a", size="1"), item("b", size="1"))))
    assert (outcome.exit_code, device.saved, device.writes) == (
        1,
        {},
        ["write create a", "write create b", "write delete a"],
    )


def test_services_of_changes_before_a_look_are_activated(bench: FollowingBench) -> None:
    device = bench.device("t", saved={"b": {"size": "1"}})
    outcome = bench.run(work("t", resources=THREE))
    assert (outcome.exit_code, only(outcome).activated, device.running["a"]) == (
        0,
        ("service",),
        {"size": "1"},
    )


def test_an_interrupt_counts_what_is_left_as_it_is_known(bench: FollowingBench) -> None:
    device = bench.device("t")
    with bench.store() as store:
        engine = bench.engine(store)
        device.before = once("write create maker", engine.interrupt)
        outcome = asyncio.run(engine.carry_out([work("t", resources=THREE)]))
    assert "2 of 3 changes are saved" in str(only(outcome).errors[0])
    assert [a.status for a in only(outcome).actions] == ["done", "done", "left"]


def test_an_undo_goes_on_after_a_failure(bench: FollowingBench) -> None:
    wanted = tuple(item(name, size="1") for name in ("a", "b", "c", "d", "e"))
    device = bench.device("t")
    faults: dict[str, FazaiError] = {
        "write create e": Rejected("no", fields={}),
        "write delete d": Rejected("not this one", fields={}),
        "write delete b": Moved("/b is not as this run left it", path="/b", where="t"),
    }

    def before(call: str) -> None:
        if call in faults:
            raise faults[call]

    device.before = before
    outcome = bench.run(work("t", resources=wanted))
    assert device.saved == {"b": {"size": "1"}, "d": {"size": "1"}}
    assert [a.status for a in only(outcome).actions] == ["undone", "done", "undone", "done", "failed"]
    assert only(outcome).notes == (
        "memory.item b: /b is not as this run left it: it stays as it is",
        "1 of 4 changes could not be taken back",
        "2 changes taken back",
    )
    with bench.store() as store:
        assert set(asyncio.run(store.memory("t")).pending) == {
            "service"
        }  # of what stays, it was never activated


def test_an_undo_ends_when_the_target_is_gone(bench: FollowingBench) -> None:
    wanted = tuple(item(name, size="1") for name in ("a", "b", "c"))
    device = bench.device("t")
    faults: dict[str, FazaiError] = {
        "write create c": Rejected("no", fields={}),
        "write delete b": Unreachable("gone", stage="write", where="t"),
    }

    def before(call: str) -> None:
        if call in faults:
            raise faults[call]

    device.before = before
    outcome = bench.run(work("t", resources=wanted))
    assert device.writes == ["write create a", "write create b", "write create c", "write delete b"]
    assert "2 of 2 changes could not be taken back" in only(outcome).notes


def promised(bench: Bench, resources: tuple[Resource, ...]) -> dict[str, Expected]:
    target = only(bench.run(work("t", resources=resources), check=True))
    return {"t": Expected(target.observed, changes_digest(action.change for action in target.actions))}


def test_a_saved_plan_and_what_is_looked_at_again(bench: FollowingBench) -> None:
    wanted = (*THREE, item("c", size="1"))
    device = bench.device("t", saved={"c": {"size": "1"}})
    expected = promised(bench, wanted)
    device.saved["c"] = {"size": "2"}
    stale = bench.run(work("t", resources=wanted), expected=expected)
    assert (stale.exit_code, device.writes) == (6, [])
    device.saved["c"] = {"size": "1"}
    device.before = once("write create maker", lambda: device.saved.update({"c": {"size": "0"}}))
    outcome = bench.run(work("t", resources=wanted), expected=expected)
    assert (outcome.exit_code, device.saved["c"]) == (0, {"size": "1"})


def test_a_change_that_was_not_planned_is_stale_and_taken_back(bench: FollowingBench) -> None:
    """Something moved that nobody could foresee: then only the planned change itself may come of it."""
    device = bench.device("t", saved={"b": {"size": "0"}})
    wanted = (item("a", size="1"), item("b", size="1"))
    expected = promised(bench, wanted)

    def move() -> None:
        device.saved["b"] = {"size": "7"}
        raise Moved("moved", path="/ours", where="t")

    device.before = once("write update b", move)
    outcome = bench.run(work("t", resources=wanted), expected=expected)
    assert outcome.exit_code == 6
    assert "memory.item b is not the planned change" in str(only(outcome).errors[0])
    assert device.saved == {"b": {"size": "7"}}
