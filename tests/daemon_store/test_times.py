"""Times, numbers and names as hosts write them, and what is learnt from the times of records."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.ingest.deadman import HostWatch, WatchRules
from fazai.daemon.ingest.pipeline import IngestRules
from fazai.store.daemon import NewSample
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.wire.base import WireError
from fazai.wire.telemetry import parse_time
from tests.contract import decode_telemetry
from tests.daemon_store.conftest import GAUGE_ROW, QUIET, START_US, Clock
from tests.daemon_store.test_ingest import Bench, bench, dump, record

__all__ = ["bench"]

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T03:04:05Z",
        "2026-11-22t03:04:05z",
        "2026-11-22 03:04:05",
        "20261122T030405Z",
        "2026-11-22T04:04:05+01:00",
        "2026-W47-7T03:04:05Z",
        "2026-w47-7t03:04:05z",
        "2026-11-22T03:04:05.000Z",
        "2026-11-22T03:04:05,0Z",
    ],
)
def test_times_as_the_contract_says(text: str) -> None:
    assert parse_time(text).isoformat() == "2026-11-22T03:04:05+00:00"


@pytest.mark.parametrize(
    "text", ["2026-11-22", "2026-326T03:04:05Z", "2026-11-22T23:59:60Z", "2026-11-22T24:00:00Z"]
)
def test_times_that_the_contract_leaves_out(text: str) -> None:
    with pytest.raises(WireError, match="expected an ISO 8601 date and time"):
        parse_time(text)


@pytest.mark.parametrize("name", ["web 1", "värd", "хост", "", "x" * 254])
def test_names_that_the_contract_leaves_out(bench: Bench, name: str) -> None:
    status, answer = bench.post(dump(record(name)))
    assert status == 422
    assert "`hostname`" in answer["errors"][0]["error"]


@pytest.mark.parametrize("written", ["8000000000", "8000000000.0", "8e9", "8.0E+9", "80000000000e-1"])
@pytest.mark.parametrize("form", ["one", "array", "lines"])
def test_a_whole_number_is_one_however_it_is_written(bench: Bench, written: str, form: str) -> None:
    """In every field that counts something, at any depth."""
    text = dump(
        record(
            os={"mem": {"total": "N", "free": "N"}},
            cpu={"count": "N"},
            mem={"total": "N", "free": "N", "available": "N", "swap_total": "N", "swap_free": "N"},
            disk=[{"mount": "/", "total": "N", "free": "N", "used": "N"}],
            net=[{"name": "eth0", "rx_bytes": "N", "tx_bytes": "N", "rx_errors": "N", "tx_errors": "N"}],
            top=[{"pid": "N", "command": "x"}],
            agent={"spool_depth": "N", "dropped": "N"},
        )
    ).replace(b'"N"', written.encode())
    other = dump(record(minute=1))
    body = {"one": text, "array": b"[%b,%b]" % (text, other), "lines": text + b"\n" + other}[form]
    status, answer = bench.post(body)
    assert (status, answer["ok"]) == (200, True), answer
    assert 'fazai_host_memory_total_bytes{host="web-1"} 8000000000' in bench.page() or form != "one"
    assert asyncio.run(bench.store.records("web-1"))[-1][1] == text  # kept as it came
    assert len(decode_telemetry(body).samples) == (1 if form == "one" else 2)


@pytest.mark.parametrize("written", ["1.5", "-1.0", "1e-3", '"8"', "true"])
def test_what_is_no_whole_number_is_refused(bench: Bench, written: str) -> None:
    body = dump(record(os={"mem": {"total": "N"}})).replace(b'"N"', written.encode())
    status, answer = bench.post(body)
    assert status == 422
    assert "`os.mem.total`" in answer["errors"][0]["error"]


# -- clocks that are wrong


def test_a_time_of_more_than_a_day_ahead_is_refused(bench: Bench, clock: Clock) -> None:
    """Stored, it would be the newest of its host until then."""
    good = {"hostname": "web-1", "timestamp": "2026-11-23T03:59:59Z"}  # a day, less a second
    late = {"hostname": "web-1", "timestamp": "2026-11-23T04:00:01Z"}
    assert bench.post(dump(good))[0] == 200
    status, answer = bench.post(dump(late))
    assert (status, answer["accepted"]) == (422, 0)
    assert "more than a day ahead of the daemon's clock" in answer["errors"][0]["error"]
    status, answer = bench.post(dump([late, record(minute=5)]))
    assert (status, answer["accepted"], answer["errors"][0]["index"]) == (200, 1, 0)


def _samples(store: SqliteDaemonStore, *times_us: int) -> float:
    """The interval that is learnt from records of those times, each in a request of its own."""
    for time_us in times_us:
        body = json.dumps({"hostname": "a"}).encode()
        asyncio.run(store.ingest([NewSample("a", time_us, body, GAUGE_ROW)]))
    found = store.host("a")
    assert found is not None
    return found.interval_s


def test_a_clock_that_is_set_teaches_no_interval(store: SqliteDaemonStore, clock: Clock) -> None:
    """The first two records are 30 days apart by the host's clock, and a minute by ours."""
    assert _samples(store, START_US - 30 * DAY_US) == 0.0
    clock.now_us += 60_000_000
    assert _samples(store, START_US) == 0.0
    clock.now_us += 60_000_000
    assert _samples(store, START_US + 60_000_000) == 60.0


def test_a_slow_rhythm_is_learnt_when_it_is_one(store: SqliteDaemonStore, clock: Clock) -> None:
    _samples(store, START_US)
    clock.now_us += 7_200_000_000
    assert _samples(store, START_US + 7_200_000_000) == 7200.0


def test_no_interval_is_longer_than_a_day(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteDaemonStore(tmp_path / "state", QUIET, clock)
    _samples(store, START_US)
    clock.now_us += 30 * DAY_US  # it was switched off
    assert _samples(store, START_US + 30 * DAY_US) == 0.0
    store.close()
    watch, now = HostWatch(WatchRules(), lambda: now[0]), [0.0]
    watch.note_record("a", 0.0)
    now[0] = 301.0
    assert watch.sweep()[0].what == "silent"


def test_a_month_that_an_earlier_release_learnt_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    import sqlite3

    store = SqliteDaemonStore(tmp_path / "state", QUIET, clock)
    _samples(store, START_US)
    store.close()
    with sqlite3.connect(tmp_path / "state" / "fazai.sqlite3") as file:
        file.execute("UPDATE hosts SET interval_s = 2592000.0")
    file.close()
    store = SqliteDaemonStore(tmp_path / "state", QUIET, clock)
    found: Any = store.host("a")
    assert found.interval_s == 0.0
    store.close()


# -- names that are invented


def test_no_more_hosts_than_the_memory_bears(bench: Bench) -> None:
    bench.ingest.rules = IngestRules(hosts=3)
    assert bench.post(dump([record(f"h-{n}") for n in range(2)]))[0] == 200
    status, answer = bench.post(dump([record(f"h-{n}") for n in range(1, 5)]))
    assert (status, answer["accepted"], answer["duplicates"]) == (200, 1, 1)
    assert [one["index"] for one in answer["errors"]] == [2, 3]
    assert answer["errors"][0]["error"] == "`hostname`: 3 hosts report already, and no more are taken"
    status, answer = bench.post(dump(record("h-9")))
    assert (status, answer["accepted"]) == (422, 0)
    assert bench.post(dump(record("h-2", minute=1)))[0] == 200  # who is known goes on
    assert len(bench.store.hosts()) == 3
