"""The columns of the catalogue, and the services that are activated after writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Formatter
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose activation (one POST) makes saved configuration take effect."""

    name: str
    path: str
    summary: str
    privilege: str


#: In the order in which they are activated. Since release 26.7 `filter/apply` does not refresh aliases.
SERVICES: tuple[Service, ...] = (
    Service(
        "interfaces",
        "interfaces/settings/reconfigure",
        "interface settings",
        "page-system-advanced-network",
    ),
    Service("trust", "trust/settings/reconfigure", "trust", "page-all"),
    Service("lagg", "interfaces/lagg_settings/reconfigure", "link aggregates", "page-interfaces-lagg-edit"),
    Service("tunable", "core/tunables/reconfigure", "tunables", "page-system-advanced-sysctl"),
    Service("vlan", "interfaces/vlan_settings/reconfigure", "VLAN devices", "page-interfaces-vlan-edit"),
    Service(
        "loopback",
        "interfaces/loopback_settings/reconfigure",
        "loopback devices",
        "page-interfaces-loopback",
    ),
    Service("gif", "interfaces/gif_settings/reconfigure", "GIF tunnels", "page-all"),
    Service("gre", "interfaces/gre_settings/reconfigure", "GRE tunnels", "page-all"),
    Service("vxlan", "interfaces/vxlan_settings/reconfigure", "VXLANs", "page-interfaces-vxlan"),
    Service("bridge", "interfaces/bridge_settings/reconfigure", "bridges", "page-interfaces-bridge-edit"),
    Service(
        "interface",
        "interfaces/assignment/reconfigure",
        "assigned interfaces",
        "page-interfaces-assignnetworkports",
    ),
    Service(
        "vip",
        "interfaces/vip_settings/reconfigure",
        "virtual IP addresses",
        "page-firewall-virtualipaddress-edit",
    ),
    Service("neighbor", "interfaces/neighbor_settings/reconfigure", "static neighbours", "page-all"),
    Service("gateway", "routing/settings/reconfigure", "gateways", "page-system-gateways"),
    Service("gateway_group", "routing/group_settings/reconfigure", "groups of gateways", "page-all"),
    Service("route", "routes/routes/reconfigure", "static routes", "page-system-staticroutes"),
    Service(
        "interface_group", "firewall/group/reconfigure", "interface groups", "page-interfaces-groups-edit"
    ),
    Service("alias", "firewall/alias/reconfigure", "firewall aliases", "page-firewall-alias-edit"),
    Service("shaper", "trafficshaper/service/reconfigure", "traffic shaper", "page-firewall-trafficshaper"),
    Service("filter", "firewall/filter/apply", "firewall rules and NAT", "page-filter-api"),
    Service("ipsec", "ipsec/service/reconfigure", "IPsec", "page-vpn-ipsec-connections"),
    Service("openvpn", "openvpn/service/reconfigure", "OpenVPN", "page-status-openvpn"),
    Service("wireguard", "wireguard/service/reconfigure", "WireGuard", "page-wireguard-config"),
    Service("unbound", "unbound/service/reconfigure", "Unbound DNS", "page-services-unbound"),
    Service("unbound_dnsbl", "unbound/service/dnsbl", "blocklists of Unbound DNS", "page-services-unbound"),
    Service("kea", "kea/service/reconfigure", "Kea DHCP", "page-dhcp-kea-v4"),
    Service("dnsmasq", "dnsmasq/service/reconfigure", "Dnsmasq", "page-services-dnsforwarder"),
    Service("dhcrelay", "dhcrelay/service/reconfigure", "DHCP relay", "page-services-dhcprelay"),
    Service("radvd", "radvd/service/reconfigure", "router advertisements", "page-all"),
    Service(
        "syslog", "syslog/service/reconfigure", "remote logging", "page-diagnostics-logs-settings-targets"
    ),
    Service("cron", "cron/service/reconfigure", "cron", "page-system-cron"),
    Service("monit", "monit/service/reconfigure", "Monit", "page-services-monit"),
    Service("ids", "ids/service/reconfigure", "intrusion detection", "page-services-ids"),
    Service("hostdiscovery", "hostdiscovery/service/reconfigure", "host discovery", "page-hostdiscovery"),
    Service(
        "captive_portal", "captiveportal/service/reconfigure", "captive portal", "page-services-captiveportal"
    ),
    Service("netflow", "diagnostics/netflow/reconfigure", "NetFlow", "page-diagnostics-netflow"),
    Service("health", "diagnostics/systemhealth/reconfigure", "system health", "page-diagnostics-health"),
    Service("hasync", "core/hasync/reconfigure", "high availability", "page-system-hasync"),
)


