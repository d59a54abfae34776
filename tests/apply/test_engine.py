"""The engine against devices in memory, with the real store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fazai.apply import Engine
from fazai.errors import ExitCode, FazaiError, StateError, Unreachable
from fazai.ids import ulid
from fazai.model import Change, Resource, Target, TargetWork, Verb, Work
from fazai.outcome import EngineEvent, RunOutcome, TargetOutcome, TargetStatus
from fazai.plan import Expected, changes_digest
from fazai.store.base import Run
from fazai.store.sqlite.ledger import SqliteStore

from .device import Device, DeviceProvider, rejected


def item(name: str, state: str = "present", **fields: Any) -> Resource:
    return Resource("memory.item", name, fields, state)


def work(*names: str, resources: tuple[Resource, ...], mode: str = "write", **options: Any) -> Work:
    targets = tuple(TargetWork(Target(name, "memory", mode, {}), resources) for name in names)
    return Work("play", targets, **options)


@dataclass
class Bench:
    """Devices, a store in a folder, and runs against them."""

    folder: Path
    devices: dict[str, Device] = field(default_factory=dict)
    events: list[EngineEvent] = field(default_factory=list)
    finished: list[TargetOutcome] = field(default_factory=list)
    serial: int = 0

    def device(self, name: str, **settings: Any) -> Device:
        self.devices[name] = Device(**settings)
        return self.devices[name]

    def engine(self, store: SqliteStore, **settings: Any) -> Engine:
        self.serial += 1
        run = Run(ulid(self.serial, bytes(10)), "apply", ("x.yml",), "someone", "here", 1, 0.0)
        return Engine(
            store=store,
            provider=lambda name: DeviceProvider(self.devices),
            run=run,
            emit=self.events.append,
            finished=self.finished.append,
            forks=settings.pop("forks", 8),
            **settings,
        )

    @contextlib.contextmanager
    def store(self) -> Iterator[SqliteStore]:
        store = SqliteStore(self.folder)
        try:
            yield store
        finally:
            store.close()

    def run(self, *works: Work, **settings: Any) -> RunOutcome:
        with self.store() as store:
            return asyncio.run(self.engine(store, **settings).carry_out(works))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


def only(outcome: RunOutcome) -> TargetOutcome:
    (target,) = outcome.targets
    return target


RESOURCES = (item("a", size="1"), item("b", size="2"))


def test_apply_twice_changes_once(bench: Bench) -> None:
    device = bench.device("t")
    first = bench.run(work("t", resources=RESOURCES))
    assert (first.exit_code, only(first).status) == (0, TargetStatus.CHANGED)
    assert device.running == {"a": {"size": "1"}, "b": {"size": "2"}}
    assert device.calls == [
        *("observe", "write create a", "write create b", "observe", "hold", "activate service"),
        *("probe", "verify", "close"),
    ]
    device.calls.clear()
    second = bench.run(work("t", resources=RESOURCES))
    assert (second.exit_code, only(second).status, only(second).unchanged) == (0, TargetStatus.CONVERGED, 2)
    assert device.calls == ["observe", "close"]


def test_check_writes_nothing_and_exits_2(bench: Bench) -> None:
    device = bench.device("t")
    outcome = bench.run(work("t", resources=RESOURCES), check=True)
    assert outcome.exit_code == ExitCode.PENDING
    assert outcome.totals()["pending"] == 2
    assert device.calls == ["observe", "close"]


def test_read_only_target_is_refused_with_its_drift(bench: Bench) -> None:
    device = bench.device("t")
    outcome = bench.run(work("t", resources=RESOURCES, mode="read"))
    assert outcome.exit_code == ExitCode.REFUSED
    assert [a.status for a in only(outcome).actions] == ["left", "left"]
    assert "read-only, 2 changes pending" in str(only(outcome).errors[0])
    assert device.writes == []


def test_one_refused_change_keeps_the_whole_target_as_it_is(bench: Bench) -> None:
    device = bench.device("t")
    outcome = bench.run(work("t", resources=(*RESOURCES, item("foreign", size="3"))))
    assert outcome.exit_code == ExitCode.REFUSED
    assert device.writes == []
    assert sorted(a.status for a in only(outcome).actions) == ["left", "left", "refused"]


def test_a_failed_write_is_taken_back(bench: Bench) -> None:
    device = bench.device("t", saved={"b": {"size": "0"}}, running={"b": {"size": "0"}})

    def fail(call: str) -> None:
        if call == "write create c":
            raise rejected()

    device.before = fail
    outcome = bench.run(work("t", resources=(*RESOURCES, item("c", size="3"), item("d", size="4"))))
    assert outcome.exit_code == ExitCode.FAILED
    assert device.saved == device.running == {"b": {"size": "0"}}
    assert [a.status for a in only(outcome).actions] == ["undone", "undone", "failed", "left"]
    assert not [call for call in device.calls if call.startswith("activate")]
    with bench.store() as store:
        assert asyncio.run(store.memory("t")).pending == {}


def test_a_field_that_does_not_stick_is_named_and_taken_back(bench: Bench) -> None:
    device = bench.device("t", saved={"a": {"size": "0"}}, sticky=frozenset({"size"}))
    outcome = bench.run(work("t", resources=(item("a", size="1"),)))
    assert outcome.exit_code == ExitCode.FAILED
    assert "size reads '0', '1' was sent" in str(only(outcome).errors[0])
    assert device.saved == {"a": {"size": "0"}}


def test_lockout_after_activation_is_taken_back(bench: Bench) -> None:
    device = bench.device("t", shuts_out=True)
    outcome = bench.run(work("t", resources=(item("a", size="1"), item("lockout", size="2"))))
    assert outcome.exit_code == ExitCode.UNREACHABLE
    assert device.running == {}
    assert not device.locked_out
    assert [a.status for a in only(outcome).actions] == ["undone", "undone"]
    with bench.store() as store:
        assert asyncio.run(store.memory("t")).pending == {}


def test_a_lost_connection_leaves_a_journal_from_which_the_next_run_converges(bench: Bench) -> None:
    device = bench.device("t")

    def lose(call: str) -> None:
        if len(device.writes) > 1:
            raise Unreachable("connection reset", stage="write", where="t")

    device.before = lose
    outcome = bench.run(work("t", resources=RESOURCES))
    assert outcome.exit_code == ExitCode.UNREACHABLE
    assert "could not be taken back" in " ".join(only(outcome).notes)
    assert device.saved == {"a": {"size": "1"}}
    device.before = lambda call: None
    again = bench.run(work("t", resources=RESOURCES))
    assert again.exit_code == 0
    assert "never activated" in " ".join(only(again).notes)
    assert device.running == {"a": {"size": "1"}, "b": {"size": "2"}}
    assert bench.run(work("t", resources=RESOURCES)).totals()["changed"] == 0


def test_saved_but_never_activated_is_finished_without_a_change(bench: Bench) -> None:
    device = bench.device("t", saved={"a": {"size": "1"}, "b": {"size": "2"}})
    with bench.store() as store:
        engine = bench.engine(store)

        async def leave() -> None:
            from fazai.store.base import Action

            await store.run_begin(engine.run)
            action = Action("x1", engine.run.run_id, Change("t", "memory.item", "b", Verb.CREATE, {}, {}, ""))
            await store.action_begin(action, ["service"])

        asyncio.run(leave())
    checked = bench.run(work("t", resources=RESOURCES), check=True)
    assert checked.exit_code == ExitCode.PENDING
    outcome = bench.run(work("t", resources=RESOURCES))
    assert outcome.exit_code == 0
    assert device.running == device.saved
    assert "was cut off during create of memory.item b" in " ".join(only(outcome).notes)
    final = bench.run(work("t", resources=RESOURCES))
    assert (only(final).status, only(final).notes) == (TargetStatus.CONVERGED, ())


def test_other_targets_are_unaffected_by_a_failure_or_a_defect(bench: Bench) -> None:
    for name in ("good", "bad", "broken"):
        bench.device(name)

    def fail(call: str) -> None:
        raise Unreachable("refused", stage="connect", where="bad")

    def crash(call: str) -> None:
        raise ZeroDivisionError("with a secret in it")

    bench.devices["bad"].before, bench.devices["broken"].before = fail, crash
    outcome = bench.run(work("good", "bad", "broken", resources=RESOURCES))
    assert [t.status for t in outcome.targets] == [
        TargetStatus.CHANGED,
        TargetStatus.UNREACHABLE,
        TargetStatus.FAILED,
    ]
    assert outcome.exit_code == ExitCode.FAILED
    text = str(outcome.targets[2].errors[0])
    assert "defect in fazai: ZeroDivisionError" in text
    assert "secret" not in text


def test_a_locked_target_is_exit_5_and_says_who(bench: Bench) -> None:
    device = bench.device("t")
    holder = Run(ulid(77, bytes(10)), "apply", (), "ana", "ops", 4711, 0.0)
    with bench.store() as store:

        async def main() -> RunOutcome:
            async with store.lease("t", holder):
                return await bench.engine(store).carry_out([work("t", resources=RESOURCES)])

        outcome = asyncio.run(main())
    assert outcome.exit_code == ExitCode.LOCKED
    assert "pid 4711 of ana on ops" in str(only(outcome).errors[0])
    assert device.writes == []


def test_a_run_that_lost_its_lease_writes_nothing_more(bench: Bench) -> None:
    """It was stopped in the middle of a write for longer than its lease lasts, and another run came."""
    device = bench.device("t", gate=asyncio.Event(), waiting=asyncio.Event())
    later = Run(ulid(77, bytes(10)), "apply", (), "ana", "ops", 4711, 0.0)
    now = [1000.0]

    async def main(store: SqliteStore) -> RunOutcome:
        assert device.gate is not None
        assert device.waiting is not None
        resources = (*RESOURCES, item("c", size="3"))
        task = asyncio.create_task(bench.engine(store).carry_out([work("t", resources=resources)]))
        await device.waiting.wait()
        now[0] += 61.0
        async with store.lease("t", later):
            device.gate.set()
            return await task

    with contextlib.closing(SqliteStore(bench.folder, clock=lambda: now[0])) as store:
        outcome = asyncio.run(main(store))
    assert outcome.exit_code == ExitCode.LOCKED
    assert device.writes == ["write create a"]
    assert not [call for call in device.calls if call.startswith("activate")]
    said = [str(error) for error in only(outcome).errors]
    lost = f"the lease of t was lost: run {later.run_id} (pid 4711 of ana on ops) holds t since"
    assert said
    assert [one for one in said if lost not in one] == []
    assert only(outcome).notes == ("1 of 1 changes could not be taken back",)


def test_a_write_by_another_run_before_the_lock_is_seen(bench: Bench) -> None:
    device = bench.device("t")
    with bench.store() as store:

        async def run() -> RunOutcome:
            engine = bench.engine(store)
            original = store.lease

            def lease(box: str, run: Run, name: str = "", lease_s: float = 60.0) -> Any:
                device.saved.update({"a": {"size": "1"}, "b": {"size": "2"}})
                store._reader.execute("INSERT INTO generations VALUES ('t', 1, 0)")
                store.lease = original  # type: ignore[method-assign]
                return original(box, run, name)

            store.lease = lease  # type: ignore[method-assign]
            return await engine.carry_out([work("t", resources=RESOURCES)])

        outcome = asyncio.run(run())
    assert only(outcome).status is TargetStatus.CONVERGED
    assert device.writes == []
    assert device.calls.count("observe") == 2


def test_a_stale_plan_is_exit_6(bench: Bench) -> None:
    device = bench.device("t")
    planned = bench.run(work("t", resources=RESOURCES), check=True)
    target = only(planned)
    expected = {"t": Expected(target.observed, changes_digest(a.change for a in target.actions))}
    device.saved["c"] = {"size": "3"}
    outcome = bench.run(work("t", resources=RESOURCES), expected=expected)
    assert outcome.exit_code == ExitCode.STALE
    assert device.writes == []
    del device.saved["c"]
    assert bench.run(work("t", resources=RESOURCES), expected=expected).exit_code == 0


@pytest.mark.parametrize(("max_fail", "reached"), [(None, 6), (0, 2), (1, 2), (2, 4), (3, 4), (5, 6)])
def test_waves_stop_when_too_many_failed(bench: Bench, max_fail: int | None, reached: int) -> None:
    def fail(call: str) -> None:
        raise rejected()

    for number in range(6):
        bench.device(f"t{number}", before=fail)
    outcome = bench.run(
        work(*bench.devices, resources=RESOURCES, serial=(2,), max_fail=max_fail),
    )
    assert sum(t.status is TargetStatus.FAILED for t in outcome.targets) == reached
    assert sum(t.status is TargetStatus.SKIPPED for t in outcome.targets) == 6 - reached
    assert [t.target for t in outcome.targets] == list(bench.devices)


def test_no_more_targets_at_once_than_forks(bench: Bench) -> None:
    running, most = 0, 0

    class Counting(Device):
        async def call(self, name: str) -> None:
            nonlocal running, most
            if name == "observe":
                running += 1
                most = max(most, running)
                for _ in range(5):
                    await asyncio.sleep(0)
                running -= 1
            await super().call(name)

    for number in range(20):
        bench.devices[f"t{number}"] = Counting()
    outcome = bench.run(work(*bench.devices, resources=RESOURCES), forks=3)
    assert outcome.exit_code == 0
    assert most == 3


def _interrupted(bench: Bench, times: int) -> RunOutcome:
    device = bench.devices["t"]

    async def run() -> RunOutcome:
        device.gate, device.waiting = asyncio.Event(), asyncio.Event()
        with bench.store() as store:
            engine = bench.engine(store, forks=1)
            task = asyncio.ensure_future(engine.carry_out([work("t", "late", resources=RESOURCES)]))
            await device.waiting.wait()
            for _ in range(times):
                engine.interrupt()
            device.gate.set()
            return await task

    return asyncio.run(run())


def test_an_interrupt_finishes_the_action_in_flight(bench: Bench) -> None:
    device, late = bench.device("t"), bench.device("late")
    outcome = _interrupted(bench, 1)
    assert outcome.exit_code == ExitCode.INTERRUPTED
    assert device.saved == {"a": {"size": "1"}}
    assert device.running == {}
    assert [a.status for a in outcome.targets[0].actions] == ["done", "left"]
    assert "1 of 2 changes are saved and not yet activated" in str(outcome.targets[0].errors[0])
    assert (outcome.targets[1].status, late.calls) == (TargetStatus.INTERRUPTED, [])
    device.gate = None
    again = bench.run(work("t", "late", resources=RESOURCES))
    assert again.exit_code == 0
    assert device.running == late.running == {"a": {"size": "1"}, "b": {"size": "2"}}


def test_a_second_interrupt_stops_now(bench: Bench) -> None:
    device = bench.device("t")
    bench.device("late")
    outcome = _interrupted(bench, 2)
    assert outcome.exit_code == ExitCode.INTERRUPTED
    assert device.saved == {}
    assert outcome.targets[0].status is TargetStatus.INTERRUPTED


def test_a_journal_that_cannot_be_written_stops_the_writing(bench: Bench) -> None:
    device = bench.device("t")

    async def run() -> RunOutcome:
        with bench.store() as store:
            begin = store.action_begin

            async def full(action: Any, services: Any) -> None:
                if action.change.identity == "b":
                    raise StateError("disk full")
                await begin(action, services)

            store.action_begin = full  # type: ignore[method-assign]
            return await bench.engine(store).carry_out([work("t", resources=RESOURCES)])

    outcome = asyncio.run(run())
    assert outcome.exit_code == ExitCode.FAILED
    assert device.saved == {}
    assert device.writes == ["write create a", "write delete a"]


def test_what_happened_is_recorded(bench: Bench) -> None:
    bench.device("t", saved={"a": {"size": "0"}})
    outcome = bench.run(work("t", resources=RESOURCES))
    with bench.store() as store:
        run = asyncio.run(store.find_run(outcome.run_id[:20]))
        assert run is not None
        assert (run.exit_code, run.summary["changed"]) == (0, 2)
        actions = asyncio.run(store.actions(run.run_id))
        types = [event["type"] for event in asyncio.run(store.events(run.run_id))]
    assert [(a.change.verb, a.change.identity, a.status) for a in actions] == [
        ("update", "a", "done"),
        ("create", "b", "done"),
    ]
    assert (actions[0].change.before, actions[0].change.after) == ({"size": "0"}, {"size": "1"})
    assert types == ["play", "change", "change", "activate", "outcome"]


def test_deletes(bench: Bench) -> None:
    device = bench.device("t", saved={"a": {"size": "1"}, "z": {"size": "2"}})
    outcome = bench.run(work("t", resources=(item("z", "absent"), item("a", size="1"))))
    assert outcome.exit_code == 0
    assert device.running == {"a": {"size": "1"}}


@pytest.mark.parametrize("asked", ["nobody", "as it is", "as it was"])
def test_only_what_was_asked_about_is_deleted(bench: Bench, asked: str) -> None:
    """What somebody said yes to is what was shown."""
    device = bench.device("fw", saved={"a": {"size": "1"}}, running={"a": {"size": "1"}})
    wanted = work("fw", resources=(item("a", "absent"),))
    shown = [action.change for action in only(bench.run(wanted, check=True)).actions]
    if asked == "as it was":
        device.saved = {"a": {"size": "2"}}
    deletable = frozenset() if asked == "nobody" else frozenset((changes_digest(shown),))
    outcome = bench.run(wanted, deletable=deletable)
    assert outcome.exit_code == (ExitCode.OK if asked == "as it is" else ExitCode.REFUSED)
    assert ("a" in device.saved) is (asked != "as it is")
    if asked != "as it is":
        said = "memory.item a would be deleted as it is now, and nobody was asked about that"
        assert [error.message for error in only(outcome).errors] == [said]


@pytest.mark.parametrize("status", ["failed", "unreachable"])
def test_what_was_taken_back_is_read(bench: Bench, status: str) -> None:
    """A device that says that it took something back, and did not, is not believed; nor is what it saved
    forgotten."""
    before = {"b": {"size": "0"}, "gone": {"size": "7"}}
    device = bench.device("t", saved=dict(before), running=dict(before), shuts_out=status == "unreachable")

    def fail(call: str) -> None:
        if call in ("write create c", "probe"):  # from then on it is deaf for these
            device.ignores = frozenset({"a", "b"})
        if call == "write create c":
            raise rejected()

    device.before = fail
    last = item("c", size="3") if status == "failed" else item("lockout", size="3")
    outcome = bench.run(work("t", resources=(*RESOURCES, item("gone", "absent"), last)))
    target = only(outcome)
    assert (target.status, outcome.exit_code) == (TargetStatus.FAILED, ExitCode.FAILED)
    said = "t said that it was taken back, and it was not"
    assert [str(e.message) for e in target.errors if "said" in e.message] == [
        f"memory.item b: {said}",
        f"memory.item a: {said}",
    ]
    statuses = {action.change.identity: action.status for action in target.actions}
    assert statuses == {"a": "done", "b": "done", "gone": "undone", last.identity: statuses[last.identity]}
    back = 1 if status == "failed" else 2
    assert f"2 of {back + 2} changes could not be taken back" in target.notes
    assert f"{back} change{'s' if back > 1 else ''} taken back" in target.notes
    (undo,) = [event.data for event in bench.events if event.type == "undo"]
    assert undo == {"undone": back, "kept": 2}
    with bench.store() as store:  # what is saved and does not run is activated by the next run
        assert "service" in asyncio.run(store.memory("t")).pending


def test_errors_of_the_provider_keep_their_exit_code() -> None:
    codes: Mapping[type[FazaiError], int] = {StateError: 1, FazaiError: 1}
    for error, code in codes.items():
        outcome = TargetOutcome("t", "memory", "p", TargetStatus.FAILED, 0, errors=(error("x"),))
        assert outcome.exit_code == code
