"""SPEC.md is tested: every example is read by the decoder of its channel, every field table is its type's.

The info string of an example is `json <channel> <what>`: the channel chooses the decoder (CHANNELS), `what`
is the tag or the class that must come out. One of `json-refused <channel> <code>` is refused with that code.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

import fazai.wire
from fazai.wire import actions, base, daemon, events, signature, southbound, worker
from fazai.wire.base import Message, RequestMessage
from tests import contract

SPEC = Path(__file__).parents[2] / "SPEC.md"
TEXT = SPEC.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Example:
    line: int
    refused: bool
    channel: str
    what: str
    text: str

    @property
    def label(self) -> str:
        return f"{self.line}-{self.channel}-{self.what}".replace(" ", "-")


def _examples() -> list[Example]:
    found = []
    for match in re.finditer(r"^```(\S+) (\S+) (.+)\n((?:.*\n)*?)```$", TEXT, re.MULTILINE):
        line = TEXT.count("\n", 0, match.start()) + 1
        refused = match[1].endswith("-refused")
        found.append(Example(line, refused, match[2], match[3], match[4].removesuffix("\n")))
    return found


def _structs() -> dict[str, type[Message]]:
    """Every message type of the package that can stand on the wire (bases have subclasses and no tag)."""
    found: dict[str, type[Message]] = {}
    for module in pkgutil.iter_modules(fazai.wire.__path__):
        for name, value in vars(importlib.import_module(f"fazai.wire.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, Message) and not name.startswith("_"):
                found[name] = value
    return found


STRUCTS = _structs()
BASES = {
    "ActionBase",
    "ActionRecord",
    "AnswerMessage",
    "ChangeRecord",
    "EventBase",
    "Message",
    "OpnAnswer",
    "RequestMessage",
}
EXAMPLES = _examples()
GOOD = [e for e in EXAMPLES if not e.refused]
REFUSED = [e for e in EXAMPLES if e.refused]


def _query(text: str) -> daemon.EventsQuery:
    return daemon.decode_events_query(dict(parse_qsl(text, strict_parsing=True)))


def _vector(text: str) -> signature.SignedHeaders:
    vector = json.loads(text)
    headers = signature.decode_signed_headers(vector["headers"])
    signature.verify_signature(
        headers,
        [b"another key", vector["key"].encode()],
        method=vector["method"],
        path=vector["path"],
        body=vector["body"].encode(),
        now_s=int(headers.timestamp) + 10,
    )
    return headers


Decoder = Callable[[str, type[Message]], Any]


def _body(text: str, of: type[Message]) -> Any:
    return base.decode_body(text, of)


def _answer(text: str, of: type[Message]) -> Any:
    return base.decode_answer(text, of)


CHANNELS: dict[str, Decoder] = {
    "error": _answer,
    "worker.request": lambda text, _: worker.decode_worker_request(text),
    "worker.answer": _answer,
    "worker.event": lambda text, _: worker.decode_worker_event(text),
    "daemon.body": _body,
    "daemon.answer": _answer,
    "daemon.opn": lambda text, of: contract.decode_opn_answer(text, of),
    "daemon.query": lambda text, _: _query(text),
    "daemon.event": lambda text, _: contract.decode_event(text),
    "daemon.sse": lambda text, _: contract.decode_sse(f"{text}\n\n".encode()),
    "daemon.proposal": lambda text, _: actions.decode_proposal(text),
    "southbound.request": lambda text, _: southbound.decode_southbound_request(text),
    "southbound.hello": lambda text, _: southbound.decode_hello(text),
    "southbound.answer": _answer,
    "southbound.error": lambda text, _: base.decode_body(text, southbound.ActionError),
    "signature.vector": lambda text, _: _vector(text),
    "telemetry.ingest": lambda text, _: contract.decode_telemetry(text.encode()),
    "telemetry.answer": _body,
    "log.line": _body,
}


def _decode(example: Example) -> list[Any]:
    """What the example holds: one value, or one for each line of an event stream."""
    channel, _, name = example.channel.partition(":")
    decoder = CHANNELS[channel]
    of = STRUCTS.get(name or example.what, base.OkAnswer)
    if channel == "log.line":
        of = STRUCTS["LogLine"]
    if channel == "worker.event":
        return [decoder(line, of) for line in example.text.splitlines()]
    return [decoder(example.text, of)]


def _name(value: Any) -> str:
    """What an example calls the value: its class, or its tag."""
    if isinstance(value, actions.ActionBase):
        return f"action.{value.__struct_config__.tag}"
    if isinstance(value, Message) and value.__struct_config__.tag is not None:
        return str(value.__struct_config__.tag)
    if isinstance(value, contract.SseFrame):
        return _name(value.event)
    if isinstance(value, contract.Batch):
        errors = f" errors={len(value.errors)}" if value.errors else ""
        return f"accepted={len(value.samples)}{errors}"
    return type(value).__name__


def test_there_are_examples_of_every_channel() -> None:
    assert {e.channel.partition(":")[0] for e in EXAMPLES} == set(CHANNELS)
    assert len(REFUSED) >= 10
    fences = re.findall(r"^```\S", TEXT, re.MULTILINE)
    assert len(fences) == len(EXAMPLES), "an example of SPEC.md has no info string"


@pytest.mark.parametrize("example", GOOD, ids=lambda e: e.label)
def test_example_is_read_as_what_it_says(example: Example) -> None:
    names = [_name(value) for value in _decode(example)]
    wanted = example.what if example.channel != "daemon.proposal" else f"action.{example.what}"
    assert ",".join(names) == wanted


@pytest.mark.parametrize("example", REFUSED, ids=lambda e: e.label)
def test_refused_example_is_refused_with_its_code(example: Example) -> None:
    with pytest.raises(base.WireError) as caught:
        _decode(example)
    assert caught.value.code == example.what
    assert caught.value.code in daemon.HTTP_STATUS
    assert caught.value.message


MESSAGES = [e for e in GOOD if e.channel.split(".")[0] not in ("signature",)]


@pytest.mark.parametrize("example", MESSAGES, ids=lambda e: e.label)
def test_example_survives_a_round_trip(example: Example) -> None:
    """What is decoded, encoded and decoded again is the same, and nothing is written that was not there."""
    if example.channel == "telemetry.ingest":
        for sample in contract.decode_telemetry(example.text.encode()).samples:
            assert contract.decode_sample(json.loads(sample.encode())) == sample
        return
    if example.channel == "daemon.sse":
        frame = contract.decode_sse(f"{example.text}\n\n".encode())
        assert contract.decode_sse(events.encode_sse(frame.id, frame.event)) == frame
        assert events.encode_sse(frame.id, frame.event).decode() == f"{example.text}\n\n"
        return
    if example.channel == "daemon.query":
        assert base.decode_body(base.encode(_query(example.text)), daemon.EventsQuery) == _query(example.text)
        return
    lines = example.text.splitlines() if example.channel == "worker.event" else [example.text]
    for line, value in zip(lines, _decode(example), strict=True):
        written = base.encode(value).decode()
        again = Example(example.line, False, example.channel, example.what, written)
        assert _decode(again) == [value]
        if example.channel != "daemon.proposal":
            _assert_written(json.loads(line), json.loads(written))


def _assert_written(sent: Any, written: Any) -> None:
    """Every field that is written was in the example, with the same value."""
    if isinstance(written, dict):
        assert set(written) <= set(sent)
        for name, value in written.items():
            _assert_written(sent[name], value)
    elif isinstance(written, list):
        assert len(written) == len(sent)
        for one, other in zip(sent, written, strict=True):
            _assert_written(one, other)
    else:
        assert written == sent or str(written).replace("120000Z", "120Z") == str(sent)


def _seen(value: Any) -> Iterator[str]:
    if isinstance(value, Message):
        yield type(value).__name__
        for name in value.__struct_fields__:
            yield from _seen(getattr(value, name))
    elif is_dataclass(value):
        for field in fields(value):
            yield from _seen(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _seen(item)


def test_every_message_of_the_contract_has_an_example() -> None:
    seen = {name for example in GOOD for value in _decode(example) for name in _seen(value)}
    assert set(STRUCTS) - BASES - seen == set()


# -- field tables ---------------------------------------------------------------------------------------


def _tables() -> dict[str, list[tuple[str, bool]]]:
    """Name of a type -> the (field, required) rows of the table below its name."""
    found = {}
    pattern = (
        r"^\*\*(\w+)\*\*\n\n\| field \| type \| required \| meaning \|\n\|---\|---\|---\|---\|\n((?:\|.*\n)+)"
    )
    for match in re.finditer(pattern, TEXT, re.MULTILINE):
        rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in match[2].splitlines()]
        assert match[1] not in found, f"two tables of {match[1]}"
        found[match[1]] = [(row[0].strip("`"), {"yes": True, "no": False}[row[2]]) for row in rows]
    return found


def _rows(struct: type[Message]) -> set[tuple[str, bool]]:
    """The rows that the type's table must have: the tag, the constants, its fields; an event's and an
    action's without the common ones, unless it makes them required."""
    config = struct.__struct_config__
    common = next((b for b in (events.EventBase, actions.ActionBase) if issubclass(struct, b)), None)
    shared = (
        {f.name: f.required for f in msgspec.structs.fields(common)} if common not in (None, struct) else {}
    )
    rows = {(name, True) for name in struct.constants}
    if config.tag is not None:
        rows.add((str(config.tag_field), True))
    for field in msgspec.structs.fields(struct):
        if shared.get(field.name) is not field.required:
            rows.add((field.encode_name, field.required or not config.omit_defaults))
    return rows


