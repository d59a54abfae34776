"""Interfaces, gateways and routes: devices that the firewall names, families that match, what is in use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import GATEWAYS, INTERFACES
from fazai.lab.engine.schema import ItemModel

VLANS: Final = "Interfaces.Vlan.vlan"
VIPS: Final = "Interfaces.Vip.vip"


def _next_device(used: set[str], prefix: str) -> str:
    """Return one more than the highest in use, from 1, after a 0: `vlan01`, `vlan010`."""
    numbers = [int(name.removeprefix(prefix)) for name in used if name.removeprefix(prefix).isdigit()]
    return f"{prefix}0{max(numbers, default=0) + 1}"


def _name_vlan(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    if not new["vlanif"] and new["if"]:
        used = {item["vlanif"] for item in call.box.items(VLANS).values()}
        new["vlanif"] = old.get("vlanif") or _next_device(used, "qinq" if "vlan" in new["if"] else "vlan")
    elif not new["vlanif"]:
        new["vlanif"] = old.get("vlanif", "")


def _check_vlan(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["if"] == item["vlanif"]:
        text = "VLAN can not be assigned to itself."
        yield "if", text
        yield "vlanif", text
    elif item["vlanif"] and not re.fullmatch(r"(vlan|qinq)0[\d.]{1,10}", item["vlanif"]):
        yield "vlanif", 'The device name prefix "vlan" is required.'


def _refuse_assigned(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    device = item.get("vlanif", "")
    for name, interface in box.items(INTERFACES).items():
        if interface["if"] == device:
            raise UserError(f"This VLAN cannot be deleted because it is assigned as an interface ({name})")


def vlan_devices(box: Box) -> dict[str, dict[str, Any]]:
    """Return the VLAN devices that exist: those stored when VLANs were reconfigured last."""
    return {
        item["vlanif"]: {
            "flags": ["up", "broadcast", "running", "simplex", "multicast", "lower_up"],
            "capabilities": [],
            "options": [],
            "macaddr": box.items("devices").get(item["if"], {}).get("mac", ""),
            "ipv4": [],
            "ipv6": [],
            "supported_media": ["autoselect"],
            "is_physical": False,
            "device": item["vlanif"],
            "mtu": "1500",
            "groups": ["vlan"],
            "vlan": {"tag": item["tag"], "proto": "802.1q", "pcp": item["pcp"], "parent": item["if"]},
            "status": "up",
        }
        for item in box.running.items("vlan", VLANS).values()
    }


# virtual addresses: `network` is what is sent, `subnet` and `subnet_bits` are what is stored


def _split_network(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    sent = call.body.get("vip", {})
    network = sent.get("network", "") if isinstance(sent, Mapping) else ""
    new["subnet"], _, new["subnet_bits"] = str(network).partition("/")


def _check_virtual_address(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if not is_ip_address(item["subnet"]):
        yield "network", "A valid network address is required."
        yield "network", "A valid network address is required."
    elif not item["subnet_bits"].isdigit():
        yield "network", "A valid network subnet is required."
        yield "network", "A valid network subnet is required."


def _compute_vip(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    address = f"{item['subnet']}/{item['subnet_bits']}" if item["subnet"] else ""
    vhid = f"{item['vhid']} (freq. {item['advbase']}/{item['advskew']})" if item["mode"] == "carp" else ""
    return {"address": address, "vhid_txt": vhid}


# gateways and routes

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
    checks={
        "vlan": _check_vlan,
        "vip": _check_virtual_address,
        "route_family": _check_route,
        "gateway": _check_gateway,
    },
    guards={"device_unused": _refuse_assigned, "gateway_unused": _refuse_used_gateway},
    collections={
        VLANS: CollectionHooks(before=(_name_vlan,)),
        VIPS: CollectionHooks(computed=_compute_vip, before=(_split_network,)),
    },
)
