"""Rows of DHCP, router advertisements and DNS blocklists."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow, verbs_of

_KEA6 = "page-dhcp-kea-v6"

DHCP: tuple[KindRow, ...] = (
    KindRow(
        short="unbound_dnsbl",
        path="unbound/settings",
        root="blocklist",
        verbs=verbs_of("Dnsbl"),
        service="unbound_dnsbl",
        label="{description}",
        phase=93,
        summary="What Unbound DNS refuses to answer: lists that it fetches, and names of one's own.",
        example=(
            "opnsense.unbound_dnsbl: {description: guests, type: [hgz002],\n"
            "                         allowlists: [ok.example.org], source_nets: [10.20.0.0/24]}"
        ),
    ),
    KindRow(
        short="kea_option",
        path="kea/dhcpv4",
        verbs=verbs_of("Option"),
        label="{description}",
        phase=101,
        summary="An option of Kea's DHCPv4 that subnets and reservations can use.",
        example=(
            "opnsense.kea_option: {description: tftp server, code: 66, encoding: string,\n"
            "                      data: tftp.example.org}"
        ),
    ),
    KindRow(
        short="kea_peer",
        path="kea/dhcpv4",
        verbs=verbs_of("Peer"),
        label="{name}",
        phase=101,
        unique=("url",),
        summary="A server of the high availability of Kea's DHCPv4, this one or another.",
        example='opnsense.kea_peer: {name: fw1, role: primary, url: "http://192.0.2.2:8001/"}',
    ),
    KindRow(
        short="kea6_option",
        path="kea/dhcpv6",
        verbs=verbs_of("Option"),
        own_privilege=_KEA6,
        label="{description}",
        phase=101,
        summary="An option of Kea's DHCPv6 that subnets and reservations can use.",
        example=(
            "opnsense.kea6_option: {description: boot file, code: 59, encoding: string,\n"
            '                       data: "tftp://boot.example.org/pxe"}'
        ),
    ),
    KindRow(
        short="kea6_peer",
        path="kea/dhcpv6",
        verbs=verbs_of("Peer"),
        own_privilege=_KEA6,
        label="{name}",
        phase=101,
        unique=("url",),
        summary="A server of the high availability of Kea's DHCPv6, this one or another.",
        example='opnsense.kea6_peer: {name: fw1, role: primary, url: "http://192.0.2.2:8001/"}',
    ),
    KindRow(
        short="kea6_subnet",
        path="kea/dhcpv6",
        root="subnet6",
        verbs=verbs_of("Subnet"),
        own_privilege=_KEA6,
        label="{subnet}",
        phase=102,
        omit=("subnet_id", "dynamic_prefix"),  # a subnet of a dynamic prefix has no name of its own
        summary="A DHCPv6 subnet of Kea.",
        example=(
            'opnsense.kea6_subnet: {subnet: "2001:db8:1::/64", interface: lan,\n'
            '                       pools: ["2001:db8:1::100-2001:db8:1::1ff"]}'
        ),
    ),
    KindRow(
        short="kea6_reservation",
        path="kea/dhcpv6",
        verbs=verbs_of("Reservation"),
        own_privilege=_KEA6,
        label="{duid}{hw_address}",
        tiebreak=("subnet",),
        one_of=("duid", "hw_address"),
        phase=103,
        unique=("ip_address", "prefix"),
        summary="A DHCPv6 reservation of Kea, by the client's DUID or by its MAC address.",
        example=(
            'opnsense.kea6_reservation: {subnet: "2001:db8:1::/64", ip_address: "2001:db8:1::31",\n'
            '                            duid: "00:03:00:01:52:54:00:00:00:31", hostname: printer}'
        ),
    ),
    KindRow(
        short="kea6_pd_pool",
        path="kea/dhcpv6",
        root="pd_pool",
        verbs=verbs_of("PdPool"),
        own_privilege=_KEA6,
        label="{prefix}/{prefix_len}",
        phase=103,
        summary="A pool of prefixes that Kea's DHCPv6 delegates; pools must not overlap.",
        example=(
            'opnsense.kea6_pd_pool: {prefix: "2001:db8:100::", prefix_len: 48, delegated_len: 56,\n'
            '                        subnet: "2001:db8:1::/64"}'
        ),
    ),
    KindRow(
        short="dnsmasq_tag",
        path="dnsmasq/settings",
        verbs=verbs_of("Tag"),
        label="{tag}",
        phase=103,
        summary="A tag of Dnsmasq's DHCP, by which ranges and options find their clients.",
        example="opnsense.dnsmasq_tag: {tag: voip}",
    ),
    KindRow(
        short="dnsmasq_range",
        path="dnsmasq/settings",
        verbs=verbs_of("Range"),
        label="{interface} {start_addr}",
        tiebreak=("set_tag",),
        phase=104,
        summary="A range of addresses that Dnsmasq gives out, or announces as a prefix.",
        example=(
            "opnsense.dnsmasq_range: {interface: lan, start_addr: 192.168.1.100, end_addr: 192.168.1.199}"
        ),
    ),
    KindRow(
        short="dnsmasq_option",
        path="dnsmasq/settings",
        verbs=verbs_of("Option"),
        label="{type} v4:{option} v6:{option6} {interface}",
        tiebreak=("tag", "set_tag"),
        one_of=("option", "option6"),
        phase=104,
        summary="A DHCP option that Dnsmasq sends to clients, or by which it tags them.",
        example="opnsense.dnsmasq_option: {option: 42, interface: lan, value: 192.168.1.1}",
    ),
    KindRow(
        short="dnsmasq_boot",
        path="dnsmasq/settings",
        verbs=verbs_of("Boot"),
        label="{interface} {filename}",
        tiebreak=("tag",),
        phase=104,
        summary="What Dnsmasq tells clients to boot from.",
        example="opnsense.dnsmasq_boot: {interface: lan, filename: pxe.0, address: 192.168.1.9}",
    ),
    KindRow(
        short="dnsmasq_domain",
        path="dnsmasq/settings",
        root="domainoverride",
        verbs=verbs_of("Domain"),
        label="{domain} to {ip}",
        tiebreak=("srcip",),
        phase=104,
        omit=("ipset",),
        summary='A domain that Dnsmasq asks another server about; `ip: "!"` answers it locally alone.',
        example="opnsense.dnsmasq_domain: {domain: corp.example.org, ip: 10.1.1.53}",
    ),
    KindRow(
        short="dhcp_relay_destination",
        path="dhcrelay/settings",
        verbs=verbs_of("Dest"),
        label="{name}",
        phase=105,
        summary="Servers to which a DHCP relay sends, all of one address family.",
        example="opnsense.dhcp_relay_destination: {name: core, server: [192.0.2.67, 192.0.2.68]}",
    ),
    KindRow(
        short="dhcp_relay",
        path="dhcrelay/settings",
        verbs=verbs_of("Relay"),
        label="{interface}",
        tiebreak=("destination",),
        phase=106,
        needed_on_create=("enabled",),
        summary="A DHCP relay; an interface has one for IPv4 and one for IPv6.",
        example="opnsense.dhcp_relay: {interface: lan, destination: core, enabled: true}",
    ),
    KindRow(
        short="radvd_entry",
        path="radvd/settings",
        root="entries",
        verbs=verbs_of("Entry", "Entry"),
        own_privilege="page-services-router-advertisements",
        label="{interface}",
        phase=106,
        summary="Router advertisements on an interface.",
        example=('opnsense.radvd_entry: {interface: lan, mode: assist, RDNSS: ["2001:db8:1::53"]}'),
    ),
)

_TAG: dict[str, Any] = {"reference": "opnsense.dnsmasq_tag", "doc": "a tag's name"}
_TAGS: dict[str, Any] = {
    "reference": "opnsense.dnsmasq_tag",
    "doc": "names of tags, all of which a client must have",
}
_DATA: dict[str, Any] = {"doc": "as its encoding says; an option of many parts in hex"}
_OPTION: dict[str, dict[str, Any]] = {"data": _DATA, "match_data": _DATA}
_SUBNET6: dict[str, Any] = {"reference": "opnsense.kea6_subnet", "type": "reference"}
_OPTIONS6: dict[str, Any] = {"reference": "opnsense.kea6_option", "doc": "descriptions of options"}
_ENTRIES: dict[str, Any] = {"type": "list"}

#: Facts by kind and field, beyond the device's own.
DHCP_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "unbound_dnsbl": {
        "lists": {"type": "list", "doc": "addresses of lists to fetch"},
        "allowlists": {"type": "list", "doc": "expressions of names that are never refused"},
        "blocklists": _ENTRIES,
        "wildcards": {"type": "list", "doc": "domains that are refused with all below them"},
    },
    "kea_option": _OPTION,
    "kea6_option": _OPTION,
    "kea6_subnet": {
        "subnet": {"required": True},
        "interface": {"doc": "one of those that Kea's DHCPv6 settings select"},
        "option": _OPTIONS6,
        "pools": {"type": "list", "separator": "\n"},
        "option_data.dns_servers": {"in_order": True},
        "option_data.domain_search": {"in_order": True},
        "ddns_domain_key_secret": {"secret": True},
    },
    "kea6_reservation": {
        "subnet": _SUBNET6,
        "duid": {"fold": "case"},
        "option": {**_OPTIONS6, "doc": "descriptions of options; only with a duid"},
        "domain_search": {"in_order": True},
    },
    "kea6_pd_pool": {
        "subnet": _SUBNET6,
        "prefix": {"required": True, "doc": "without its length"},
        "prefix_len": {"required": True},
    },
    "dnsmasq_range": {
        "set_tag": _TAG,
        "end_addr": {"doc": "may only be left out for a static range of IPv4"},
    },
    "dnsmasq_option": {
        "tag": _TAGS,
        "set_tag": {**_TAG, "doc": "the tag that a match gives; only of type match"},
        "option": {"doc": "its number in DHCPv4"},
        "option6": {"doc": "its number in DHCPv6"},
    },
    "dnsmasq_boot": {"tag": _TAGS},
    "dnsmasq_domain": {
        "domain": {"fold": "host"},
        "sequence": {"required": False, "filled": True, "doc": "the next one when left out"},
    },
    "dhcp_relay": {
        "destination": {"reference": "opnsense.dhcp_relay_destination", "type": "reference"},
        "agent_info": {"required": False, "default": "0"},
        "carp_depend_on": {"reference": "opnsense.vip"},
    },
    "radvd_entry": {"RDNSS": {"in_order": True}, "DNSSL": {"in_order": True}},
}
