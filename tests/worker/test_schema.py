"""What is looked at in a schema before it is compiled, and how numbers end that it does not bound."""

from __future__ import annotations

import ctypes
import json

import pytest

from fazai.worker.grammars.keywords import unknown_keyword
from fazai.worker.grammars.numbers import MAX_NUMBER, NumberEnds, number_token_bits

UNKNOWN = [
    ({"type": "string", "maxLenght": 3}, "'maxLenght'", 'did you mean "maxLength"?'),
    ({"properties": {"a": {"minimun": 1}}}, "'minimun' at /properties/a", 'did you mean "minimum"?'),
    ({"anyOf": [{}, {"items": {"enumm": []}}]}, "'enumm' at /anyOf/1/items", 'did you mean "enum"?'),
    ({"$defs": {"a": {"require": []}}}, "'require' at /$defs/a", 'did you mean "required"?'),
    ({"additionalProperties": {"zzzzzz": 1}}, "'zzzzzz' at /additionalProperties", ""),
    ({"prefixItems": [{"if": {"const ": 1}}]}, "'const ' at /prefixItems/0/if", 'did you mean "const"?'),
]


@pytest.mark.parametrize(("schema", "what", "hint"), UNKNOWN)
def test_a_keyword_that_nobody_knows(schema: dict[str, object], what: str, hint: str) -> None:
    said = unknown_keyword(schema)
    assert said is not None
    assert said.startswith(f"it has no keyword {what}")
    assert said.endswith(hint)


def test_names_and_values_are_no_keywords() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "t",
        "x-order": 3,
        "properties": {"maxLenght": {"const": {"maxLenght": 1}, "examples": [{"y": 1}]}},
        "enum": [{"nothing": 1}],
        "default": {"nothing": 1},
        "additionalProperties": False,
        "items": [{"type": "string"}],
        "definitions": {"zz": True},
    }
    assert unknown_keyword(schema) is None


TOKENS = [*(bytes([byte]) for byte in range(256)), b"12", b',"a":', b"99e", b"true"]


def ends(text: str, *last: int) -> NumberEnds:
    made = NumberEnds(TOKENS, number_token_bits(TOKENS))
    made.feed(text.encode())
    made.feed(last)
    return made


@pytest.mark.parametrize(
    ("text", "too_long"),
    [
        ("1" * MAX_NUMBER, True),
        ("-" + "1" * (MAX_NUMBER - 2), False),
        ('{"a":' + "3." + "1" * 30, True),
        ('{"a":"' + "1" * 30, False),  # a text
        ('{"a":"\\"' + "1" * 30, False),
        ('{"a":"\\\\",' + "1" * 30, True),
        ("1e1", False),
        ("1e10", True),
        ("1E-10", True),
        ("[" + "1" * 30 + ",", False),
        ("1" * 19 + "]", False),
    ],
)
def test_a_number_that_is_long_enough(text: str, too_long: bool) -> None:
    assert ends(text).too_long is too_long


def test_a_mask_without_digits_or_as_it_was() -> None:
    def masked(allowed: bytes, made: NumberEnds) -> bytes:
        """The bytes that are still allowed."""
        size = (len(TOKENS) + 31) // 32 * 4
        bits = sum(1 << byte for byte in allowed)
        buffer = ctypes.create_string_buffer(bits.to_bytes(size, "little"), size)
        made.apply(ctypes.addressof(buffer), size)
        left = int.from_bytes(buffer.raw, "little")
        return bytes(byte for byte in range(256) if left >> byte & 1)

    long = "[" + "1" * 25
    assert masked(b"0123456789,]", ends(long)) == b",]"
    assert masked(b"0123456789", ends(long + ".")) == b"0123456789"  # it cannot end here
    assert masked(b"0123456789,]", ends("[12")) == b",0123456789]"
    assert masked(b"0123456789}", ends('{"a":9', 258)) == b"0123456789}"  # 99e: its exponent has none yet
    assert masked(b"+-0123456789", ends(json.dumps("x" * 40))) == b"+-0123456789"
