"""What a row of the catalogue says of a kind, and the services that are activated."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ITEM", "PLAIN", "RULE", "SERVICES", "KindRow", "Service", "verbs_of"]


@dataclass(frozen=True, slots=True)
class Service:
    """What makes saved configuration take effect: one POST, and the answer that means done."""

    name: str
    path: str
    summary: str
    privilege: str


#: In the order in which they are activated. Since release 26.7 `filter/apply` does not refresh aliases.
SERVICES: tuple[Service, ...] = (
    Service("vlan", "interfaces/vlan_settings/reconfigure", "VLAN devices", "page-interfaces-vlan-edit"),
    Service(
        "vip",
        "interfaces/vip_settings/reconfigure",
        "virtual IP addresses",
        "page-firewall-virtualipaddress-edit",
    ),
    Service("gateway", "routing/settings/reconfigure", "gateways", "page-system-gateways"),
    Service("route", "routes/routes/reconfigure", "static routes", "page-system-staticroutes"),
    Service(
        "interface_group", "firewall/group/reconfigure", "interface groups", "page-interfaces-groups-edit"
    ),
    Service("alias", "firewall/alias/reconfigure", "firewall aliases", "page-firewall-alias-edit"),
    Service("shaper", "trafficshaper/service/reconfigure", "traffic shaper", "page-firewall-trafficshaper"),
    Service("filter", "firewall/filter/apply", "firewall rules and NAT", "page-filter-api"),
    Service("unbound", "unbound/service/reconfigure", "Unbound DNS", "page-services-unbound"),
    Service("kea", "kea/service/reconfigure", "Kea DHCP", "page-dhcp-kea-v4"),
    Service("dnsmasq", "dnsmasq/service/reconfigure", "Dnsmasq", "page-services-dnsforwarder"),
    Service(
        "syslog", "syslog/service/reconfigure", "remote logging", "page-diagnostics-logs-settings-targets"
    ),
    Service("cron", "cron/service/reconfigure", "cron", "page-system-cron"),
    Service("monit", "monit/service/reconfigure", "Monit", "page-services-monit"),
)


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind.

    `verbs` are the actions search, get, add, set and del of the controller `path`; `root` is the key of the
    item in a body. `identity` are the fields that name an item and `label` the text made of them;
    `tiebreak` the fields that tell several items of one identity apart, in a list and on the firewall.
    `phase` orders kinds: lower ones are written first and deleted last. `before_use`: the service must be
    activated before another kind may name a new item.
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
    children: str = ""  # the kind of items that the firewall deletes with one of these; its rows list them
    called: str = ""  # a second name that references may use, where `label` says more than people do

    @property
    def name(self) -> str:
        return f"opnsense.{self.short}"


ITEM = ("searchItem", "getItem", "addItem", "setItem", "delItem")
RULE = ("searchRule", "getRule", "addRule", "setRule", "delRule")
PLAIN = ("search", "get", "add", "set", "del")


def verbs_of(name: str, plural: str = "") -> tuple[str, str, str, str, str]:
    return (f"search{plural or name}", f"get{name}", f"add{name}", f"set{name}", f"del{name}")
