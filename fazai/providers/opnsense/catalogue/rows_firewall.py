"""Rows of the firewall's kinds: categories, aliases, groups, rules and NAT."""

from __future__ import annotations

from functools import partial

from fazai.providers.opnsense.catalogue.rows import RULE, SETTINGS, KindRow

rule_row = partial(KindRow, root="rule", verbs=RULE, service="filter", ordered=True, out_of_nothing=True)

FIREWALL: tuple[KindRow, ...] = (
    KindRow(
        short="category",
        path="firewall/category",
        label="{name}",
        phase=10,
        own_privilege="page-firewall-categories",
        summary="A category (label) of firewall aliases, rules and NAT rules.",
        example='opnsense.category: {name: managed, color: "ff8800"}',
    ),
    KindRow(
        short="alias",
        path="firewall/alias",
        label="{name}",
        phase=60,
        protected=("bogons", "bogonsv6", "sshlockout", "virusprot", "__*"),
        self_reference="content",
        summary="A firewall alias: a named list of hosts, networks, ports, URLs and the like.",
        example="opnsense.alias: {name: dns_servers, type: host, content: [192.0.2.53, 192.0.2.54]}",
    ),
    KindRow(
        short="interface_group",
        path="firewall/group",
        label="{ifname}",
        phase=50,
        protected=("enc0", "openvpn", "wireguard"),
        before_use=True,
        summary="A group of interfaces that rules can name.",
        example="opnsense.interface_group: {ifname: servers, members: [lan, opt1], descr: server nets}",
    ),
    rule_row(
        short="rule",
        path="firewall/filter",
        label="{description}",
        tiebreak=("ipprotocol", "interface", "direction"),
        phase=80,
        floating="interface",
        summary="A firewall rule; rules stand on the firewall in the order in which they are listed.",
        example=(
            "opnsense.rule: {description: allow dns, interface: [lan], protocol: UDP,\n"
            "                destination_net: 192.0.2.53, destination_port: 53, action: pass}"
        ),
    ),
    KindRow(
        short="source_nat_mode",
        path="firewall/source_nat",
        root="filter.general",
        verbs=SETTINGS,
        label="mode",
        service="filter",
        phase=81,
        own_privilege="page-filter-snat-api",
        settings=True,
        summary="How source NAT rules come about: automatic, hybrid, advanced (manual) or disabled.",
        example="opnsense.source_nat_mode: {mode: hybrid}",
    ),
    rule_row(
        short="source_nat",
        path="firewall/source_nat",
        label="{description}",
        tiebreak=("ipprotocol", "interface"),
        phase=82,
        own_privilege="page-filter-snat-api",
        hidden_by="opnsense.source_nat_mode",
        summary="A source NAT rule. It takes effect only in the modes hybrid and advanced.",
        example=(
            "opnsense.source_nat: {description: masquerade lab, interface: wan, source_net: 10.0.0.0/8,\n"
            "                      target: wanip}"
        ),
    ),
    rule_row(
        short="one_to_one",
        path="firewall/one_to_one",
        label="{description}",
        tiebreak=("interface",),
        phase=83,
        own_privilege="page-firewall-nat-1-1-edit",
        summary="A one-to-one NAT rule.",
        example=(
            "opnsense.one_to_one: {description: mail, interface: wan, external: 192.0.2.20,\n"
            "                      source_net: 192.168.1.20}"
        ),
    ),
    rule_row(
        short="npt",
        path="firewall/npt",
        label="{description}",
        tiebreak=("interface",),
        phase=84,
        own_privilege="page-firewall-nat-npt",
        summary="A network prefix translation (NPTv6) rule.",
        example=(
            'opnsense.npt: {description: lan prefix, interface: wan, source_net: "fd00:1::/64",\n'
            '               destination_net: "2001:db8:1::/64"}'
        ),
    ),
    rule_row(
        short="dnat",
        path="firewall/d_nat",
        label="{descr}",
        tiebreak=("ipprotocol", "interface"),
        phase=85,
        own_privilege="page-firewall-nat-portforward-edit",
        omit=(
            "associated-rule-id",
            "created.username",
            "created.time",
            "created.description",
            "updated.username",
            "updated.time",
            "updated.description",
        ),
        summary="A destination NAT rule (port forward). It is switched off with `disabled`, not `enabled`.",
        example=(
            "opnsense.dnat: {descr: https to web, interface: [wan], ipprotocol: inet, protocol: tcp,\n"
            "                destination: {network: wanip, port: 443}, target: 192.168.1.50, local-port: 443}"
        ),
    ),
)
