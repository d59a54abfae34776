"""The rows of the catalogue: controllers, verbs, identity, order, activation, and every known trap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["EXTRA", "ROWS", "SERVICES", "KindRow", "Service"]


@dataclass(frozen=True, slots=True)
class Service:
    """What makes saved configuration take effect: one POST, and the answer that means done."""

    name: str
    path: str
    summary: str


#: In the order in which they are activated. Since release 26.7 `filter/apply` does not refresh aliases.
SERVICES: tuple[Service, ...] = (
    Service("vlan", "interfaces/vlan_settings/reconfigure", "VLAN devices"),
    Service("vip", "interfaces/vip_settings/reconfigure", "virtual IP addresses"),
    Service("gateway", "routing/settings/reconfigure", "gateways"),
    Service("route", "routes/routes/reconfigure", "static routes"),
    Service("interface_group", "firewall/group/reconfigure", "interface groups"),
    Service("alias", "firewall/alias/reconfigure", "firewall aliases"),
    Service("shaper", "trafficshaper/service/reconfigure", "traffic shaper"),
    Service("filter", "firewall/filter/apply", "firewall rules and NAT"),
    Service("unbound", "unbound/service/reconfigure", "Unbound DNS"),
    Service("kea", "kea/service/reconfigure", "Kea DHCP"),
    Service("dnsmasq", "dnsmasq/service/reconfigure", "Dnsmasq"),
    Service("syslog", "syslog/service/reconfigure", "remote logging"),
    Service("cron", "cron/service/reconfigure", "cron"),
    Service("monit", "monit/service/reconfigure", "Monit"),
)


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind.

    `verbs` are the actions search, get, add, set and del of the controller `path`; `root` is the key of the
    item in a body. `identity` are the fields that name an item and `label` the text made of them; `tiebreak`
    the fields that decide between several items of one identity. `phase` orders kinds: lower ones are written
    first and deleted last. `before_use`: the service must be activated before another kind may name a new item.
    """

    short: str
    path: str
    root: str
    verbs: tuple[str, str, str, str, str]
    identity: tuple[str, ...]
    label: str
    service: str
    phase: int
    summary: str
    example: str
    privilege: str = ""
    tiebreak: tuple[str, ...] = ()
    ordered: bool = False
    create: str = "set"  # "set" under a uuid of our own, or "add" where the controller refuses that
    mark_field: str = ""  # the text field that carries the owner's mark where uuids cannot
    protected: tuple[str, ...] = ()
    before_use: bool = False
    nested: bool = False  # dotted fields are sent as nested objects
    immutable: tuple[str, ...] = ()
    needed_on_create: tuple[str, ...] = ()
    undo: tuple[tuple[str, str], ...] = ()  # sent along when a deleted item is made again
    hidden_by: str = ""  # the setting that hides items from search
    settings: bool = False  # one item of settings: get and set of the whole, nothing is created or deleted
    floating: str = ""  # the field that tells floating from interface rules: sequences count in each apart
    self_reference: str = ""  # the field through which items of this kind name each other
    omit: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()  # fields of which no two items may have the same value, beside the identity
    called: str = ""  # a second name that references may use, where `label` says more than people do

    @property
    def name(self) -> str:
        return f"opnsense.{self.short}"


ITEM = ("searchItem", "getItem", "addItem", "setItem", "delItem")
RULE = ("searchRule", "getRule", "addRule", "setRule", "delRule")
PLAIN = ("search", "get", "add", "set", "del")


def _verbs(name: str, plural: str = "") -> tuple[str, str, str, str, str]:
    return (f"search{plural or name}", f"get{name}", f"add{name}", f"set{name}", f"del{name}")


_CATEGORIES: dict[str, Any] = {"reference": "opnsense.category", "doc": "category names"}

