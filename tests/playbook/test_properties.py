"""Whatever stands in a playbook or a list of resources: it is resolved, or refused with a place."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.errors import Errors, FazaiError
from fazai.model import Work
from tests.playbook.world import World

_WORDS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "all",
            "box",
            "shelf",
            "present",
            "absent",
            "{{ x }}",
            "{{ item }}",
            "{{ nope }}",
            "x == 1",
            "",
            "50%",
        ),
        *("{{ omit }}", "{{ [1, 2] }}", "{{ {'name': 'q'} }}", "lan", "write", "{{", "never", "always"),
    ]
)
_LEAVES = st.one_of(_WORDS, st.integers(-2, 5), st.booleans(), st.none())
_ANY = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=5,
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("name", "zone", "ports", "count", "enabled", "note", "password", "part", "typo"), _ANY
    ),
)
_BESIDE = dict.fromkeys(
    ("state", "when", "loop", "loop_control", "tags", "name", "adopt", "notify", "vars", "typo"), _ANY
)
_RESOURCE = st.one_of(
    _ANY,
    st.fixed_dictionaries({"box.thing": _FIELDS}, optional=_BESIDE),
    st.fixed_dictionaries({"box.thing": st.just({"name": "a"})}, optional=_BESIDE),
    st.fixed_dictionaries({"box.pair": _FIELDS}),
)
_PLAY = st.one_of(
    _ANY,
    st.fixed_dictionaries(
        {"hosts": st.sampled_from(["all", "h1", "g", "h*"]), "resources": st.lists(_RESOURCE, max_size=3)},
        optional=dict.fromkeys(("name", "vars", "tags", "serial", "max_fail", "typo"), _ANY),
    ),
)
_HOST = st.fixed_dictionaries(
    {"provider": st.just("box"), "base_url": st.just("box://x")},
    optional={
        "resources": st.lists(_RESOURCE, max_size=3),
        **dict.fromkeys(("mode", "retries", "secret", "x"), _ANY),
    },
)


_PLAYS = (st.lists(_PLAY, max_size=2), _HOST, _HOST)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(*_PLAYS)
def test_anything_is_resolved_or_refused(plays: list[Any], one: dict[str, Any], two: dict[str, Any]) -> None:
    _check(plays, one, two)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(*_PLAYS)
def test_very_much_is_resolved_or_refused(plays: list[Any], one: dict[str, Any], two: dict[str, Any]) -> None:
    _check(plays, one, two)


def _check(plays: list[Any], one: dict[str, Any], two: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        inventory = {"all": {"hosts": {"h1": one}, "children": {"g": {"hosts": {"h2": two}}}}}
        world.write("inventory.yml", json.dumps(inventory))
        world.write("p.yml", json.dumps(plays))
        works, errors = _outcome(world)
    assert all(item.target.provider == "box" for work in works for item in work.targets)
    for error in errors:
        assert error.exit_code == 3
        assert error.where is not None, error
        assert error.message


def _outcome(world: World) -> tuple[tuple[Work, ...], tuple[FazaiError, ...]]:
    try:
        return world.resolve("p.yml"), ()
    except Errors as error:
        return (), error.errors
    except FazaiError as error:
        return (), (error,)