TABLES = _tables()


@pytest.mark.parametrize("name", sorted(set(STRUCTS) - (BASES - {"ActionBase", "EventBase"})))
def test_field_table_is_that_of_the_type(name: str) -> None:
    own = msgspec.structs.fields(STRUCTS[name])
    if not own:  # {"type":"status"}, {"ok":true}
        assert name not in TABLES
        return
    assert set(TABLES[name]) == _rows(STRUCTS[name])
    assert len(TABLES[name]) == len(_rows(STRUCTS[name]))


def test_tables_name_no_type_that_does_not_exist() -> None:
    assert set(TABLES) <= set(STRUCTS)


def test_routes_name_types_that_exist() -> None:
    rows = re.findall(r"^\| `(?:GET|POST) .*$", TEXT, re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"\b[A-Z]\w+(?:Body|Answer|Query)\b", row)}
    assert len(named) > 15
    assert named <= set(STRUCTS)
    bodies = {name for name in STRUCTS if name.endswith("Body")}
    assert bodies <= named


def test_error_codes_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d{3}) \|$", TEXT, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == dict(daemon.HTTP_STATUS)
    assert set(daemon.HTTP_STATUS) >= contract.WORKER_CODES | contract.SOUTHBOUND_CODES


def test_version_is_that_of_the_page() -> None:
    assert f"\nVersion: {base.CONTRACT}\n" in TEXT
    assert re.search(rf"^\| {re.escape(base.CONTRACT)} \|", TEXT, re.MULTILINE)


