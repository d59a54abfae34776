"""The agent's reader of messages takes and refuses what the contract's types do."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.agent import messages
from fazai.agent.errors import Refused
from fazai.agent.messages import check_request, digest_request, encode, read_message, split_message
from fazai.wire.base import WireError
from fazai.wire.southbound import EFFECTS, decode_southbound_request
from tests.campaign import campaign_size

EXAMPLES: list[dict[str, Any]] = [
    {
        "method": "command.exec",
        "action_id": "a-19c4",
        "command": "df",
        "args": ["-h", "/var"],
        "timeout": 120_000,
        "cwd": "/",
        "env": {"LANG": "C"},
        "stdin": "ä",
    },
    {"method": "file.diff", "action_id": "d-1", "path": "/etc/motd", "want": "Welcome.\n"},
    {"method": "file.diff", "action_id": "d-1", "path": "/etc/motd", "want_base64": "AAEC"},
    {
        "method": "file.apply",
        "action_id": "p-1",
        "path": "/etc/motd",
        "patch": "--- a\n+++ b\n",
        "mode": "0644",
        "owner": "root:root",
    },
    {
        "method": "file.apply",
        "action_id": "p-1",
        "path": "/etc/motd",
        "content_base64": "AA==",
        "base_sha256": "absent",
    },
    {
        "method": "state.observe",
        "action_id": "o-1",
        "session": "s-1",
        "timeout": 1000,
        "resources": [
            {"kind": "host.file", "identity": "/etc/motd", "fields": {"mode": 420}, "listen": ["x"]}
        ],
        "facts": True,
    },
    {
        "method": "state.apply",
        "action_id": "o-2",
        "session": "s-1",
        "timeout": 1000,
        "step": {"write": [{"a": None}]},
    },
    {"method": "state.close", "action_id": "o-3", "session": "s-1"},
    {"method": "cancel", "action_id": "a-1"},
    {"method": "ack", "action_ids": ["a-1", "a-2"]},
    {"method": "part", "action_id": "a-1", "index": 0, "last": True, "data": "AAEC"},
]
#: Methods that only go to the daemon: the agent does not serve them.
NOT_SERVED = {"hello", "time", "telemetry.push", "result", "renew"}


def _ours(raw: bytes) -> str:
    """Return the code with which the agent refuses a message; "" for one that it takes."""
    try:
        check_request(read_message(raw))
    except Refused as refused:
        return refused.code
    return ""


def _contract(raw: bytes) -> str:
    try:
        decode_southbound_request(raw)
    except WireError as error:
        return error.code
    return ""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["method"])
def test_the_examples_are_taken(example: dict[str, Any]) -> None:
    raw = encode(example)
    assert _contract(raw) == ""
    assert check_request(read_message(raw)) == example


def test_methods_with_effect_are_those_of_the_contract() -> None:
    assert messages.EFFECTS == EFFECTS


_WRONG: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 1.0, 3_600_000, 3_600_001, 1e300, 2**63, 2**64, -(2**63)),
    *("", "x", "a b", "/", "/a/../b", "/a/./b", "/a\0", "relative", "ä", "\x1f", "\x7f", "~", "!"),
    *("x" * 128, "x" * 129, "x" * 257, "x" * 5000, "a" * 70_000),
    *("0644", "644", "9999", "root", "root:", "a:b", "absent", "0" * 64, "AAE", "A===", "A A="),
    *("hello", "command.exec", "files"),
    *([], ["a"], [1], [None], ["a"] * 1024, ["a"] * 1025, [[]]),
    *({}, {"a": "b"}, {"a": 1}, {"a": None}, {"a": 1, "b": 2}),
    [{"kind": "k", "identity": "i", "fields": {}}],
    [{"kind": "k", "identity": "i", "fields": {}, "more": 1}],
    [{"kind": "", "identity": "i", "fields": {}}],
    [{"kind": "k", "identity": "i", "fields": {}, "state": None}],
    [{"kind": "k", "identity": "i", "fields": []}],
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["method"])
def test_each_field_is_held_to_the_contract(example: dict[str, Any]) -> None:
    """Each field is left out, and replaced by each of many values: the contract's types say what is right."""
    cases = [{name: value for name, value in example.items() if name != left} for left in example]
    cases += [{**example, name: value} for name in [*example, "more", "cwd", "mode"] for value in _WRONG]
    different = []  # but for `facts: null`: it is absent, which the types do not say
    for case in cases:
        raw = json.dumps(case).encode()
        if str(case.get("method")) in NOT_SERVED:
            assert _ours(raw) == "unknown_method"
        elif case.get("facts", False) is not None and _ours(raw) != _contract(raw):
            different.append((case, _ours(raw), _contract(raw)))
    assert different == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"{}x",
        b"\xff",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":1e999}',
        b'{"a":"\x00"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\ud83d\\ude00"}',
        b"\xef\xbb\xbf{}",
        b'{"method":"ack","method":"ack"}',
        b'{"method":1}',
        b'{"method":null}',
        b'{"method":"hallo"}',
        b'{"action_id":"x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"method":"cancel","action_id":"a","action_id":"b"}',
        b'{"method":"state.apply","action_id":"a","session":"s","timeout":1,"step":{"w":{"b":1,"b":2}}}',
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_odd_json_is_refused_as_the_contract_does(raw: bytes) -> None:
    assert _ours(raw) == _contract(raw) != ""


