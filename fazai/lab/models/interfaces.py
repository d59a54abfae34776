"""VLANs and virtual addresses: device names that the firewall chooses, addresses in two fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import ItemModel

VLANS: Final = "Interfaces.Vlan.vlan"
VIPS: Final = "Interfaces.Vip.vip"
LAGGS: Final = "Interfaces.Lagg.lagg"
BRIDGES: Final = "Interfaces.Bridge.bridged"


def _next_device(used: set[str], prefix: str) -> str:
    """Return one more than the highest in use: `lagg0`; VLANs from 1, after a 0: `vlan01`, `vlan010`."""
    numbers = [int(name.removeprefix(prefix)) for name in used if name.removeprefix(prefix).isdigit()]
    if prefix in ("vlan", "qinq"):
        return f"{prefix}0{max(numbers, default=0) + 1}"
    return f"{prefix}{max(numbers, default=-1) + 1}"


def _name_device(path: str, name: str, prefix: str) -> Any:
    def before(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
        if not new[name] and (prefix != "vlan" or new["if"]):
            used = {item[name] for item in call.box.items(path).values()}
            stacked = prefix == "vlan" and "vlan" in new["if"]
            new[name] = old.get(name) or _next_device(used, "qinq" if stacked else prefix)
        elif not new[name]:
            new[name] = old.get(name, "")

    return before


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


HOOKS: Final = ModelHooks(
    checks={"vlan": _check_vlan, "vip": _check_virtual_address},
    guards={"device_unused": _refuse_assigned},
    collections={
        VLANS: CollectionHooks(before=(_name_device(VLANS, "vlanif", "vlan"),)),
        LAGGS: CollectionHooks(before=(_name_device(LAGGS, "laggif", "lagg"),)),
        BRIDGES: CollectionHooks(before=(_name_device(BRIDGES, "bridgeif", "bridge"),)),
        VIPS: CollectionHooks(computed=_compute_vip, before=(_split_network,)),
    },
)