def test_metrics_follow_the_naming() -> None:
    names = re.findall(r"^\| `(fazai_\w+)` \| (\w+) \|", TEXT, re.MULTILINE)
    assert len(names) >= 5
    for name, type_ in names:
        assert name.endswith("_total") == (type_ == "counter"), name
        assert not name.endswith(("_ms", "_kb", "_mb")), name


# -- strictness, from the examples ----------------------------------------------------------------------

STRICT = ("worker.request", "daemon.body", "southbound.request", "daemon.event")


def _spoiled() -> Iterator[tuple[str, Example, str, str]]:
    """(what was done, the spoiled example, the code, the field) for every top-level field of the examples."""
    wrong_values: tuple[Any, ...] = (None, True, -7.5, "", [], {})
    for example in GOOD:
        if example.channel not in STRICT:
            continue
        value = _decode(example)[0]
        strict = isinstance(value, RequestMessage)
        message = json.loads(example.text)
        config = value.__struct_config__
        required = {f.encode_name for f in msgspec.structs.fields(type(value)) if f.required}
        types = {f.encode_name: f.type for f in msgspec.structs.fields(type(value))}
        if strict:
            yield "extra", _with(example, {**message, "no_such_field": 1}), "bad_request", "no_such_field"
        for name in message:
            if name in ("type", "method", "action") and (name == config.tag_field or name == "type"):
                continue
            rest = {key: item for key, item in message.items() if key != name}
            if name in required:
                yield "missing", _with(example, rest), "bad_request", name
            for wrong in wrong_values:
                if not _fits(wrong, types[name]):
                    yield f"mistyped-{wrong!r}", _with(example, {**message, name: wrong}), "bad_request", name


