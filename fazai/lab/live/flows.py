"""Connections through a firewall of the lab: the states of pf, the filter log, the counters of rules.

All of it is made up by a generator that `LabSettings.traffic` seeds; 0: nothing goes through, as through the
recorded firewall. Rows are as `scripts/filter/lib/states.py`, `read_log.py` and `rule_stats.py` of
opnsense/core print them; what is let through, and what is logged, is what the rules that run say.
"""

from __future__ import annotations

import datetime
import ipaddress
import random
from collections.abc import Iterator, Mapping, Sequence
from hashlib import md5
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.names import INTERFACES, interface_label
from fazai.lab.engine.schema import read_json
from fazai.lab.live.chance import chance_of
from fazai.lab.models.rules import RULES, order_of

_OUTSIDE: Final = ("198.51.100.10", "198.51.100.77", "203.0.113.5", "203.0.113.80", "203.0.113.200")
_SERVICES: Final = (
    ("tcp", "443"),
    ("tcp", "443"),
    ("tcp", "80"),
    ("udp", "53"),
    ("udp", "123"),
    ("tcp", "22"),
)
_SCANNED: Final = ("22", "23", "445", "3389", "8080")
_TCP: Final = (
    "ESTABLISHED:ESTABLISHED",
    "ESTABLISHED:ESTABLISHED",
    "FIN_WAIT_2:FIN_WAIT_2",
    "TIME_WAIT:TIME_WAIT",
)
_EVERY_S: Final = 7  # a line of the log
_MOST_LINES: Final = 5000

Rules = Sequence[tuple[str, Item]]


def _running_rules(box: Box) -> Rules:
    """Return the enabled rules that run, in their order."""
    items = box.running.items("filter", RULES).items()
    return sorted(
        ((uuid, item) for uuid, item in items if item["enabled"] == "1"),
        key=lambda row: order_of(box, row[1])[1],
    )


def _inside(box: Box, rules: Rules) -> list[tuple[str, Item, str, Item]]:
    """Return the rules that let an interface's own hosts out, each with that interface."""
    interfaces = box.items(INTERFACES)
    return [
        (uuid, rule, rule["interface"], interfaces[rule["interface"]])
        for uuid, rule in rules
        if rule["action"] == "pass"
        and rule["direction"] == "in"
        and rule["ipprotocol"] != "inet6"
        and rule["interface"] in interfaces
        and rule["interface"] != "wan"
        and _has_network(interfaces[rule["interface"]])
    ]


def _has_network(interface: Item) -> bool:
    return "." in interface.get("ipaddr", "") and interface.get("subnet", "").isdigit()


def _host_of(interface: Item, chance: random.Random) -> str:
    network = ipaddress.ip_network(f"{interface['ipaddr']}/{interface['subnet']}", strict=False)
    return str(network[chance.randrange(10, 100) % max(network.num_addresses - 1, 1)])


# -- states


def list_states(box: Box) -> list[dict[str, Any]]:
    """Return the states of pf, without the label of the interface that the API adds."""
    rules = _inside(box, _running_rules(box))
    if not box.settings.traffic or not rules:
        return []
    chance = chance_of(box, "states")
    wan = box.items(INTERFACES).get("wan", {})
    out = _automatic_rule("let out anything from firewall host itself")
    rows = []
    for number in range(chance.randrange(12, 30)):
        uuid, rule, _, interface = chance.choice(rules)
        protocol, port = chance.choice(_SERVICES)
        inside = (_host_of(interface, chance), str(chance.randrange(20_000, 60_000)))
        packets = [chance.randrange(1, 900), chance.randrange(1, 900)]
        dst = {"dst_addr": chance.choice(_OUTSIDE), "dst_port": port, "gateway": None}
        both = {
            "proto": protocol,
            "ipproto": "ipv4",
            "flags": [],
            **dst,
            "state": chance.choice(_TCP) if protocol == "tcp" else "MULTIPLE:MULTIPLE",
            "age": f"{chance.randrange(0, 9):02d}:{chance.randrange(60):02d}:{chance.randrange(60):02d}",
            "expires": f"00:{chance.randrange(60):02d}:{chance.randrange(60):02d}",
            "pkts": packets,
            "bytes": [packets[0] * 120, packets[1] * 900],
        }
        source = {"src_addr": inside[0], "src_port": inside[1], "nat_addr": None, "nat_port": None}
        about = {"label": uuid, "descr": rule["description"], "iface": interface["if"], "direction": "in"}
        rows.append({**about, **both, **source, "id": f"{2 * number:08x}9cc1f666/5d1a3a6b"})
        source = {"src_addr": wan.get("ipaddr", "192.0.2.2"), "src_port": inside[1]}
        source |= {"nat_addr": inside[0], "nat_port": inside[1]}
        about = {"label": out["uuid"], "descr": out["description"], "iface": wan.get("if", "vtnet0")}
        rows.append(
            {**about, "direction": "out", **both, **source, "id": f"{2 * number + 1:08x}9cc1f666/5d1a3a6b"}
        )
    return rows


