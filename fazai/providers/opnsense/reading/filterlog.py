"""Reads the log of the packet filter: `diagnostics/firewall/log`.

The recording (`diagnostics`) has an empty one; the rows are those of `scripts/filter/read_log.py` of
opnsense/core, newest first, with a time of the firewall's own zone that does not say which (`+02:00` is cut
off). The zone follows from its clock (`diagnostics/system/systemTime`), compared with ours.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fazai.errors import DeviceError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.values import Row, count_at, first_rows, map_at, rows_of, text_at
from fazai.timestamps import utc_now
from fazai.wire.opn import OpnLogAnswer, OpnLogEntry, OpnLogQuery

_QUARTER_S = 900  # zones differ by quarters of an hour
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9:]{8}) \S{1,16} ([0-9]{4})")
_RFC3164 = re.compile(r"([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9:]{8})")


async def read_log(api: Api, query: OpnLogQuery) -> OpnLogAnswer:
    """Read entries of the last `scan` lines that match, newest first. Raises as `Api.get`; DeviceError where
    `since` is asked for and the firewall's clock cannot be read."""
    scan = max(query.scan, query.limit)
    answer = await api.get(f"diagnostics/firewall/log?limit={scan}")
    rows = list(rows_of(answer))[:scan]
    offset = _zone_offset(await _ask(api, "diagnostics/system/systemTime"), utc_now())
    if offset is None and query.since is not None:
        raise DeviceError(
            "the firewall does not tell its clock, by which `since` is compared",
            where=api.settings.target,
            hint="ask without since",
        )
    names = _interface_names(await _ask(api, "interfaces/overview/interfacesInfo"))
    now = utc_now()

    def parse(row: Row) -> OpnLogEntry | None:
        if not _matches_interface(row, query.interface, names):
            return None
        entry = parse_entry(row, names, offset, now)
        return entry if entry is not None and _matches(entry, query) else None

    kept, total = await first_rows(rows, parse, query.limit)
    return OpnLogAnswer(data=kept, total=total, scanned=len(rows))


async def _ask(api: Api, path: str) -> Any:
    """Return an answer that makes entries easier to read; None where the firewall refuses it."""
    try:
        return await api.get(path)
    except DeviceError:
        return None


def parse_entry(
    row: Row, names: Mapping[str, tuple[str, ...]], offset: timedelta | None, now: datetime
) -> OpnLogEntry | None:
    """Parse one row; None for what has no action. `offset`: of the firewall's zone."""
    action = text_at(row, "action")
    if action is None:
        return None
    device, said = text_at(row, "interface"), text_at(row, "__timestamp__")
    time = _parse_time(said or "", offset, now)
    return OpnLogEntry(
        time=time,
        local_time=said if time is None else None,
        action=action,
        interface=names.get(device or "", (device,))[0],
        direction=text_at(row, "dir"),
        protocol=text_at(row, "protoname"),
        source=text_at(row, "src"),
        source_port=text_at(row, "srcport"),
        destination=text_at(row, "dst"),
        port=text_at(row, "dstport"),
        length=count_at(row, "length"),
        reason=text_at(row, "reason"),
        rule=text_at(row, "label"),
        rule_id=text_at(row, "rid"),
    )


# -- what is asked for


def _interface_names(answer: Any) -> dict[str, tuple[str, ...]]:
    """Return by device the names of an interface: its identifier first."""
    found: dict[str, tuple[str, ...]] = {}
    for row in rows_of(map_at(answer).get("rows")):
        device, identifier = text_at(row, "device"), text_at(row, "identifier")
        if device is not None and identifier is not None:
            found[device] = (identifier, *filter(None, (text_at(row, "description"),)))
    return found


def _matches_interface(row: Row, wanted: str | None, names: Mapping[str, tuple[str, ...]]) -> bool:
    if wanted is None:
        return True
    device = text_at(row, "interface") or ""
    return wanted.casefold() in {name.casefold() for name in (device, *names.get(device, ()))}


def _matches(entry: OpnLogEntry, query: OpnLogQuery) -> bool:
    if query.action is not None and entry.action != query.action:
        return False
    if query.port is not None and str(query.port) not in (entry.port, entry.source_port):
        return False
    if query.since is not None and (entry.time is None or entry.time < query.since):
        return False
    return is_address_in(entry.source, query.src) and is_address_in(entry.destination, query.dst)


def is_address_in(address: str | None, wanted: str | None) -> bool:
    """Return whether an address is the wanted one, or in the wanted network; of a text that is neither,
    whether the address begins so."""
    if wanted is None:
        return True
    if address is None:
        return False
    try:
        network = ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return address.startswith(wanted)
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


# -- its clock


def _zone_offset(answer: Any, now: datetime) -> timedelta | None:
    """Return how far the firewall's local time is ahead of UTC, from `Mon Jan 1 00:00:00 CET 2024`: the
    names of zones cannot be relied on."""
    found = _CLOCK.fullmatch(text_at(map_at(answer), "datetime") or "")
    local = _moment(found[4], found[1], found[2], found[3]) if found is not None else None
    if local is None:
        return None
    ahead_s = (local - now.replace(tzinfo=None)).total_seconds()
    offset_s = round(ahead_s / _QUARTER_S) * _QUARTER_S
    return timedelta(seconds=offset_s) if abs(offset_s) <= 14 * 3600 else None


def _moment(year: str, month: str, day: str, clock: str) -> datetime | None:
    if month not in _MONTHS:
        return None
    try:
        return datetime.fromisoformat(f"{year}-{_MONTHS.index(month) + 1:02d}-{int(day):02d}T{clock}")
    except ValueError:
        return None


def _parse_time(said: str, offset: timedelta | None, now: datetime) -> datetime | None:
    """Parse `2026-11-30T17:00:00`, with a zone or without, and `Nov 30 17:00:00`; None where the zone is not
    known."""
    found = _RFC3164.fullmatch(said)
    if found is not None:
        year = now.year
        time = _moment(str(year), found[1], found[2], found[3])
        if time is not None and time > now.replace(tzinfo=None) + timedelta(days=1):
            time = _moment(str(year - 1), found[1], found[2], found[3])
    else:
        try:
            time = datetime.fromisoformat(said)
        except ValueError:
            return None
    try:
        if time is None or time.tzinfo is not None:
            return time.astimezone(UTC) if time is not None else None
        return (time - offset).replace(tzinfo=UTC) if offset is not None else None
    except OverflowError:  # before the year 1 or after 9999
        return None
