"""What every store of runs promises, whatever it keeps them in (`Store` in fazai/store/base.py)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest

from fazai.errors import LockHeld, StateError, UsageError
from fazai.model import Change, Verb
from fazai.store.base import Action, Holder, Run, Store, TargetState
from fazai.store.factory import open_store
from fazai.store.null import NullStore
from fazai.store.preview import PreviewStore
from tests.store.conftest import OpenLedger


def run(number: int = 1) -> Run:
    return Run(f"{number:026d}", "apply", ("a.yml",), "ana", "ops", 42, 100.0 + number)


def action(name: str, number: int = 1, **others: str) -> Action:
    change = Change("t", "k.item", name, Verb.CREATE, {}, {"a": "1"}, "")
    return Action(f"{name}{number}", run(number).run_id, change, **others)  # type: ignore[arg-type]


def test_what_was_awaited_is_there_when_the_store_is_opened_again(open_ledger: OpenLedger) -> None:
    async def use(store: Store) -> None:
        await store.run_begin(run())
        await store.action_begin(action("a"), ["s1", "s2"])
        await store.action_end("a1", "done", ref="uuid-1")
        await store.action_begin(action("b"), ["s2"])
        await store.activated("t", "s1")
        await store.adopt("t", "uuid-9", "k.item", "x", run().run_id)
        store.event(run().run_id, 5.0, "change", "t", {"n": 1})
        await store.run_end(run().run_id, 2, {"changed": 1})

    with open_ledger() as store:
        asyncio.run(use(store))
    with open_ledger() as store:
        memory = asyncio.run(store.memory("t"))
        assert memory.pending == {"s2": run().run_id}
        assert memory.adopted == {"uuid-9"}
        assert [a.change.identity for a in memory.unfinished] == ["b"]
        assert memory.generation == 2
        assert asyncio.run(store.memory("other")).generation == 0
        (found,) = asyncio.run(store.history(5))
        assert (found.exit_code, found.summary, found.sources) == (2, {"changed": 1}, ("a.yml",))
        assert [
            (a.change.identity, a.status, a.change.ref) for a in asyncio.run(store.actions(run().run_id))
        ] == [
            ("a", "done", "uuid-1"),
            ("b", "begun", ""),
        ]
        (event,) = asyncio.run(store.events(run().run_id))
        assert {**event, "id": 0} == {"id": 0, "time": 5.0, "type": "change", "target": "t", "n": 1}
        asyncio.run(store.settle("t"))
        assert asyncio.run(store.memory("t")).unfinished == ()


def test_actions_that_begin_together_begin_all_or_none(open_ledger: OpenLedger) -> None:
    with open_ledger() as store:
        asyncio.run(store.run_begin(run()))
        asyncio.run(store.actions_begin([(action("a"), ["s"]), (action("b"), [])]))
        memory = asyncio.run(store.memory("t"))
        assert ([one.change.identity for one in memory.unfinished], dict(memory.pending)) == (
            ["a", "b"],
            {"s": run().run_id},
        )


def test_what_was_kept_by_name_is_found_for_the_box(open_ledger: OpenLedger) -> None:
    """Earlier releases kept the state of a target by its name."""
    with open_ledger() as store:
        asyncio.run(store.action_begin(action("a", box="fw"), ["s"]))
        assert asyncio.run(store.memory("https://fw:443")).unfinished == ()
        assert len(asyncio.run(store.memory("https://fw:443", "fw")).unfinished) == 1


@pytest.mark.parametrize("first", ["heard", "own"])
def test_a_run_that_was_heard_of_gives_way_to_its_own_process(open_ledger: OpenLedger, first: str) -> None:
    heard = replace(run(), pid=0, user="told")
    with open_ledger() as store:
        for one in (heard, run(), heard) if first == "heard" else (run(), heard):
            asyncio.run(store.run_begin(one))
        (found,) = asyncio.run(store.history(5))
        assert (found.pid, found.user) == (42, "ana")
        with pytest.raises(StateError, match="cannot be used"):  # two processes are never one run
            asyncio.run(store.run_begin(run()))


def test_a_run_is_found_by_either_end_of_its_id(open_ledger: OpenLedger) -> None:
    with open_ledger() as store:
        for number in (1, 2):
            asyncio.run(store.run_begin(run(number)))
        found = asyncio.run(store.find_run("2"))
        assert found is not None
        assert found.run_id == run(2).run_id
        assert asyncio.run(store.find_run("9999")) is None
        assert asyncio.run(store.find_run("%")) is None
        with pytest.raises(StateError, match="several runs"):
            asyncio.run(store.find_run("00000"))


def test_the_latest_runs_stay_and_the_newest_comes_first(open_ledger: OpenLedger) -> None:
    async def fill(store: Store) -> None:
        for number in range(13):
            await store.run_begin(run(number))
            store.event(run(number).run_id, 1.0, "log", "t", {})
            await store.run_end(run(number).run_id, 0, {})

    with open_ledger() as store:
        asyncio.run(fill(store))
        assert [one.run_id for one in asyncio.run(store.history(100))] == [
            run(n).run_id for n in range(12, 2, -1)
        ]
        assert asyncio.run(store.events(run(0).run_id)) == []


def test_the_worst_end_of_a_run_counts_and_an_older_one_changes_nothing(open_ledger: OpenLedger) -> None:
    with open_ledger() as store:
        store.ended("t", TargetState("failed", 1, "R2", 20.0), "https://t")
        store.ended("t", TargetState("changed", 2, "R2", 21.0), "https://t")
        store.ended("t", TargetState("converged", 0, "R1", 10.0))
        asyncio.run(store.settle("t"))  # with the next commit
        assert asyncio.run(store.targets()) == {"t": TargetState("failed", 3, "R2", 21.0)}
        assert asyncio.run(store.left("t")) == "failed"
        assert asyncio.run(store.left("other")) == ""
        assert asyncio.run(store.names("https://t")) == {"t": 21.0}
        assert asyncio.run(store.owners("https://t")) == {"": ("t",)}


def test_text_that_is_not_utf_8_is_kept_escaped(open_ledger: OpenLedger) -> None:
    """A login name with a stray byte, a device's text with half a surrogate pair."""
    with open_ledger() as store:
        asyncio.run(store.run_begin(replace(run(), user="ana\udcff")))
        assert asyncio.run(store.history(1))[0].user == "ana\\udcff"