#: What we know of a field beyond the device's own facts.
EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "alias": {
        "content": {"separator": "\n", "doc": "entries; what is valid depends on the type"},
        "categories": _CATEGORIES,
        "password": {"secret": True},
    },
    "rule": {
        "categories": _CATEGORIES,
        "gateway": {"reference": "opnsense.gateway", "key": "name"},
        "replyto": {"reference": "opnsense.gateway", "key": "name"},
        "overload": {"reference": "opnsense.alias"},
        "shaper1": {"reference": "opnsense.shaper_pipe"},
        "shaper2": {"reference": "opnsense.shaper_pipe"},
        "description": {"required": True},
    },
    "source_nat": {
        "categories": _CATEGORIES,
        "description": {"required": True},
        "interface": {"required": True, "default": None},
    },
    "one_to_one": {
        "categories": _CATEGORIES,
        "description": {"required": True},
        "interface": {"required": True, "default": None},
    },
    "npt": {
        "categories": _CATEGORIES,
        "description": {"required": True},
        "interface": {"required": True, "default": None},
    },
    "dnat": {
        "category": {**_CATEGORIES, "key": "name"},
        "descr": {"required": True},
        "target": {"required": True},
    },
    "interface_group": {"sequence": {"default": "0"}},
    "source_nat_mode": {
        "mode": {
            "type": "choice",
            "api": "Option",
            "required": True,
            "source": "snat_mode",
            "choices": ("automatic", "hybrid", "advanced", "disabled"),
        },
    },
    "unbound_host": {"domain": {"fold": "host"}},
    "unbound_alias": {
        "host": {"reference": "opnsense.unbound_host", "type": "reference"},
        "domain": {"fold": "host"},
    },
    "unbound_acl": {"networks": {"required": True}},
    "route": {"gateway": {"reference": "opnsense.gateway", "key": "name", "type": "reference"}},
    "gateway": {"interface": {"required": True, "default": None}, "gateway": {"fold": "address"}},
    "vlan": {"vlanif": {"required": False, "doc": "chosen by the firewall when left out"}},
    "vip": {
        "network": {
            "type": "text",
            "api": "Network",
            "required": True,
            "source": "address",
            "always": True,
            "fold": "address",
            "doc": "address/bits",
        },
        "password": {"secret": True},
    },
    "kea_subnet": {
        "ddns_domain_key_secret": {"secret": True},
        "pools": {"type": "list", "separator": "\n"},
        "option_data.domain_name_servers": {"in_order": True},
        "option_data.domain_search": {"in_order": True},
        "option_data.routers": {"in_order": True},
        "option_data.ntp_servers": {"in_order": True},
        "option_data.time_servers": {"in_order": True},
    },
    "kea_reservation": {
        "subnet": {"reference": "opnsense.kea_subnet", "type": "reference"},
        "hw_address": {"required": True},
        "option_data.domain_name_servers": {"in_order": True},
        "option_data.domain_search": {"in_order": True},
        "option_data.routers": {"in_order": True},
        "option_data.ntp_servers": {"in_order": True},
        "option_data.time_servers": {"in_order": True},
    },
    "dnsmasq_host": {"host": {"required": True}, "domain": {"fold": "host"}},
    "monit_service": {
        "tests": {"reference": "opnsense.monit_test"},
        "depends": {"reference": "opnsense.monit_service"},
    },
    "user": {
        "password": {
            "secret": True,
            "write_once": True,
            "doc": "sent when the user is created; never compared",
        },
        "otp_seed": {"secret": True},
        "authorizedkeys": {"doc": "base64 of the keys, as the API has it"},
    },
    "group": {"member": {"reference": "opnsense.user", "key": "uid", "doc": "user names"}},
    "cron_job": {"command": {"required": True}},
}

