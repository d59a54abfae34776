"""What is remembered and locked is the box: two inventories with one name, two names for one box."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import ExitCode, FazaiError, Rejected, Unreachable
from fazai.model import Change, Resource, Target, TargetWork, Verb, Work
from fazai.outcome import RunOutcome, TargetStatus
from fazai.store.base import Action, Run
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.schema import FILE_NAME, MIGRATIONS

from .device import DeviceProvider
from .test_engine import RESOURCES, Bench, item, only


def at(name: str, address: str, resources: tuple[Resource, ...] = RESOURCES, **options: Any) -> TargetWork:
    return TargetWork(Target(name, "memory", "write", {"address": address, **options}), resources)


def work(*items: TargetWork) -> Work:
    return Work("play", items)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


def fail(call: str, error: FazaiError) -> Any:
    def before(name: str) -> None:
        if name == call:
            raise error

    return before


def test_one_name_in_two_inventories_is_two_boxes(bench: Bench) -> None:
    first = bench.device("fw")

    def gone(call: str) -> None:
        if "hold" in first.calls:
            raise Unreachable("gone", stage="connect", where="fw")

    first.before = gone
    bench.run(work(at("fw", "one")))
    assert (set(first.saved), first.running) == ({"a", "b"}, {})  # it went away before its activation
    second = bench.device("fw")
    outcome = bench.run(work(at("fw", "two", (item("other"),))))
    assert only(outcome).notes == ()
    assert second.calls.count("activate service") == 1
    bench.devices["fw"] = first
    first.before = lambda call: None
    outcome = bench.run(work(at("fw", "one")))
    (note,) = [note for note in only(outcome).notes if "never activated" in note]
    assert re.fullmatch(
        r"run \w+ saved changes of service and never activated them; this run activates them", note
    )
    assert first.running == first.saved


def created(target: str, kind: str) -> Change:
    return Change(target, kind, "a", Verb.CREATE, {}, {}, "")


def test_adoption_and_journal_are_the_boxes(bench: Bench) -> None:
    async def use(store: SqliteStore) -> None:
        run = Run("R" * 26, "apply", (), "u", "h", 1, 0.0)
        await store.action_begin(Action("x", run.run_id, created("fw", "k"), box="https://one:443"), ["s"])
        await store.adopt("https://one:443", "uuid", "k", "a", run.run_id)

    with bench.store() as store:
        asyncio.run(use(store))
        one, two = (
            asyncio.run(store.memory("https://one:443", "fw")),
            asyncio.run(store.memory("https://two:443", "fw")),
        )
        assert (one.adopted, set(one.pending), one.generation) == (frozenset({"uuid"}), {"s"}, 1)
        assert [(action.change.target, action.box) for action in one.unfinished] == [
            ("fw", "https://one:443")
        ]
        assert (two.adopted, two.pending, two.unfinished, two.generation) == (frozenset(), {}, (), 0)


class OneDevice(DeviceProvider):
    """Every name leads to the device of its address."""

    def connect(self, target: Target) -> Any:
        return super().connect(replace(target, name=str(target.options["address"])))


def run_on(bench: Bench, *works: Work, **settings: Any) -> RunOutcome:
    with bench.store() as store:
        engine: Engine = bench.engine(store, **settings)
        engine.provider = lambda name: OneDevice(bench.devices)
        return asyncio.run(engine.carry_out(works))


def test_names_of_one_box_take_turns_and_say_so(bench: Bench) -> None:
    device = bench.device("box")
    inside: list[str] = []

    def before(call: str) -> None:
        inside.append(call)

    device.before = before
    items = [at(f"fw-{n}", "box", (item(f"i{n}"),)) for n in (1, 2, 3)]
    outcome = run_on(bench, work(*items))
    assert outcome.exit_code == ExitCode.OK
    assert [target.status for target in outcome.targets] == [TargetStatus.CHANGED] * 3
    ends = [index for index, call in enumerate(device.calls) if call == "close"]
    assert [device.calls[: ends[0] + 1].count(call) for call in ("write create i1", "close")] == [1, 1]
    assert device.calls[ends[0] + 1] == "observe"  # the next one begins when this one has ended
    assert outcome.targets[0].notes == (
        "fw-1 and fw-2, fw-3 are names of one target (box): they share one lock and one state",
    )


def test_another_run_under_another_name_holds_the_lock(bench: Bench) -> None:
    bench.device("box")
    holder = Run("H" * 26, "apply", (), "ana", "ops", 42, 0.0)
    with bench.store() as store:
        engine = bench.engine(store)
        engine.provider = lambda name: OneDevice(bench.devices)

        async def main() -> RunOutcome:
            async with store.lease("box", holder, "edge"):
                return await engine.carry_out([work(at("fw", "box"))])

        outcome = asyncio.run(main())
    assert outcome.exit_code == ExitCode.LOCKED
    text = str(only(outcome).errors[0])
    assert "(pid 42 of ana on ops) holds fw, which it calls edge, since" in text


async def open_action(store: SqliteStore, run: Run) -> None:
    action = Action("x", run.run_id, created("t", "memory.item"), box="t")
    await store.action_begin(action, ["service"])


def test_a_run_that_is_under_way_was_not_cut_off(bench: Bench) -> None:
    device = bench.device("t", saved={"a": {"size": "1"}, "b": {"size": "2"}})
    holder = Run("H" * 26, "apply", (), "ana", "ops", 42, 0.0)
    with bench.store() as store:

        async def main() -> tuple[RunOutcome, RunOutcome]:
            async with store.lease("t", holder):
                await open_action(store, holder)
                planned = await bench.engine(store, check=True).carry_out([work(at("t", "t"))])
                applied = await bench.engine(store).carry_out([work(at("t", "t"))])
                assert len((await store.memory("t")).unfinished) == 1  # and what is open stays open
                return planned, applied

        planned, applied = asyncio.run(main())
        under_way = f"run {holder.run_id} is under way on t: this is how it is meanwhile (since 20"
        assert only(planned).notes == only(applied).notes
        (note,) = only(planned).notes
        assert note.startswith(under_way)
        assert "Z, its lease lasts until 20" in note
        assert (only(planned).status, only(planned).activations) == (TargetStatus.CONVERGED, ())
        assert asyncio.run(store.memory("t")).holder is None
        dead = asyncio.run(bench.engine(store, check=True).carry_out([work(at("t", "t"))]))
    assert [note.partition(holder.run_id)[2] for note in only(dead).notes] == [
        " saved changes of service and never activated them; apply activates them",
        " was cut off during create of memory.item a; the target was looked at again",
    ]
    assert device.writes == []


def test_a_box_is_looked_at_again_that_a_run_under_way_was_on(bench: Bench) -> None:
    """What that run saved and did not activate was left to it, and what it wrote came after the look."""

    async def main() -> RunOutcome:
        async with stopped.lease("t", holder) as lease:
            action = Action("x", holder.run_id, created("t", "memory.item"), box="t", token=lease.token)
            await stopped.action_begin(action, ["other"])
            return await bench.engine(store).carry_out([work(at("t", "t"))])

    def write_late(call: str) -> None:
        if device.calls[1:] == ["observe"]:
            device.saved["a"] = {"size": "1"}

    device = bench.device("t")
    device.before = write_late
    holder = Run("H" * 26, "apply", (), "ana", "ops", 42, 0.0)
    with bench.store() as store:
        stopped = SqliteStore(bench.folder, clock=lambda: time.time() - 3600)  # its lease has expired
        outcome = asyncio.run(main())
        stopped.close()
        assert only(outcome).status == TargetStatus.CHANGED
        assert device.writes == ["write create b"]
        assert set(only(outcome).activated) == {"other", "service"}
        assert asyncio.run(store.memory("t")).pending == {}


class Atomic(DeviceProvider):
    atomic_writes = True


@pytest.mark.parametrize("first", ["write create a", "write create b"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_refused_write_leaves_nothing_to_activate(bench: Bench, first: str, earlier: bool) -> None:
    device = bench.device("t")
    device.before = fail(first, Rejected("in use", fields={}))
    with bench.store() as store:
        if earlier:
            asyncio.run(open_action(store, Run("E" * 26, "apply", (), "u", "h", 1, 0.0)))
        engine = bench.engine(store)
        engine.provider = lambda name: Atomic(bench.devices)
        outcome = asyncio.run(engine.carry_out([work(at("t", "t"))]))
        assert (only(outcome).status, device.saved) == (TargetStatus.FAILED, {})
        assert set(asyncio.run(store.memory("t")).pending) == ({"service"} if earlier else set())


def test_a_write_whose_answer_was_lost_may_have_to_be_activated(bench: Bench) -> None:
    device = bench.device("t")
    gone = Unreachable("cut", stage="read", where="t")

    def before(call: str) -> None:
        if call.startswith("write"):
            raise gone

    device.before = before
    with bench.store() as store:
        engine = bench.engine(store)
        engine.provider = lambda name: Atomic(bench.devices)
        asyncio.run(engine.carry_out([work(at("t", "t"))]))
        assert set(asyncio.run(store.memory("t")).pending) == {"service"}


def test_state_of_the_release_before_is_read_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as old:
        for migration in MIGRATIONS[:2]:
            old.executescript(migration)
        old.execute("PRAGMA user_version = 2")
        old.execute("INSERT INTO pending VALUES ('fw', 'filter', 'RUN', 1.0)")
        old.execute("INSERT INTO adopted VALUES ('fw', 'uuid', 'k', 'x', 'RUN', 1.0)")
        old.execute("INSERT INTO generations VALUES ('fw', 7)")
        old.execute(
            "INSERT INTO actions (action_id, run_id, target, kind, identity, verb, before, after, started,"
            " status) VALUES ('a', 'RUN', 'fw', 'k', 'x', 'update', '{}', '{}', 1.0, 'begun')"
        )
    store = SqliteStore(folder)
    try:
        memory = asyncio.run(store.memory("https://fw:443", "fw"))
        assert (memory.adopted, memory.generation) == (frozenset({"uuid"}), 7)
        assert memory.pending == {"filter": "RUN"}
        assert [(action.action_id, action.box) for action in memory.unfinished] == [("a", "fw")]
        assert asyncio.run(store.memory("https://other:443", "other")).pending == {}
        asyncio.run(store.activated("https://fw:443", "filter", "fw"))
        asyncio.run(store.settle("https://fw:443", "fw"))
        memory = asyncio.run(store.memory("https://fw:443", "fw"))
        assert (memory.unfinished, memory.adopted) == ((), frozenset({"uuid"}))
        assert memory.pending == {}
    finally:
        store.close()
