"""unbound: what the running resolver says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure
from fazai.lab.box import Call, Handler
from fazai.lab.engine.config import Item
from fazai.lab.models.unbound import ALIASES, HOSTS, fqdn

__all__ = ["ACTIONS"]


def dnsbl(call: Call) -> Any:
    return {"status": "ok"} if call.posted else {"status": "failed"}


def local_data(call: Call) -> Any:
    """The records that the running resolver answers by itself: one for each enabled host and alias."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    hosts = running.items("unbound", HOSTS)
    rows = []
    for item in hosts.values():
        if item["enabled"] == "1":
            rows += _records(fqdn(item), item)
    for alias in running.items("unbound", ALIASES).values():
        host = hosts.get(alias["host"])
        if alias["enabled"] == "1" and host is not None and host["enabled"] == "1":
            rows += _records(fqdn(alias), host)
    return {"status": "ok", "data": rows}


def _records(name: str, item: Item) -> list[dict[str, str]]:
    kind = item["rr"]
    value = {"MX": f"{item['mxprio']} {item['mx']}.", "TXT": f'"{item["txtdata"]}"'}.get(kind, item["server"])
    return [{"name": f"{name}.", "ttl": item["ttl"] or "3600", "type": "IN", "rrtype": kind, "value": value}]


def local_zones(call: Call) -> Any:
    """The zones of the records above."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    zones = {item["domain"] for item in running.items("unbound", HOSTS).values() if item["enabled"] == "1"}
    return {"status": "ok", "data": [{"zone": f"{zone}.", "type": "transparent"} for zone in sorted(zones)]}


ACTIONS: Final[Mapping[str, Handler]] = {
    "unbound/service/dnsbl": dnsbl,
    "unbound/service/reconfigureGeneral": reconfigure("unbound"),
    "unbound/diagnostics/listlocaldata": local_data,
    "unbound/diagnostics/listlocalzones": local_zones,
}