_FIREWALL = (
    KindRow(
        short="category",
        path="firewall/category",
        root="category",
        verbs=ITEM,
        identity=("name",),
        label="{name}",
        service="",
        phase=10,
        privilege="page-firewall-categories",
        summary="A category (label) of firewall aliases, rules and NAT rules.",
        example='opnsense.category: {name: managed, color: "ff8800"}',
    ),
    KindRow(
        short="alias",
        path="firewall/alias",
        root="alias",
        verbs=ITEM,
        identity=("name",),
        label="{name}",
        service="alias",
        phase=60,
        privilege="page-firewall-alias-edit",
        protected=("bogons", "bogonsv6", "sshlockout", "virusprot", "__*"),
        self_reference="content",
        summary="A firewall alias: a named list of hosts, networks, ports, URLs and the like.",
        example="opnsense.alias: {name: dns_servers, type: host, content: [192.0.2.53, 192.0.2.54]}",
    ),
    KindRow(
        short="interface_group",
        path="firewall/group",
        root="group",
        verbs=ITEM,
        identity=("ifname",),
        label="{ifname}",
        service="interface_group",
        phase=50,
        privilege="page-interfaces-groups-edit",
        protected=("enc0", "openvpn", "wireguard"),
        before_use=True,
        summary="A group of interfaces that rules can name.",
        example="opnsense.interface_group: {ifname: servers, members: [lan, opt1], descr: server nets}",
    ),
    KindRow(
        short="rule",
        path="firewall/filter",
        root="rule",
        verbs=RULE,
        identity=("description",),
        label="{description}",
        service="filter",
        phase=80,
        privilege="page-filter-api",
        ordered=True,
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
        verbs=("get", "get", "set", "set", "set"),
        identity=(),
        label="mode",
        service="filter",
        phase=81,
        privilege="page-filter-snat-api",
        settings=True,
        summary="How source NAT rules come about: automatic, hybrid, advanced (manual) or disabled.",
        example="opnsense.source_nat_mode: {mode: hybrid}",
    ),
    KindRow(
        short="source_nat",
        path="firewall/source_nat",
        root="rule",
        verbs=RULE,
        identity=("description",),
        label="{description}",
        service="filter",
        phase=82,
        privilege="page-filter-snat-api",
        ordered=True,
        hidden_by="opnsense.source_nat_mode",
        summary="A source NAT rule. It takes effect only in the modes hybrid and advanced.",
        example=(
            "opnsense.source_nat: {description: masquerade lab, interface: wan, source_net: 10.0.0.0/8,\n"
            "                      target: wanip}"
        ),
    ),
    KindRow(
        short="one_to_one",
        path="firewall/one_to_one",
        root="rule",
        verbs=RULE,
        identity=("description",),
        label="{description}",
        service="filter",
        phase=83,
        privilege="page-firewall-nat-1-1-edit",
        ordered=True,
        summary="A one-to-one NAT rule.",
        example=(
            "opnsense.one_to_one: {description: mail, interface: wan, external: 192.0.2.20,\n"
            "                      source_net: 192.168.1.20}"
        ),
    ),
    KindRow(
        short="npt",
        path="firewall/npt",
        root="rule",
        verbs=RULE,
        identity=("description",),
        label="{description}",
        service="filter",
        phase=84,
        privilege="page-firewall-nat-npt",
        ordered=True,
        summary="A network prefix translation (NPTv6) rule.",
        example=(
            'opnsense.npt: {description: lan prefix, interface: wan, source_net: "fd00:1::/64",\n'
            '               destination_net: "2001:db8:1::/64"}'
        ),
    ),
    KindRow(
        short="dnat",
        path="firewall/d_nat",
        root="rule",
        verbs=RULE,
        identity=("descr",),
        label="{descr}",
        service="filter",
        phase=85,
        privilege="page-firewall-nat-portforward-edit",
        ordered=True,
        nested=True,
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

_NETWORK = (
    KindRow(
        short="vlan",
        unique=("vlanif",),
        path="interfaces/vlan_settings",
        root="vlan",
        verbs=ITEM,
        identity=("if", "tag"),
        label="{if} tag {tag}",
        service="vlan",
        phase=20,
        summary="A VLAN on a parent interface.",
        example="opnsense.vlan: {if: vtnet3, tag: 100, descr: guest}",
    ),
    KindRow(
        short="vip",
        unique=("vhid",),
        path="interfaces/vip_settings",
        root="vip",
        verbs=ITEM,
        identity=("interface", "network"),
        label="{interface} {network}",
        service="vip",
        phase=30,
        omit=("subnet", "subnet_bits"),
        summary="A virtual IP address: alias, CARP or proxy ARP.",
        example="opnsense.vip: {interface: lan, mode: ipalias, network: 192.168.1.5/32}",
    ),
    KindRow(
        short="gateway",
        path="routing/settings",
        root="gateway_item",
        verbs=_verbs("Gateway"),
        identity=("name",),
        label="{name}",
        service="gateway",
        phase=40,
        privilege="page-system-gateways",
        immutable=("name",),
        summary="A gateway. Its name cannot be changed.",
        example="opnsense.gateway: {name: LAB_GW, interface: lan, ipprotocol: inet, gateway: 192.168.1.254}",
    ),
    KindRow(
        short="route",
        path="routes/routes",
        root="route",
        verbs=("searchroute", "getroute", "addroute", "setroute", "delroute"),
        identity=("network",),
        label="{network}",
        tiebreak=("gateway",),
        service="route",
        phase=45,
        privilege="page-system-staticroutes",
        summary="A static route through a gateway.",
        example="opnsense.route: {network: 172.16.0.0/12, gateway: WAN_GW, descr: lab nets}",
    ),
    KindRow(
        short="shaper_pipe",
        path="trafficshaper/settings",
        root="pipe",
        verbs=_verbs("Pipe", "Pipes"),
        identity=("description",),
        label="{description}",
        service="shaper",
        phase=70,
        omit=("number", "origin"),
        summary="A pipe (bandwidth limit) of the traffic shaper.",
        example="opnsense.shaper_pipe: {description: guests, bandwidth: 20, bandwidthMetric: Mbit}",
    ),
)

_SERVICES = (
    KindRow(
        short="unbound_host",
        path="unbound/settings",
        root="host",
        verbs=_verbs("HostOverride"),
        identity=("hostname", "domain", "rr", "mx", "txtdata"),
        label="{hostname}.{domain} {rr} {mx}{txtdata}",
        tiebreak=("server",),
        service="unbound",
        phase=90,
        summary="A host override of Unbound DNS. One of each name and record type (MX: and mail host, TXT: and text).",
        example="opnsense.unbound_host: {hostname: nas, domain: home.example.org, rr: A, server: 192.168.1.40}",
    ),
    KindRow(
        short="unbound_alias",
        path="unbound/settings",
        root="alias",
        verbs=_verbs("HostAlias"),
        identity=("hostname", "domain"),
        label="{hostname}.{domain}",
        service="unbound",
        phase=91,
        summary="Another name for a host override of Unbound DNS; `host` is that host's `name.domain`.",
        example="opnsense.unbound_alias: {host: nas.home.example.org, hostname: files, domain: home.example.org}",
    ),
    KindRow(
        short="unbound_forward",
        path="unbound/settings",
        root="dot",
        verbs=_verbs("Forward"),
        identity=("domain", "server"),
        label="{domain} to {server}",
        tiebreak=("port",),
        service="unbound",
        phase=92,
        summary="A server that Unbound DNS asks, for one domain or for everything, plain or over TLS.",
        example=(
            "opnsense.unbound_forward: {type: forward, domain: corp.example.org, server: 10.1.1.53,\n"
            "                           port: 53}"
        ),
    ),
    KindRow(
        short="unbound_acl",
        path="unbound/settings",
        root="acl",
        verbs=_verbs("Acl"),
        identity=("name",),
        label="{name}",
        service="unbound",
        phase=93,
        summary="Who may ask Unbound DNS.",
        example="opnsense.unbound_acl: {name: lan, action: allow, networks: [192.168.1.0/24]}",
    ),
    KindRow(
        short="cron_job",
        path="cron/settings",
        root="job",
        verbs=_verbs("Job", "Jobs"),
        identity=("description",),
        label="{description}",
        service="cron",
        phase=100,
        create="add",
        mark_field="description",
        omit=("origin",),
        summary="A scheduled command. The firewall chooses its uuid, so the description carries the owner's mark.",
        example="opnsense.cron_job: {description: update check, command: firmware poll, minutes: 5, hours: 3}",
    ),
    KindRow(
        short="syslog_destination",
        path="syslog/settings",
        root="destination",
        verbs=_verbs("Destination", "Destinations"),
        identity=("hostname", "port", "transport"),
        label="{hostname}:{port} {transport}",
        tiebreak=("description",),
        service="syslog",
        phase=101,
        summary="A remote syslog server.",
        example="opnsense.syslog_destination: {hostname: 192.168.1.60, transport: udp4, level: [warn, err]}",
    ),
    KindRow(
        short="kea_subnet",
        path="kea/dhcpv4",
        root="subnet4",
        verbs=_verbs("Subnet"),
        identity=("subnet",),
        label="{subnet}",
        service="kea",
        phase=102,
        nested=True,
        omit=("subnet_id", "option"),
        summary="A DHCPv4 subnet of Kea.",
        example=(
            "opnsense.kea_subnet: {subnet: 192.168.1.0/24, pools: [192.168.1.100-192.168.1.199],\n"
            "                      option_data: {routers: [192.168.1.1]}, option_data_autocollect: false}"
        ),
    ),
    KindRow(
        short="kea_reservation",
        unique=("ip_address",),
        path="kea/dhcpv4",
        root="reservation",
        verbs=_verbs("Reservation"),
        identity=("hw_address",),
        label="{hw_address}",
        tiebreak=("subnet",),
        service="kea",
        phase=103,
        nested=True,
        omit=("option",),
        summary="A DHCPv4 reservation of Kea.",
        example=(
            'opnsense.kea_reservation: {subnet: 192.168.1.0/24, hw_address: "52:54:00:11:22:33",\n'
            "                           ip_address: 192.168.1.200, hostname: printer}"
        ),
    ),
    KindRow(
        short="dnsmasq_host",
        path="dnsmasq/settings",
        root="host",
        verbs=_verbs("Host"),
        identity=("host", "domain"),
        label="{host}.{domain}",
        service="dnsmasq",
        phase=104,
        omit=("set_tag",),
        summary="A host of Dnsmasq (DNS name and DHCP reservation).",
        example="opnsense.dnsmasq_host: {host: printer, domain: lan.example.org, ip: [192.168.1.201]}",
    ),
    KindRow(
        short="monit_test",
        path="monit/settings",
        root="test",
        verbs=_verbs("Test"),
        identity=("name",),
        label="{name}",
        service="monit",
        phase=105,
        summary="A test of Monit.",
        example="opnsense.monit_test: {name: DiskFull, type: SpaceUsage, condition: space usage > 90%, action: alert}",
    ),
    KindRow(
        short="monit_service",
        path="monit/settings",
        root="service",
        verbs=_verbs("Service"),
        identity=("name",),
        label="{name}",
        service="monit",
        phase=106,
        self_reference="depends",
        summary="A service that Monit watches.",
        example=(
            "opnsense.monit_service: {name: datadisk, enabled: true, type: filesystem, path: /data,\n"
            "                         tests: [SpaceUsage]}"
        ),
    ),
)

_ACCESS = (
    KindRow(
        short="user",
        path="auth/user",
        root="user",
        verbs=PLAIN,
        identity=("name",),
        label="{name}",
        service="",
        phase=110,
        protected=("root",),
        needed_on_create=("password",),
        undo=(("scrambled_password", "1"),),
        omit=("uid", "scope", "pwd_changed_at", "apikeys", "dashboard"),
        summary="A local user. The password is set when the user is created and never compared.",
        example="opnsense.user: {name: operator, password: !env OPERATOR_PASSWORD, descr: night shift}",
    ),
    KindRow(
        short="group",
        path="auth/group",
        root="group",
        verbs=PLAIN,
        identity=("name",),
        label="{name}",
        service="",
        phase=111,
        protected=("admins",),
        omit=("gid", "scope"),
        summary="A local group of users and its privileges.",
        example="opnsense.group: {name: netops, description: network operators, priv: [page-firewall-alias-edit]}",
    ),
)

ROWS: tuple[KindRow, ...] = (*_FIREWALL, *_NETWORK, *_SERVICES, *_ACCESS)