def _with(example: Example, message: Any) -> Example:
    return Example(example.line, True, example.channel, example.what, json.dumps(message))


def _fits(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


SPOILED = list(_spoiled())


@pytest.mark.parametrize("label", sorted({example.label for _, example, _, _ in SPOILED}))
def test_spoiled_message_is_refused_and_the_field_is_named(label: str) -> None:
    for what, example, code, field in SPOILED:
        if example.label == label:
            with pytest.raises(base.WireError) as caught:
                _decode(example)
            assert caught.value.code == code, (field, what)
            assert f"`{field}" in caught.value.message, (field, what)


def test_every_strict_family_was_spoiled_in_every_way() -> None:
    done = {(what.partition("-")[0], example.channel) for what, example, _, _ in SPOILED}
    assert {(what, channel) for what in ("extra", "missing", "mistyped") for channel in STRICT} <= done


ANSWERS = (
    "worker.answer",
    "daemon.answer",
    "daemon.opn",
    "southbound.answer",
    "telemetry.answer",
    "log.line",
)
EVENTS = [e for e in GOOD if e.channel == "daemon.event" and not e.what.startswith("action.")]
LENIENT = [e for e in GOOD if e.channel in ANSWERS] + EVENTS


@pytest.mark.parametrize("example", LENIENT, ids=lambda e: e.label)
def test_answers_and_events_may_carry_what_we_do_not_know(example: Example) -> None:
    more = {**json.loads(example.text), "added_in_1_9": {"a": [1]}}
    assert _decode(_with(example, more)) == _decode(example)


@pytest.mark.parametrize("channel", ["worker.request", "worker.event", "southbound.request", "daemon.event"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("nonsense", "bad_json"),
        ('{"a":1}{"a":1}', "bad_json"),
        ('{"a":' * 100_000, "bad_json"),
        ("\ud800", "bad_json"),
        ("null", "bad_request"),
        ("[]", "bad_request"),
        ('"create_session"', "bad_request"),
        ("{}", "bad_request"),
        ('{"type":null,"method":null}', "bad_request"),
        ('{"type":7,"method":7}', "bad_request"),
    ],
    ids=lambda value: value[:12].encode("unicode_escape").decode() if isinstance(value, str) else None,
)
def test_what_is_no_message_is_refused(channel: str, text: str, code: str) -> None:
    with pytest.raises(base.WireError) as caught:
        CHANNELS[channel](text, base.OkAnswer)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("channel", "text", "code", "hint"),
    [
        ("worker.request", '{"type":"creat_session","params":{}}', "unknown_type", "create_session"),
        ("worker.event", '{"type":"tokens","text":""}', "unknown_type", "token"),
        ("southbound.request", '{"method":"file.patch"}', "unknown_method", "file."),
        ("daemon.event", '{"type":"outcomes"}', "unknown_type", "outcome"),
        ("daemon.event", '{"type":"action","action":"shel"}', "unknown_action", "shell"),
        ("worker.request", '{"type":"' + "x" * 5000 + '"}', "unknown_type", "create_session"),
    ],
)
def test_unknown_tag_is_refused_with_a_hint(channel: str, text: str, code: str, hint: str) -> None:
    with pytest.raises(base.WireError) as caught:
        CHANNELS[channel](text, base.OkAnswer)
    assert caught.value.code == code
    assert hint in str(caught.value.hint)
    assert len(caught.value.message) <= 300
