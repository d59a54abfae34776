"""Checks across fields: Kea's options and DHCPv6, Dnsmasq's DHCP, DHCP relays, router advertisements."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_hostname, is_ip_address, is_ip_network
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel
from fazai.lab.models.dns_dhcp import wrong_name

SUBNETS6: Final = "Kea.dhcp6.subnets.subnet6"
RESERVATIONS6: Final = "Kea.dhcp6.reservations.reservation"
POOLS6: Final = "Kea.dhcp6.pd_pools.pd_pool"
UNKNOWN: Final = "Unsupported encoding type. Use hex for complex options."
HEX: Final = re.compile(r"(0x)?([0-9a-fA-F]{2})(:?[0-9a-fA-F]{2})*")
LIMITS: Final = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
}
DESTINATIONS: Final = "DHCRelay.destinations"
OPTIONS: Final = "Dnsmasq.dhcp_options"
RELAYS: Final = "DHCRelay.relays"
#: Options of DHCP whose value is a list of addresses.
ADDRESSES: Final = {
    "option": ("4", "3,4,5,6,7,8,9,10,11,41,42,44,45,48,49,54"),
    "option6": ("6", "22,23,27,31"),
}


def _wrong_data(encoding: str, data: str) -> str:
    """Return what is wrong with the data of an option; "" when nothing is."""
    if encoding == "hex":
        return "" if HEX.fullmatch(data) else "Hex value must contain valid hexadecimal byte pairs."
    if encoding in ("ipv4-address", "ipv6-address"):
        family = encoding[3]
        wrong = [part for part in data.split(",") if not is_ip_address(part.strip(), family)]
        return f"Invalid IPv{family} address: {wrong[0]}" if wrong else ""
    if encoding in LIMITS:
        low, high = LIMITS[encoding]
        fits = re.fullmatch(r"-?\d+", data) and low <= int(data) <= high
        return "" if fits else f"Invalid {encoding} value: {data}"
    if encoding == "boolean":
        return "" if data in ("true", "false") else f"Invalid boolean value: {data}"
    if encoding == "fqdn":
        return "" if is_hostname(data) else f"Invalid FQDN: {data}"
    return "" if encoding == "string" else UNKNOWN


def _check_option(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    """Check data against its encoding, and that what is matched is there as a whole."""
    codes = box.catalogue.options["dhcp4_codes" if model.model.endswith("4") else "dhcp6_codes"]
    for data, code, encoding in (
        ("data", "code", "encoding"),
        ("match_data", "match_code", "match_encoding"),
    ):
        if not item[data]:
            continue
        known = item[encoding] in (
            "hex",
            *LIMITS,
            "boolean",
            "string",
            "fqdn",
            "ipv4-address",
            "ipv6-address",
        )
        if known and item[encoding] != "hex" and item[code] not in codes:
            yield data, f"Encoding '{item[encoding]}' is not valid for this DHCP option, use hex instead."
        elif wrong := _wrong_data(item[encoding], item[data]):
            yield data, wrong
    if item["match_code"] and not item["match_data"]:
        yield "match_data", "Match code and match data must either both be set or left empty."


def _within(text: str, subnet: str) -> bool:
    """Return whether an address, or a network, lies in the subnet."""
    if not is_ip_network(subnet, "6") or not (is_ip_address(text, "6") or is_ip_network(text, "6")):
        return False
    inner, outer = (ipaddress.ip_network(one, strict=False) for one in (text, subnet))
    return int(outer[0]) <= int(inner[0]) and int(inner[-1]) <= int(outer[-1])


def _check_subnet6(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    selected = box.config.settings("Kea.dhcp6").get("general.interfaces", "").split(",")
    if not item["interface"] or item["interface"] not in selected:
        yield "interface", "Interface is not selected in the general settings."
    if item["dynamic_prefix"] not in ("", "0"):
        if item["subnet"]:
            yield "subnet", "Subnet must be empty when dynamic prefix is enabled."
        yield "dynamic_prefix", "Interface has no identity association prefix configuration."
    elif not item["subnet"]:
        yield "subnet", "Subnet is required when dynamic prefix is disabled."
    if item["option_data_autocollect"] not in ("", "0"):
        for name, text in (("dns_servers", "DNS servers"), ("domain_search", "Domain search")):
            if item[f"option_data.{name}"]:
                yield f"option_data.{name}", f"{text} must be empty when option data autocollect is enabled."
    if item["pools"] and item["dynamic_prefix"] not in ("", "0"):
        text = "Pools cannot be configured when dynamic prefix is enabled, they are automatically generated."
        yield "pools", text
        return
    for pool in item["pools"].splitlines():
        ends = [end.strip() for end in pool.split("-")]
        if not all(_within(end, item["subnet"]) for end in ends):
            for _ in range(1 if " " in pool else 2):
                yield "pools", f'Pool "{pool}" not in specified subnet.'


def _check_reservation6(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    subnet = box.items(SUBNETS6).get(item["subnet"], {}).get("subnet", "")
    if item["duid"] and item["hw_address"]:
        yield "duid", "Either a DUID or an MAC address should be specified, but not both"
    elif not item["duid"] and not item["hw_address"]:
        yield "duid", "Either a DUID or an MAC address should be specified."
    if not item["ip_address"] and not item["prefix"]:
        yield "ip_address", "Either an IP address or a Prefix should be specified."
    for name in ("duid", "hw_address"):
        same = (item["subnet"], item[name].lower())
        for key, other in box.items(RESERVATIONS6).items():
            if item[name] and key != uuid and (other["subnet"], other[name].lower()) == same:
                yield name, "Duplicate entry exists."
                yield name, "Duplicate entry exists."  # the subnet refers to the same check
    if item["option"] and item["hw_address"]:
        yield "option", "Custom DHCP options on reservations require a DUID reservation."
    for name, text in (("ip_address", "Address"), ("prefix", "Prefix")):
        if item[name] and not _within(item[name], subnet):
            yield name, f"{text} not in specified subnet"


def _is_pool(item: Item) -> bool:
    text = f"{item['prefix']}/{item['prefix_len']}"
    return item["prefix_len"].isdigit() and is_ip_network(text, "6")


def _pool_problems(box: Box, uuid: str, item: Item) -> Iterator[tuple[str, str]]:
    if not _is_pool(item):
        yield "prefix", "Invalid Prefix specified"
        return
    own = ipaddress.IPv6Network(f"{item['prefix']}/{item['prefix_len']}", strict=False)
    for key, other in box.items(POOLS6).items():
        if key != uuid and _is_pool(other):
            their = ipaddress.IPv6Network(f"{other['prefix']}/{other['prefix_len']}", strict=False)
            if own.overlaps(their):
                yield "prefix", "Pool overlaps with an existing one."
                return


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _check_pd_pool(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["prefix_len"] in ("", "0"):
        yield "prefix_len", "Prefix length is required."
        return
    if _number(item["delegated_len"]) < _number(item["prefix_len"]):
        yield "delegated_len", "Delegated length must be longer than or equal to prefix length"
    yield from _pool_problems(box, uuid, item)


def _check_range(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    start, end, six = item["start_addr"], item["end_addr"], ":" in item["start_addr"]
    if not end:
        if six or "static" not in item["mode"].split(","):
            yield "end_addr", "End address may only be left empty for static ipv4 ranges."
    elif is_ip_address(start) and is_ip_address(end) and (":" in end) != six:
        yield "end_addr", "Protocol family doesn't match."
    if item["constructor"]:
        if not six:
            yield "constructor", "A constructor can only be configured for ipv6."
        for name in ("start_addr", "end_addr"):
            if item[name] and not item[name].startswith("::"):
                yield name, "A constructor expects a partial address (e.g. ::1)."
    if item["prefix_len"] not in ("", "0") and not six:
        yield "prefix_len", "Prefix length can only be used for IPv6."
    if item["prefix_len"] and item["ra_mode"] and item["prefix_len"] != "64":
        yield "prefix_len", "Prefix length must be at least 64 when router advertisements are used."


def _check_dnsmasq_option(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["option"] and item["option6"]:
        yield "option", "'Option' and 'Option6' cannot be selected at the same time."
    elif not item["option"] and not item["option6"]:
        yield "option", "Either 'Option' or 'Option6' is required."
    if item["type"] == "match" and not item["set_tag"]:
        yield "set_tag", "When type is 'Match', a tag must be set."
    for name, (family, codes) in ADDRESSES.items():
        values = [part.strip().strip("[]") for part in item["value"].split(",") if part]
        if item[name] in codes.split(",") and not all(is_ip_address(part, family) for part in values):
            text = "DHCP option" if family == "4" else "DHCPv6 option"
            yield "value", f"Only IPv{family} addresses are allowed for the selected {text}."


def _drop_set_tag(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Forget the tag to be set where nothing is matched, whatever was sent."""
    if new["type"] == "set":
        new["set_tag"] = ""


