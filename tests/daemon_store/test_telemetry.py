"""Samples: stored once, found again, whatever happens between."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fazai.errors import LockHeld
from fazai.store.daemon import NewSample, StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon_store.conftest import GAUGE_ROW, MINUTE_US, QUIET, START_US, Clock, body_of, sample


def upkeep(store: SqliteDaemonStore) -> None:
    """All that is due, now, in the writer's own thread of work: the store is closed and opened by callers."""
    with sqlite3.connect(store.folder / FILE_NAME, isolation_level=None) as connection:
        while store._keep_up(connection, False):
            pass
    connection.close()


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


def test_a_sample_is_stored_once(store: SqliteDaemonStore) -> None:
    async def main() -> None:
        assert await store.ingest([sample("a", 0), sample("b", 0), sample("a", 0)]) == [True, True, False]
        assert await store.ingest([sample("a", 0), sample("a", 1)]) == [False, True]

    run(main())
    assert [(r.host, r.time_us, r.records) for r in store.hosts()] == [
        ("a", START_US + MINUTE_US, 2),
        ("b", START_US, 1),
    ]
    assert asyncio.run(store.records("a")) == [(s.time_us, s.body) for s in (sample("a", 1), sample("a", 0))]


def test_the_same_sample_from_two_requests_of_one_group(store: SqliteDaemonStore) -> None:
    async def main() -> list[list[bool]]:
        return await asyncio.gather(*(store.ingest([sample("a", 0)]) for _ in range(50)))

    assert sum(verdict for (verdict,) in run(main())) == 1
    assert store.host("a") is not None
    assert len(asyncio.run(store.history("a"))) == 1


def test_what_waits_is_committed_together(store: SqliteDaemonStore) -> None:
    async def main() -> None:
        await asyncio.gather(*(store.ingest([sample(f"h{n}", 0)]) for n in range(200)))

    run(main())
    counts = store.counts()
    assert counts["writes"] == 200
    assert counts["commits"] <= 20


