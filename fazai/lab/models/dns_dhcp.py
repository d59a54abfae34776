"""Names and addresses that Dnsmasq, Unbound and Kea give out: records, reservations, and their checks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address, is_ip_network
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import ItemModel

DNSMASQ_HOSTS: Final = "Dnsmasq.hosts"
SUBNETS: Final = "Kea.dhcp4.subnets.subnet4"
RESERVATIONS: Final = "Kea.dhcp4.reservations.reservation"
UNBOUND_HOSTS: Final = "Unbound.hosts.host"
UNBOUND_ALIASES: Final = "Unbound.aliases.alias"
LABEL: Final = re.compile(r"(?![_-])[A-Za-z0-9_-]{1,63}")
LABELS: Final = (
    "Labels must be 1\N{EN DASH}63 characters, start with a letter or digit, and may contain only"
    " letters, digits, '-' or '_'. "
)


def _split_list(text: str) -> list[str]:
    return text.split(",") if text else []


def wrong_name(text: str, *, domain: bool) -> str:
    """Return the message about a name; "" when nothing is wrong."""
    if domain and text == "*":
        return "Wildcards are not allowed."
    if domain and len(text) > 255:
        return "All labels combined may not exceed 255 characters."
    labels = text.split(".") if domain else [text]
    return "" if all(map(LABEL.fullmatch, labels)) else LABELS


def _check_names(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["host"] and item["host"] != "*" and wrong_name(item["host"], domain=False):
        yield "host", LABELS
    for name in ("domain", "cnames", "aliases"):
        for text in [item[name]] if name == "domain" and item[name] else _split_list(item[name]):
            wrong = wrong_name(text, domain=True)
            if wrong:
                yield name, wrong
                break


def _is_reservation(item: Item) -> bool:
    return bool(item["hwaddr"] or item["client_id"])


def _check_dnsmasq_reservation(others: list[Item], item: Item) -> Iterator[tuple[str, str]]:
    addresses = _split_list(item["ip"])
    used = {address for other in others if _is_reservation(other) for address in _split_list(other["ip"])}
    for address in addresses:
        if address in used and not address.startswith("::"):
            yield "ip", f"'{address}' is already used in another DHCP host entry."
    if sum(":" not in address for address in addresses) > 1:
        yield "ip", "For IPv4 dhcp reservations, only a single address is allowed."
    if not item["host"] and not item["ip"]:
        for name in ("host", "ip"):
            yield name, "At least a hostname or IP address must be provided for DHCP reservations."
    if item["host"] == "*":
        yield "host", "Wildcard entries are not allowed for DHCP reservations."


def _check_dnsmasq_host(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    others = [item for key, item in box.items(DNSMASQ_HOSTS).items() if key != uuid]
    if _is_reservation(item):
        yield from _check_dnsmasq_reservation(others, item)
    elif not item["host"] or not item["ip"]:
        for name in ("host", "ip"):
            yield name, "Both hostname and IP address are required for host overrides."
    cnames = [name for other in others for name in _split_list(other["cnames"])] + _split_list(item["cnames"])
    full = {f"{other['host']}.{other['domain']}" for other in (*others, item) if other["domain"]}
    for name in _split_list(item["cnames"]):
        if cnames.count(name) > 1:
            yield "cnames", f"CNAME '{name}' is already in use by a host override."
        if name in full:
            yield "cnames", f"CNAME '{name}' overlaps with a host and domain combination in a host override."


SHARED: Final = ("rr", "mxprio", "mx", "ttl", "server", "txtdata", "addptr")


def aliases_of(box: Box, uuid: str) -> dict[str, Item]:
    """Return the aliases of a host, by uuid."""

    def build() -> dict[str, dict[str, Item]]:
        found: dict[str, dict[str, Item]] = {}
        for key, item in box.items(UNBOUND_ALIASES).items():
            found.setdefault(item["host"], {})[key] = item
        return found

    return box.derived("unbound aliases", (UNBOUND_ALIASES,), build).get(uuid, {})


def host_fqdn(item: Item) -> str:
    return f"{item['hostname']}.{item['domain']}" if item["hostname"] else item["domain"]


def _compute_aliases(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    return {"aliases": ",".join(host_fqdn(alias) for alias in aliases_of(box, uuid).values())}


def _add_children(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    """Put aliases below their host, with its record."""
    row["isAlias"] = False
    children = []
    for key, alias in aliases_of(box, uuid).items():
        child = {
            "uuid": key,
            "enabled": alias["enabled"],
            "hostname": alias["hostname"],
            "domain": alias["domain"],
        }
        for name in SHARED:
            child |= {shown: row[shown] for shown in (name, f"%{name}") if shown in row}
        children.append({**child, "description": alias["description"], "isAlias": True})
    if children:
        row["_children"] = children


COLLECTED: Final = ("option_data.routers", "option_data.domain_name_servers", "option_data.ntp_servers")
ROUTES: Final = "option_data.static_routes"
CLASSLESS: Final = "option_data.classless_static_route"


def _check_route_options(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    """Check that static routes are addresses in pairs, and classless ones `network - router`."""
    entries = [part.strip() for part in item[ROUTES].split(",")] if item[ROUTES] else []
    for first in range(0, len(entries), 2):
        pair = (*entries[first : first + 2], "")[:2]
        if not all(map(is_ip_address, pair)):
            yield ROUTES, f'Entry "{pair[0]},{pair[1]}" is not a valid dest-ip,router-ip pair.'
    for route in item[CLASSLESS].split(",") if item[CLASSLESS] else ():
        parts = [part.strip() for part in route.split("-")]
        network, router = (*parts, "")[:2]
        if len(parts) != 2 or not is_ip_network(network, "4") or not is_ip_address(router, "4"):
            yield CLASSLESS, f'Entry "{network},{router}" is not a valid dest_net - router_ip pair.'


def _is_in_subnet(address: str, subnet: str) -> bool:
    if not is_ip_address(address) or not is_ip_network(subnet):
        return False
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)


def _check_kea_reservation(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    subnet = box.items(SUBNETS).get(item["subnet"], {}).get("subnet", "")
    for name in ("hw_address", "client_id"):
        same = (item["subnet"], item[name].lower())
        for key, other in box.items(RESERVATIONS).items():
            if item[name] and key != uuid and (other["subnet"], other[name].lower()) == same:
                yield name, "Duplicate entry exists."
                yield name, "Duplicate entry exists."  # the subnet refers to the same check
                break
    if not _is_in_subnet(item["ip_address"], subnet):
        yield "ip_address", "Address not in specified subnet"


def subnet_of(box: Box, address: str) -> str:
    """Return the uuid of the subnet that has the address; "" when none has."""
    subnets = box.items(SUBNETS).items()
    return next((uuid for uuid, item in subnets if _is_in_subnet(address, item["subnet"])), "")


def collect_options(box: Box) -> dict[str, Item]:
    """Return the subnets that take the firewall's own address as router and servers, with it set."""
    found: dict[str, Item] = {}
    addresses = [item["ipaddr"] for item in box.items(INTERFACES).values() if item.get("ipaddr")]
    for uuid, item in box.items(SUBNETS).items():
        own = next((address for address in addresses if _is_in_subnet(address, item["subnet"])), "")
        if own and item["option_data_autocollect"] == "1":
            found[uuid] = {**item, **dict.fromkeys(COLLECTED, own)}
    return found


HOOKS: Final = ModelHooks(
    checks={
        "dnsmasq_names": _check_names,
        "dnsmasq_host": _check_dnsmasq_host,
        "kea_options": _check_route_options,
        "kea_reservation": _check_kea_reservation,
    },
    collections={
        UNBOUND_HOSTS: CollectionHooks(computed=_compute_aliases, paths=(UNBOUND_ALIASES,), add=_add_children)
    },
)