def _automatic_rule(description: str) -> Mapping[str, Any]:
    """Return the first rule of the product's own that is described so."""
    rules = read_json("automatic.json")["filter"]
    return next(rule for rule in rules if rule["description"] == description)


def matches_state(row: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Return whether all words fit a state: networks its addresses, others any part of it."""
    text = " ".join(str(value) for value in row.values() if value)
    for word in words:
        try:
            network = ipaddress.ip_network(word)
        except ValueError:
            if word not in text:
                return False
            continue
        sides = [row[side] for side in ("src_addr", "dst_addr", "nat_addr") if row[side]]
        if not any(ipaddress.ip_address(side) in network for side in sides):
            return False
    return True


def count_rules(box: Box) -> dict[str, dict[str, int]]:
    """Return the counters of the rules that run, by their label; none without traffic."""
    if not box.settings.traffic:
        return {}
    states = list_states(box)
    labels = [uuid for uuid, _ in _running_rules(box)] + [row["label"] for row in states]
    found = {
        uuid: {"pf_rules": 1, "evaluations": 100 + place, "packets": 0, "bytes": 0, "states": 0}
        for place, uuid in enumerate(dict.fromkeys(labels))
    }
    for row in states:
        counters = found[row["label"]]
        counters["packets"] += sum(row["pkts"])
        counters["bytes"] += sum(row["bytes"])
        counters["states"] += 1
    return found


# -- the log


def list_log(box: Box, limit: int) -> list[dict[str, Any]]:
    """Return lines of the filter log, the newest first: one every seven seconds, always the same one for the
    same moment."""
    if not box.settings.traffic or limit < 0:
        return []
    newest = int(box.clock()) // _EVERY_S
    return [
        line
        for _, line in zip(range(min(limit or _MOST_LINES, _MOST_LINES)), _lines(box, newest), strict=False)
    ]


def _lines(box: Box, newest: int) -> Iterator[dict[str, Any]]:
    logged = [row for row in _inside(box, _running_rules(box)) if row[1]["log"] == "1"]
    denied = _automatic_rule("Default deny / state violation rule")
    wan = box.items(INTERFACES).get("wan", {})
    for moment in range(newest, newest - _MOST_LINES, -1):
        chance = chance_of(box, moment)
        scan = chance.random() < 0.6 or not logged
        if scan:
            port, protocol = chance.choice(_SCANNED), "tcp"
            ends = (chance.choice(_OUTSIDE), wan.get("ipaddr", "192.0.2.2"))
            rule = ("block", denied["uuid"], denied["description"], wan.get("if", "vtnet0"))
        else:
            uuid, item, _, interface = chance.choice(logged)
            protocol, port = chance.choice(_SERVICES)
            ends = (_host_of(interface, chance), chance.choice(_OUTSIDE))
            rule = ("pass", uuid, item["description"], interface["if"])
        yield _line(moment * _EVERY_S, rule, ends, (protocol, str(chance.randrange(20_000, 60_000)), port))


def _line(
    seconds: int, rule: tuple[str, str, str, str], ends: tuple[str, str], over: tuple[str, str, str]
) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    (action, rid, label, device), (protocol, source_port, port) = rule, over
    found = {
        **dict.fromkeys(("rulenr", "subrulenr", "anchorname"), ""),
        "rid": rid,
        "interface": device,
        "reason": "match",
        "action": action,
        "dir": "in",
        "ipversion": "4",
        "tos": "0x0",
        "ecn": "",
        "ttl": "52",
        "id": str(seconds % 65_536),
        "offset": "0",
        "ipflags": "DF",
        "protonum": "6" if protocol == "tcp" else "17",
        "protoname": protocol,
        "length": "60",
        "src": ends[0],
        "dst": ends[1],
        "srcport": source_port,
        "dstport": port,
        "datalen": "0",
    }
    if protocol == "tcp":
        found |= {"tcpflags": "S", "seq": str(seconds), "ack": "", "urp": "64240", "tcpopts": "mss"}
    line = f"{seconds} {rid} {ends}"
    return {
        **found,
        "__timestamp__": f"{moment:%Y-%m-%dT%H:%M:%S}",
        "__host__": "OPNsense.internal",
        "__digest__": md5(line.encode(), usedforsecurity=False).hexdigest(),
        "__spec__": list(found),
        "label": label,
    }


def interface_labels(box: Box) -> dict[str, str]:
    """Return by device the labels with which the API names interfaces."""
    found = {item["if"]: interface_label(name, item) for name, item in box.items(INTERFACES).items()}
    return {"lo0": "loopback", **found}
