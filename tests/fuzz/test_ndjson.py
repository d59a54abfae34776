"""The worker's lines under arbitrary bytes; `ndjson_atheris.py` asks the same, guided by coverage."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.campaign import with_examples

from .checks import check_event, check_framing, check_request, examples

#: JSON as a client may write it, well-formed or not far from it.
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(
    ["type", "session_id", "prompt", "stream", "params", "metrics", "temperature", "stop", "text", "reason"]
)
_WORDS = st.sampled_from(["create_session", "generate", "abort", "status", "token", "stop", "s-1", "eos"])
_OBJECTS = st.dictionaries(_NAMES, _VALUES | _WORDS, max_size=5)


def _json(value: object) -> bytes:
    import json

    return json.dumps(value).encode()


def _damaged(pair: tuple[bytes, int]) -> bytes:
    """An example with one byte changed, left out or doubled."""
    raw, at = pair
    place = at // 3 % len(raw)
    return raw[:place] + (b"", bytes([at % 256]), raw[place : place + 1] * 2)[at % 3] + raw[place + 1 :]


_LINES = (
    st.sampled_from(examples())
    | st.tuples(st.sampled_from(examples()), st.integers(0, 1 << 20)).map(_damaged)
    | _OBJECTS.map(_json)
    | st.binary(max_size=60)
)


#: The same examples each time, however slow the machine: what is new is looked for by ndjson_atheris.py.
STEADY = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@with_examples(100, 400)
def test_any_line_is_understood_or_refused(count: int) -> None:
    @settings(STEADY, max_examples=count)
    @given(_LINES)
    @example(b'{"type":"generate","session_id":"s","prompt":"\\ud800"}')
    @example(b'{"type":"create_session","params":{"max_tokens":' + b"9" * 400 + b"}}")
    @example(b'{"type":"create_session","params":{"temperature":1e999}}')
    @example(b"[" * 5000)
    @example(b'{"type":"status","type":"abort"}')
    def holds(line: bytes) -> None:
        check_request(line)
        check_event(line)

    holds()


@settings(STEADY, max_examples=120)
@given(
    lines=st.lists(_LINES.map(lambda raw: raw.replace(b"\n", b" ")), max_size=12),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=40),
)
def test_framing_does_not_depend_on_how_the_bytes_arrive(lines: list[bytes], cuts: list[int]) -> None:
    check_framing(b"".join(line + b"\n" for line in lines), cuts)
