"""Section 4 of SPEC.md: what hosts report to POST /ingest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from fazai.wire.base import AnswerMessage, Message, WireError, convert_to, parse_json

MAX_INGEST_BYTES = 16 * 1024 * 1024  # after decompression
MAX_INGEST_RECORDS = 10_000

Hostname = Annotated[
    str, Meta(min_length=1, max_length=253, pattern=r"(?#printable ASCII without spaces)\A[!-~]+\Z")
]
Load = Annotated[tuple[Annotated[float, Meta(ge=0)], ...], Meta(max_length=3)]
Percent = Annotated[float, Meta(ge=0)]  # of one CPU, so 100 is no upper limit


#: As large as a host says it.
Count = Annotated[int, Meta(ge=0)]


class OsMem(Message, frozen=True, kw_only=True):
    """In bytes."""

    total: Count | None = None
    free: Count | None = None


class OsInfo(Message, frozen=True, kw_only=True):
    hostname: str | None = None
    load: Load | None = None
    mem: OsMem | None = None


class Cpu(Message, frozen=True, kw_only=True):
    count: Count | None = None
    percent: Percent | None = None
    user: Percent | None = None
    system: Percent | None = None
    idle: Percent | None = None
    iowait: Percent | None = None
    steal: Percent | None = None


class Mem(Message, frozen=True, kw_only=True):
    """In bytes."""

    total: Count | None = None
    free: Count | None = None
    available: Count | None = None
    swap_total: Count | None = None
    swap_free: Count | None = None


class Disk(Message, frozen=True, kw_only=True):
    """In bytes."""

    mount: str
    device: str | None = None
    total: Count | None = None
    free: Count | None = None
    used: Count | None = None


class Net(Message, frozen=True, kw_only=True):
    """Counters since the interface came up."""

    name: str
    rx_bytes: Count | None = None
    tx_bytes: Count | None = None
    rx_errors: Count | None = None
    tx_errors: Count | None = None


class Process(Message, frozen=True, kw_only=True):
    pid: Count
    command: str
    user: str | None = None
    cpu_percent: Percent | None = None
    mem_percent: Percent | None = None


class AgentHealth(Message, frozen=True, kw_only=True):
    """The telemetry agent's own state: records that wait in its spool, those it had to drop, and the seconds
    between two records."""

    version: str | None = None
    interval: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    spool_depth: Count | None = None
    dropped: Count | None = None


class TelemetryRecord(Message, frozen=True, kw_only=True):
    """The fields that fazai reads; others are kept in `Sample.fields`."""

    hostname: Hostname
    timestamp: Annotated[str, Meta(max_length=64)]
    processes: str | None = None
    netstat: str | None = None
    iostat: str | None = None
    os: OsInfo | None = None
    cpu: Cpu | None = None
    mem: Mem | None = None
    disk: tuple[Disk, ...] | None = None
    net: tuple[Net, ...] | None = None
    top: tuple[Process, ...] | None = None
    uptime: Annotated[float, Meta(ge=0)] | None = None  # seconds
    agent: AgentHealth | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: what fazai reads of it, the whole of it, and its time. (host, time) is its identity."""

    record: TelemetryRecord
    fields: Mapping[str, Any]
    time: datetime

    def encode(self) -> bytes:
        """Write the record with all fields that it came with, in their order."""
        return msgspec.json.encode(self.fields)


class IngestAnswer(AnswerMessage, frozen=True, kw_only=True):
    accepted: Count
    duplicates: Count


class IngestError(Message, frozen=True, kw_only=True, omit_defaults=False):
    """`index` counts the records of the request from 0; in NDJSON, the lines that are not empty."""

    index: Count
    error: str


class IngestPartialAnswer(Message, frozen=True, kw_only=True):
    """Some records were refused: status 200 where others were accepted, 422 where none was."""

    constants: ClassVar[Mapping[str, Any]] = {"ok": False}
    accepted: Count
    errors: tuple[IngestError, ...]
    duplicates: Count | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request to /ingest holds."""

    samples: tuple[Sample, ...]
    errors: tuple[IngestError, ...]


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 date (of a month or week) and time; without an offset it is UTC. Raises WireError."""
    try:
        moment = datetime.fromisoformat(text.upper())  # `t` and `z` are T and Z
        if len(text) < 13:  # a date alone
            raise ValueError
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WireError(
            "bad_request",
            f"`timestamp`: expected an ISO 8601 date and time, got {text[:64]!r}",
            hint="such as 2026-01-31T08:15:00Z",
        ) from None


def decode_sample(value: Any) -> Sample:
    """Read one record that is already parsed JSON (telemetry.push's payload). Raises WireError."""
    record = convert_record(value)
    return Sample(record, value, parse_time(record.timestamp))


def convert_record(value: Any) -> TelemetryRecord:
    """Return the record in an already parsed JSON value. Raises WireError."""
    try:
        return convert_to(value, TelemetryRecord)
    except WireError:
        pass
    try:
        return convert_to(_with_integers(value), TelemetryRecord)
    except RecursionError:
        raise WireError("bad_json", "the JSON is nested too deeply") from None


def _with_integers(value: Any) -> Any:
    """Return the JSON value with whole numbers as integers, however they were written: 8000000000.0, 8e9."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _with_integers(one) for name, one in value.items()}
    return [_with_integers(one) for one in value] if isinstance(value, list) else value


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
