"""Kea: reservations that must fit their subnet, routes within options, fields that need each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address, is_ip_network
from fazai.lab.engine.hooktypes import ModelHooks
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import ItemModel

SUBNETS: Final = "Kea.dhcp4.subnets.subnet4"
RESERVATIONS: Final = "Kea.dhcp4.reservations.reservation"
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
    checks={"kea_options": _check_route_options, "kea_reservation": _check_kea_reservation}
)