def _check_domain(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    name = item["domain"].removeprefix("*.")
    if name and (wrong := wrong_name(name, domain=True)):
        yield "domain", wrong
    if item["ip"] not in ("", "!") and not is_ip_address(item["ip"]):
        yield "ip", "Please specify a valid network segment or IP address."


def _check_destination(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    servers = item["server"].split(",")
    if all(map(is_ip_address, servers)) and len({":" in server for server in servers}) > 1:
        yield "server", "You cannot mix address families for destinations."


def _family(box: Box, relay: Item) -> str:
    servers = box.items(DESTINATIONS).get(relay["destination"], {}).get("server", "")
    return "IPv6" if ":" in servers else "IPv4" if servers else ""


def _check_relay(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    family = _family(box, item)
    for key, other in box.items(RELAYS).items():
        if (
            key != uuid
            and family
            and other["interface"] == item["interface"]
            and _family(box, other) == family
        ):
            yield "destination", f"An {family} destination for this relay is already set."
            return


def _add_status(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    """Say that the relay does not run, as nothing behind the recorded firewall's API did."""
    row["status"] = "red"


def _is_link_local(text: str) -> bool:
    return is_ip_address(text, "6") and "%" not in text and ipaddress.ip_address(text).is_link_local


def _check_entry(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    low, high = item["MinRtrAdvInterval"], item["MaxRtrAdvInterval"]
    if low.isdigit() and high.isdigit() and 4 <= int(high) <= 1800 and int(low) > int(high) * 0.75:
        yield "MinRtrAdvInterval", f"Value cannot be greater than {int(int(high) * 0.75)}."
    if item["Base6Interface"] and item["Base6Interface"] == item["interface"]:
        yield "Base6Interface", "Constructor cannot be the same as interface."
    lifetime = item["AdvDefaultLifetime"]
    if lifetime and high.isdigit() and not (lifetime.isdigit() and int(high) <= int(lifetime) <= 9000):
        yield "AdvDefaultLifetime", f"Value must be between {high} and 9000 seconds."
    if item["AdvRASrcAddress"] and not _is_link_local(item["AdvRASrcAddress"]):
        text = "Please specify an IPv6 link-local address without a zone index or netmask."
        yield "AdvRASrcAddress", text
    prefix = item["nat64prefix"]
    if is_ip_network(prefix) and prefix.partition("/")[2] not in ("32", "40", "48", "56", "64", "96"):
        yield "nat64prefix", "Prefix size must be one of 32, 40, 48, 56, 64 or 96."


HOOKS: Final = ModelHooks(
    checks={
        "kea_option": _check_option,
        "kea6_subnet": _check_subnet6,
        "kea6_reservation": _check_reservation6,
        "kea6_pd_pool": _check_pd_pool,
        "dnsmasq_range": _check_range,
        "dnsmasq_option": _check_dnsmasq_option,
        "dnsmasq_domain": _check_domain,
        "dhcrelay_destination": _check_destination,
        "dhcrelay_relay": _check_relay,
        "radvd_entry": _check_entry,
    },
    collections={
        RELAYS: CollectionHooks(add=_add_status),
        OPTIONS: CollectionHooks(before=(_drop_set_tag,)),
    },
)
