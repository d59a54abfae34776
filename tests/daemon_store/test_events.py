"""The event log, and what the daemon knows of agents, firewalls, tokens and nonces."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from fazai.store.daemon import (
    NewEvent,
    Nonce,
    StoredEvent,
    StoreLimits,
)
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon_store.conftest import QUIET, START_US, Clock
from tests.daemon_store.test_telemetry import upkeep


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


def event(text: str = "x", **more: str) -> NewEvent:
    return NewEvent("log", b'{"type":"log","message":"%s"}' % text.encode(), **more)


def test_events_keep_their_order_and_columns(store: SqliteDaemonStore) -> None:
    first = event("a", target="fw-01", run="R", session="s", agent="g", level="error")
    assert run(store.publish([first, event("b")])) == [1, 2]
    found = asyncio.run(store.events_after(0))
    dated = (
        b'{"timestamp":"2026-09-21T14:13:20+00:00",' + first.data[1:]
    )  # one that was stored without is served so
    assert found[0] == StoredEvent(1, START_US, "log", dated, "fw-01", "R", "s", "g", "error")
    assert [one.id for one in asyncio.run(store.events_after(1))] == [2]
    assert asyncio.run(store.events_after(2)) == []
    assert [one.id for one in asyncio.run(store.events_after(0, limit=1))] == [1]


def test_listeners_hear_all_in_the_order_of_ids(store: SqliteDaemonStore) -> None:
    heard: list[int] = []
    store.on_published(lambda events: heard.extend(one.id for one in events))

    async def main() -> None:
        await asyncio.gather(*(store.publish([event(str(n)), event("+")]) for n in range(100)))
        store.publish_soon([event("soon")])
        await store.publish([event("last")])

    run(main())
    assert heard == list(range(1, 203))
    assert store.event_range() == (1, 202)


def test_the_ring_forgets_by_bytes_and_by_age(tmp_path: Path, clock: Clock) -> None:
    store = SqliteDaemonStore(
        tmp_path, StoreLimits(upkeep_s=3600, events_bytes=20_000, events_age_s=60), clock
    )
    try:
        run(store.publish([event("x" * 100) for _ in range(1000)]))
        upkeep(store)
        first, last = store.event_range()
        assert last == 1000
        assert store.counts()["events_bytes"] <= 20_000
        assert [one.id for one in asyncio.run(store.events_after(0, 5000))] == list(range(first, 1001))
        clock.now_us += 61_000_000
        upkeep(store)
        assert store.event_range() == (1001, 1000)
        assert asyncio.run(store.events_after(0)) == []
        store.close()
        store = SqliteDaemonStore(tmp_path, QUIET, clock)
        assert store.event_range() == (1001, 1000)
        assert run(store.publish([event()])) == [1001]  # also after all were trimmed, and a restart
    finally:
        store.close()


def test_a_clock_that_goes_back_does_not_turn_ids_round(store: SqliteDaemonStore, clock: Clock) -> None:
    ids = []
    for step in (0, 10, -3600, -86_400, 5):
        clock.now_us += step * 1_000_000
        ids += run(store.publish([event()]))
    assert ids == [1, 2, 3, 4, 5]
    assert [one.id for one in asyncio.run(store.events_after(0))] == ids


def test_an_id_for_a_time(store: SqliteDaemonStore, clock: Clock) -> None:
    for _ in range(50):
        run(store.publish([event()] * 3))
        clock.now_us += 1_000_000
    assert asyncio.run(store.event_id_at(START_US)) == 0
    assert asyncio.run(store.event_id_at(START_US + 10_000_000)) == 30
    assert asyncio.run(store.event_id_at(START_US + 10_000_001)) == 33
    assert asyncio.run(store.event_id_at(START_US + 10**12)) == 150


def test_text_that_is_no_utf8_does_not_stop_the_others(store: SqliteDaemonStore) -> None:
    async def main() -> None:
        await asyncio.gather(store.publish([event(target="\udcff")]), store.publish([event(target="é")]))

    run(main())
    assert {one.target for one in asyncio.run(store.events_after(0))} == {"\\udcff", "é"}


def test_a_nonce_that_has_expired_goes(tmp_path: Path, clock: Clock) -> None:
    store = SqliteDaemonStore(tmp_path, QUIET, clock)
    expires = clock.now_us + 1000
    assert run(store.use_nonce(Nonce("a", "n", expires, clock.now_us)))
    clock.now_us += 2000
    upkeep(store)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM nonces").fetchone() == (0,)
    connection.close()
    store.close()


def test_another_process_is_noticed(store: SqliteDaemonStore) -> None:
    version, tokens = asyncio.run(store.tokens()) or (-1, None)
    assert tokens == []
    assert asyncio.run(store.tokens(version)) is None
    with sqlite3.connect(store.folder / FILE_NAME) as connection:
        connection.execute(
            'INSERT INTO tokens VALUES (\'h\', \'{"hash":"h","name":"n","role":"viewer","created":1}\')'
        )
    connection.close()
    again, tokens = asyncio.run(store.tokens(version)) or (-1, None)
    assert again != version
    assert [token.name for token in tokens or ()] == ["n"]


@pytest.mark.parametrize("count", [1, 2500])
def test_a_replay_is_complete(store: SqliteDaemonStore, count: int) -> None:
    run(store.publish([event(str(number)) for number in range(count)]))
    found: list[int] = []
    while batch := asyncio.run(store.events_after(found[-1] if found else 0)):
        found += [one.id for one in batch]
    assert found == list(range(1, count + 1))