@pytest.mark.parametrize("reopen", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("indexed", [False, True], ids=["tail", "spans"])
def test_duplicates_are_known_in_any_order(tmp_path: Path, reopen: bool, indexed: bool) -> None:
    limits = StoreLimits(upkeep_s=3600, index_records=1 if indexed else 10**9)
    store = SqliteDaemonStore(tmp_path, limits)
    first = [sample("a", minute) for minute in (5, 1, 9, 3)]
    try:
        assert run(store.ingest(first)) == [True] * 4
        upkeep(store)
        if reopen:
            store.close()
            store = SqliteDaemonStore(tmp_path, limits)
        again = [sample("a", minute) for minute in (9, 4, 1, 10, 3, 5)]
        assert run(store.ingest(again)) == [False, True, False, True, False, False]
        assert [(t - START_US) // MINUTE_US for t, _ in asyncio.run(store.history("a"))] == [
            1,
            3,
            4,
            5,
            9,
            10,
        ]
        assert [body for _, body in asyncio.run(store.records("a"))] == [
            sample("a", minute).body for minute in (10, 9, 5, 4, 3, 1)
        ]
    finally:
        store.close()


def test_small_chunks_are_merged_and_everything_is_still_there(store: SqliteDaemonStore) -> None:
    hosts = [f"h{n}" for n in range(7)]

    async def main() -> None:
        for minute in range(100):
            await store.ingest([sample(host, minute, size=3000) for host in hosts[: minute % 7 + 1]])

    run(main())
    before = store.counts()["telemetry_bytes"]
    upkeep(store)
    assert store.counts()["telemetry_bytes"] < before * 0.7
    with sqlite3.connect(store.folder / FILE_NAME) as connection:
        (chunks,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    connection.close()
    assert chunks < 40
    for number, host in enumerate(hosts):
        wanted = [sample(host, minute, size=3000) for minute in range(100) if minute % 7 >= number]
        assert asyncio.run(store.records(host)) == [(s.time_us, s.body) for s in reversed(wanted)]
        assert list(asyncio.run(store.history(host))) == [(s.time_us, GAUGE_ROW) for s in wanted]


def test_a_loop_that_ended_too_early_holds_up_nobody(store: SqliteDaemonStore) -> None:
    async def leave() -> None:
        storing = asyncio.ensure_future(store.ingest([sample("a", 0)]))
        await asyncio.sleep(0)  # it is handed over, and the loop ends before its next turn
        assert not storing.done()

    async def main() -> list[bool]:
        return await store.ingest([sample("b", 0)])

    for _ in range(3):
        run(leave())
        assert run(asyncio.wait_for(main(), 10)) in ([True], [False])
    assert store.host("b") is not None


def test_history_has_bounds(store: SqliteDaemonStore) -> None:
    run(store.ingest([sample("a", minute) for minute in range(10)]))
    since, until = START_US + 2 * MINUTE_US, START_US + 6 * MINUTE_US
    found = [(t - START_US) // MINUTE_US for t, _ in asyncio.run(store.history("a", since, until, limit=3))]
    assert found == [4, 5, 6]
    assert asyncio.run(store.history("nobody")) == []
    assert asyncio.run(store.records("nobody")) == []


def test_a_gauge_that_was_not_reported_stays_unknown(store: SqliteDaemonStore) -> None:
    row = (math.nan, *GAUGE_ROW[1:])
    run(store.ingest([sample("a", 0, gauges=row)]))
    ((_, found),) = asyncio.run(store.history("a"))
    assert math.isnan(found[0])
    assert found[1:] == row[1:]


def test_the_oldest_records_go_first(tmp_path: Path, clock: Clock) -> None:
    store = SqliteDaemonStore(tmp_path, StoreLimits(upkeep_s=3600, telemetry_bytes=100_000), clock)
    try:
        chance, samples = random.Random(1), []
        for minute in range(600):
            body = json.dumps({"text": chance.randbytes(200).hex()}).encode()
            samples.append(sample("a", minute)._replace(body=body))
        for begin in range(0, 600, 4):
            run(store.ingest(samples[begin : begin + 4]))
        upkeep(store)
        assert store.counts()["telemetry_bytes"] <= 100_000
        times = [t for t, _ in asyncio.run(store.records("a", limit=1000))]
        assert times == [START_US + m * MINUTE_US for m in range(599, 599 - len(times), -1)]
        assert 0 < len(times) < 600
        clock.now_us += 31 * 86_400_000_000
        upkeep(store)
        assert asyncio.run(store.records("a")) == []
        assert store.counts()["telemetry_bytes"] == 0
    finally:
        store.close()


def test_the_account_of_bytes_survives_a_restart(tmp_path: Path) -> None:
    for begin in (0, 100):
        store = SqliteDaemonStore(tmp_path, QUIET)
        for minute in range(begin, begin + 100):
            run(store.ingest([sample("a", minute)]))
        upkeep(store)
        counted = store.counts()["telemetry_bytes"]
        with sqlite3.connect(tmp_path / FILE_NAME) as connection:
            assert counted == connection.execute("SELECT sum(bytes) FROM chunks").fetchone()[0]
        connection.close()
        store.close()


def test_a_record_from_the_future_does_not_hide_the_present(store: SqliteDaemonStore, clock: Clock) -> None:
    future, now = sample("a", 10**6), sample("a", 0)
    assert run(store.ingest([future])) == [True]
    assert run(store.ingest([now, future])) == [True, False]
    record = store.host("a")
    assert record is not None
    assert record.time_us == now.time_us


def test_a_clock_that_goes_back_loses_nothing(store: SqliteDaemonStore, clock: Clock) -> None:
    run(store.ingest([sample("a", 0)]))
    clock.now_us -= 86_400_000_000
    assert run(store.ingest([sample("a", 1)])) == [True]
    upkeep(store)
    assert len(asyncio.run(store.records("a"))) == 2


def test_the_rhythm_of_a_host_is_learnt(store: SqliteDaemonStore) -> None:
    run(store.ingest([sample("a", minute) for minute in range(20)]))
    run(store.ingest([sample("a", 20)._replace(time_us=START_US + 500 * MINUTE_US)]))
    record = store.host("a")
    assert record is not None
    assert 60 <= record.interval_s <= 120
    run(store.ingest([NewSample("b", START_US, body_of("b", START_US), GAUGE_ROW, 15.0), sample("b", 1)]))
    record = store.host("b")
    assert record is not None
    assert record.interval_s == 15.0


def test_silence_is_remembered_and_hosts_are_forgotten(tmp_path: Path) -> None:
    store = SqliteDaemonStore(tmp_path, QUIET)
    run(store.ingest([sample("a", 0), sample("b", 0)]))
    run(store.mark_silent({"a": True}))
    assert run(store.forget_host("b"))
    assert not run(store.forget_host("b"))
    store.close()
    store = SqliteDaemonStore(tmp_path, QUIET)
    assert [(record.host, record.silent) for record in store.hosts()] == [("a", True)]
    assert run(store.ingest([sample("b", 0)])) == [True]
    store.close()


def test_one_daemon_a_folder(store: SqliteDaemonStore) -> None:
    with pytest.raises(LockHeld, match="another daemon"):
        SqliteDaemonStore(store.folder)


def test_reads_while_the_tail_is_indexed(tmp_path: Path) -> None:
    """A reader sees every record at every moment: in the tail, in a span, or in both."""
    store = SqliteDaemonStore(tmp_path, StoreLimits(upkeep_s=0.001, index_records=40))
    wanted = 150
    seen: list[int] = []

    async def look(done: Callable[[], bool]) -> None:
        known = 0
        while not done():
            count = len(await store.history("a"))
            bodies = await store.records("a", 0, 10_000)
            assert count >= known
            assert len(bodies) >= count
            known = count
            seen.append(count)

    async def main() -> None:
        async def write() -> None:
            for minute in range(wanted):
                await store.ingest([sample("a", minute)])

        writing = asyncio.ensure_future(write())
        await asyncio.gather(writing, look(writing.done))

    try:
        run(main())
        assert len(asyncio.run(store.history("a"))) == wanted
        assert seen == sorted(seen)
    finally:
        store.close()
