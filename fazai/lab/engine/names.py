"""Names that rules, aliases and options use: interfaces, networks, ports, built-in aliases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item

INTERFACES: Final = "interfaces"
ALIASES: Final = "Firewall.Alias.aliases.alias"
CATEGORIES: Final = "Firewall.Category.categories.category"
GATEWAYS: Final = "Routing.Gateways.gateway_item"
GATEWAY_GROUPS: Final = "Routing.GatewayGroups.gateway_group"
GROUPS: Final = "Firewall.Group.ifgroupentry"

_DIGITS = re.compile(r"(\d+)")


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Return a sort key like PHP's natural order without case: letters before underscores, 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _DIGITS.split(text.upper())]


def label_key(text: str) -> list[tuple[int, int | str]]:
    """Return the sort key of labels: natural order as they are written, underscores before small letters."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _DIGITS.split(text)]


def interface_label(name: str, item: Item) -> str:
    """Return `DMZ`, or `LAN` for an interface without a description."""
    return item.get("descr") or name.upper()


def interface_name(box: Box, name: str) -> str:
    """Return the label of an interface by its name, the name itself when there is none."""
    item = box.items(INTERFACES).get(name)
    return "Loopback" if name == "lo0" else name if item is None else interface_label(name, item)


def port_names(box: Box) -> Mapping[str, Any]:
    """Return the services by which a port may be called, `https` with its label."""
    return box.catalogue.options["ports"]


def alias_uuid(box: Box, name: str) -> str | None:
    """Return the uuid of an alias; of a built-in one its name."""
    return name if name in builtin_aliases(box) else box.index(ALIASES, "name").get(name)


def alias_type(box: Box, name: str) -> str:
    """Return the type of an alias, "" for one that is not there."""
    built_in = builtin_aliases(box).get(name)
    if built_in is not None:
        return built_in["type"]
    uuid = box.index(ALIASES, "name").get(name)
    return "" if uuid is None else box.items(ALIASES)[uuid]["type"]


def builtin_aliases(box: Box) -> Mapping[str, Mapping[str, str]]:
    """Return the product's aliases: tables of its own, and one for the networks of each interface."""

    def build() -> Mapping[str, Mapping[str, str]]:
        found = {name: dict(row) for name, row in box.catalogue.options["builtin_aliases"].items()}
        names = [*box.items(INTERFACES), "lo0"]
        for name in names:
            item = box.items(INTERFACES).get(name, {})
            label = "Loopback" if name == "lo0" else item.get("descr") or name
            found[f"__{name}_network"] = {"type": "internal", "description": f"{label} net"}
        return found

    return box.derived("builtin aliases", (INTERFACES,), build)


def network_names(box: Box) -> Mapping[str, str]:
    """Return the names a rule may use for a network (`lan`, `lanip`, `any`), with their labels."""

    def build() -> Mapping[str, str]:
        found = {"any": "any", "(self)": "This Firewall"}
        for name in box.items(INTERFACES):
            found[f"{name}ip"] = f"{interface_name(box, name)} address"
            found[name] = f"{interface_name(box, name)} network"
        found["lo0"] = "Loopback network"
        for group in box.running.items("group", GROUPS).values():
            found[group["ifname"]] = f"{group['ifname']} network"
        return found

    return box.derived("network names", (INTERFACES,), build, box.running.applied.get("group"))
