"""Reads the body of POST /ingest into samples (SPEC.md, section 4). Pure; each function may run in any
thread.

A record is stored as the bytes that came, so that fields which fazai does not know survive; the strict types
of `fazai.wire.telemetry` say whether it is a good one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from fazai.store.daemon import NewSample
from fazai.wire.base import WireError, decode_body, parse_json
from fazai.wire.telemetry import (
    MAX_INGEST_BYTES,
    MAX_INGEST_RECORDS,
    Disk,
    IngestError,
    Net,
    TelemetryRecord,
    convert_record,
    parse_time,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVER_US = 1 << 62
_NAN = float("nan")
_NO_LOADS = (_NAN, _NAN, _NAN)
_ONE: msgspec.json.Decoder[TelemetryRecord] = msgspec.json.Decoder(TelemetryRecord)
_RAW: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)
_ARRAY: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
#: What msgspec raises on foreign bytes (a ValidationError is a DecodeError).
_FOREIGN = (msgspec.DecodeError, UnicodeError, RecursionError)


_MEMBERS = 1000  # of one gzip body


class ParsedRecords(NamedTuple):
    """The good records of one body, and the errors of the others."""

    samples: list[NewSample]
    errors: list[IngestError]


def inflate(body: bytes, limit_bytes: int = MAX_INGEST_BYTES) -> bytes:
    """Return the content of a gzip body, of one member or several. Raises WireError: too_large,
    bad_request."""
    parts: list[bytes] = []
    room = limit_bytes
    try:
        while body:
            if len(parts) == _MEMBERS:  # each is a copy of all that follows it
                raise WireError("too_large", f"the gzip body has more than {_MEMBERS} members")
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(body, room + 1)
            if len(part) > room:
                raise WireError("too_large", f"the body has more than {limit_bytes} bytes decompressed")
            if not stream.eof:
                raise WireError("bad_request", "the gzip body is cut off")
            parts.append(part)
            room -= len(part)
            body = stream.unused_data.lstrip(b"\0")
    except zlib.error:
        raise WireError("bad_request", "the body is not gzip, though its content encoding says so") from None
    return b"".join(parts)


def read_records(body: bytes, latest_us: int = _EVER_US) -> ParsedRecords:
    """Read a body that is an object, an array, or one object a line. Raises WireError: bad_json, bad_request,
    too_large.

    A bad record is an entry of `errors` and leaves the others alone; so is one of a time after `latest_us`.
    """
    if len(body) > MAX_INGEST_BYTES:
        raise WireError("too_large", f"the body has {len(body)} bytes, the limit is {MAX_INGEST_BYTES}")
    sample = read_one(body, latest_us)
    if sample is not None:
        return ParsedRecords([sample], [])
    pieces = _split(body)
    if len(pieces) > MAX_INGEST_RECORDS:
        raise WireError("too_large", f"{len(pieces)} records in one body, the limit is {MAX_INGEST_RECORDS}")
    samples: list[NewSample] = []
    errors: list[IngestError] = []
    for index, piece in enumerate(pieces):
        try:
            samples.append(sample_of(piece, _decode_record(piece), latest_us))
        except _FOREIGN:
            errors.append(IngestError(index=index, error=str(refusal_of(piece))))
        except WireError as error:
            errors.append(IngestError(index=index, error=str(error)))
    return ParsedRecords(samples, errors)


def read_one(body: bytes, latest_us: int = _EVER_US) -> NewSample | None:
    """Return the body as one good record; None for any other."""
    try:
        return sample_of(body, _decode_record(body), latest_us)
    except (*_FOREIGN, WireError):
        return None


def _decode_record(piece: bytes) -> TelemetryRecord:
    try:
        return _ONE.decode(piece)
    except msgspec.ValidationError:  # perhaps for a whole number that is written as 8e9
        return convert_record(parse_json(piece))


def refusal_of(piece: bytes) -> WireError:
    """Return why a piece is no record, in the words of the contract."""
    try:
        decode_body(piece, TelemetryRecord, limit_bytes=MAX_INGEST_BYTES)
    except WireError as error:
        return error
    return WireError("bad_request", "the record is not valid")


def _split(body: bytes) -> Sequence[bytes]:
    """Return the records as they stand in the body, none of them read."""
    text = body.lstrip()
    if text[:1] == b"[":
        try:
            return [bytes(piece) for piece in _ARRAY.decode(text)]
        except _FOREIGN:
            pass  # lines, perhaps
    else:
        try:
            _RAW.decode(text)
        except _FOREIGN:
            pass
        else:
            if text[:1] != b"{":
                raise WireError("bad_request", "expected an object, an array, or one object a line")
            return [body]
    pieces = body.splitlines() if b"\r" in body else body.split(b"\n")
    lines = [line for line in pieces if line and not line.isspace()]
    if len(lines) < 2 or not any(_is_object(line) for line in lines):
        raise WireError("bad_json", refusal_of(body).message)
    return lines


def _is_object(line: bytes) -> bool:
    if line.lstrip()[:1] != b"{":
        return False
    try:
        _RAW.decode(line)
    except _FOREIGN:
        return False
    return True


def sample_of(raw: bytes, record: TelemetryRecord, latest_us: int = _EVER_US) -> NewSample:
    """Return the stored form of a record. Raises WireError for a time or a text that is none, and for a time
    after `latest_us`: its host's clock is wrong, and until then nothing newer would come."""
    if not raw.isascii():
        try:
            raw.decode()  # fields that we do not know were skipped, not read
        except UnicodeDecodeError:
            raise WireError("bad_json", "the text is not valid UTF-8") from None
    since = parse_time(record.timestamp) - _EPOCH
    time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if time_us > latest_us:
        raise WireError(
            "bad_request",
            f"`timestamp`: {record.timestamp[:64]} is more than a day ahead of the daemon's clock",
            hint="set the host's clock, and keep it with NTP",
        )
    agent = record.agent
    interval_s, version = 0.0, ""
    if agent is not None:
        interval_s, version = agent.interval or 0.0, agent.version or ""
    try:
        gauges = tuple(map(float, figures_of(record)))
    except OverflowError:  # JSON knows no largest integer
        gauges = tuple(map(_to_float, figures_of(record)))
    return NewSample(record.hostname, time_us, raw, gauges, interval_s, version)


