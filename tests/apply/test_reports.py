"""What the report and the events of a run say, and what makes it stop and take back.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import ExitCode, FazaiError, VerifyError
from fazai.model import Change, Diff, Rehearsing, Session, Verb
from fazai.outcome import TargetStatus
from fazai.store.base import Action
from fazai.store.sqlite.ledger import SqliteStore

from .device import DeviceProvider, DeviceSession, Seen, rejected
from .test_depending import FollowingBench, FollowingSession, once, raising
from .test_engine import RESOURCES, Bench, item, only, work

WHOLE = "nothing is written to it: a target changes as a whole or not at all"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


@pytest.fixture
def following(tmp_path: Path) -> FollowingBench:
    return FollowingBench(tmp_path / "state")


def statuses(bench: Bench) -> list[tuple[str, str]]:
    """The events of changes: which item, and what became of it."""
    changes = [event.data for event in bench.events if event.type == "change"]
    return [(str(data["identity"]), str(data.get("status"))) for data in changes]


def test_a_target_without_anything_wanted_is_left_alone(bench: Bench) -> None:
    device = bench.device("t")
    outcome = bench.run(work("t", resources=()))
    assert (outcome.exit_code, device.calls) == (0, [])


def left_behind(bench: Bench, *services: str) -> None:
    """An earlier run began to write "b", and no more was heard of it."""

    async def leave(store: SqliteStore) -> None:
        run = bench.engine(store).run
        await store.run_begin(run)
        change = Change("t", "memory.item", "b", Verb.CREATE, {}, {}, "")
        await store.action_begin(Action("x1", run.run_id, change), services)

    with bench.store() as store:
        asyncio.run(leave(store))


def test_a_target_without_anything_wanted_gets_what_an_earlier_run_left(bench: Bench) -> None:
    device = bench.device("t", saved={"b": {"size": "2"}})
    left_behind(bench, "service")
    outcome = bench.run(work("t", resources=()))
    assert (outcome.exit_code, only(outcome).activated, device.running) == (0, ("service",), device.saved)
    device.calls.clear()
    assert bench.run(work("t", resources=())).exit_code == 0
    assert device.calls == []


def test_an_action_that_was_cut_off_is_settled_where_all_is_as_wanted(bench: Bench) -> None:
    bench.device("t", saved={"b": {"size": "2"}})
    left_behind(bench)
    wanted = work("t", resources=(item("b", size="2"),))
    assert "was cut off during create of memory.item b" in " ".join(only(bench.run(wanted)).notes)
    assert only(bench.run(wanted)).notes == ()


def test_a_target_without_anything_wanted_is_looked_at_where_an_action_was_cut_off(bench: Bench) -> None:
    device = bench.device("t")
    left_behind(bench)
    assert bench.run(work("t", resources=())).exit_code == 0
    assert device.calls == ["observe", "close"]
    assert only(bench.run(work("t", resources=()))).notes == ()


def test_each_change_has_an_event_with_what_became_of_it(bench: Bench) -> None:
    device = bench.device("t")
    device.before = once("write create b", raising(rejected("b is not to be")))
    bench.run(work("t", resources=RESOURCES))
    assert statuses(bench)[:2] == [("a", "done"), ("b", "failed")]
    failed = next(event.data for event in bench.events if event.data.get("status") == "failed")
    assert "b is not to be" in str(failed["error"])
    done = next(event.data for event in bench.events if event.data.get("status") == "done")
    assert str(done["action_id"])


def test_a_refused_change_says_why_and_what_it_means_for_the_others(bench: Bench) -> None:
    bench.device("t")
    outcome = only(bench.run(work("t", resources=(*RESOURCES, item("foreign", size="3")))))
    (refused,) = [action for action in outcome.actions if action.status == "refused"]
    assert refused.error is outcome.errors[0]
    assert WHOLE in outcome.notes
    assert sorted(statuses(bench)) == [("a", "left"), ("b", "left"), ("foreign", "refused")]


def test_a_service_that_cannot_be_activated_is_named(bench: Bench) -> None:
    device = bench.device("t")
    device.before = once("activate service", raising(rejected()))
    outcome = only(bench.run(work("t", resources=RESOURCES)))
    assert (outcome.status, outcome.not_activated, outcome.activated) == (
        TargetStatus.FAILED,
        "service",
        (),
    )
    assert device.saved == {}


def test_an_activation_that_fails_while_it_is_taken_back_is_an_error_too(bench: Bench) -> None:
    device = bench.device("t")
    activations: list[str] = []

    def before(call: str) -> None:
        if call == "probe":
            raise rejected("no answer")
        activations.extend([call] if call.startswith("activate") else [])
        if len(activations) == 2:
            raise rejected("not again")

    device.before = before
    outcome = only(bench.run(work("t", resources=RESOURCES)))
    assert [error.message for error in outcome.errors] == ["no answer", "not again"]


def test_an_interrupt_says_how_to_go_on(bench: Bench) -> None:
    device = bench.device("t")
    with bench.store() as store:
        engine = bench.engine(store)
        device.before = once("write create a", engine.interrupt)
        outcome = asyncio.run(engine.carry_out([work("t", resources=RESOURCES)]))
    (error,) = only(outcome).errors
    assert (error.message, str(error.where), error.hint) == (
        "interrupted: 1 of 2 changes are saved and not yet activated",
        "t",
        "run it again: it goes on from there",
    )


# -- a look in the middle, and the reading back


MAKER = item("maker", size="1")


@pytest.mark.parametrize("names", [("foreign",), ("foreign", "foreign too")])
def test_what_may_not_be_changed_at_a_second_look_takes_back_the_first_changes(
    following: FollowingBench, names: tuple[str, ...]
) -> None:
    device = following.device("t", saved={name: {"size": "1"} for name in names})
    altered = {name: {"size": "0"} for name in names}
    device.before = once("write create maker", lambda: device.saved.update(altered))
    wanted = (MAKER, *(item(name, size="1") for name in names), item("b", size="1"))
    outcome = only(following.run(work("t", resources=wanted)))
    assert outcome.status is TargetStatus.FAILED
    assert str(outcome.errors[0]).count("not ours") == len(names)
    assert device.saved == altered
    assert device.writes == ["write create maker", "write delete maker"]


def test_what_may_not_be_changed_when_it_is_read_back_takes_back_all(bench: Bench) -> None:
    device = bench.device("t", saved={"foreign": {"size": "1"}})
    device.before = once("write create b", lambda: device.saved.update(foreign={"size": "0"}))
    outcome = only(bench.run(work("t", resources=(*RESOURCES, item("foreign", size="1")))))
    assert (outcome.status, device.saved) == (TargetStatus.FAILED, {"foreign": {"size": "0"}})
    assert "not ours" in str(outcome.errors[0])


def test_a_check_says_what_will_be_looked_at_again(following: FollowingBench) -> None:
    device = following.device("t", saved={"b": {"size": "1"}})
    outcome = only(following.run(work("t", resources=(MAKER, item("b", size="1"))), check=True))
    assert "1 that is as wanted now is looked at again after maker" in outcome.notes
    assert (outcome.activations, outcome.unchanged) == (("service",), 1)
    assert outcome.observed == Seen(device.saved).digest


class NotingSession(FollowingSession):
    """Says how many items there are, and one thing each time."""

    def diff(self, *words: Any, **more: Any) -> Diff:
        return replace(super().diff(*words, **more), notes=("as ever", f"{len(self.device.saved)} items"))


class NotingProvider(DeviceProvider):
    def connect(self, target: Any) -> Session:
        return NotingSession(self.devices[target.name], target)


@dataclass
class NotingBench(Bench):
    def engine(self, store: SqliteStore, **settings: Any) -> Engine:
        engine = Bench.engine(self, store, **settings)
        engine.provider = lambda name: NotingProvider(self.devices)
        return engine


def test_a_second_look_adds_what_it_says_anew(tmp_path: Path) -> None:
    bench = NotingBench(tmp_path / "state")
    bench.device("t")
    outcome = only(bench.run(work("t", resources=(MAKER, item("b", size="1")))))
    assert outcome.notes == ("as ever", "0 items", "1 items")


# -- what a target says before and after


class CarefulSession(DeviceSession):
    """Objects beforehand to what is called "bad"; afterwards to what is called "late"."""

    def _said_of(self, changes: Sequence[Change], word: str) -> list[FazaiError]:
        return [VerifyError(f"{c.identity}!", where="t") for c in changes if c.identity.startswith(word)]

    async def rehearse(self, changes: Sequence[Change]) -> list[FazaiError]:
        return self._said_of(changes, "bad")

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        return self._said_of(changes, "late")


class CarefulProvider(DeviceProvider):
    def connect(self, target: Any) -> Session:
        session = CarefulSession(self.devices[target.name], target)
        assert isinstance(session, Rehearsing)
        return session


@dataclass
class CarefulBench(Bench):
    def engine(self, store: SqliteStore, **settings: Any) -> Engine:
        engine = Bench.engine(self, store, **settings)
        engine.provider = lambda name: CarefulProvider(self.devices)
        return engine


def test_what_a_target_objects_to_beforehand_is_not_begun(tmp_path: Path) -> None:
    bench = CarefulBench(tmp_path / "state")
    device = bench.device("t")
    outcome = only(bench.run(work("t", resources=(*RESOURCES, item("bad one"), item("bad two")))))
    assert (outcome.status, device.writes) == (TargetStatus.FAILED, [])
    assert [error.message for error in outcome.errors] == ["bad one!", "bad two!"]
    assert [action.status for action in outcome.actions] == ["left"] * 4
    assert WHOLE in outcome.notes


@pytest.mark.parametrize("names", [("late",), ("late", "later")])
def test_what_does_not_work_afterwards_stays_and_is_an_error(tmp_path: Path, names: tuple[str, ...]) -> None:
    bench = CarefulBench(tmp_path / "state")
    device = bench.device("t")
    outcome = bench.run(work("t", resources=tuple(item(name, size="1") for name in names)))
    assert outcome.exit_code == ExitCode.FAILED
    assert only(outcome).status is TargetStatus.FAILED
    assert device.running == {name: {"size": "1"} for name in names}
    (error,) = only(outcome).errors
    assert all(f"{name}!" in str(error) for name in names)
