"""Files of entries, addresses that may be in them, and plans that do nothing else."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import InputError
from fazai.loop.effects import EffectChange
from fazai.rules import entries
from fazai.rules.addresses import Address, explain_protection, parse_address
from fazai.rules.entries import parse_entries, render_entries
from fazai.rules.judging import explain_foreign_change
from tests.campaign import with_examples

NOW = 1_800_000_000.0


def test_what_is_over_is_left_out_by_the_readers_clock() -> None:
    rows = [
        ("a", "203.0.113.10", NOW + 60, "x"),
        ("a", "203.0.113.9", NOW + 120, "y"),
        ("other", "203.0.113.1", NOW, ""),
    ]
    data = render_entries(["a", "b"], rows)
    assert parse_entries(data, "f", NOW) == {"a": ["203.0.113.9", "203.0.113.10"], "b": []}
    assert parse_entries(data, "f", NOW + 60) == {"a": ["203.0.113.9"], "b": []}
    assert parse_entries(data, "f", NOW + 120) == {"a": [], "b": []}
    assert render_entries(["b", "a"], reversed(rows)) == data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "this is no file of entries"),
        (b"[]", "this is no file of entries"),
        (b'{"format":"fazai-entries/2","aliases":{}}', "fazai-entries/1 is read"),
        (b'{"format":"fazai-entries/1","aliases":{},"x":1}', "this is no file of entries"),
        (b'{"format":"fazai-entries/1","aliases":{"a":["1.2.3.4"]}}', "this is no file of entries"),
    ],
)
def test_another_file_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InputError, match="entries") as found:
        parse_entries(body, "f.json", NOW)
    assert words in str(found.value)
    assert str(found.value).startswith("f.json: ")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"address": "any", "until": "2030-01-01T00:00:00Z"}, "'any' is no address"),
        ({"address": "0.0.0.0/0", "until": "2030-01-01T00:00:00Z"}, "'0.0.0.0/0' is no address"),
        ({"address": "203.0.113.1", "until": "2030-01-01T00:00:00"}, "the time of '203.0.113.1' has no zone"),
        ({"address": "fe80::1%eth0", "until": "2030-01-01T00:00:00Z"}, "'fe80::1%eth0' is no address"),
        ({"address": "203.0.113.1"}, "this is no file of entries"),
    ],
)
def test_an_entry_is_an_address_with_an_end(entry: dict[str, str], words: str) -> None:
    body = {"format": "fazai-entries/1", "aliases": {"a": [entry]}}
    with pytest.raises(InputError) as found:
        parse_entries(json.dumps(body).encode(), "f.json", NOW)
    assert words in str(found.value)


def test_an_address_stands_once_however_it_is_written() -> None:
    rows = [("a", text, NOW + 60, "") for text in ("::ffff:203.0.113.9", "203.0.113.9", "2001:DB8::1")]
    assert parse_entries(render_entries(["a"], rows), "f", NOW) == {"a": ["203.0.113.9", "2001:db8::1"]}


def test_entries_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    class Counted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(entries, "str", Counted, raising=False)
    many = 3000
    rows = [("a", f"203.0.{n >> 8}.{n & 255}", NOW + 60, "") for n in range(many)]
    assert len(parse_entries(render_entries(["a"], rows), "f", NOW)["a"]) == many
    assert compared < many


@pytest.mark.parametrize(
    ("text", "private", "words"),
    [
        ("203.0.113.7", False, None),
        ("2001:db8:5::1", False, None),
        ("::ffff:203.0.113.7", False, None),
        ("203.0.113.1", False, "it is a firewall's, or the daemon's own"),
        ("::ffff:203.0.113.1", False, "it is a firewall's, or the daemon's own"),
        ("192.0.2.77", False, "it is in 192.0.2.0/24"),
        ("192.0.2.77", True, "it is in 192.0.2.0/24"),
        ("10.0.0.1", False, "private network"),
        ("10.0.0.1", True, None),
        ("100.64.0.1", False, "private network"),
        ("fd12::1", False, "private network"),
        ("127.0.0.1", True, "no address of another host"),
        ("0.0.0.0", True, "no address of another host"),
        ("255.255.255.255", True, "no address of another host"),
        ("224.0.0.1", True, "no address of another host"),
        ("169.254.169.254", True, "no address of another host"),
        ("::", True, "no address of another host"),
        ("::1", True, "no address of another host"),
        ("fe80::1", True, "no address of another host"),
        ("ff02::1", True, "no address of another host"),
    ],
)
def test_protected_addresses(text: str, private: bool, words: str | None) -> None:
    address = parse_address(text)
    assert address is not None
    never = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8:9::/48")]
    own = [ipaddress.ip_address("203.0.113.1")]
    found = explain_protection(address, never=never, own=own, private=private)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.2.3",
        "1.2.3.4/32",
        "01.2.3.4",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4\n",
        "fe80::1%eth0",
        "١.2.3.4",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


def test_a_zone_is_left_out_where_only_the_address_is_asked_for() -> None:
    assert parse_address("fe80::1%eth0", zones=True) == ipaddress.ip_address("fe80::1")
    assert parse_address("::ffff:203.0.113.1%eth0", zones=True) == ipaddress.ip_address("203.0.113.1")
    assert parse_address("203.0.113.1%eth0", zones=True) is None


def change(**more: Any) -> EffectChange:
    plain: dict[str, Any] = {"target": "fw", "kind": "opnsense.alias", "identity": "a", "verb": "update"}
    return EffectChange(**{**plain, "before": {"content": ["203.0.113.1"]}, **more})


def parsed(texts: Iterable[str]) -> set[Address]:
    return {address for text in texts if (address := parse_address(text)) is not None}


WANTED = {"a": parsed(["203.0.113.1", "203.0.113.2", "2001:db8::1"])}
OVER = {"a": parsed(["203.0.113.9"])}


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (change(after={"content": ["203.0.113.1", "203.0.113.2"]}), None),
        (change(after={"content": ["203.0.113.1", "2001:DB8:0::1"]}), None),
        (change(after={"content": ["203.0.113.1", "2001:DB8::1", "2001:db8::1"]}), None),
        (change(after={"content": ["::ffff:203.0.113.1"]}), None),
        (change(after={"content": ["203.0.113.1", "fe80::1%em0"]}), "has other entries than addresses"),
        (
            change(before={"content": ["203.0.113.9", "198.51.100.1"]}, after={"content": ["198.51.100.1"]}),
            None,
        ),
        (
            change(verb="create", before={}, after={"name": "a", "type": "host", "content": ["203.0.113.2"]}),
            None,
        ),
        (change(verb="create", before={}, after={"name": "a", "type": "host", "content": []}), None),
        (
            change(after={"content": ["203.0.113.1", "198.51.100.1"]}),
            "would get 198.51.100.1, which no event rule",
        ),
        (change(after={"content": []}), "would lose 203.0.113.1, which no event rule put there"),
        (change(after={"content": ["203.0.113.1", "0.0.0.0/0"]}), "has other entries than addresses"),
        (change(after={"content": ["203.0.113.1", "any"]}), "has other entries than addresses"),
        (change(after={"content": {"x": 1}}), "has other entries than addresses"),
        (change(after={"content": ["203.0.113.1"], "enabled": False}), "would get another enabled"),
        (
            change(verb="create", before={}, after={"name": "a", "type": "network", "content": []}),
            "of the type network",
        ),
        (
            change(verb="create", before={}, after={"name": "a", "type": "host", "proto": "x"}),
            "would get another proto",
        ),
        (change(verb="delete", after={}), "would be changed by delete"),
        (change(identity="b"), "is no alias of an event rule"),
        (change(kind="opnsense.rule"), "is no alias of an event rule"),
    ],
)
def test_a_plan_that_does_anything_else_is_foreign(one: EffectChange, words: str | None) -> None:
    good = change(after={"content": ["203.0.113.1"]})
    found = explain_foreign_change([good, one], WANTED, OVER)
    assert found is None if words is None else words in str(found)


addresses = st.sets(st.sampled_from([f"203.0.113.{n}" for n in range(6)]))


@with_examples(200, 3_000)
def test_only_wanted_ones_come_and_only_former_ones_go(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(addresses, addresses, addresses, addresses)
    def check(before: set[str], after: set[str], wanted: set[str], over: set[str]) -> None:
        one = change(before={"content": sorted(before)}, after={"content": sorted(after)})
        allowed = after - before <= wanted and before - after <= over
        found = explain_foreign_change([one], {"a": parsed(wanted)}, {"a": parsed(over)})
        assert (found is None) is allowed

    check()