def figures_of(record: TelemetryRecord) -> tuple[float, ...]:
    """Return the figures of `store.daemon.GAUGES`; NaN for what the record does not say."""
    os, cpu, mem = record.os, record.cpu, record.mem
    total: float | None = None
    free: float | None = None
    available: float | None = None
    busy: float = _NAN
    loads: tuple[float, ...] = _NO_LOADS
    if os is not None:
        if os.load is not None:
            loads = os.load if len(os.load) == len(_NO_LOADS) else (*os.load, *_NO_LOADS)[:3]
        if os.mem is not None:
            total, free = os.mem.total, os.mem.free
    if mem is not None:
        total = total if mem.total is None else mem.total
        free = free if mem.free is None else mem.free
        available = mem.available
    if cpu is not None:
        if cpu.percent is not None:
            busy = cpu.percent / 100
        elif cpu.idle is not None:
            busy = max(0.0, 1 - cpu.idle / 100)
    disk_total, disk_free = _root_disk(record.disk) if record.disk else (None, None)
    received, sent = _traffic(record.net) if record.net else (_NAN, _NAN)
    up = record.uptime
    return (
        *loads,
        busy,
        _NAN if total is None else total,
        _NAN if free is None else free,
        _NAN if available is None else available,
        _NAN if disk_total is None else disk_total,
        _NAN if disk_free is None else disk_free,
        received,
        sent,
        _NAN if up is None else up,
    )


def _root_disk(disks: Sequence[Disk]) -> tuple[int | None, int | None]:
    """Return total and free bytes of `/`, else of the first mount."""
    disk = disks[0]
    if disk.mount != "/":
        disk = next((one for one in disks if one.mount == "/"), disk)
    free = disk.free
    if free is None and disk.total is not None and disk.used is not None:
        free = max(0, disk.total - disk.used)
    return disk.total, free


def _traffic(interfaces: Sequence[Net]) -> tuple[float, float]:
    """Return the bytes received and sent by all interfaces but loopback."""
    received = sent = 0
    known = False
    for one in interfaces:
        if one.name != "lo" and one.rx_bytes is not None and one.tx_bytes is not None:
            received, sent, known = received + one.rx_bytes, sent + one.tx_bytes, True
    return (received, sent) if known else (_NAN, _NAN)


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
