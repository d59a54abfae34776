"""GET /fleet, /telemetry, /whoami, /runs/{id}/changes: the data of the operators' page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, cast

import msgspec

from fazai.daemon.firewalls.poller import WatchedFirewall
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import Route, RouteCall, epoch_us
from fazai.daemon.services import Services
from fazai.store.base import TargetState
from fazai.store.daemon import GAUGES, AgentRecord, FirewallRecord, HostRecord
from fazai.timestamps import timestamp, utc_now
from fazai.wire.base import WireError, convert_fields
from fazai.wire.fleet import (
    ChangeRow,
    FleetAnswer,
    FleetDrift,
    FleetRow,
    RunChangesAnswer,
    RunChangesQuery,
    TelemetryAnswer,
    TelemetryQuery,
    WhoAnswer,
    decode_telemetry_query,
)

_HOUR_US = 3_600_000_000
_MOST_RECORDS = 200_000
_LOAD1, _CPU = GAUGES.index("load1"), GAUGES.index("cpu_busy_ratio")
_TOTAL, _FREE = GAUGES.index("memory_total_bytes"), GAUGES.index("memory_free_bytes")
_AVAILABLE = GAUGES.index("memory_available_bytes")
_DISK, _DISK_FREE = GAUGES.index("disk_total_bytes"), GAUGES.index("disk_free_bytes")


@Route(
    "GET", "/whoami", "As whom the daemon knows the client.", role=None, codes=("unauthorized", "overloaded")
)
async def show_client(call: RouteCall) -> WhoAnswer:
    """Return as whom the daemon knows the client."""
    return WhoAnswer(name=call.who.name, role=call.who.role)


# -- the fleet


@Route(
    "GET", "/fleet", "Firewalls, hosts and targets: up, last seen, drift, version.", codes=("unavailable",)
)
async def show_fleet(call: RouteCall) -> FleetAnswer:
    """Return a row for every machine that is known. 2,000 of them: about 10 ms."""
    return FleetAnswer(time=utc_now(), rows=await read_fleet(call.services))


async def read_fleet(services: Services) -> tuple[FleetRow, ...]:
    """Return a row for every machine that is known, ordered by name."""
    store = services.store
    await services.drift.refresh()
    agents, firewalls = await store.agents(), await store.firewalls()
    versions = services.ingest.versions
    for one in store.hosts():
        if one.host not in versions:  # not heard of since the start
            versions.setdefault(one.host, _agent_version(await store.records(one.host, 0, 1)))
    return await asyncio.to_thread(_fleet_rows, services, agents, firewalls)


def _fleet_rows(
    services: Services, stored_agents: Sequence[AgentRecord], firewalls: Sequence[FirewallRecord]
) -> tuple[FleetRow, ...]:
    drift, versions, hosts = services.drift.targets, services.ingest.versions, services.store.hosts()
    agents = {agent.agent_id: agent for agent in stored_agents}
    watched = {seen.record.id: seen for seen in services.firewalls.all()}  # newer than what is stored
    rows = [_firewall_row(one, watched.get(one.id), drift.get(one.name)) for one in firewalls]
    rows += [
        _host_row(one, drift.get(one.host), agents.get(one.host), versions.get(one.host)) for one in hosts
    ]
    known = {row.name for row in rows}
    rows += [
        FleetRow(name=name, kind="target", drift=_drift(state))
        for name, state in drift.items()
        if name not in known
    ]
    rows.sort(key=lambda row: (row.name, row.kind))
    return tuple(rows)


def _is_answering(one: FirewallRecord) -> bool | None:
    """Return whether the firewall answered last; None where it was not asked yet."""
    if one.last_seen is None and one.last_error_at is None:
        return None
    return (one.last_seen or 0.0) > (one.last_error_at or 0.0)


def _firewall_row(
    stored: FirewallRecord, watched: WatchedFirewall | None, drift: TargetState | None
) -> FleetRow:
    one = watched.record if watched is not None else stored
    seen, up = one.last_seen, _is_answering(one)
    if watched is not None and watched.up is not None:
        up = watched.up
    vitals = watched.vitals if watched is not None and up else None  # of one that is down: old ones
    return FleetRow(
        name=one.name,
        kind="firewall",
        id=one.id,
        up=up,
        last_seen=timestamp(seen),
        version=one.version,
        drift=_drift(drift),
        error=None if up else one.last_error,
        load1=vitals.load1 if vitals is not None else None,
        cpu=vitals.cpu_ratio if vitals is not None else None,
        memory=vitals.memory_ratio if vitals is not None else None,
    )


def _host_row(
    one: HostRecord, drift: TargetState | None, agent: AgentRecord | None, version: str | None
) -> FleetRow:
    gauges = one.gauges
    available = gauges[_AVAILABLE]
    free = available if isfinite(available) else gauges[_FREE]
    return FleetRow(
        name=one.host,
        kind="host",
        up=not one.silent,
        last_seen=timestamp(one.seen_us / 1e6),
        interval_s=one.interval_s or None,
        version=(agent.version if agent is not None else None) or version or None,
        drift=_drift(drift),
        load1=_round_figure(gauges[_LOAD1]),
        cpu=_round_figure(gauges[_CPU]),
        memory=used_ratio(gauges[_TOTAL], free),
        disk=used_ratio(gauges[_DISK], gauges[_DISK_FREE]),
    )


class _StoredAgent(msgspec.Struct):
    version: str | None = None


class _StoredRecord(msgspec.Struct):
    agent: _StoredAgent | None = None


def _agent_version(records: Sequence[tuple[int, bytes]]) -> str:
    for _, body in records:
        agent = msgspec.json.decode(body, type=_StoredRecord).agent
        return (agent.version or "")[:64] if agent is not None else ""
    return ""


def used_ratio(total: float, free: float) -> float | None:
    """Return which part of a whole is used; None where there is no whole."""
    return _round_figure(1 - free / total) if total > 0 else None


def _round_figure(value: float) -> float | None:
    return round(value, 4) if isfinite(value) else None


def _drift(state: TargetState | None) -> FleetDrift | None:
    if state is None:
        return None
    status = cast("Any", state.status)
    return FleetDrift(status=status, pending=state.pending, run_id=state.run_id, time=timestamp(state.time))


# -- figures over time


@Route(
    "GET",
    "/telemetry",
    "Figures of one host over time.",
    read_query=decode_telemetry_query,
    codes=("unavailable",),
)
async def show_telemetry(call: RouteCall, query: TelemetryQuery) -> TelemetryAnswer:
    """Return figures of one host over time. Raises Refusal(not_found), WireError(bad_query)."""
    names = query.fields or GAUGES
    for name in names:
        if name not in GAUGES:
            hint = f"one of: {', '.join(GAUGES)}"
            raise WireError("bad_query", f"`fields`: there is no {name[:64]!r}", hint=hint)
    store = call.services.store
    record = store.host(query.host)
    if record is None:
        raise Refusal("not_found", f"no host {query.host[:64]!r} reported", hint="see: GET /fleet")
    end_us = epoch_us(query.until or utc_now())
    begin_us = epoch_us(query.since) if query.since is not None else end_us - _HOUR_US
    if begin_us >= end_us:
        raise WireError("bad_query", "`since` is not before `until`")

    rows = await store.history(query.host, begin_us, end_us, _MOST_RECORDS)

    def thinned() -> TelemetryAnswer:
        step_us = max(1, -(-(end_us - begin_us) // query.points))
        times, columns = thin_out(rows, [GAUGES.index(name) for name in names], step_us)
        return TelemetryAnswer(
            host=query.host,
            interval_s=record.interval_s,
            step_s=step_us / 1e6,
            times=times,
            fields=dict(zip(names, columns, strict=True)),
        )

    return await asyncio.to_thread(thinned)


def thin_out(
    rows: Iterable[tuple[int, Sequence[float]]], places: Sequence[int], step_us: int
) -> tuple[tuple[float, ...], list[tuple[float | None, ...]]]:
    """Return times and columns with one value for each step that has records: its newest time; of gauges the
    mean, of counters the newest value. Steps begin at multiples of their width, so that the same records make
    the same points when they are asked for again a little later."""
    times: list[float] = []
    columns: list[list[float | None]] = [[] for _ in places]
    means = [not GAUGES[place].endswith("_total") for place in places]
    current, group = -1, list[tuple[int, Sequence[float]]]()

    def close() -> None:
        times.append(group[-1][0] / 1e6)
        for column, place, mean in zip(columns, places, means, strict=True):
            values = [row[place] for _, row in group if isfinite(row[place])]
            column.append(None if not values else sum(values) / len(values) if mean else values[-1])

    for row in rows:
        step = row[0] // step_us
        if step != current and group:
            close()
            group = []
        current = step
        group.append(row)
    if group:
        close()
    return tuple(times), [tuple(column) for column in columns]


# -- the differences of a run


@Route(
    "GET",
    "/runs/{id}/changes",
    "The differences that a run found, and what became of them.",
    codes=("unavailable",),
)
async def list_changes(call: RouteCall, query: RunChangesQuery) -> RunChangesAnswer:
    """Return the changes that a run found, and what became of them. Raises Refusal(not_found)."""
    return await read_changes(call.services, call.path["id"], query)


async def read_changes(services: Services, wanted: str, query: RunChangesQuery) -> RunChangesAnswer:
    """Return the changes that a run found, and what became of them. Raises Refusal(not_found)."""
    ledger = services.store.ledger
    found = (await ledger.find_run(wanted)) if len(wanted) == 26 else None
    if found is None or found.run_id != wanted:
        if services.run_queue.records.get(wanted) is not None:  # it waits, or has told of nothing yet
            return RunChangesAnswer(total=0, changes=())
        raise Refusal("not_found", f"there is no run {wanted[:64]!r}", hint="see: GET /runs")
    events = await ledger.events(wanted)
    rows = [
        event
        for event in events
        if event["type"] == "change" and (query.target is None or event["target"] == query.target)
    ]
    changes = tuple(convert_fields(row, ChangeRow) for row in rows[: query.limit])
    return RunChangesAnswer(total=len(rows), changes=changes)


ROUTES = (show_client, show_fleet, show_telemetry, list_changes)