# -- leases


def test_a_box_is_leased_to_one_run_at_a_time(open_ledger: OpenLedger) -> None:
    async def main(store: Store, other: Store) -> None:
        async with store.lease("fw/../1", run(), "edge") as lease:
            assert (lease.box, lease.owner) == ("fw/../1", run().run_id)
            for one in (store, other):
                with pytest.raises(LockHeld, match=r"pid 42 of ana on ops\) holds fw, which it calls edge"):
                    async with one.lease("fw/../1", run(2), "fw"):
                        pass
            async with other.lease("fw/../2", run(2)):
                pass
        async with other.lease("fw/../1", run(2)):
            pass

    with open_ledger() as store, open_ledger() as other:
        asyncio.run(main(store, other))


def test_the_token_of_a_lease_grows(open_ledger: OpenLedger) -> None:
    async def take(store: Store, box: str) -> int:
        async with store.lease(box, run()) as lease:
            return lease.token

    tokens = []
    for _ in range(3):
        with open_ledger() as store:
            tokens += [asyncio.run(take(store, "t")), asyncio.run(take(store, "t"))]
            assert asyncio.run(take(store, "u")) == len(tokens) // 2  # each box has its own
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0


def test_a_lease_ends_with_its_block_whatever_happens_there(open_ledger: OpenLedger) -> None:
    async def fail(store: Store) -> None:
        async with store.lease("t", run()):
            raise ZeroDivisionError

    async def main(store: Store) -> None:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await fail(store)
        started = asyncio.Event()

        async def wait() -> None:
            async with store.lease("t", run()):
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with store.lease("t", run()):
            pass

    with open_ledger() as store:
        asyncio.run(main(store))


def test_who_holds_a_box_is_said_where_something_is_open(open_ledger: OpenLedger) -> None:
    async def main(store: Store) -> None:
        async with store.lease("t", run(), "fw") as lease:
            assert (await store.memory("t")).holder is None
            await store.action_begin(replace(action("a"), token=lease.token), ["s"])
            holder = (await store.memory("t")).holder
            assert holder == Holder(run().run_id, 42, "ops", "ana", 1000.0, 1060.0, "fw", lease.token)
        assert (await store.memory("t")).holder is None

    with open_ledger(Clock()) as store:
        asyncio.run(main(store))