def _service_of(path: str) -> str:
    """Return the service that a controller activates itself, or that of its module; "" when there is none."""
    activates = (f"{path}/", f"{path.partition('/')[0]}/service/")
    return next((service.name for service in SERVICES if service.path.startswith(activates)), "")


_PRIVILEGES = {service.name: service.privilege for service in SERVICES}


class Verbs(NamedTuple):
    """The names of a controller's actions; settings have only `get` and `set`."""

    search: str
    get: str
    add: str
    set: str
    delete: str


ITEM = Verbs("searchItem", "getItem", "addItem", "setItem", "delItem")
RULE = Verbs("searchRule", "getRule", "addRule", "setRule", "delRule")
PLAIN = Verbs("search", "get", "add", "set", "del")
SETTINGS = Verbs("get", "get", "set", "set", "set")


def verbs_of(name: str, plural: str = "") -> Verbs:
    """Return the actions of a collection by the name (and its plural) that stands in them."""
    return Verbs(f"search{plural or name}", f"get{name}", f"add{name}", f"set{name}", f"del{name}")


class Along(NamedTuple):
    """A field that is sent though nobody declares it, with every write of a verb ("create", "update").

    `beside`: only where this field is sent, too.
    """

    verb: str
    name: str
    text: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of resource, as a row of the catalogue.

    `verbs` are the actions of the controller `path`; `root` is the key of the item in a body, by default the
    last word of `short`. `label` is the text that names an item; the fields in its braces are the identity.
    `tiebreak` are the fields that tell several items of one identity apart, in a list and on the firewall.
    `phase` orders kinds: lower ones are written first and deleted last. `service` is activated after a write:
    by default the one of the controller, or of its module.
    """

    short: str
    path: str
    label: str
    phase: int
    summary: str
    example: str
    root: str = ""
    verbs: Verbs = ITEM
    service: str = ""
    identity: tuple[str, ...] = field(init=False)
    own_privilege: str = ""  # where it is not that of the service
    tiebreak: tuple[str, ...] = ()
    ordered: bool = False
    create: str = "set"  # "set" under a uuid of our own, or "add" where the controller refuses that
    mark_field: str = ""  # the text field that carries the owner's mark where uuids cannot
    out_of_nothing: bool = False  # a change of one that is gone makes another: of a rule, one that passes all
    unmarked: bool = False  # ids are the firewall's, and no field carries the mark: ours are remembered
    protected: tuple[str, ...] = ()
    before_use: bool = False  # the service must be activated before another kind may name a new item
    needed_on_create: tuple[str, ...] = ()
    undo: tuple[tuple[str, str], ...] = ()  # sent along when a deleted item is made again
    along: tuple[Along, ...] = ()  # sent with writes where it is not declared: what controllers insist on
    hidden_by: str = ""  # the setting that hides items from search
    settings: bool = False  # one item of settings: get and set of the whole, nothing is created or deleted
    floating: str = ""  # the field that tells floating from interface rules: sequences count in each apart
    lists_defaults: bool = False  # the search lists the product's defaults, too, under ids that are no uuids
    self_reference: str = ""  # the field through which items of this kind name each other
    omit: tuple[str, ...] = ()  # fields of the API that the kind does not have
    unique: tuple[str, ...] = ()  # fields of which no two items may have the same value, beside the identity
    children: str = ""  # the kind of items that the firewall deletes with one of these; its rows list them
    any_path: bool = False  # settings of the controller that the resource names, and any field of it
    saved: tuple[str, str] = ("result", "saved")  # what the answer to a write says when it was saved
    one_of: tuple[str, ...] = ()  # fields of which an item has exactly one
    called: str = ""  # a second name that references may use, where `label` says more than people do

    def __post_init__(self) -> None:
        names = (name for _, name, _, _ in Formatter().parse(self.label) if name)
        object.__setattr__(self, "identity", tuple(names))
        object.__setattr__(self, "root", self.root or self._last_word())
        object.__setattr__(self, "service", self.service or _service_of(self.path))

    def _last_word(self) -> str:
        return "" if self.any_path else self.short.rpartition("_")[2]

    def path_of(self, ref: str) -> str:
        """Return the controller of an item."""
        return ref if self.any_path else self.path

    def service_of(self, ref: str) -> str:
        """Return the service that is activated after a write of an item; "" for none."""
        return _service_of(ref) if self.any_path else self.service

    @property
    def name(self) -> str:
        return f"opnsense.{self.short}"

    @property
    def privilege(self) -> str:
        """The privilege that the calls of this kind need."""
        return self.own_privilege or _PRIVILEGES.get(self.service, "")
