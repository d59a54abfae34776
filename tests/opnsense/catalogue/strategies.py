"""Random resources that a firewall accepts, for every kind."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

Fields = dict[str, Any]
Made = st.SearchStrategy[Fields]

NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta", "Epsilon", "zeta_9", "eta", "theta"])
TEXT = st.text(st.sampled_from("abcXYZ 09-_.äß東<&>\"'"), max_size=20).map(str.strip)
BOOL = st.booleans()
INTERFACE = st.sampled_from(["lan", "wan", "opt1"])
V4 = st.integers(0, 2**24 - 2).map(lambda n: str(ipaddress.IPv4Address(0x0A000001 + n)))
V4_NET = st.tuples(st.integers(0, 2**16 - 1), st.integers(8, 30)).map(
    lambda pair: str(ipaddress.ip_network((0x0A000000 + (pair[0] << 8), pair[1]), strict=False))
)
V6 = st.integers(1, 2**16 - 1).flatmap(
    lambda n: st.sampled_from([f"2001:db8::{n:x}", f"2001:DB8:0:0::{n:X}", f"2001:0db8:0000::{n:04x}"])
)
PORT = st.integers(1, 65535)
PORT_RANGE = st.tuples(PORT, PORT).map(lambda pair: f"{min(pair)}-{max(pair)}")
DOMAIN = st.sampled_from(["example.org", "Lab.Example.org", "corp.test"])


def record(required: Mapping[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> Made:
    """A mapping with all of the required and some of the optional fields (`_` for `-`, `__` for `.`)."""
    names = {name.replace("__", ".").replace("_minus_", "-"): made for name, made in optional.items()}
    return st.fixed_dictionaries(dict(required), optional=names)


def entries(made: st.SearchStrategy[Any], least: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(made, min_size=least, max_size=5)


def alias_of(kind: str, content: st.SearchStrategy[Any]) -> Made:
    return record(
        {"name": NAMES, "type": st.just(kind), "content": content},
        enabled=BOOL,
        description=TEXT,
        counters=BOOL,
        categories=st.just(["tests"]),
    )


ALIAS = st.one_of(
    alias_of("host", entries(st.one_of(V4, V6, st.just("www.Example.org"), st.just("10.0.0.1-10.0.0.9")))),
    alias_of("network", entries(st.one_of(V4_NET, V4_NET.map("!".__add__), V6.map("{}/64".format)))),
    alias_of("port", entries(st.one_of(PORT, st.just("8000:8100")))),
    alias_of("urltable", st.just(["https://lists.example.org/Drop.txt"])),
    alias_of("mac", entries(st.sampled_from(["52:54:00:AA:bb:cc", "52:54:00"]))),
    alias_of("geoip", st.just(["NL", "DE"])),
)


def rule_fields(**more: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "enabled": BOOL,
        "log": BOOL,
        "quick": BOOL,
        "action": st.sampled_from(["pass", "block", "reject"]),
        "interface": st.lists(INTERFACE, max_size=2, unique=True),
        "direction": st.sampled_from(["in", "out"]),
        "source_net": st.one_of(V4_NET, V4, st.sampled_from(["any", "lan", "(self)"])),
        "source_not": BOOL,
        "categories": st.just(["tests"]),
        **more,
    }


NO_PORTS: dict[str, st.SearchStrategy[Any]] = {
    "source_port": st.none(),
    "destination_port": st.none(),
}  # a field that is left out stays as it is
NO_ICMP: dict[str, st.SearchStrategy[Any]] = {"icmptype": st.just([])}
RULE = st.one_of(
    record({"description": NAMES, "protocol": st.just("any"), **NO_PORTS, **NO_ICMP}, **rule_fields()),
    record(
        {
            "description": NAMES,
            "protocol": st.sampled_from(["tcp", "UDP", "TCP/UDP"]),
            **NO_ICMP,
        },
        **rule_fields(destination_port=st.one_of(PORT, PORT_RANGE, st.just("HTTPS")), source_port=PORT),
    ),
    record(
        {
            "description": NAMES,
            "protocol": st.just("icmp"),
            "icmptype": st.just(["echoreq", "timex"]),
            **NO_PORTS,
        },
        **rule_fields(),
    ),
)
SOURCE_NAT = record(
    {"description": NAMES, "interface": INTERFACE},
    source_net=V4_NET,
    target=st.one_of(st.just("wanip"), V4),
    nonat=BOOL,
    staticnatport=BOOL,
    log=BOOL,
    enabled=BOOL,
    categories=st.just("tests"),
)
ONE_TO_ONE = record(
    {"description": NAMES, "interface": INTERFACE, "external": V4, "source_net": V4},
    natreflection=st.sampled_from(["", "enable", "disable"]),
    type=st.sampled_from(["binat"]),
    log=BOOL,
)
NPT = record(
    {
        "description": NAMES,
        "interface": INTERFACE,
        "source_net": st.just("fd00:1::/64"),
        "destination_net": st.just("2001:db8:1::/64"),
    },
    log=BOOL,
    enabled=BOOL,
)
DNAT = record(
    {
        "descr": NAMES,
        "interface": st.just(["wan"]),
        "protocol": st.sampled_from(["TCP", "udp"]),
        "target": V4,
        "destination": st.fixed_dictionaries({"network": st.just("wanip"), "port": PORT}),
    },
    local_minus_port=PORT,
    disabled=BOOL,
    log=BOOL,
    source__not=BOOL,
    category=st.just(["tests"]),
    tag=st.just("t1"),
    ipprotocol=st.just("inet"),
)
HOST = st.one_of(
    record(
        {"hostname": NAMES, "domain": DOMAIN, "server": V4},
        rr=st.just("A"),
        enabled=BOOL,
        addptr=BOOL,
        ttl=st.integers(0, 86400),
        description=TEXT,
    ),
    record({"hostname": NAMES, "domain": DOMAIN, "server": V6, "rr": st.just("AAAA")}, description=TEXT),
    record(
        {
            "domain": DOMAIN,
            "rr": st.just("MX"),
            "mx": st.just("mail.example.org"),
            "mxprio": st.integers(1, 90),
        }
    ),
    record(
        {
            "hostname": NAMES,
            "domain": DOMAIN,
            "rr": st.just("TXT"),
            "txtdata": st.sampled_from(["v=spf1 -all", "x"]),
        }
    ),
)
VIP = record(
    {
        "interface": INTERFACE,
        "network": V4.map("{}/32".format),
        "mode": st.sampled_from(["ipalias", "proxyarp"]),
    },
    descr=TEXT,
    nobind=BOOL,
    noexpand=BOOL,
)
SYSLOG = record(
    {"hostname": st.one_of(V4, st.just("log.example.org")), "transport": st.sampled_from(["udp4", "tcp6"])},
    port=PORT,
    program=st.lists(st.sampled_from(["filterlog", "unbound", "audit"]), unique=True),
    rfc5424=BOOL,
    level=st.lists(st.sampled_from(["info", "warn", "err"]), unique=True),
    description=TEXT,
)

KINDS: Mapping[str, Made] = {
    "opnsense.category": record({"name": NAMES}, color=st.sampled_from(["ff8800", "00AAFF", ""]), auto=BOOL),
    "opnsense.alias": ALIAS,
    "opnsense.interface_group": record(
        {
            "ifname": NAMES.filter(lambda name: not name[-1].isdigit()),
            "members": st.lists(INTERFACE, min_size=1, unique=True),
        },
        descr=TEXT,
        nogroup=BOOL,
        sequence=st.integers(0, 9999),
    ),
    "opnsense.rule": RULE,
    "opnsense.source_nat_mode": record(
        {"mode": st.sampled_from(["automatic", "hybrid", "advanced", "disabled"])}
    ),
    "opnsense.source_nat": SOURCE_NAT,
    "opnsense.one_to_one": ONE_TO_ONE,
    "opnsense.npt": NPT,
    "opnsense.dnat": DNAT,
    "opnsense.vlan": record(
        {"if": st.sampled_from(["vtnet3", "vtnet2"]), "tag": st.integers(1, 4094)},
        descr=TEXT,
        pcp=st.integers(0, 7),
        proto=st.sampled_from(["", "802.1q"]),
    ),
    "opnsense.vip": VIP,
    "opnsense.gateway": record(
        {"name": NAMES, "interface": st.just("lan"), "gateway": V4, "ipprotocol": st.just("inet")},
        descr=TEXT,
        priority=st.integers(0, 255),
        weight=st.integers(1, 10),
        monitor_disable=BOOL,
        disabled=st.just(False),
        defaultgw=BOOL,
    ),
    "opnsense.route": record(
        {"network": V4_NET, "gateway": st.sampled_from(["WAN_GW", "Null4"])}, descr=TEXT, enabled=BOOL
    ),
    "opnsense.unbound_host": HOST,
    "opnsense.unbound_alias": record(
        {"host": st.just("base.example.org"), "hostname": NAMES, "domain": DOMAIN},
        description=TEXT,
        enabled=BOOL,
    ),
    "opnsense.unbound_forward": record(
        {"server": st.one_of(V4, V6)},
        domain=DOMAIN,
        port=PORT,
        forward_first=BOOL,
        enabled=BOOL,
        verify=st.just("dns.Example.org"),
    ),
    "opnsense.unbound_dot": record(
        {"server": st.one_of(V4, V6)},
        domain=DOMAIN,
        port=PORT,
        forward_tcp_upstream=BOOL,
        enabled=BOOL,
        verify=st.just("dns.Example.org"),
    ),
    "opnsense.unbound_acl": record(
        {"name": NAMES, "networks": entries(V4_NET), "action": st.sampled_from(["allow", "Refuse", "deny"])},
        description=TEXT,
        enabled=BOOL,
    ),
    "opnsense.cron_job": record(
        {"description": NAMES, "command": st.sampled_from(["firmware poll", "filter update bogons"])},
        minutes=st.integers(0, 59),
        hours=st.sampled_from(["*", "1-4", 3]),
        enabled=BOOL,
    ),
    "opnsense.syslog_destination": SYSLOG,
    "opnsense.user": record(
        {"name": NAMES, "password": st.just("Secret-123-x")},
        descr=TEXT,
        disabled=BOOL,
        email=st.just("a@example.org"),
        priv=st.just(["page-firewall-alias-edit"]),
    ),
    "opnsense.group": record(
        {"name": NAMES.map("g{}".format)},
        description=TEXT,
        member=st.just(["root"]),
        priv=st.lists(st.sampled_from(["page-firewall-aliases", "page-all"]), unique=True),
    ),
}

MORE_KINDS: Mapping[str, Made] = {
    "opnsense.shaper_pipe": record(
        {"description": NAMES, "bandwidth": st.integers(1, 900)},
        bandwidthMetric=st.sampled_from(["Kbit", "mbit"]),
        mask=st.sampled_from(["none", "src-ip"]),
        enabled=BOOL,
        delay=st.integers(1, 3000),
    ),
    "opnsense.kea_subnet": record(
        {
            "subnet": st.integers(0, 200).map("10.77.{}.0/24".format),
            "option_data": st.fixed_dictionaries(
                {"routers": entries(V4), "domain_name_servers": st.just(["10.0.0.9", "10.0.0.2"])}
            ),
            "option_data_autocollect": st.just(False),
        },
        valid_lifetime=st.integers(60, 86400),
        description=TEXT,
    ),
    "opnsense.kea_reservation": st.integers(2, 250).flatmap(
        lambda number: record(
            {
                "subnet": st.just("10.78.0.0/24"),
                "hw_address": st.just(f"52:54:00:AA:bb:{number:02x}"),
                "ip_address": st.just(f"10.78.0.{number}"),
            },
            hostname=NAMES.map(str.lower).filter(str.isalpha),
            description=TEXT,
        )
    ),
    "opnsense.dnsmasq_host": record(
        {"host": NAMES.filter(str.isalpha), "domain": DOMAIN, "ip": entries(V4)},
        descr=TEXT,
        local=BOOL,
        ignore=BOOL,
    ),
    "opnsense.monit_test": record(
        {
            "name": NAMES,
            "type": st.just("SystemResource"),
            "condition": st.integers(1, 9).map("loadavg (1min) > {}".format),
            "action": st.sampled_from(["alert", "restart"]),
        }
    ),
    "opnsense.monit_service": record(
        {"name": NAMES, "type": st.just("filesystem"), "path": st.just("/data")},
        enabled=BOOL,
        description=TEXT,
        tests=st.lists(st.sampled_from(["SpaceUsage"]), unique=True),
    ),
}
ALL_KINDS: Mapping[str, Made] = {**KINDS, **MORE_KINDS}

#: What must be there for the others to name.
GROUND: tuple[tuple[str, Fields], ...] = (
    ("opnsense.category", {"name": "tests"}),
    ("opnsense.kea_subnet", {"subnet": "10.78.0.0/24", "option_data_autocollect": True}),
    ("opnsense.unbound_host", {"hostname": "base", "domain": "example.org", "server": "10.0.0.1"}),
)


def several(
    kind: str, identify: Callable[[Fields], object], least: int = 1
) -> st.SearchStrategy[list[Fields]]:
    """A few resources of one kind, each with an identity of its own."""
    return st.lists(
        ALL_KINDS[kind], min_size=least, max_size=5, unique_by=lambda fields: str(identify(fields))
    )
