"""diagnostics/*: the running state, as far as the lab runs anything; live figures are constants."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fazai.lab.actions.common import recorded_answer
from fazai.lab.actions.core import service_rows
from fazai.lab.actions.rules import applied_rules
from fazai.lab.box import ActionCall, Box, Handler
from fazai.lab.engine.names import GATEWAYS, INTERFACES, interface_label, interface_name, natural_key
from fazai.lab.engine.search import make_rows, recordset_answer, select_page
from fazai.lab.live.flows import interface_labels, list_log, list_states, matches_state
from fazai.lab.live.processes import list_activity
from fazai.lab.models.interfaces import ROUTES, VIPS, vlan_devices
from fazai.lab.server.wire import LabReply

NO_CARP: Final = "Could not locate any defined CARP interfaces."


def get_interface_names(call: ActionCall) -> Any:
    found = {item["if"]: interface_label(name, item) for name, item in call.box.items(INTERFACES).items()}
    found["lo0"] = "Loopback"
    return {device: found[device] for device in sorted(found, key=lambda device: natural_key(found[device]))}


def get_interface_config(call: ActionCall) -> Any:
    """Show the devices of the machine, and the VLANs that were made of them."""
    return {**recorded_answer(call.box, "interface_config"), **vlan_devices(call.box)}


def search_arp(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(recorded_answer(call.box, "arp")))


def _find_gateway(box: Box, name: str) -> Mapping[str, str] | None:
    known = box.running.items("routing", GATEWAYS) or box.items(GATEWAYS)
    return next((item for item in known.values() if item["name"] == name), None)


def list_routes(call: ActionCall) -> Any:
    """List the static routes that were applied, without the kernel's own."""
    box = call.box
    rows = []
    for item in box.running.items("routes", ROUTES).values():
        gateway = _find_gateway(box, item["gateway"])
        if item["enabled"] != "1":
            continue
        v6 = ":" in item["network"]
        interface = gateway["interface"] if gateway is not None else ""
        device = box.items(INTERFACES).get(interface, {}).get("if", "lo0")
        rows.append(
            {
                "proto": "ipv6" if v6 else "ipv4",
                "destination": item["network"],
                "gateway": gateway["gateway"] if gateway is not None else ("::1" if v6 else "127.0.0.1"),
                "flags": "UGS" if gateway is not None else "UGSB",
                "nhop": "",
                "mtu": "1500",
                "netif": device,
                "expire": "",
                "intf_description": interface_name(box, interface) if interface else "Loopback",
            }
        )
    return rows


def get_vip_status(call: ActionCall) -> Any:
    """List the CARP and alias addresses that were applied."""
    box = call.box
    rows = [
        {
            "interface": interface_name(box, item["interface"]),
            "vhid": item["vhid"],
            "advbase": item["advbase"],
            "advskew": item["advskew"],
            "subnet": item["subnet"],
            "mode": item["mode"],
            "status": "MASTER" if item["mode"] == "carp" else "",
            "status_txt": "MASTER" if item["mode"] == "carp" else "-",
            "vhid_txt": item["vhid"],
        }
        for item in box.running.items("vip", VIPS).values()
    ]
    has_carp = any(row["mode"] == "carp" for row in rows)
    carp = {
        "demotion": "0",
        "allow": "1",
        "maintenancemode": False,
        "status_msg": "" if has_carp else NO_CARP,
    }
    return {**recordset_answer(call, make_rows(rows)), "carp": carp}


def list_rule_ids(call: ActionCall) -> Any:
    """List the labels of the rules that run; none before the first apply."""
    return {
        "items": [
            {"id": uuid, "descr": item["description"]}
            for uuid, item in call.box.running.items("filter", "Firewall.Filter.rules.rule").items()
            if item["enabled"] == "1"
        ]
    }


def get_pf_statistics(call: ActionCall) -> Any:
    section = call.param(0) or "info"
    zero = {"total": 0, "rate": 0}
    table = {"current-entries": {"total": 0}, "searches": zero, "inserts": zero, "removals": zero}
    if section == "rules":
        rules = {
            item["description"]: {"evaluations": "0", "packets": "0"} for item in applied_rules(call.box)
        }
        return {"rules": {"filter rules": rules or []}}
    table["current-entries"] = {"total": len(list_states(call.box))}
    return {section: {"state-table": table}} if section == "info" else {section: []}


