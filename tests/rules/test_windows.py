"""Windows: the threshold within the time, once for a group; bounded whatever is sent."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.rules.values import EventRule, Firing, Hit, ObjectiveAction
from fazai.rules.windows import RuleWindows
from tests.campaign import with_examples

NOW = 1_800_000_000.0


def rule(**more: Any) -> EventRule:
    plain: dict[str, Any] = {"name": "r", "line": 1, "source": "telemetry", "then": ObjectiveAction(text="x")}
    return EventRule(
        **{**plain, "threshold": 3, "within_s": 60.0, "throttle_s": 600.0, "per_hour": 5, **more}
    )


def note(
    windows: RuleWindows, at: float, group: str = "a", now: float | None = None, **more: Any
) -> Firing | None:
    now = at if now is None else now
    return windows.note(Hit(rule=rule(**more), group=group, time=NOW + at), NOW + now)


def test_it_acts_at_the_threshold_and_not_again_while_it_is_throttled() -> None:
    windows = RuleWindows()
    assert [note(windows, n) is not None for n in range(8)] == [False, False, True, *[False] * 5]
    assert [note(windows, 602 + n) is not None for n in range(3)] == [False, False, True]


def test_hits_that_are_too_far_apart_do_not_count_together() -> None:
    windows = RuleWindows()
    assert [note(windows, at) for at in (0, 30, 60, 90, 120)] == [None] * 5
    found = note(windows, 121)
    assert found is not None
    assert (found.count, found.group, found.time) == (3, "a", NOW + 121)
    assert found.why == "r: 3 hits within 60 s"


def test_groups_and_rules_are_counted_apart() -> None:
    windows = RuleWindows()
    for name in ("r", "s"):
        for group in ("a", "b"):
            assert [note(windows, n, group, name=name) for n in range(2)] == [None, None]
    assert note(windows, 2, "b", name="s") is not None
    assert note(windows, 2, "a", name="s", threshold=4) is None


def test_records_that_come_late_count_at_their_own_time() -> None:
    windows = RuleWindows()
    assert note(windows, 0, now=100) is None  # over when it came
    assert [note(windows, at, now=100) for at in (90, 50)] == [None, None]
    assert note(windows, 70, now=100) is not None
    early = RuleWindows()
    assert [note(early, 9999, now=n) is not None for n in range(3)] == [
        False,
        False,
        True,
    ]  # a clock that is fast


def test_an_hours_cap_holds_back_and_lets_through_later() -> None:
    windows = RuleWindows()
    fired = [note(windows, n, f"g{n}", threshold=1, within_s=7200.0) is not None for n in range(8)]
    assert fired == [True] * 5 + [False] * 3
    assert windows.held_back == 3
    assert note(windows, 3602, "g7", threshold=1, within_s=7200.0) is not None


def test_what_was_done_before_a_restart_is_not_done_again() -> None:
    windows = RuleWindows()
    windows.restore([("r", "a", NOW - 100), ("gone", "b", NOW)])
    assert [note(windows, n) for n in range(5)] == [None] * 5
    assert [note(windows, n, "b") is not None for n in range(3)] == [False, False, True]
    assert [note(windows, 501 + n) is not None for n in range(3)] == [False, False, True]


def test_a_clock_that_is_set_back_does_nothing_twice() -> None:
    windows = RuleWindows()
    assert [note(windows, n) is not None for n in range(3)] == [False, False, True]
    assert [note(windows, n - 5000) for n in range(5)] == [None] * 5


def test_a_flood_of_addresses_stays_bounded_and_does_not_hide_who_goes_on() -> None:
    windows = RuleWindows()
    tracemalloc.start()
    try:
        for number in range(100_000):
            assert note(windows, 0, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") is None
            if number % 5000 == 0 and number < 10_000:
                assert note(windows, 0, "attacker") is None
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert windows.sizes == {"groups": 10_000, "marks": 0}
    assert windows.forgotten == 90_001
    assert used < 8 << 20
    assert [note(windows, 1, "attacker") is not None for _ in range(3)] == [False, False, True]


def test_a_high_threshold_leaves_room_for_fewer_groups() -> None:
    windows = RuleWindows()
    for number in range(1000):
        note(windows, 0, f"g{number}", threshold=5000)
    assert windows.sizes["groups"] == 100


def test_marks_are_bounded_too() -> None:
    windows = RuleWindows(marks_max=100)
    for number in range(1000):
        assert note(windows, number * 3600, f"g{number}", threshold=1) is not None
    assert windows.sizes["marks"] == 100


def test_rules_that_are_gone_are_forgotten() -> None:
    windows = RuleWindows()
    note(windows, 0, name="old")
    note(windows, 0)
    windows.forget_rules(["r"])
    assert windows.sizes["groups"] == 1


times = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abc")), max_size=60)


@with_examples(200, 3_000)
def test_it_acts_exactly_where_the_words_say_so(count: int) -> None:
    """Compared with a rule that looks through all hits anew each time."""

    @settings(max_examples=count, deadline=None)
    @given(times)
    def check(hits: list[tuple[int, str]]) -> None:
        windows = RuleWindows()
        seen: dict[str, list[int]] = {}
        acted: dict[str, int] = {}
        for at, group in sorted(hits):
            found = note(windows, at, group, per_hour=3600, throttle_s=100.0) is not None
            wanted = False
            if group not in acted or at - acted[group] >= 100:
                seen.setdefault(group, []).append(at)
                recent = [one for one in seen[group] if one > at - 60]
                wanted = len(recent) >= 3
            if wanted:
                acted[group], seen[group] = at, []
            assert found is wanted

    check()
