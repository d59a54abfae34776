"""Reads the state of a firewall: version, uptime, memory, states, interfaces, CPU.

The calls are those of the recordings (`diagnostics`, `core`, `interfaces/overview`), and one that they do not
hold: `diagnostics/cpu_usage/stream`, as its controller and `scripts/system/cpu.py` of opnsense/core answer
it. A figure that the firewall does not give, or does not let this key read, is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fazai.errors import DeviceError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.reading.values import parse_count

MAX_NOTICES = 100
_RELEASE = re.compile(r"OPNsense\s+(\S+?)(?:-(?:amd64|arm64|aarch64))?")
_UPTIME = re.compile(r"(?:([0-9]{1,6}) days?, )?([0-9]{1,4}):([0-9]{2}):([0-9]{2})")
_MOMENT = "%a %b %d %H:%M:%S %Z %Y"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One interface. Counters are since the firewall started; None: it did not say."""

    name: str
    device: str
    status: str
    description: str = ""
    addresses: tuple[str, ...] = ()
    received_bytes: int | None = None
    sent_bytes: int | None = None
    received_packets: int | None = None
    sent_packets: int | None = None
    receive_errors: int | None = None
    send_errors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The figures of one round."""

    hostname: str | None = None
    version: str | None = None
    uptime_s: int | None = None
    config_changed: float | None = None
    load1: float | None = None
    cpu_ratio: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    states: int | None = None
    interfaces: tuple[Interface, ...] = ()

    @property
    def memory_ratio(self) -> float | None:
        if not self.memory_total_bytes or self.memory_used_bytes is None:
            return None
        return self.memory_used_bytes / self.memory_total_bytes


async def read_vitals(api: Api) -> Vitals:
    """Read all figures once.

    Raises Unreachable, AccessDenied (a wrong key), and DeviceError when the first call is refused: a firewall
    that does not even say what it is, is not watched.
    """
    found = _parse_information(await api.get("diagnostics/system/systemInformation"))
    for path, parse in _OPTIONAL.items():
        found |= await _ask_optional(api.get(path), parse)
    with suppress(DeviceError):
        found["interfaces"] = await read_interfaces(api)
    found |= await _ask_optional(api.stream("diagnostics/cpu_usage/stream", 2), _parse_cpu)
    return Vitals(**found)


async def _ask_optional(asked: Awaitable[Any], parse: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return what an answer says; nothing when the call is refused, or the answer is not as expected."""
    try:
        return parse(await asked)  # deadline: that of the request
    except (DeviceError, LookupError, TypeError, ValueError, AttributeError):
        return {}


async def read_interfaces(api: Api) -> tuple[Interface, ...]:
    """Read the assigned interfaces with their counters. Raises as `Api.get`."""
    listed = await api.get("interfaces/overview/interfacesInfo")
    rows = _value_at(listed, "rows")
    if not isinstance(rows, list):
        raise DeviceError("the firewall listed no interfaces", where=api.settings.target)
    found = [_parse_interface(row) for row in rows if isinstance(row, dict) and row.get("identifier")]
    try:
        answer = await api.get("diagnostics/interface/getInterfaceStatistics")
    except DeviceError:  # the key may not read them
        return tuple(found)
    counters = _parse_counters(answer)
    return tuple(replace(one, **counters.get(one.device, {})) for one in found)


async def read_health(api: Api) -> dict[str, Any]:
    """Read version, name, status, and the notices behind the status. Raises as `Api.get`."""
    info = _parse_information(await api.get("diagnostics/system/systemInformation"))
    status = await api.get("core/system/status")
    named = _value_at(status, "metadata", "system", "status")
    listed = _value_at(status, "subsystems")
    notices = listed if isinstance(listed, dict) else {}
    return {
        "version": info["version"],
        "hostname": info["hostname"],
        "status": as_one_line(named) if isinstance(named, str) else "OK",  # a bare number: nothing is pending
        "notices": [
            {
                "title": as_one_line(one.get("title", name)),
                "message": as_one_line(one.get("message", "")),
                "status": as_one_line(status) if isinstance(status := one.get("status"), str) else status,
            }
            for name, one in list(notices.items())[:MAX_NOTICES]
            if isinstance(one, dict)
        ],
    }


# -- one answer each


def _value_at(answer: Any, *path: str) -> Any:
    """Return the value under a path of keys; None where there is none."""
    for name in path:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


def _parse_information(answer: Any) -> dict[str, Any]:
    versions = _value_at(answer, "versions")
    listed = versions if isinstance(versions, list) else ()
    text = next((one for one in listed if isinstance(one, str) and "OPNsense" in one), "")
    found = _RELEASE.fullmatch(text)
    name = _value_at(answer, "name")
    return {
        "hostname": as_one_line(name) if name else None,
        "version": as_one_line(found[1]) if found else None,
    }


def _parse_system_time(answer: Any) -> dict[str, Any]:
    found = _UPTIME.fullmatch(str(answer.get("uptime", "")))
    uptime_s = None
    if found is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        uptime_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    load = str(answer.get("loadavg", "")).partition(",")[0]
    return {
        "uptime_s": uptime_s,
        "config_changed": _parse_utc_time(str(answer.get("config", ""))),
        "load1": float(load) if re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", load) else None,
    }


def _parse_utc_time(text: str) -> float | None:
    """Parse `Mon Jan 1 00:00:00 UTC 2024`; None for another zone, whose name cannot be relied on."""
    if " UTC " not in text:
        return None
    try:
        return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _parse_memory(answer: Any) -> dict[str, Any]:
    memory = answer["memory"]
    return {
        "memory_total_bytes": parse_count(memory.get("total")),
        "memory_used_bytes": parse_count(memory.get("used")),
    }


def _parse_cpu(answer: Any) -> dict[str, Any]:
    """Parse the last event: the first is the average since the firewall started."""
    busy = float(answer[-1]["total"]) if len(answer) > 1 else math.nan
    return {"cpu_ratio": min(max(busy / 100, 0.0), 1.0) if math.isfinite(busy) else None}


_OPTIONAL: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "diagnostics/system/systemTime": _parse_system_time,
    "diagnostics/system/systemResources": _parse_memory,
    "diagnostics/firewall/pfStatistics/info": lambda answer: {
        "states": parse_count(answer["info"]["state-table"]["current-entries"]["total"])
    },
}


def _parse_interface(row: Mapping[str, Any]) -> Interface:
    addresses = [
        as_one_line(one["ipaddr"])
        for listed in (row.get("ipv4"), row.get("ipv6"))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and one.get("ipaddr")
    ]
    return Interface(
        name=as_one_line(row["identifier"]),
        device=as_one_line(row.get("device", "")),
        status=as_one_line(row.get("status") or "unknown"),
        description=as_one_line(row.get("description") or ""),
        addresses=tuple(addresses),
    )


_COUNTERS = {
    "received-bytes": "received_bytes",
    "sent-bytes": "sent_bytes",
    "received-packets": "received_packets",
    "sent-packets": "sent_packets",
    "received-errors": "receive_errors",
    "send-errors": "send_errors",
}


def _parse_counters(answer: Any) -> dict[str, dict[str, Any]]:
    """Return the counters by device, from its own row (`<Link#n>`) among those of its addresses."""
    rows = _value_at(answer, "statistics")
    found: dict[str, dict[str, Any]] = {}
    for row in rows.values() if isinstance(rows, dict) else ():
        if isinstance(row, dict) and str(row.get("network", "")).startswith("<Link"):
            found[str(row.get("name"))] = {
                ours: parse_count(row.get(theirs)) for theirs, ours in _COUNTERS.items()
            }
    return found
