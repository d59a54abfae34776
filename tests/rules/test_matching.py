"""What a rule means in a record: typed comparisons, lists, and whatever a host may send instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.rules.matching import find_hits
from fazai.rules.reading import parse_rules
from tests.campaign import with_examples


def groups(
    where: str, record: dict[str, Any], more: str = "", source: str = "telemetry", type_: str = "x"
) -> list[str]:
    text = f"rules: [{{name: r, source: {source}, threshold: 2, {where} {more} then: {{objective: x}}}}]"
    rules = parse_rules(text.encode(), "rules.yml").rules
    return [hit.group for hit in find_hits(rules, source, type_, record, 0.0)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "value", "meant"),
    [
        ("5", 5, True),
        ("5", 5.0, True),
        ("5", "5", False),
        ("1", True, False),
        ("true", True, True),
        ("true", 1, False),
        ("x", "x", True),
        ("x", "X", False),
        ("x", "x ", False),
        ("x", ["x"], False),
        ("[1, x]", 1, True),
        ("[1, x]", "x", True),
        ("[1, x]", "1", False),
        ("{at_least: 3}", 3, True),
        ("{at_least: 3}", 2.9, False),
        ("{at_least: 3}", "3", False),
        ("{at_least: 0}", True, False),
        ("{at_most: 3}", float("nan"), False),
        ("{at_least: 1, at_most: 2}", 3, False),
        ("{contains: SCAN}", "ET SCAN x", True),
        ("{contains: SCAN}", ["SCAN"], True),
        ("{contains: SCAN}", ["ET SCAN"], False),
        ("{contains: SCAN}", {"SCAN": 1}, False),
        ("{matches: '[a-z]+'}", "abc", True),
        ("{matches: '[a-z]+'}", "abc1", False),
        ("{matches: '[a-z]+'}", 5, False),
        ("{matches: '.*'}", "x" * 5000, False),
        ("{in: [192.0.2.0/24]}", "192.0.2.9", True),
        ("{in: [192.0.2.0/24]}", "192.0.3.9", False),
        ("{in: [192.0.2.0/24]}", "192.0.2.9x", False),
        ("{not_in: [192.0.2.0/24]}", "192.0.3.9", True),
        ("{not_in: [192.0.2.0/24]}", "nothing", False),
        ("{in: [192.0.2.0/24]}", "::ffff:192.0.2.9", True),
        ("{not_in: [192.0.2.0/24]}", "::ffff:192.0.2.9", False),
        ("{in: ['::ffff:192.0.2.0/120']}", "192.0.2.9", True),
        ("{in: ['::ffff:192.0.2.9']}", "::FFFF:192.0.2.9", True),
        ("{in: ['fe80::/10']}", "fe80::1%eth0", True),
        ("{not_in: ['fe80::1']}", "fe80::1%eth0", False),
        ("{not_in: [192.0.2.0/24]}", 5, False),
        ("{exists: true}", None, True),
        ("{exists: false}", 1, False),
        ("{is: 1, exists: true}", 1, True),
    ],
)
def test_comparisons_are_typed(where: str, value: object, meant: bool) -> None:
    assert bool(groups(f"where: {{a.b: {where}}},", {"a": {"b": value}})) is meant
    if "exists" not in where:
        for other in ({}, {"a": None}, {"a": value}, {"a.b": value}, {"a": [{"b": value}]}):
            assert groups(f"where: {{a.b: {where}}},", other) == []


def test_a_field_that_is_absent_can_be_asked_for() -> None:
    assert groups("where: {a: {exists: false}},", {"b": 1}) == [""]


def test_items_of_a_list_are_hits_and_see_their_record() -> None:
    record = {
        "hostname": "sensor",
        "x": {"list": [{"ip": "a", "n": 1}, {"ip": "b", "n": 5}, "c", {"n": 1}, {"ip": "d", "n": 1}]},
    }
    more = "each: x.list, group_by: ip,"
    assert groups("where: {n: 1},", record, more) == ["a", "d"]
    assert groups("where: {n: 1, record.hostname: sensor},", record, more) == ["a", "d"]
    assert groups("where: {n: 1, record.hostname: other},", record, more) == []
    assert groups("where: {n: 1},", record, "each: x.list, group_by: record.hostname,") == ["sensor"] * 3
    assert groups("where: {n: 1},", {"x": {"list": {"n": 1}}}, more) == []
    many = {"x": {"list": [{"ip": "a", "n": 1}] * 5000}}
    assert len(groups("where: {n: 1},", many, more)) == 1000


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("192.0.2.1", ["192.0.2.1"]),
        (5, ["5"]),
        (True, ["True"]),
        (None, []),
        ("", []),
        ("a\nb", []),
        ("a\x1b[2J", []),
        ("x" * 201, []),
        ({"a": 1}, []),
        (["a"], []),
    ],
)
def test_a_group_is_one_short_word(value: object, wanted: list[str]) -> None:
    assert groups("", {"g": value}, "group_by: g,") == wanted


def test_events_are_told_apart_by_their_type() -> None:
    where = "types: [outcome], where: {status: failed}, group_by: target,"
    record = {"status": "failed", "target": "fw-01"}
    assert groups(where, record, source="event", type_="outcome") == ["fw-01"]
    assert groups(where, record, source="event", type_="change") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c", ""]), inner, max_size=4)
    ),
    max_leaves=20,
)
HARD = """
rules:
  - name: r
    source: telemetry
    each: a
    group_by: b
    where: {b: {at_least: 1}, record.c: 1}
    then: &x {objective: x}
  - {name: q, source: telemetry, each: a, group_by: b, where: {b: {contains: x}}, then: *x}
  - {name: s, source: telemetry, group_by: a.b, where: {a.b.c: {in: [192.0.2.0/24]}}, then: *x}
  - {name: p, source: telemetry, where: {c: {matches: '[a-z]*'}}, then: *x}
  - {name: t, source: telemetry, threshold: 2, group_by: c, then: *x}
"""


@with_examples(300, 5_000)
def test_whatever_a_host_sends_is_looked_at_without_an_error(count: int) -> None:
    rules = parse_rules(HARD.encode(), "rules.yml").rules

    @settings(max_examples=count, deadline=None)
    @given(st.dictionaries(st.sampled_from(["a", "b", "c", ""]), JSON, max_size=4))
    def check(record: dict[str, Any]) -> None:
        for hit in find_hits(rules, "telemetry", "telemetry", record, 0.0):
            assert len(hit.group) <= 400

    check()
