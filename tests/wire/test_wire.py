"""What the examples of SPEC.md do not show: limits, secrets, signatures, telemetry, words of the engine."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.model import Change, Secret, Verb
from fazai.outcome import TargetStatus, change_record
from fazai.wire import (
    actions,
    base,
    daemon,
    events,
    opn,
    sessions,
    signature,
    southbound,
    telemetry,
    worker,
)
from fazai.wire.base import MAX_BODY_BYTES, MAX_LINE_BYTES, decode_body
from fazai.wire.changes import ChangeRecord
from tests import contract

NOON = "2026-11-22T12:00:00Z"


@dataclass(slots=True)
class Caught:
    value: base.WireError


@contextmanager
def refused(code: str) -> Iterator[Caught]:
    """What is inside raises a WireError with this code; it is `caught.value` afterwards."""
    caught = Caught(base.WireError("", ""))
    with pytest.raises(base.WireError) as info:
        yield caught
    caught.value = info.value
    assert info.value.code == code


# -- limits ---------------------------------------------------------------------------------------------


def _generate(prompt: str) -> bytes:
    return json.dumps({"type": "generate", "session_id": "s", "prompt": prompt}).encode()


def test_longest_line_is_read_and_one_byte_more_is_not() -> None:
    line = _generate("x") + b" " * (MAX_LINE_BYTES - len(_generate("x")))
    assert isinstance(worker.decode_worker_request(line), worker.Generate)
    with refused("bad_request") as caught:
        worker.decode_worker_request(line + b" ")
    assert str(MAX_LINE_BYTES) in str(caught.value)


def test_body_over_the_limit_is_too_large() -> None:
    body = b'{"session_id":"' + b"s" * MAX_BODY_BYTES + b'"}'
    with refused("too_large"):
        decode_body(body, sessions.AbortBody)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (worker.decode_worker_request, '{"type":"abort","session_id":"s","session_id":"t"}'),
        (worker.decode_worker_request, '{"type":"create_session","params":{"seed":1,"\\u0073eed":2}}'),
        (
            southbound.decode_southbound_request,
            '{"method":"command.exec","action_id":"a","command":"ls","args":[],"timeout":1,"env":{"A":"1","A":"2"}}',
        ),
        (actions.decode_proposal, '{"type":"action","action":"shell","command":"ls","command":"rm"}'),
        (lambda text: decode_body(text, sessions.AbortBody), '{"session_id":"s","session_id":"t"}'),
    ],
)
def test_a_name_that_occurs_twice_is_refused(read: Callable[[str], object], text: str) -> None:
    with refused("bad_request") as caught:
        read(text)
    assert "twice" in str(caught.value)


def test_a_name_may_occur_in_two_objects_and_numbers_may_be_long() -> None:
    schema = '{"type":"object","properties":{"a":{"type":"integer","maximum":%s},"b":{"type":"integer"}}}'
    text = '{"type":"create_session","params":{"json_schema":' + schema % ("9" * 18) + "}}"
    assert isinstance(worker.decode_worker_request(text), worker.CreateSession)


def test_southbound_payload_follows_the_policy() -> None:
    push = b'{"method":"telemetry.push","action_id":"t","payload":{},"ts":"%s"}' % NOON.encode()
    assert isinstance(southbound.decode_southbound_request(push), southbound.TelemetryPush)
    with refused("too_large"):
        southbound.decode_southbound_request(push, max_payload=len(push) - 1)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("max_tokens", 0, 1),
        ("temperature", -0.1, 0),
        ("top_k", -1, 0),
        ("top_p", 0, 1),
        ("top_p", 1.1, 0.5),
        ("min_p", 1.5, 0),
        ("repeat_penalty", 0, 1.1),
        ("seed", -2, -1),
        ("seed", 2**32, 2**32 - 1),
        ("stop", [""], ["x"]),
        ("stop", ["x"] * 17, ["x"] * 16),
        ("grammar", "", "root ::= [a-z]"),
        ("timeout_ms", 0, 3_600_000),
        ("timeout_ms", 3_600_001, 1),
        ("json_schema", "{}", {}),
    ],
)
def test_generate_params_have_limits(name: str, bad: object, good: object) -> None:
    def line(value: object) -> str:
        return json.dumps({"type": "create_session", "params": {name: value}})

    worker.decode_worker_request(line(good))
    with refused("bad_request") as caught:
        worker.decode_worker_request(line(bad))
    assert f"`params.{name}" in caught.value.message


@pytest.mark.parametrize("path", ["", "etc/motd", "/etc/../root", "/etc/./motd", "/..", "/a\x00b"])
def test_path_is_absolute_and_plain(path: str) -> None:
    with refused("bad_request") as caught:
        southbound.decode_southbound_request(
            json.dumps({"method": "file.diff", "action_id": "d", "path": path, "want": ""})
        )
    assert "`path`" in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "fw-01",
        "ftp://fw-01",
        "https://",
        "https://me:pw@fw-01",
        "https://fw-01/?a=b",
        "https://fw-01#x",
        "https://a b",
    ],
)
def test_base_url_is_plain(url: str) -> None:
    body = {"name": "fw-01", "base_url": url, "api_key": "KEY", "api_secret": "SECRET"}
    with refused("bad_request") as caught:
        decode_body(json.dumps(body), opn.OpnAddBody)
    assert "`base_url`" in caught.value.message
    assert "pw" not in str(caught.value)


def test_null_is_absent() -> None:
    line = '{"type":"generate","session_id":"s","prompt":"x","params":null}'
    assert worker.decode_worker_request(line) == worker.Generate(session_id="s", prompt="x")


def test_stream_false_is_kept() -> None:
    request = worker.Generate(session_id="s", prompt="x", stream=False)
    assert b'"stream":false' in base.encode(request)
    assert worker.decode_worker_request(base.encode(request)) == request


def test_text_that_is_no_utf8_is_not_written() -> None:
    with refused("internal") as caught:
        base.encode(worker.TokenText(text="\ud800"))
    assert "TokenText" in str(caught.value)


def test_bytes_that_are_no_utf8_are_not_read() -> None:
    with refused("bad_json"):
        worker.decode_worker_event(b'{"type":"token","text":"\xff"}')


def test_answer_that_says_no_is_the_refusal() -> None:
    answer = base.decode_answer('{"ok":false,"error":"busy","code":"session_busy"}', worker.GenerateAnswer)
    assert answer == base.ErrorAnswer(error="busy", code="session_busy")
    old = base.decode_answer('{"ok":false,"error":"busy"}', worker.GenerateAnswer)
    assert old == base.ErrorAnswer(error="busy")
    with refused("bad_request"):
        base.decode_answer('{"error":"busy"}', worker.GenerateAnswer)
    firewalls = contract.decode_opn_answer('{"success":false,"error":"no"}', opn.OpnListAnswer)
    assert firewalls == opn.OpnError(error="no")


def test_error_answer_carries_the_hint() -> None:
    with pytest.raises(base.WireError) as caught:
        worker.decode_worker_request('{"type":"statu"}')
    answer = json.loads(base.encode(base.ErrorAnswer.of(caught.value)))
    assert answer == {
        "ok": False,
        "error": "unknown type 'statu' (did you mean \"status\"?)",
        "code": "unknown_type",
    }


# -- shell ----------------------------------------------------------------------------------------------


def test_shell_command_is_split_once_and_shown_as_argv() -> None:
    read = actions.decode_proposal('{"action":"shell","target":"web-1","command":"ls -l \'a b\' $HOME; id"}')
    assert isinstance(read, actions.ShellAction)
    assert (read.argv, read.command) == (("ls", "-l", "a b", "$HOME;", "id"), None)
    shown = json.loads(base.encode(read))
    assert shown["argv"] == ["ls", "-l", "a b", "$HOME;", "id"]
    assert "command" not in shown
    assert actions.decode_action(base.encode(read)) == read


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "either `argv` or `command`"),
        ({"argv": [], "target": "web-1"}, "either `argv` or `command`"),
        ({"argv": ["id"], "command": "id"}, "either `argv` or `command`"),
        ({"command": "echo 'a"}, "cannot be split into words: No closing quotation"),
        ({"command": "   "}, "`command` has no words"),
        ({"argv": ["a\x00b"]}, "text without NUL"),
    ],
)
def test_shell_names_one_program(said: dict[str, object], why: str) -> None:
    with refused("bad_request") as caught:
        actions.decode_proposal(json.dumps({"action": "shell", **said}))
    assert why in str(caught.value)


# -- files and steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"method": "file.diff", "path": "/p"}, "either `want` or `want_base64`"),
        ({"method": "file.diff", "path": "/p", "want": "", "want_base64": ""}, "either `want`"),
        ({"method": "file.diff", "path": "/p", "want": "", "want_sha256": "0" * 64}, "or `want_sha256`"),
        ({"method": "file.diff", "path": "/p", "want_sha256": "absent"}, "64 hexadecimal digits"),
        ({"method": "file.apply", "path": "/p"}, "either `patch` or `content_base64`"),
        ({"method": "file.apply", "path": "/p", "content_base64": ""}, "needs `base_sha256`"),
        ({"method": "file.apply", "path": "/p", "patch": "", "base_sha256": "0"}, "64 hexadecimal digits"),
        ({"method": "state.apply", "session": "s", "timeout": 1, "step": {}}, "`step`"),
    ],
)
def test_file_requests_and_steps_are_whole(message: dict[str, object], why: str) -> None:
    with refused("bad_request") as caught:
        southbound.decode_southbound_request(json.dumps({"action_id": "a", **message}))
    assert why in str(caught.value)


# -- secrets --------------------------------------------------------------------------------------------


def test_text_forms_show_no_secret() -> None:
    values = [
        opn.OpnAddBody(name="n", base_url="https://h", api_key="hunter2", api_secret="hunter2"),
        southbound.CommandExec(
            action_id="a", command="c", args=("hunter2",), timeout=1, env={"P": "hunter2"}, stdin="hunter2"
        ),
        southbound.FileDiff(action_id="a", path="/p", want="hunter2"),
        southbound.FileApply(action_id="a", path="/p", patch="hunter2"),
        southbound.StateObserve(
            action_id="a",
            session="s",
            timeout=1,
            resources=(
                southbound.ResourceData(kind="host.file", identity="/p", fields={"content": "hunter2"}),
            ),
        ),
        southbound.StateApply(action_id="a", session="s", timeout=1, step={"write": ["hunter2"]}),
        southbound.Result(action_id="a", of="command.exec", answer={"stdout": "hunter2"}),
        southbound.EnrolBody(token="fza_hunter2hunter2", csr="-----BEGIN CERTIFICATE REQUEST-----"),
    ]
    for value in values:
        assert "hunter2" not in f"{value!r} {value} {[value]}"
        assert b"hunter2" in base.encode(value)


def test_refusal_of_a_secret_does_not_show_it() -> None:
    body = {"name": "n", "base_url": "https://h", "api_key": ["hunter2"], "api_secret": "hunter2"}
    with refused("bad_request") as caught:
        decode_body(json.dumps(body), opn.OpnAddBody)
    assert "api_key" in caught.value.message
    assert "hunter2" not in str(caught.value)


# -- events ---------------------------------------------------------------------------------------------


NOW = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)


EVENT_CLASSES: tuple[type[events.EventBase], ...] = get_args(events.PlainEvent)


@pytest.mark.parametrize("of", EVENT_CLASSES, ids=lambda of: of.__name__)
def test_every_type_of_event_has_its_time(of: type[events.EventBase]) -> None:
    """By its type: none can be made without one, and none is read without one."""
    required = {field.name for field in msgspec.structs.fields(of) if field.required}
    assert "timestamp" in required
    with refused("bad_request") as caught:
        contract.decode_event(json.dumps({"type": of.__struct_config__.tag}))
    assert "`timestamp`" in caught.value.message


def test_sse_keeps_line_separators_of_unicode() -> None:
    event = events.TokenEvent(timestamp=NOW, text="a\u2028b\u0085c\r\nd")
    assert contract.decode_sse(events.encode_sse(7, event)) == contract.SseFrame(7, event)


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (b'event: token\ndata: {"type":"token","timestamp":"2026-11-22T03:04:05Z","text":""}\n\n', "no id"),
        (b'id: 1\ndata: {"type":"token","timestamp":"2026-11-22T03:04:05Z","text":""}\n\n', "no event"),
        (b"id: 1\nevent: token\n\n", "no data"),
        (
            b'id: x\nevent: token\ndata: {"type":"token","timestamp":"2026-11-22T03:04:05Z","text":""}\n\n',
            "`id`",
        ),
        (
            b'id: %s\nevent: token\ndata: {"type":"token","timestamp":"2026-11-22T03:04:05Z","text":""}\n\n'
            % (b"9" * 5000),
            "`id`",
        ),
        (
            b'id: 1\nevent: done\ndata: {"type":"token","timestamp":"2026-11-22T03:04:05Z","text":""}\n\n',
            "'token'",
        ),
        (
            b"id: 1\nid: 2\nevent: token\ndata: {}\n\n",
            "twice",
        ),
    ],
)
def test_sse_frame_that_is_not_whole_is_refused(frame: bytes, word: str) -> None:
    with refused("bad_request") as caught:
        contract.decode_sse(frame)
    assert word in caught.value.message


def test_sse_comment_is_skipped() -> None:
    event = events.DoneEvent(timestamp=NOW)
    frame = events.encode_sse(1, event)
    assert contract.decode_sse(b": heartbeat\n" + frame).event == event


@pytest.mark.parametrize("name", ["action_id", "plan_hash", "session_id", "agent_id"])
def test_model_cannot_set_what_is_the_handlers(name: str) -> None:
    proposal = {"action": "shell", "command": "id", name: "x"}
    actions.decode_action(json.dumps(proposal))
    with refused("bad_request") as caught:
        actions.decode_proposal(json.dumps(proposal))
    assert f"`{name}`" in caught.value.message


@pytest.mark.parametrize(
    "query",
    [{"since": "-1"}, {"since": "9" * 5000}, {"since": "²"}, {"level": "loud"}, {"typ": "log"}, {"run": ""}],
)
def test_bad_query_is_refused(query: dict[str, str]) -> None:
    with refused("bad_query"):
        daemon.decode_events_query(query)


def test_query_is_read() -> None:
    query = daemon.decode_events_query({"types": "log,change", "since": "41", "level": "error"})
    assert query == daemon.EventsQuery(types=("log", "change"), since=41, level="error")
    assert daemon.decode_events_query({"types": ""}) == daemon.EventsQuery()
    with pytest.raises(base.WireError, match="types"):
        daemon.decode_events_query({"types": "log,,change"})


# -- agreement with the engine --------------------------------------------------------------------------


def test_a_change_event_has_the_fields_of_a_record() -> None:
    """The event has the ids of all events as its base, so it cannot have the record as one."""

    def fields(of: type[base.Message]) -> dict[str, tuple[Any, ...]]:
        found = msgspec.structs.fields(of)
        return {field.name: (field.type, field.default, field.default_factory) for field in found}

    assert fields(ChangeRecord).items() <= fields(events.ChangeEvent).items()


def test_how_a_target_was_left_is_a_status_or_unknown() -> None:
    said = {"type": "outcome", "timestamp": "2026-11-22T03:04:05Z", "target": "fw", "status": "converged"}
    for was in (*TargetStatus, "unknown"):
        event = contract.decode_event(json.dumps({**said, "was": was}))
        assert isinstance(event, events.OutcomeEvent)
        assert event.was == was
    with pytest.raises(base.WireError, match=r"`was`: .*a status of a target, or unknown"):
        contract.decode_event(json.dumps({**said, "was": "fine"}))


def test_change_record_is_a_change_event() -> None:
    change = Change(
        target="fw-01",
        kind="opnsense.user",
        identity="backup",
        verb=Verb.UPDATE,
        before={"password": Secret("hunter2")},
        after={"password": Secret("hunter3"), "groups": ("a", "b")},
        ref="0c5b1f6d",
        note='after "monitor"',
        adopts=True,
    )
    data = json.dumps(
        {
            "type": "change",
            "timestamp": "2026-11-22T03:04:05Z",
            "run_id": "r",
            **change_record(change),
            "status": "done",
        }
    )
    assert "hunter" not in data
    event = contract.decode_event(data)
    assert isinstance(event, events.ChangeEvent)
    assert (event.verb, event.after) == ("update", {"password": "***", "groups": ["a", "b"]})
    assert json.loads(base.encode(event)) == json.loads(data)


# -- telemetry ------------------------------------------------------------------------------------------


def _record(**more: object) -> dict[str, object]:
    return {"hostname": "web-1", "timestamp": NOON, **more}


def _ingest(value: object) -> contract.Batch:
    return contract.decode_telemetry(json.dumps(value).encode())


def test_what_is_not_known_is_kept_in_place() -> None:
    record = _record(os={"kernel": "6.1", "load": [1, 2, 3]}, rack="b7", nested={"a": [None, 1.5]})
    (sample,) = _ingest(record).samples
    assert json.loads(sample.encode()) == record
    assert sample.record.os is not None
    assert sample.record.os.load == (1, 2, 3)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:00:00+00:00",
        "2026-11-22T12:00:00",
        "2026-11-22 12:00:00.000",
        "2026-11-22T13:00:00+01:00",
        "2026-11-22T13:00:00+0100",
        "20261122T120000Z",
        "2026-11-22T12:00Z",
    ],
)
def test_one_moment_in_many_forms(text: str) -> None:
    (sample,) = _ingest(_record(timestamp=text)).samples
    assert sample.time == datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-22", "2026-13-01T00:00:00Z", "1795348800", "0001-01-01T00:00:00+23:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    batch = _ingest(_record(timestamp=text))
    assert batch.samples == ()
    assert "`timestamp`" in batch.errors[0].error


def test_bad_records_leave_the_others_alone() -> None:
    batch = _ingest([_record(), 7, _record(cpu="high"), {"timestamp": NOON}, _record(hostname="web-2")])
    assert [sample.record.hostname for sample in batch.samples] == ["web-1", "web-2"]
    assert [error.index for error in batch.errors] == [1, 2, 3]
    assert "`cpu`" in batch.errors[1].error
    assert "`hostname`" in batch.errors[2].error


def test_ndjson_counts_lines_that_are_not_empty() -> None:
    line = json.dumps(_record()).encode()
    batch = contract.decode_telemetry(b"\r\n" + line + b"\r\n\n" + line[:-4] + b"\n" + line)
    assert len(batch.samples) == 2
    assert [error.index for error in batch.errors] == [1]
    assert "JSON is malformed" in batch.errors[0].error


def test_pretty_printed_object_is_one_record() -> None:
    assert len(contract.decode_telemetry(json.dumps(_record(), indent=2).encode()).samples) == 1
    with refused("bad_json"):
        contract.decode_telemetry(json.dumps(_record(), indent=2).encode()[:-1])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"7", "bad_request"),
        (b'"text"', "bad_request"),
        (b"hello\nworld\n", "bad_json"),
        (gzip.compress(b"{}"), "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b" " * (telemetry.MAX_INGEST_BYTES + 1), "too_large"),
        (b"[" + b"7," * telemetry.MAX_INGEST_RECORDS + b"7]", "too_large"),
    ],
    ids=["empty", "number", "text", "lines", "gzip", "deep", "bytes", "records"],
)
def test_body_that_is_no_telemetry_is_refused(body: bytes, code: str) -> None:
    with refused(code):
        contract.decode_telemetry(body)


def test_empty_array_is_no_error() -> None:
    assert contract.decode_telemetry(b"[]") == contract.Batch((), ())


# -- signatures -----------------------------------------------------------------------------------------

KEY = b"0123456789abcdef"
CALL = {"method": "POST", "path": "/ingest?x=1", "body": b"{}"}


def _headers(now_s: int = 1_000_000, **more: str) -> dict[str, str]:
    stamp, nonce = str(now_s), "0123456789abcdef"
    value = signature.sign(KEY, timestamp=stamp, nonce=nonce, **CALL)  # type: ignore[arg-type]
    names = {
        "x-fazai-agent": "web-1",
        "X-FAZAI-TIMESTAMP": stamp,
        "X-Fazai-Nonce": nonce,
        "X-Fazai-Signature": value,
        "Accept": "*/*",
    }
    return {**names, **more}


def _verify(headers: dict[str, str], *keys: bytes, now_s: float = 1_000_000, **call: Any) -> None:
    signature.verify_signature(
        signature.decode_signed_headers(headers), keys, now_s=now_s, **{**CALL, **call}
    )


def test_signing_text_is_the_one_of_the_page() -> None:
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    text = signature.signing_text("1", "n", "post", "/p?q", b"{}")
    assert text == f"1\nn\nPOST\n/p?q\n{empty}".encode()


def test_either_of_two_keys_is_right() -> None:
    _verify(_headers(), b"old", KEY)
    _verify(_headers(), KEY, b"old")


@pytest.mark.parametrize("keys", [(), (b"old",), (KEY + b"x",)])
def test_wrong_key_is_refused(keys: tuple[bytes, ...]) -> None:
    with refused("bad_signature") as caught:
        _verify(_headers(), *keys)
    assert (caught.value.message, caught.value.hint) == (
        "the signature does not fit the request",
        "check the key",
    )


@pytest.mark.parametrize("call", [{"method": "PUT"}, {"path": "/ingest"}, {"body": b"{} "}])
def test_another_request_is_refused(call: dict[str, Any]) -> None:
    with refused("bad_signature"):
        _verify(_headers(), KEY, **call)


@pytest.mark.parametrize("skew_s", [-300, 0, 300])
def test_clock_may_be_off_by_five_minutes(skew_s: int) -> None:
    _verify(_headers(), KEY, now_s=1_000_000 + skew_s)


@pytest.mark.parametrize("skew_s", [-301, 301])
def test_clock_may_not_be_off_by_more(skew_s: int) -> None:
    with refused("bad_clock") as caught:
        _verify(_headers(), KEY, now_s=1_000_000 + skew_s)
    assert (caught.value.message, caught.value.hint) == (
        "the clocks differ by 301 s, 300 s are allowed",
        "set the clock",
    )


@pytest.mark.parametrize("name", ["x-fazai-agent", "X-FAZAI-TIMESTAMP", "X-Fazai-Nonce", "X-Fazai-Signature"])
def test_missing_or_wrong_header_is_refused(name: str) -> None:
    headers = _headers()
    with refused("bad_signature") as caught:
        signature.decode_signed_headers({**headers, name: " "})
    assert name.lower().removeprefix("x-fazai-") in caught.value.message
    del headers[name]
    with refused("bad_signature") as caught:
        signature.decode_signed_headers(headers)
    assert name.lower() in caught.value.message


# -- anything at all ------------------------------------------------------------------------------------

DECODERS: list[Callable[[bytes], object]] = [
    worker.decode_worker_request,
    worker.decode_worker_event,
    southbound.decode_southbound_request,
    southbound.decode_hello,
    contract.decode_event,
    actions.decode_action,
    contract.decode_sse,
    contract.decode_telemetry,
    contract.decode_log_line,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["type", "method", "action", "x"]), inner)
    ),
    max_leaves=8,
)


def _refusal(decoder: Callable[[bytes], object], data: bytes) -> base.WireError | None:
    try:
        decoder(data)
    except base.WireError as error:
        return error
    return None


@settings(derandomize=True, deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for decoder in DECODERS:
        error = _refusal(decoder, data)
        assert error is None or (error.message and error.code in daemon.HTTP_STATUS)


def test_fazai_does_not_load_msgspec() -> None:
    code = "import sys, fazai, fazai.errors, fazai.model; sys.exit('msgspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
