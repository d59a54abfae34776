"""Readers of the messages of SPEC.md: of what fazai only writes, and of what it reads in a way of its own
that is compared with these (`POST /ingest`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from fazai.wire.actions import decode_action
from fazai.wire.base import (
    MAX_BODY_BYTES,
    MAX_LINE_BYTES,
    Family,
    Message,
    WireError,
    decode_body,
    parse_json,
    parse_object,
)
from fazai.wire.events import Event, PlainEvent, event_type, is_event_id
from fazai.wire.logs import LogLine
from fazai.wire.opn import OpnAnswer, OpnError
from fazai.wire.telemetry import (
    MAX_INGEST_BYTES,
    MAX_INGEST_RECORDS,
    IngestError,
    TelemetryRecord,
    convert_record,
    parse_time,
)

# -- events

_EVENTS: Family[PlainEvent] = Family(
    PlainEvent, tag="type", unknown="unknown_type", limit_bytes=MAX_BODY_BYTES
)


def decode_event(data: bytes | str) -> Event:
    """Read the data of one server-sent event.

    Raises WireError: bad_json, bad_request, unknown_type, unknown_action. A reader skips an event of an
    unknown type: a later minor version may have added it.
    """
    value = parse_object(data)
    if value.get("type") == "action":
        return decode_action(data)
    return _EVENTS.convert(value)


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One server-sent event and its id."""

    id: int
    event: Event


def decode_sse(frame: bytes) -> SseFrame:
    """Read what `encode_sse` wrote. Raises WireError when id, event or data is missing or they disagree."""
    fields: dict[str, str] = {}
    try:
        lines = re.split(r"\r\n|\n|\r", frame.decode())
    except UnicodeDecodeError:
        raise WireError("bad_json", "the text is not valid UTF-8") from None
    for line in lines:
        name, colon, value = line.partition(":")
        if not name:  # an empty line, or a comment (the heartbeat)
            continue
        if not colon or name in fields:
            raise WireError("bad_request", f"not a field of an event, or twice: {name[:64]!r}")
        fields[name] = value.removeprefix(" ")
    missing = [name for name in ("id", "event", "data") if name not in fields]
    if missing:
        raise WireError("bad_request", f"the event has no {' and no '.join(missing)}")
    if not is_event_id(fields["id"]):
        raise WireError("bad_request", f"`id`: expected a number, got {fields['id'][:64]!r}")
    event = decode_event(fields["data"])
    if fields["event"] != event_type(event):
        said = fields["event"][:64]
        raise WireError("bad_request", f"`event` says {said!r}, the data says {event_type(event)!r}")
    return SseFrame(int(fields["id"]), event)


# -- lines of the log, answers of /opn/*


def decode_log_line(line: bytes | str) -> LogLine:
    """Read one line of a log. Raises WireError."""
    return decode_body(line, LogLine)


class _OpnVerdict(Message, frozen=True, kw_only=True):
    success: bool


OpnT = TypeVar("OpnT", bound=OpnAnswer)


def decode_opn_answer(data: bytes | str, of: type[OpnT]) -> OpnT | OpnError:
    """Read an answer of `/opn/*`: `of` where `success` is true, else the refusal. Raises WireError."""
    if decode_body(data, _OpnVerdict, limit_bytes=MAX_LINE_BYTES).success:
        return decode_body(data, of, limit_bytes=MAX_LINE_BYTES)
    return decode_body(data, OpnError, limit_bytes=MAX_LINE_BYTES)


# -- telemetry


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: what fazai reads of it, the whole of it, and its time. (host, time) is its identity."""

    record: TelemetryRecord
    fields: Mapping[str, Any]
    time: datetime

    def encode(self) -> bytes:
        """Write the record with all fields that it came with, in their order."""
        return msgspec.json.encode(self.fields)


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one request to /ingest, and the errors of those that are none."""

    samples: tuple[Sample, ...]
    errors: tuple[IngestError, ...]


def decode_sample(value: Any) -> Sample:
    """Read one record that is already parsed JSON (telemetry.push's payload). Raises WireError."""
    record = convert_record(value)
    return Sample(record, value, parse_time(record.timestamp))


def decode_telemetry(body: bytes) -> Batch:
    """Read the body of POST /ingest, decompressed: an object, an array, or one object a line.

    A bad record is an entry of `errors` and leaves the others alone. Raises WireError: bad_json, bad_request
    (neither objects nor an array), too_large.
    """
    if len(body) > MAX_INGEST_BYTES:
        raise WireError("too_large", f"the body has {len(body)} bytes, the limit is {MAX_INGEST_BYTES}")
    records = _records(body)
    if len(records) > MAX_INGEST_RECORDS:
        raise WireError("too_large", f"{len(records)} records in one body, the limit is {MAX_INGEST_RECORDS}")
    samples: list[Sample] = []
    errors: list[IngestError] = []
    for index, value in enumerate(records):
        try:
            if isinstance(value, WireError):
                raise value
            samples.append(decode_sample(value))
        except WireError as error:
            errors.append(IngestError(index=index, error=str(error)))
    return Batch(tuple(samples), tuple(errors))


def _records(body: bytes) -> list[Any]:
    """Return the parsed records; a line of NDJSON that is no JSON stands as its WireError."""
    try:
        value = parse_json(body)
    except WireError:
        lines = [line for line in body.splitlines() if line.strip()]
        values = [_parse_line(line) for line in lines]
        if len(lines) < 2 or not any(isinstance(value, dict) for value in values):
            raise
        return values
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return value
    raise WireError("bad_request", "expected an object, an array, or one object a line")


def _parse_line(line: bytes) -> Any:
    try:
        return parse_json(line)
    except WireError as error:
        return error


# -- the codes of channels (SPEC.md, "Errors")

WORKER_CODES = {
    *("bad_json", "bad_request", "unknown_type", "unknown_session", "session_busy", "context_full"),
    *("overloaded", "timeout", "schema_unsupported", "internal"),
}
SOUTHBOUND_CODES = {
    *("bad_json", "bad_request", "unknown_method", "hello_required", "bad_certificate", "bad_clock"),
    *("bad_version", "bad_signature", "replayed", "not_allowed", "conflict", "too_large", "overloaded"),
    *("timeout", "internal", "cancelled", "interrupted", "unknown_session", "not_found", "agent_unknown"),
    *("agent_offline", "agent_lost"),
}
