"""Devices that are made: aggregates, bridges and tunnels; they get the next name, and refer to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address
from fazai.lab.engine.hooktypes import Check, CollectionHooks, ModelHooks
from fazai.lab.engine.names import INTERFACES
from fazai.lab.engine.schema import ItemModel

LAGGS: Final = "Interfaces.Lagg.lagg"
BRIDGES: Final = "Interfaces.Bridge.bridged"
GIFS: Final = "Interfaces.Gif.gif"
GRES: Final = "Interfaces.Gre.gre"
VXLANS: Final = "Interfaces.VxLan.vxlan"
NEIGHBORS: Final = "Interfaces.Neighbor.neighbor"
LOOPBACKS: Final = "Interfaces.Loopback.loopback"

# the collections of devices: how a device is called, and its group in the list of what can be assigned
MADE: Final[Mapping[str, tuple[str, str, str]]] = {
    LAGGS: ("laggif", "", "lagg"),
    BRIDGES: ("bridgeif", "", "bridge"),
    GIFS: ("gifif", "", "gif"),
    GRES: ("greif", "", "gre"),
    VXLANS: ("deviceId", "vxlan", "vxlan"),
    LOOPBACKS: ("deviceId", "lo", "loopback"),
}

# fields of a bridge that name some of its members
_OF_MEMBERS: Final = ("stp", "edge", "autoedge", "ptp", "autoptp", "static", "private")


def made_devices(box: Box) -> dict[str, tuple[str, Item]]:
    """Return the devices of these collections, each with its group and its item."""
    return {
        f"{prefix}{item[name]}": (group, item)
        for path, (name, prefix, group) in MADE.items()
        for item in box.items(path).values()
    }


def _keep_name(name: str, prefix: str) -> Any:
    """Return a step that gives an added device the first free name; one that is there keeps its own."""

    def before(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
        items = call.box.items(model.path)
        if uuid in items:
            new[name] = old[name]
        elif call.param(0) is None:
            used = {item[name] for item in items.values()}
            new[name] = next(free for n in range(len(used) + 1) if (free := f"{prefix}{n}") not in used)

    return before


def _check_lagg(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    primary = item["primary_member"]
    if primary and primary not in item["members"].split(","):
        yield "primary_member", f"Primary member {primary} not in member list."


def _check_bridge(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    members = item["members"].split(",")
    for name in _OF_MEMBERS:
        if item[name] and not set(item[name].split(",")) <= set(members):
            yield name, "Contains non bridge members."
    if item["span"] and item["span"] in members:
        yield "span", "Span interface cannot be part of the bridge."


def _refuse_assigned_bridge(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    """Refuse to delete a bridge that is assigned; 26.1 does not look."""
    users = [name for name, row in box.items(INTERFACES).items() if row["if"] == item["bridgeif"]]
    if users and not box.settings.release.startswith("26.1"):
        raise UserError(f"Cannot delete bridge. Currently in use by [{','.join(users)}] ", "Bridge in use")


def _check_tunnel(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    local = item["local-addr"]
    if not is_ip_address(local) and local not in box.items(INTERFACES):
        yield "local-addr", "A valid network address is required."
    for ours, theirs in (("local-addr", "remote-addr"), ("tunnel-local-addr", "tunnel-remote-addr")):
        known = is_ip_address(item[ours]) and is_ip_address(item[theirs])
        if known and (":" in item[ours]) != (":" in item[theirs]):
            yield theirs, "The remote address family has to match the one used in local."


def _split_link(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """Return the two fields in which the product keeps a link: an interface, or an address."""
    local = item["local-addr"]
    return {"if": "", "ipaddr": local} if is_ip_address(local) else {"if": local, "ipaddr": ""}


def _check_vxlan(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    remote, group, device = item["vxlanremote"], item["vxlangroup"], item["vxlandev"]
    if bool(remote) == bool(group):
        yield "vxlanremote", "Remote address -or- Multicast group has to be specified"
        yield "vxlangroup", "Multicast group -or- Remote address has to be specified"
    if remote and device:
        yield "vxlandev", "Remote address is specified, Device must be None"
    if group and not device:
        yield "vxlandev", "Multicast group is specified, a Device must also be specified"


def _tell_origin(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    return {"origin": "manual" if uuid else ""}


_CHECKS: Final[Mapping[str, Check]] = {
    "lagg": _check_lagg,
    "bridge": _check_bridge,
    "tunnel": _check_tunnel,
    "vxlan": _check_vxlan,
}

HOOKS: Final = ModelHooks(
    checks=_CHECKS,
    guards={"bridge_unassigned": _refuse_assigned_bridge},
    collections={
        LAGGS: CollectionHooks(before=(_keep_name("laggif", "lagg"),)),
        BRIDGES: CollectionHooks(before=(_keep_name("bridgeif", "bridge"),)),
        GIFS: CollectionHooks(before=(_keep_name("gifif", "gif"),), computed=_split_link),
        GRES: CollectionHooks(before=(_keep_name("greif", "gre"),), computed=_split_link),
        NEIGHBORS: CollectionHooks(computed=_tell_origin),
    },
)