def test_a_number_of_many_digits_is_refused_at_once() -> None:
    raw = (
        b'{"method":"state.apply","action_id":"a","session":"s","timeout":1,"step":{"w":'
        + b"9" * 900_000
        + b"}}"
    )
    with pytest.raises(Refused, match="a number is out of range"):
        read_message(raw)


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(Refused, match="the message has 11 bytes, the limit is 10") as caught:
        read_message(b'{"a":"bcd"}', limit_bytes=10)
    assert caught.value.code == "too_large"


def test_a_refusal_names_the_field_and_the_next_step() -> None:
    with pytest.raises(
        Refused, match=r"unknown field 'tiemout' in command.exec \(did you mean \"timeout\"\?\)"
    ):
        check_request({**EXAMPLES[0], "tiemout": 1})
    with pytest.raises(Refused, match=r"unknown method 'command.exce' \(did you mean \"command.exec\"\?\)"):
        check_request({"method": "command.exce"})
    with pytest.raises(Refused, match=r"`args\[1\]`|`args`\[1\]: expected `str`, got `int`"):
        check_request({**EXAMPLES[0], "args": ["a", 1]})


def test_null_is_absent() -> None:
    taken = check_request({**EXAMPLES[0], "cwd": None, "env": None})
    assert "cwd" not in taken
    assert "env" not in taken


def test_a_digest_is_of_the_content_alone() -> None:
    first = {"method": "x", "a": 1, "b": None, "c": {"e": "ä", "d": [1, 2]}}
    same = {"c": {"d": [1, 2], "e": "ä", "f": None}, "a": 1, "method": "x"}
    assert digest_request(first) == digest_request(same)
    assert digest_request(first) != digest_request({**first, "c": {"e": "ä", "d": [2, 1]}})
    import hashlib

    text = '{"a":1,"c":{"d":[1,2],"e":"ä"},"method":"x"}'
    assert digest_request(first) == hashlib.sha256(text.encode()).hexdigest()


@given(st.text(min_size=0, max_size=5000), st.integers(2000, 4000))
@settings(max_examples=50, deadline=None)
def test_a_message_in_parts_comes_out_whole(text: str, max_payload: int) -> None:
    raw = encode({"ok": True, "action_id": "a-1", "stdout": text * 5})
    collector = messages.PartCollector(len(raw))
    whole = None
    for piece in split_message(raw, "a-1", max_payload):
        assert len(piece) <= max_payload
        assert whole is None
        whole = collector.add(check_request(read_message(piece)))
    assert whole == raw


def _mutate(chance: random.Random) -> bytes:
    """Return a message that is a little broken."""
    raw = bytearray(json.dumps(chance.choice(EXAMPLES)).encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw))
        choice = chance.random()
        if choice < 0.4:
            raw[at] = chance.randrange(256)
        elif choice < 0.6:
            del raw[at : at + chance.randint(1, 8)]
        elif choice < 0.8:
            raw[at:at] = chance.choice(
                [b"null", b'"', b"{", b"}", b",", b":", b"1e9", b"\\u0000", b"\\ud800"]
            )
        else:
            raw[at:at] = raw[: chance.randint(0, len(raw))]
        if not raw:
            return b""
    return bytes(raw)


def _fuzz(count: int, seed: int) -> None:
    chance = random.Random(seed)
    taken = refused = 0
    for _ in range(count):
        raw = _mutate(chance)
        code = _ours(raw)
        taken, refused = taken + (not code), refused + bool(code)
        assert code in ("", "bad_json", "bad_request", "unknown_method", "too_large")
        if not code:  # whoever checks a message and whoever carries it out must see the same one
            assert _contract(raw) == ""
    assert min(taken, refused) > count // 100


def test_broken_messages_are_refused() -> None:
    _fuzz(5_000, 1)


@pytest.mark.slow
def test_many_broken_messages_do_not_grow_the_process() -> None:
    _fuzz(5_000, 2)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _fuzz(campaign_size(100_000), 3)
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()
