"""unbound: the state of the running resolver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.config import Item
from fazai.lab.models.unbound import ALIASES, HOSTS, host_fqdn


def list_local_data(call: ActionCall) -> Any:
    """List the records that the resolver answers by itself: one for each enabled host and alias."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    hosts = running.items("unbound", HOSTS)
    rows = []
    for item in hosts.values():
        if item["enabled"] == "1":
            rows += _records_of(host_fqdn(item), item)
    for alias in running.items("unbound", ALIASES).values():
        host = hosts.get(alias["host"])
        if alias["enabled"] == "1" and host is not None and host["enabled"] == "1":
            rows += _records_of(host_fqdn(alias), host)
    return {"status": "ok", "data": rows}


def _records_of(name: str, item: Item) -> list[dict[str, str]]:
    kind = item["rr"]
    value = {"MX": f"{item['mxprio']} {item['mx']}.", "TXT": f'"{item["txtdata"]}"'}.get(kind, item["server"])
    return [{"name": f"{name}.", "ttl": item["ttl"] or "3600", "type": "IN", "rrtype": kind, "value": value}]


def list_local_zones(call: ActionCall) -> Any:
    """List the zones of the records above."""
    running = call.box.running
    if running.services.get("unbound") != "running":
        return {"status": "failed"}
    zones = {item["domain"] for item in running.items("unbound", HOSTS).values() if item["enabled"] == "1"}
    return {"status": "ok", "data": [{"zone": f"{zone}.", "type": "transparent"} for zone in sorted(zones)]}


ACTIONS: Final[Mapping[str, Handler]] = {
    "unbound/diagnostics/listlocaldata": list_local_data,
    "unbound/diagnostics/listlocalzones": list_local_zones,
}
