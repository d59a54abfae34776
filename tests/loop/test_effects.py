"""An effect's hash covers everything that an approval is for (requirement B3)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fazai.loop.effects import Effect, EffectChange

CHANGE = EffectChange(
    target="fw-01",
    kind="opnsense.alias",
    identity="blocklist",
    verb="update",
    before={"content": ["192.0.2.1"]},
    after={"content": ["192.0.2.2"]},
)
EFFECT = Effect(
    tool="reconcile.apply",
    changes=(CHANGE,),
    base="b" * 64,
    inventory="i" * 64,
    policy="p" * 64,
    expires=1000.0,
    ref="01KANHC0E8M5T3W9Q7Z2R4V6XB",
)
CHANGED: list[dict[str, Any]] = [
    {"target": "fw-02"},
    {"kind": "opnsense.rule"},
    {"identity": "blocklist2"},
    {"verb": "delete"},
    {"before": {"content": []}},
    {"after": {"content": ["192.0.2.3"]}},
    {"after": {"content": "192.0.2.2"}},
]
MUTATIONS: list[dict[str, Any]] = [
    {"tool": "shell"},
    {"changes": ()},
    {"changes": (CHANGE, CHANGE)},
    *({"changes": (msgspec.structs.replace(CHANGE, **one),)} for one in CHANGED),
    {"base": "c" * 64},
    {"inventory": "j" * 64},
    {"policy": "q" * 64},
    {"expires": 1000.5},
    {"free": True},
    {"ref": "other"},
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_each_input_alone_changes_the_hash(mutation: dict[str, Any]) -> None:
    assert msgspec.structs.replace(EFFECT, **mutation).digest != EFFECT.digest


def test_all_fields_are_mutated() -> None:
    assert {name for one in MUTATIONS for name in one} == set(Effect.__struct_fields__)


def test_the_order_of_fields_does_not_matter() -> None:
    other = msgspec.structs.replace(
        EFFECT, changes=(msgspec.structs.replace(CHANGE, after={"z": 1, "a": 2}, before={}),)
    )
    same = msgspec.structs.replace(
        EFFECT, changes=(msgspec.structs.replace(CHANGE, after={"a": 2, "z": 1}, before={}),)
    )
    assert other.digest == same.digest


@pytest.mark.parametrize("field", ["policy", "expires", "inventory", "free", "ref"])
def test_a_rejection_outlives_what_is_not_its_substance(field: str) -> None:
    other = {"policy": "q", "expires": 5.0, "inventory": "j", "free": True, "ref": "r"}[field]
    assert msgspec.structs.replace(EFFECT, **{field: other}).substance == EFFECT.substance


def test_a_rejection_ends_where_the_state_moved() -> None:
    assert msgspec.structs.replace(EFFECT, base="c").substance != EFFECT.substance
