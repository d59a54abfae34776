"""What every store of the daemon promises, whatever it keeps things in (`DaemonStore` in
fazai/store/daemon.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fazai.errors import LockHeld, StateError
from fazai.store.daemon import (
    GAUGES,
    AgentRecord,
    DaemonStore,
    FirewallRecord,
    NewEvent,
    NewSample,
    Nonce,
    RunRecord,
    StoredEvent,
    Token,
)
from fazai.store.factory import open_tokens
from fazai.store.rules import Entry, RuleMark
from tests.daemon.live import until
from tests.store.conftest import OpenDaemon

GAUGE_ROW = tuple(float(number) for number in range(len(GAUGES)))


def event(text: str = "x", **more: str) -> NewEvent:
    return NewEvent("log", b'{"timestamp":"-","type":"log","message":"%s"}' % text.encode(), **more)


def sample(host: str, number: int) -> NewSample:
    time_us = 1_790_000_000_000_000 + number * 60_000_000
    return NewSample(host, time_us, b'{"hostname":"%s","n":%d}' % (host.encode(), number), GAUGE_ROW)


def test_one_daemon_uses_a_place(open_daemon: OpenDaemon) -> None:
    with open_daemon(), pytest.raises(LockHeld, match="another daemon"), open_daemon():
        pass
    with open_daemon():
        pass


def test_a_closed_store_says_so(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        pass
    for use in (store.ingest([sample("a", 0)]), store.events_after(0), store.tokens()):
        with pytest.raises(StateError, match="the store is closed"):
            asyncio.run(use)


# -- events


def test_events_keep_their_order_and_what_filters_ask_for(open_daemon: OpenDaemon) -> None:
    first = event("a", target="fw-01", run="R", session="s", agent="g", level="error")
    with open_daemon() as store:
        ids = asyncio.run(store.publish([first, event("b")]))
        assert ids == sorted(set(ids))
        found = asyncio.run(store.events_after(0))
        assert [one.id for one in found] == ids
        assert (found[0].data, *found[0][4:]) == (first.data, "fw-01", "R", "s", "g", "error")
        assert asyncio.run(store.events_after(ids[-1])) == []
        assert store.event_range() == (ids[0], ids[-1])
    with open_daemon() as store:
        assert [one.data for one in asyncio.run(store.events_after(0))] == [found[0].data, found[1].data]
        (later,) = asyncio.run(store.publish([event()]))
        assert later > ids[-1]


def test_the_events_of_one_run_are_found_alone(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        ids = asyncio.run(store.publish([event("a", run=run) for run in ("R1", "R2", "R1", "R1")]))
        asyncio.run(store.publish([event("b")]))
        assert [one.id for one in asyncio.run(store.events_after(0, run="R1"))] == [ids[0], *ids[2:]]
        assert [one.id for one in asyncio.run(store.events_after(ids[0], 1, "R1"))] == [ids[2]]
        assert asyncio.run(store.events_after(0, run="R3")) == []


def test_an_id_is_safe_to_resume_by(open_daemon: OpenDaemon) -> None:
    """Once a reader can see an event, none with a smaller id appears any more: a reader that goes on after
    the last one misses nothing, also while many write at the same time."""
    seen: list[int] = []

    with open_daemon() as store:

        async def read(writing: asyncio.Future[Any]) -> None:
            while True:
                last = writing.done()
                while batch := await store.events_after(seen[-1] if seen else 0, 7):
                    seen.extend(one.id for one in batch)
                if last:
                    return

        async def write(number: int) -> list[int]:
            return [id_ for n in range(20) for id_ in await store.publish([event(f"{number} {n}")] * 3)]

        async def main() -> list[int]:
            writing = asyncio.gather(*map(write, range(10)))
            await read(writing)
            return sorted(id_ for ids in await writing for id_ in ids)

        given = asyncio.run(main())
    assert len(given) == 600
    assert seen == given


def test_an_id_is_not_given_again(open_daemon: OpenDaemon) -> None:
    """Not after a trim of all events, nor after a restart that finds none."""

    def publish_until_trimmed(store: DaemonStore) -> int:
        (last,) = asyncio.run(store.publish([event()]))
        until(lambda: store.event_range() == (last + 1, last))
        assert asyncio.run(store.events_after(0)) == []
        return last

    lasts = []
    for _ in range(3):
        with open_daemon(events_bytes=0, upkeep_s=0.01) as store:
            lasts += [publish_until_trimmed(store) for _ in range(2)]
    assert lasts == sorted(set(lasts))


def test_listeners_hear_all_in_the_order_of_ids(open_daemon: OpenDaemon) -> None:
    heard: list[StoredEvent] = []
    with open_daemon() as store:
        store.on_published(heard.extend)

        async def main() -> None:
            await asyncio.gather(*(store.publish([event(str(n)), event("+")]) for n in range(100)))
            store.publish_soon([event("soon")])
            await store.publish([event("last")])

        asyncio.run(main())
        assert heard == asyncio.run(store.events_after(0))
        assert len(heard) == 202


def test_the_id_of_a_time(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        ids = asyncio.run(store.publish([event()] * 3))
        found = asyncio.run(store.events_after(0))
        assert asyncio.run(store.event_id_at(found[0].time_us)) == ids[0] - 1
        assert asyncio.run(store.event_id_at(found[-1].time_us + 1)) == ids[-1]


# -- telemetry


def test_a_sample_is_stored_once(open_daemon: OpenDaemon) -> None:
    async def main(store: Any) -> None:
        assert await store.ingest([sample("a", 0), sample("b", 0), sample("a", 0)]) == [True, True, False]
        assert await store.ingest([sample("a", 0), sample("a", 1)]) == [False, True]

    with open_daemon() as store:
        asyncio.run(main(store))
    with open_daemon() as store:
        newest, older = sample("a", 1), sample("a", 0)
        assert [(r.host, r.time_us, r.records) for r in sorted(store.hosts())] == [
            ("a", newest.time_us, 2),
            ("b", older.time_us, 1),
        ]
        assert asyncio.run(store.records("a")) == [(newest.time_us, newest.body), (older.time_us, older.body)]
        assert asyncio.run(store.history("a")) == [(older.time_us, GAUGE_ROW), (newest.time_us, GAUGE_ROW)]
        assert asyncio.run(store.ingest([newest])) == [False]


def test_a_host_that_is_forgotten_is_new_when_it_reports_again(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        asyncio.run(store.ingest([sample("a", 0)]))
        asyncio.run(store.mark_silent({"a": True, "nobody": True}))
        assert [one.silent for one in store.hosts()] == [True]
        assert asyncio.run(store.forget_host("a")) is True
        assert asyncio.run(store.forget_host("a")) is False
        assert (store.hosts(), store.host("a")) == ([], None)
        assert asyncio.run(store.ingest([sample("a", 0)])) == [True]


# -- the daemon's runs


def record(number: int, **more: Any) -> RunRecord:
    run_id = f"{number:026d}"
    return RunRecord(run_id=run_id, job="edge", mode="check", trigger="api", by="ann", asked=1.0, **more)


def test_runs_that_were_asked_for_last(open_daemon: OpenDaemon) -> None:
    first, second = record(1, limit=("fw-01",), reason="é"), record(2)
    with open_daemon() as store:
        asyncio.run(store.put_run_records([second, first]))
        second.started, second.exit_code = 2.0, 0
        asyncio.run(store.put_run_records([second]))
    with open_daemon() as store:
        assert asyncio.run(store.run_records()) == [first, second]
        assert asyncio.run(store.delete_run_record(first.run_id)) is True
        assert asyncio.run(store.delete_run_record(first.run_id)) is False
        assert asyncio.run(store.run_records()) == [second]


def test_a_plan_stays_as_long_as_the_record_of_its_run(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        asyncio.run(store.put_run_records([record(1), record(2)]))
        asyncio.run(store.put_plan(record(1).run_id, b"{}" * 100_000))
        asyncio.run(store.put_run_records([record(1, plan_hash="x")]))
    with open_daemon() as store:
        assert asyncio.run(store.plan(record(1).run_id)) == b"{}" * 100_000
        assert asyncio.run(store.plan(record(2).run_id)) is None
        assert asyncio.run(store.plan("nobody's")) is None
        asyncio.run(store.delete_run_record(record(1).run_id))
        assert asyncio.run(store.plan(record(1).run_id)) is None


def test_when_a_job_began_lasts(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        for time_s in (1.5, 2.5):
            asyncio.run(store.put_began("edge", time_s))
        asyncio.run(store.put_began("core", 3.0))
    with open_daemon() as store:
        assert asyncio.run(store.began()) == {"edge": 2.5, "core": 3.0}


# -- nonces


def test_a_nonce_is_used_once(open_daemon: OpenDaemon) -> None:
    now_us = 1_790_000_000_000_000
    with open_daemon() as store:
        assert asyncio.run(store.use_nonce(Nonce("a", "n", now_us + 1000, now_us)))
        assert not asyncio.run(store.use_nonce(Nonce("a", "n", now_us + 1000, now_us)))
        assert asyncio.run(store.use_nonce(Nonce("b", "n", now_us + 1000, now_us)))
    with open_daemon() as store:
        assert not asyncio.run(store.use_nonce(Nonce("a", "n", now_us + 1000, now_us)))
        assert asyncio.run(store.use_nonce(Nonce("a", "n", now_us + 9000, now_us + 2000)))  # it had expired


def test_of_many_that_use_a_nonce_at_the_same_time_one_may(open_daemon: OpenDaemon) -> None:
    async def main(store: DaemonStore) -> list[bool]:
        return await asyncio.gather(*(store.use_nonce(Nonce("a", "n", 2_000, 1_000)) for _ in range(50)))

    with open_daemon() as store:
        assert sum(asyncio.run(main(store))) == 1


def test_records_and_their_nonce_are_stored_together(open_daemon: OpenDaemon) -> None:
    nonce = Nonce("a", "n", 2_000, 1_000)
    with open_daemon() as store:
        assert asyncio.run(store.ingest_signed([sample("a", 0), sample("a", 0)], nonce)) == [True, False]
        assert asyncio.run(store.ingest_signed([sample("a", 1)], nonce)) is None
        assert asyncio.run(store.use_nonce(nonce)) is False
    with open_daemon() as store:
        assert asyncio.run(store.ingest_signed([sample("a", 1)], nonce)) is None
        assert [one.records for one in store.hosts()] == [1]  # what came with a used nonce left no trace
        expired = nonce._replace(now_us=3_000, expires_us=4_000)
        assert asyncio.run(store.ingest_signed([sample("a", 1)], expired)) == [True]


def test_of_many_requests_with_one_nonce_one_is_stored(open_daemon: OpenDaemon) -> None:
    async def main(store: DaemonStore) -> list[list[bool] | None]:
        nonce = Nonce("a", "n", 2_000, 1_000)
        return await asyncio.gather(*(store.ingest_signed([sample("a", n)], nonce) for n in range(50)))

    with open_daemon() as store:
        assert sorted(asyncio.run(main(store)), key=repr) == [*[None] * 49, [True]]
        assert [one.records for one in store.hosts()] == [1]


# -- what is known of the others


def test_agents_firewalls_and_tokens_last(open_daemon: OpenDaemon) -> None:
    agent = AgentRecord("g-1", "gemma", "unix", "execution", 1.5, capabilities=("command.exec",))
    firewall = FirewallRecord("f-1", "fw", "https://fw", True, 1.0, 2.0, tags=("a",), info={"x": 1})
    token = Token("ab" * 32, "ops", "operator", 1.0, expires=9.0)
    with open_daemon() as store:
        for put in (store.put_agent(agent), store.put_firewall(firewall), store.put_token(token)):
            asyncio.run(put)
    with open_daemon() as store:
        assert asyncio.run(store.agents()) == [agent]
        assert asyncio.run(store.firewalls()) == [firewall]
        assert (asyncio.run(store.tokens()) or (-1, None))[1] == [token]
        assert asyncio.run(store.delete_agent("g-1")) is True
        assert asyncio.run(store.delete_agent("g-1")) is False
        assert asyncio.run(store.delete_firewall("f-1")) is True
        assert (asyncio.run(store.agents()), asyncio.run(store.firewalls())) == ([], [])


def test_tokens_of_another_process_are_noticed(open_daemon: OpenDaemon, place: str) -> None:
    beside = open_tokens(place)
    with open_daemon() as store:
        version, tokens = asyncio.run(store.tokens()) or (-1, None)
        assert tokens == []
        assert asyncio.run(store.tokens(version)) is None
        for number in (2, 1):
            beside.put(Token(f"{number:064x}", f"n{number}", "viewer", float(number)))
        again, tokens = asyncio.run(store.tokens(version)) or (-1, None)
        assert again != version
        assert {token.name for token in tokens or ()} == {"n1", "n2"}
        assert [token.name for token in beside.tokens()] == ["n1", "n2"]


# -- uses of the policy's rules, and what event rules keep


def test_a_use_is_claimed_as_often_as_the_rule_says_within_an_hour(open_daemon: OpenDaemon) -> None:
    async def claim(store: DaemonStore, times: int, now: float) -> int:
        found = [store.rules.claim_policy_use("r", "e", now, 3) for _ in range(times)]
        return sum(await asyncio.gather(*found))

    with open_daemon() as store:
        assert asyncio.run(claim(store, 2, 1000.0)) == 2
    with open_daemon() as store:
        assert asyncio.run(claim(store, 20, 2000.0)) == 1
        assert asyncio.run(store.rules.policy_uses(2000.0)) == {"r": 3}
        assert asyncio.run(store.rules.claim_policy_use("other", "e", 2000.0, 1))
        assert asyncio.run(claim(store, 1, 4599.0)) == 0
        assert asyncio.run(claim(store, 3, 4601.0)) == 2
        assert asyncio.run(store.rules.policy_uses(5700.0)) == {"r": 2}


def test_entries_are_bounded_for_each_alias_and_last(open_daemon: OpenDaemon) -> None:
    def entry(address: str, since: float = 0.0, until: float = 100.0, alias: str = "a") -> Entry:
        return Entry("job", alias, address, since, until, "rule", f"why {since:g}")

    with open_daemon() as store:
        put = [store.rules.put_entry(entry(f"192.0.2.{n}"), 2) for n in range(3)]
        assert [asyncio.run(one) for one in put] == [True, True, False]
        assert asyncio.run(store.rules.put_entry(entry("192.0.2.9", alias="b"), 2))
        assert asyncio.run(store.rules.put_entry(entry("192.0.2.0", 50.0, 200.0), 2))  # it stands longer
        assert asyncio.run(store.rules.put_entry(entry("192.0.2.0", 60.0, 150.0), 2))  # and is not cut
    with open_daemon() as store:
        found = asyncio.run(store.rules.entries())
        assert [(one.alias, one.address, one.since, one.until) for one in found] == [
            ("a", "192.0.2.0", 0.0, 200.0),
            ("a", "192.0.2.1", 0.0, 100.0),
            ("b", "192.0.2.9", 0.0, 100.0),
        ]
        assert found[0].why == "why 60"
        assert asyncio.run(store.rules.put_entry(entry("192.0.2.3", 100.0, 300.0), 2))  # one is over by then
        assert asyncio.run(store.rules.drop_expired_entries(100.0)) == 2
        assert asyncio.run(store.rules.drop_expired_entries(100.0)) == 0
        assert [one.address for one in asyncio.run(store.rules.entries())] == ["192.0.2.0", "192.0.2.3"]


def put_entry(store: DaemonStore, address: str, since: float, until: float, most: int) -> bool:
    entry = Entry("job", "a", address, since, until, "rule", f"why {since:g}")
    return asyncio.run(store.rules.put_entry(entry, most))


def entry_spans(store: DaemonStore) -> dict[str, tuple[float, float]]:
    return {one.address: (one.since, one.until) for one in asyncio.run(store.rules.entries())}


def test_an_entry_that_is_over_takes_no_room_and_has_none_kept_for_it(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        assert put_entry(store, "192.0.2.0", 0.0, 100.0, 2)
        assert put_entry(store, "192.0.2.1", 100.0, 300.0, 2)  # the other was over at this moment
        assert put_entry(store, "192.0.2.2", 100.0, 200.0, 2)
        assert not put_entry(store, "192.0.2.0", 150.0, 400.0, 2)  # two stand
        assert entry_spans(store)["192.0.2.0"] == (0.0, 100.0)
        assert put_entry(store, "192.0.2.1", 150.0, 400.0, 2)  # one that stands is no new one
        assert put_entry(store, "192.0.2.0", 200.0, 400.0, 2)


def test_an_entry_stands_since_it_came_last(open_daemon: OpenDaemon) -> None:
    """One that stands does so since then, whatever is put; one that was over begins anew."""
    with open_daemon() as store:
        for since, until, wanted in (
            (0.0, 100.0, (0.0, 100.0)),
            (50.0, 80.0, (0.0, 100.0)),
            (99.0, 200.0, (0.0, 200.0)),
            (200.0, 300.0, (200.0, 300.0)),  # at its end it is over
            (450.0, 500.0, (450.0, 500.0)),
            (460.0, 490.0, (450.0, 500.0)),
        ):
            assert put_entry(store, "192.0.2.0", since, until, 9)
            assert entry_spans(store) == {"192.0.2.0": wanted}


def test_marks_of_rules_are_the_latest_and_end(open_daemon: OpenDaemon) -> None:
    with open_daemon() as store:
        for number in range(4):
            asyncio.run(store.rules.put_rule_mark(RuleMark("r", f"g{number % 3}", float(number)), 100.0))
    with open_daemon() as store:
        found = asyncio.run(store.rules.rule_marks(1.0, 10))
        assert found == [RuleMark("r", "g1", 1.0), RuleMark("r", "g2", 2.0), RuleMark("r", "g0", 3.0)]
        assert asyncio.run(store.rules.rule_marks(0.0, 1)) == found[-1:]
        asyncio.run(store.rules.put_rule_mark(RuleMark("r", "g3", 102.5), 100.0))
        assert [one.group for one in asyncio.run(store.rules.rule_marks(0.0, 10))] == ["g0", "g3"]