def query_states(call: ActionCall) -> Any:
    """List states, a page of those that match."""
    if not call.posted:
        return {"rows": [], "rowCount": 0, "total": 0, "current": 0}
    words = str(call.argument("searchPhrase") or "").split()
    labels = interface_labels(call.box)
    rows = [row for row in list_states(call.box) if matches_state(row, words)]
    for row in rows:
        row["interface"] = labels.get(row["iface"], row["iface"])
    found, total, current = select_page(call, make_rows(rows), searched=False)
    return {"rows": [row.raw for row in found], "rowCount": len(found), "total": total, "current": current}


def read_filter_log(call: ActionCall) -> Any:
    """List the newest lines of the filter log; a limit that is no number is refused by the script behind."""
    if call.method != "GET":
        return None
    limit = str(call.query.get("limit") or 1000)
    return list_log(call.box, int(limit)) if limit.isascii() and limit.isdigit() and len(limit) < 9 else None


def get_activity(call: ActionCall) -> Any:
    names = [row["name"] for row in service_rows(call.box) if row["running"]]
    return list_activity(call.box, names)


def get_information(call: ActionCall) -> Any:
    release = call.box.settings.release
    versions = [f"OPNsense {release}-amd64", "FreeBSD 14.3-RELEASE-p10", "OpenSSL 3.5.7"]
    return {"name": "OPNsense.internal", "versions": versions, "updates": "Click to check for updates."}


def _format_time(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%a %b} {moment.day} {moment:%H:%M:%S} UTC {moment:%Y}"


def get_system_time(call: ActionCall) -> Any:
    box = call.box
    up = int(box.clock() - box.started_at)
    saved = float(box.config.history[-1].number) if box.config.history else box.started_at
    return {
        "uptime": f"{up // 3600:02d}:{up % 3600 // 60:02d}:{up % 60:02d}",
        "datetime": _format_time(box.clock()),
        "boottime": _format_time(box.started_at),
        "config": _format_time(saved),
        "loadavg": "N/A",
    }


def stream_cpu(call: ActionCall) -> Any:
    """Send the first two events as `scripts/system/cpu.py` of opnsense/core prints them.

    The product sends one a second, without end. No recording holds them.
    """
    lines = []
    for user, system in ((2, 1), (4, 2)):
        shares = {"user": user, "nice": 0, "sys": system, "intr": 0, "idle": 100 - user - system}
        event = {"total": user + system, **shares}
        lines.append(f"event: message\ndata: {msgspec.json.encode(event).decode()}\n\n\n")
    return LabReply(200, "".join(lines).encode(), "text/event-stream;charset=UTF-8")


def look_up_address(call: ActionCall) -> Any:
    """Answer for the lab's own address; it knows no other."""
    wanted = str(call.argument("address") or "")
    return {wanted: "localhost" if wanted in ("127.0.0.1", "::1") else wanted}


def get_traffic(call: ActionCall) -> Any:
    return {"interfaces": [], "time": int(call.box.clock())}


def search_log(call: ActionCall) -> Any:
    empty = {"total_rows": 0, "rowCount": 0, "total": 0, "current": 1}
    return {"filters": "", "rows": [], "origin": (call.params or [""])[-1], **empty}


ACTIONS: Final[Mapping[str, Handler]] = {
    "diagnostics/interface/getInterfaceNames": get_interface_names,
    "diagnostics/interface/getInterfaceConfig": get_interface_config,
    "diagnostics/interface/searchArp": search_arp,
    "diagnostics/interface/getRoutes": list_routes,
    "diagnostics/interface/getVipStatus": get_vip_status,
    "diagnostics/system/systemInformation": get_information,
    "diagnostics/system/systemTime": get_system_time,
    "diagnostics/firewall/pfStatistics": get_pf_statistics,
    "diagnostics/firewall/listRuleIds": list_rule_ids,
    "diagnostics/firewall/queryStates": query_states,
    "diagnostics/firewall/log": read_filter_log,
    "diagnostics/activity/getActivity": get_activity,
    "diagnostics/cpu_usage/stream": stream_cpu,
    "diagnostics/traffic/Interface": get_traffic,
    "diagnostics/dns/reverseLookup": look_up_address,
    "diagnostics/log/*": search_log,
}
