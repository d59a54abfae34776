"""Section 4 of SPEC.md: what hosts report to POST /ingest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from fazai.wire.base import AnswerMessage, Message, WireError, convert_to

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
    """Memory in bytes."""

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
    """Memory and swap in bytes."""

    total: Count | None = None
    free: Count | None = None
    available: Count | None = None
    swap_total: Count | None = None
    swap_free: Count | None = None


class Disk(Message, frozen=True, kw_only=True):
    """One file system; sizes in bytes."""

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
    """The fields that fazai reads; others are stored as they came."""

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
