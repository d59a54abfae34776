"""The outbox alone, on a clock of the test: dedup, quiet time, pauses, bounds, and what a restart knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from fazai.daemon.notify import outbox as module
from fazai.daemon.notify.config import NotifyConfig, QuietTime, Subscription
from fazai.daemon.notify.outbox import Entry, Outbox
from fazai.daemon.runs.schedule import Window
from fazai.notify.message import Notice
from fazai.notify.webhook import WebhookChannel

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()
NIGHT = datetime(2026, 11, 30, 23, 0, tzinfo=UTC).timestamp()
MORNING = datetime(2026, 12, 1, 7, 0, tzinfo=UTC).timestamp()
QUIET = QuietTime((Window(time(22), time(7)),))


def config(**more: object) -> NotifyConfig:
    channels = {
        name: Subscription(WebhookChannel(name=name, url="https://x/", secret_file=Path("s")))
        for name in ("a", "b")
    }
    return NotifyConfig(subscriptions=channels, **more)  # type: ignore[arg-type]


class Box(Outbox):
    """An outbox that remembers what it would have stored."""

    def __init__(self, found: NotifyConfig) -> None:
        self.count = 0
        super().__init__(found, lambda: 0.5, self._number)

    def _number(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size)


def notice(box: Box, now: float, subject: str = "x", **more: object) -> Notice:
    return Notice(id=box.new_id(now), kind="drift", subject=subject, time=now, **more)  # type: ignore[arg-type]


def due(box: Outbox, channel: str, now: float) -> str | None:
    entry, _ = box.next_for(channel, now)
    return entry.notice.subject if entry is not None else None


def test_the_same_thing_is_not_told_again_within_the_window() -> None:
    box = Box(config(again_s=3600.0))
    assert not box.was_told("drift:fw-01", NOON)
    box.add(notice(box, NOON), ["drift:fw-01"])
    assert box.was_told("drift:fw-01", NOON + 3599)
    assert not box.was_told("drift:fw-01", NOON + 3600)
    assert not box.was_told("drift:fw-02", NOON)
    assert not box.was_told("drift:fw-01", NOON - 60)  # the clock was set back


def test_a_restart_knows_what_was_told_and_what_waits() -> None:
    box = Box(config())
    (entry,) = box.add(notice(box, NOON, "first"), ["k"])
    stored = msgspec.json.encode(box.mark_sent(entry, "a"))
    again = Box(config())
    assert again.load([stored, b"nonsense"]) == []
    assert again.was_told("k", NOON + 60)
    assert (due(again, "a", NOON), due(again, "b", NOON)) == (None, "first")


def test_a_channel_that_is_gone_holds_nothing_up() -> None:
    box = Box(config())
    (entry,) = box.add(notice(box, NOON), ["k"])
    left = config()
    again = Box(replace(left, subscriptions={"b": left.subscriptions["b"]}))
    ((changed, name),) = again.load([msgspec.json.encode(entry)])
    assert name == "a"
    assert changed.deliveries["a"].state == "dead"
    assert changed.deliveries["a"].error == "the channel is no longer configured"
    assert changed.deliveries["b"].state == "waiting"


def test_a_kind_goes_to_those_who_want_it() -> None:
    found = config()
    some = replace(found.subscriptions["b"], kinds=frozenset({"silent_host"}))
    box = Box(replace(found, subscriptions={**found.subscriptions, "b": some}))
    (entry,) = box.add(notice(box, NOON), ["k"])
    assert list(entry.deliveries) == ["a"]
    only = Box(replace(found, subscriptions={"b": some}))
    assert only.add(notice(only, NOON), ["k"]) == []
    assert not only.was_told("k", NOON)


def test_the_oldest_is_sent_first() -> None:
    box = Box(config())
    for number in range(3):
        box.add(notice(box, NOON + number, f"{number}"), [str(number)])
    assert due(box, "a", NOON + 10) == "0"
    box.mark_sent(next(iter(box._entries.values())), "a")
    assert (due(box, "a", NOON + 10), due(box, "b", NOON + 10)) == ("1", "0")


def test_pauses_grow_to_an_hour_and_heed_the_receiver() -> None:
    box = Box(config())
    (entry,) = box.add(notice(box, NOON), ["k"])
    pauses, now = [], NOON
    for _ in range(12):
        moved = box.mark_failed(entry, "a", "500", now, permanent=False, again_s=None)
        pauses.append(moved.deliveries["a"].due - now)
        assert moved.deliveries["a"].state == "waiting"
    assert pauses[:4] == [15.0, 30.0, 60.0, 120.0]
    assert pauses[-1] == 3600.0
    moved = box.mark_failed(entry, "b", "429", NOON, permanent=False, again_s=900.0)
    assert moved.deliveries["b"].due == NOON + 900.0
    assert box.next_for("b", NOON) == (None, 900.0)
    assert due(box, "b", NOON + 900) == "x"
    assert due(box, "b", NOON - 86400) == "x"  # a clock that was set back holds nothing up


@pytest.mark.parametrize(("permanent", "age_s"), [(True, 0.0), (False, 86400.0)])
def test_what_cannot_be_delivered_is_given_up(permanent: bool, age_s: float) -> None:
    box = Box(config())
    (entry,) = box.add(notice(box, NOON), ["k"])
    moved = box.mark_failed(entry, "a", "no", NOON + age_s, permanent=permanent, again_s=None)
    assert moved.deliveries["a"].state == "dead"
    assert due(box, "a", NOON + age_s) is None
    assert box.was_told("k", NOON + 1)


def test_in_quiet_time_it_is_collected_into_one_message_at_its_end() -> None:
    box = Box(config(quiet=QUIET))
    for number in range(3):
        box.add(notice(box, NIGHT + number, f"fw-{number} differs"), [str(number)])
    assert due(box, "a", NIGHT + 10) is None
    assert box.release(NIGHT + 3600) == []
    box.release(MORNING)
    (entry, _) = box.next_for("a", MORNING)
    assert entry is not None
    assert (entry.notice.kind, entry.notice.subject) == ("digest", "3 notices of the quiet time")
    assert entry.notice.lines == tuple(f"2026-11-30 23:00Z fw-{number} differs" for number in range(3))
    states = {one.deliveries["a"].state for one in box._entries.values() if one.notice.kind == "drift"}
    assert states == {"merged"}
    assert box.release(MORNING + 1) == []
    assert box.was_told("1", NIGHT + 3600)


def test_one_alone_is_itself_at_the_end_of_the_quiet_time() -> None:
    box = Box(config(quiet=QUIET))
    (held,) = box.add(notice(box, NIGHT, "alone"), ["k"])
    assert held.deliveries["a"].state == "held"
    box.release(MORNING)
    assert due(box, "a", MORNING) == "alone"
    moved = box.mark_failed(held, "a", "x", MORNING + 3600 * 20, permanent=False, again_s=None)
    assert moved.deliveries["a"].state == "waiting"  # its day began when it could first be sent


def test_what_is_urgent_does_not_wait() -> None:
    box = Box(config(quiet=QUIET))
    box.add(notice(box, NIGHT, "urgent", urgent=True), ["k"])
    assert due(box, "a", NIGHT) == "urgent"


def test_what_still_waits_when_it_becomes_quiet_waits_on() -> None:
    box = Box(config(quiet=QUIET))
    box.add(notice(box, NOON, "late"), ["k"])
    (held,) = {entry.notice.id for entry in box.release(NIGHT)}
    assert due(box, "a", NIGHT) is None
    box.release(MORNING)
    assert due(box, "a", MORNING) == "late"
    assert held in box._entries


def test_quiet_time_is_of_its_zone() -> None:
    quiet = QuietTime((Window(time(22), time(7), frozenset({0})),), ZoneInfo("America/Sao_Paulo"))
    assert not quiet.holds_at(datetime(2026, 11, 30, 23, 0, tzinfo=UTC))  # 20:00 there, a Monday
    assert quiet.holds_at(datetime(2026, 12, 1, 2, 0, tzinfo=UTC))
    assert quiet.holds_at(datetime(2026, 12, 1, 9, 59, tzinfo=UTC))
    assert not quiet.holds_at(datetime(2026, 12, 2, 2, 0, tzinfo=UTC))


def test_old_ones_go_and_too_many_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NOTICES", 3)
    box = Box(config(again_s=3600.0))
    first: list[Entry] = []
    for number in range(5):
        first += box.add(notice(box, NOON + number, f"{number}"), [str(number)])
    box.mark_sent(first[3], "a")
    box.mark_sent(first[3], "b")
    dropped, lost = box.trim(NOON + 10)
    assert dropped == [first[3].notice.id, first[0].notice.id]  # what is delivered goes first
    assert [(entry.notice.subject, name) for entry, name in lost] == [("0", "a"), ("0", "b")]
    for entry in (first[1], first[2], first[4]):
        box.mark_sent(entry, "a")
        box.mark_sent(entry, "b")
    dropped, lost = box.trim(NOON + 3700)
    assert (len(dropped), lost, box._entries) == (3, [], {})
    assert not box.was_told("4", NOON + 10)


def test_what_one_channel_got_is_not_said_to_be_lost_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NOTICES", 0)
    box = Box(config())
    (entry,) = box.add(notice(box, NOON), ["k"])
    box.mark_sent(entry, "a")
    _, lost = box.trim(NOON + 1)
    assert [name for _, name in lost] == ["b"]


@pytest.mark.parametrize("well", [True, False])
def test_one_that_goes_while_it_is_delivered_is_marked_all_the_same(
    monkeypatch: pytest.MonkeyPatch, well: bool
) -> None:
    monkeypatch.setattr(module, "MOST_NOTICES", 0)
    box = Box(config())
    box.add(notice(box, NOON), ["k"])
    entry, _ = box.next_for("a", NOON)
    assert entry is not None
    assert box.trim(NOON)[0] == [entry.notice.id]
    if well:
        moved = box.mark_sent(entry, "a")
    else:
        moved = box.mark_failed(entry, "a", "404", NOON, permanent=True, again_s=None)
    assert moved.deliveries["a"].state == ("sent" if well else "dead")
