"""Gateways and routes: families that match, names that stay, gateways in use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fazai.lab.box import Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address
from fazai.lab.engine.hooktypes import ModelHooks
from fazai.lab.engine.names import GATEWAYS, INTERFACES
from fazai.lab.engine.schema import ItemModel

ROUTES: Final = "Routes.route"
WRONG_GATEWAY: Final = "Specify a valid gateway from the list matching the networks ip protocol."
STATIC: Final = "Dynamic gateway values cannot be specified for interfaces with a static {} configuration."
FAMILY: Final = {"inet": ("4", "IPv4"), "inet6": ("6", "IPv6")}


def gateway_family(box: Box, name: str) -> str:
    """Return "4" or "6"; "" for a gateway that is not there."""
    if name in ("Null4", "Null6"):
        return name[-1]
    found = next((item for item in box.items(GATEWAYS).values() if item["name"] == name), None)
    return "" if found is None else FAMILY[found["ipprotocol"]][0]


def _check_route(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    address = item["network"].partition("/")[0]
    family = gateway_family(box, item["gateway"])
    if family and is_ip_address(address) and not is_ip_address(address, family):
        yield "gateway", WRONG_GATEWAY


def _check_gateway(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    stored = box.items(GATEWAYS)
    if uuid in stored and stored[uuid]["name"] != item["name"]:
        yield "name", "Changing name on a gateway is not allowed."
    elif item["name"] and any(other["name"] == item["name"] and key != uuid for key, other in stored.items()):
        yield "name", "Gateway with this name already exists."
    family, title = FAMILY.get(item["ipprotocol"], ("", ""))
    value = item["gateway"]
    if is_ip_address(value, family):
        return
    interface = box.items(INTERFACES).get(item["interface"], {})
    static = interface.get("ipaddr" if family == "4" else "ipaddrv6")
    if static and not is_ip_address(value):
        yield "gateway", STATIC.format(title)
    if value and value != "dynamic":
        yield "gateway", f"Invalid {title} address"


def _refuse_used_gateway(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    users = [row["network"] for row in box.items(ROUTES).values() if row["gateway"] == item["name"]]
    if users:
        where = f"in use on Static Route(s) '{', '.join(users)}'"
        raise UserError(f"Gateway {item['name']} cannot be deleted because it is {where}")


HOOKS: Final = ModelHooks(
    checks={"route_family": _check_route, "gateway": _check_gateway},
    guards={"gateway_unused": _refuse_used_gateway},
)
