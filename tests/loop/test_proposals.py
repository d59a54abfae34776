"""Reading the one action of an answer (requirement B6): whatever is written, one action or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fazai.loop.proposals import read_proposal
from fazai.wire.actions import PLAIN_ACTIONS, DoneAction, ShellAction, UseToolAction

APPLY = '{"action":"use_tool","name":"reconcile.apply","args":{"playbook":"edge"}}'
DONE = '{"action":"done","result":"ok"}'
OBSERVE = '{"action":"observe","summary":"x"}'


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (f"Sure, I will: {APPLY}", "not one JSON object"),
        (f'["{APPLY}"]', "not one JSON object"),
        (json.dumps(APPLY), "not one JSON object"),
        (f"{APPLY}{APPLY}", "more than one action"),
        (f"{APPLY}\n{DONE}", "more than one action"),
        (f"{APPLY} and then {DONE}", "more than one action"),
        (f"```json\n{APPLY}\n```\n```json\n{APPLY}\n```", "not JSON|more than one"),
        ('{"action":"shell","argv":["id"],"action":"done"}', "twice"),
        ('{"action":"shell","argv":["id"],"argv":["ls"]}', "twice"),
        ('{"type":"shell","type":"done","argv":["id"]}', "twice|missing"),
        ('{"action":"reboot"}', "unknown action 'reboot'"),
        ('{"action":"shell","argv":["id"],"plan_hash":"abc"}', "only the handler sets it"),
        ('{"action":"use_tool","name":"x","action_id":"a-1"}', "only the handler sets it"),
        ('{"action":"use_tool","name":"x","changes":[{"a":1}]}', "only the handler sets it"),
        ('{"action":"use_tool","name":"x","expires":"2030-01-01T00:00:00Z"}', "only the handler sets it"),
        ('{"action":"use_tool","name":"x","read_only":true}', "read_only"),
        ('{"action":"use_tool","name":"x","approved":true}', "approved"),
        ('{"action":"shell"}', "either `argv` or `command`"),
        ('{"action":"done"', "not JSON"),
        ("", "not one JSON object"),
        ("[" * 100_000, "not one JSON object"),
        ('{"a":' * 30_000, "more than 65536 characters"),
        ('{"a":' * 9_000, "not JSON"),
        ('{"action":"done","result":' + "[" * 64 + "]" * 64 + "}", "nested more than 64 levels deep"),
        (
            '{"action":"use_tool","name":"x","args":' + '{"a":' * 90 + "1" + "}" * 90 + "}",
            "nested more than 64",
        ),
        ("\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace") + APPLY, "not one JSON object"),
    ],
)
def test_what_is_no_single_action_is_refused(output: str, problem: str) -> None:
    reading = read_proposal(output)
    assert reading.action is None
    assert reading.problem is not None
    import re

    assert re.search(problem, reading.problem), reading.problem


@pytest.mark.parametrize(
    ("output", "kind", "ignored"),
    [
        (APPLY, UseToolAction, False),
        (f"  {APPLY}\n", UseToolAction, False),
        (f"```json\n{APPLY}\n```", UseToolAction, False),
        (f"```\n{APPLY}\n```", UseToolAction, False),
        ('{"type":"shell","command":"df -h"}', ShellAction, False),  # of an old worker
        ('{"type":"action","action":"done"}', DoneAction, False),
        (f"{DONE}{APPLY}", DoneAction, True),  # nothing comes after done
        (f"{DONE} {APPLY}", DoneAction, True),
    ],
)
def test_one_action_is_read(output: str, kind: type, ignored: bool) -> None:
    reading = read_proposal(output)
    assert reading.problem is None
    assert type(reading.action) is kind
    assert reading.ignored is ignored


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(
    st.sampled_from(["action", "type", "name", "args", "argv", "command", "steps", "result", "plan_hash"]),
    _VALUES | st.sampled_from(["done", "shell", "use_tool", "plan", "observe", "action"]),
    max_size=5,
).map(json.dumps)
_PIECES = st.lists(
    st.sampled_from([APPLY, DONE, OBSERVE, "```json\n", "\n```", "{", "}", '"', "\\", "\n", " "])
    | _OBJECTS
    | st.text(max_size=12),
    max_size=6,
).map("".join)


@given(_PIECES)
def test_any_text_gives_one_action_or_a_reason(output: str) -> None:
    reading = read_proposal(output)
    assert (reading.action is None) == (reading.problem is not None)
    if reading.action is not None and not isinstance(reading.action, PLAIN_ACTIONS):
        text = output.strip()
        inner = text[text.index("{") :].removesuffix("```").strip()
        value: Any = json.loads(inner)  # the whole of it is that one object
        assert isinstance(value, dict)
