"""Tool `host.telemetry`: what a host reported last, and how its figures went."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fazai.daemon.fleet import used_ratio
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.fitting import MOST_BYTES, as_compact, cut_note, failed_observation, fit_rows
from fazai.errors import spelling_hint
from fazai.loop.tools import HostName, Observation, Tool, ToolArgs
from fazai.store.daemon import GAUGES
from fazai.timestamps import timestamp, utc_now
from fazai.wire.base import WireError, convert_to
from fazai.wire.telemetry import TelemetryRecord

_MOST_RECORDS = 50_000
_MOST_ROWS = 10
_TEXT = 120
#: Of these the last hours are summed up; totals of bytes only grow and say little.
_SUMMED = ("load1", "cpu_busy_ratio", "memory_used_ratio", "disk_used_ratio")


class TelemetryArgs(ToolArgs, frozen=True, kw_only=True):
    """`hours`: over how long the figures are summed up."""

    host: HostName
    hours: Annotated[int, Meta(ge=1, le=720)] = 24


@Tool("host.telemetry", "Newest figures of a host, and least, mean and most of the last hours.")
async def show_telemetry(call: ToolCall, args: TelemetryArgs) -> Observation:
    """Return the newest record's figures, busy processes and disks of a host, and a summary of its
    history."""
    store = call.services.store
    known = store.host(args.host)
    if known is None:
        names = [one.host for one in store.hosts()]
        others = f"there are: {', '.join(names[:20])}" if names else None
        hint = spelling_hint(args.host, names) or others
        return failed_observation(WireError("not_found", f"no host {args.host[:64]!r} reported", hint=hint))
    end_us = int(utc_now().timestamp() * 1e6)
    rows = await store.history(args.host, end_us - args.hours * 3_600_000_000, None, _MOST_RECORDS)
    newest = await store.records(args.host, 0, 1)
    data = {
        "host": known.host,
        "silent": known.silent,
        "seen": timestamp(known.seen_us / 1e6).isoformat(timespec="seconds"),
        "interval_s": known.interval_s or None,
        "now": _figures(known.gauges, GAUGES),
        "hours": args.hours,
        "records": len(rows),
        "past": _summarize([gauges for _, gauges in rows]),
        **_last_record(newest[0][1] if newest else b""),
    }
    state = "it is silent" if known.silent else "it reports"
    note = f"{known.host}: {state}; {len(rows)} records of the last {args.hours} h"
    return Observation(note=cut_note(note), data=as_compact(data))


def _figures(gauges: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Return the figures that were reported."""
    found = dict(zip(names, gauges, strict=True))
    return {name: round(value, 4) for name, value in {**found, **_ratios(found)}.items() if isfinite(value)}


def _ratios(found: dict[str, float]) -> dict[str, float]:
    available = found["memory_available_bytes"]
    free = available if isfinite(available) else found["memory_free_bytes"]
    memory = used_ratio(found["memory_total_bytes"], free)
    disk = used_ratio(found["disk_total_bytes"], found["disk_free_bytes"])
    ratios = {"memory_used_ratio": memory, "disk_used_ratio": disk}
    return {name: value for name, value in ratios.items() if value is not None}


def _summarize(history: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return least, mean and most of the figures that go up and down."""
    columns: dict[str, list[float]] = {name: [] for name in _SUMMED}
    for gauges in history:
        found = dict(zip(GAUGES, gauges, strict=True))
        found |= _ratios(found)
        for name, column in columns.items():
            if isfinite(value := found.get(name, float("nan"))):
                column.append(value)
    return {
        name: {
            "min": round(min(column), 4),
            "mean": round(sum(column) / len(column), 4),
            "max": round(max(column), 4),
        }
        for name, column in columns.items()
        if column
    }


def _last_record(body: bytes) -> dict[str, Any]:
    """Return disks, networks and busy processes of a record, and what its agent says of itself."""
    try:
        record = convert_to(msgspec.json.decode(body), TelemetryRecord)
    except (msgspec.DecodeError, WireError):
        return {}
    share = MOST_BYTES // 4
    parts = {"disks": record.disk, "networks": record.net, "processes": record.top}
    found: dict[str, Any] = {
        name: fit_rows([_cut_texts(as_compact(row)) for row in (rows or ())[:_MOST_ROWS]], share)
        for name, rows in parts.items()
    }
    if record.agent is not None:
        found["agent"] = _cut_texts(as_compact(record.agent))
    return found


def _cut_texts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: cut_note(value)[:_TEXT] if isinstance(value, str) else value for name, value in row.items()}


TOOLS = (show_telemetry,)