@dataclass
class Clock:
    """The time by which leases expire."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_lasts_as_long_as_it_was_renewed(open_ledger: OpenLedger) -> None:
    async def refuses(store: Store) -> str:
        with pytest.raises(LockHeld) as caught:
            async with store.lease("t", run(2)):
                pass
        return str(caught.value)

    async def main(store: Store, other: Store) -> None:
        async with store.lease("t", run(), lease_s=90) as lease:
            assert lease.expires == 1090.0
            clock.now = 1089.0
            said = "holds t since 1970-01-01 00:16:40Z, its lease lasts until 1970-01-01 00:18:10Z"
            assert said in await refuses(other)
            await lease.renew()
            assert lease.expires == 1179.0
            clock.now = 1178.0
            assert "lasts until 1970-01-01 00:19:39Z" in await refuses(other)
            clock.now = 2000.0  # it has expired, and nobody came
            await store.action_begin(replace(action("a"), token=lease.token), [])
            assert lease.expires == 2090.0
            assert "lasts until 1970-01-01 00:34:50Z" in await refuses(other)
            clock.now = 3000.0
            await lease.check()
            assert lease.expires == 3090.0

    clock = Clock()
    with open_ledger(clock) as store, open_ledger(clock) as other:
        asyncio.run(main(store, other))


@pytest.mark.parametrize("within", ["another process", "the same process"])
def test_a_lease_that_expired_and_was_taken_writes_nothing(open_ledger: OpenLedger, within: str) -> None:
    async def main(store: Store, other: Store) -> None:
        async with store.lease("t", run()) as old:
            await store.action_begin(replace(action("a"), token=old.token), [])
            clock.now += 60.0
            async with other.lease("t", run(2)) as new:
                assert new.token > old.token
                for late in (
                    old.check(),
                    old.renew(),
                    store.action_begin(replace(action("b"), token=old.token), ["s"]),
                    store.actions_begin([(replace(action("c"), token=old.token), ["s"])]),
                ):
                    with pytest.raises(LockHeld, match=f"lease of t was lost: run {run(2).run_id}"):
                        await late
                await other.action_begin(replace(action("d", 2), token=new.token), [])
            with pytest.raises(LockHeld, match="the lease of t was lost"):  # also once that is through
                await old.check()
            async with other.lease("t", run(2)) as newer:
                assert newer.token > new.token
        memory = await other.memory("t")
        assert ([one.change.identity for one in memory.unfinished], dict(memory.pending)) == (["a", "d"], {})
        async with other.lease("t", run(3)), store.lease("u", run(3)):
            with pytest.raises(LockHeld, match=f"run {run(3).run_id}"):
                async with store.lease("t", run()):
                    pass

    clock = Clock()
    with open_ledger(clock) as store, open_ledger(clock) as other:
        asyncio.run(main(store, other if within == "another process" else store))


def test_a_lease_is_renewed_while_its_block_works(open_ledger: OpenLedger) -> None:
    async def main(store: Store) -> None:
        async with store.lease("t", run(), lease_s=90) as lease:
            for _ in range(5):
                before, clock.now = lease.expires, clock.now + 31.0
                while lease.expires == before:  # noqa: ASYNC110 - each turn of the loop looks at its timers
                    await asyncio.sleep(0)
                assert lease.expires == clock.now + 90.0

    clock = Clock()
    loop = asyncio.new_event_loop()
    loop.time = clock  # type: ignore[method-assign] # its timers are of the same clock
    with open_ledger(clock) as store, asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(store))


_HOLDER = """
import asyncio, sys
from fazai.model import Change, Verb
from fazai.store.base import Action, Run
from fazai.store.factory import open_store

async def main():
    store = open_store(sys.argv[1])
    run = Run("0" * 26, "apply", (), "ana", "ops", 42, 1.0)
    await store.run_begin(run)
    async with store.lease("t", run, lease_s=1e6) as lease:
        change = Change("t", "k.item", "a", Verb.CREATE, {}, {}, "")
        await store.action_begin(Action("x", run.run_id, change, token=lease.token), ["s"])
        print("begun", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_awaited_and_frees_the_box_at_once(
    open_ledger: OpenLedger, place: str
) -> None:
    async def take(store: Store) -> int:
        async with store.lease("t", run()) as lease:
            return lease.token

    with (
        subprocess.Popen(
            [sys.executable, "-c", _HOLDER, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
        open_ledger() as store,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        with pytest.raises(LockHeld, match="pid 42 of ana on ops"):
            asyncio.run(take(store))
        child.kill()
        child.wait()
        assert asyncio.run(take(store)) == 2
        memory = asyncio.run(store.memory("t"))
        assert [one.change.identity for one in memory.unfinished] == ["a"]
        assert set(memory.pending) == {"s"}


# -- stores that keep nothing themselves


def test_a_store_that_keeps_nothing_refuses_what_precedes_a_write() -> None:
    store: Store = NullStore()
    asyncio.run(store.run_begin(run()))
    for refused in (store.action_begin(action("a"), []), store.actions_begin([]), store.activated("t", "s")):
        with pytest.raises(StateError, match="without a state folder"):
            asyncio.run(refused)
    asyncio.run(store.run_end(run().run_id, 0, {}))
    assert (
        asyncio.run(store.history(5)),
        asyncio.run(store.targets()),
        asyncio.run(store.memory("t")).generation,
    ) == ([], {}, 0)


def test_a_preview_reads_and_keeps_aside_what_it_would_record(open_ledger: OpenLedger) -> None:
    with open_ledger() as store:
        asyncio.run(store.run_begin(run()))
        asyncio.run(store.action_begin(action("a"), ["s"]))
        preview = PreviewStore(store)
        assert asyncio.run(preview.memory("t")) == asyncio.run(store.memory("t"))
        with pytest.raises(StateError, match="without a state folder"):
            asyncio.run(preview.action_begin(action("b"), []))
        preview.event("ignored", 7.0, "outcome", "t", {"status": "pending"})
        preview.ended("t", TargetState("pending", 1, run(2).run_id, time.time()))
        assert asyncio.run(store.targets()) == {}
        asyncio.run(preview.record(run(2), 2, {"pending": 1}))
        assert asyncio.run(store.left("t")) == "pending"
        assert [one["type"] for one in asyncio.run(store.events(run(2).run_id))] == ["outcome"]


def test_a_place_of_no_known_kind_is_refused_without_its_secrets() -> None:
    for place in ("postgres://ann:secret@db/fazai", ""):
        with pytest.raises(UsageError, match="is no kind of store") as caught:
            open_store(place)
        assert "secret" not in str(caught.value)
