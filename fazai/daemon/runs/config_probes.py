"""The section `probes:` of the daemon's configuration file."""

from __future__ import annotations

import ipaddress
from typing import Any

from fazai.daemon.runs.config import ProbesConfig
from fazai.daemon.runs.config_values import Readers, Section, WrongValue, read_texts
from fazai.errors import InputError
from fazai.probes.dns import DnsServer, parse_dns_name, parse_dns_server
from fazai.probes.dnsbl import MOST_LISTS
from fazai.probes.reach import check_host

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def read_probes(top: Section) -> ProbesConfig:
    """Return what the section says, and note what is wrong in it."""
    section = top.section_below("probes")
    if section is None:
        return ProbesConfig()
    section.check_keys("allow", *_PROBES)
    names, networks = section.read("allow", _read_allowed, ((), ()))
    return section.read_fields(ProbesConfig(names=names, networks=networks), _PROBES)


def _read_allowed(value: Any) -> tuple[tuple[str, ...], Networks]:
    """Tell names from networks; an address is a network of one."""
    names: list[str] = []
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in read_texts(value):
        try:
            networks.append(ipaddress.ip_network(text))
            continue
        except ValueError as error:
            if "/" in text or "has host bits set" in str(error):
                hint = "such as 192.0.2.0/24, with nothing behind the prefix"
                raise WrongValue(f"lists {text[:64]!r}, which is no network", hint) from None
        try:
            star = text.startswith("*.")
            names.append(f"{'*.' if star else ''}{check_host(text.removeprefix('*.'))}")
        except InputError:
            raise WrongValue(f"lists {text[:64]!r}, which is no name, address or network") from None
    return tuple(names), tuple(networks)


def _read_server(value: Any) -> DnsServer:
    try:
        return parse_dns_server(str(value))
    except InputError as error:
        raise WrongValue(f"is an address, not {str(value)[:64]!r}", error.hint) from None


def _read_lists(value: Any) -> tuple[str, ...]:
    found = read_texts(value)
    if len(found) > MOST_LISTS:
        raise WrongValue(f"has at most {MOST_LISTS} names")
    try:
        return tuple(map(parse_dns_name, found))
    except InputError as error:
        raise WrongValue(f"lists what is no name: {error.message}") from None


_PROBES: Readers = {"resolver": ("resolver", _read_server), "blocklists": ("blocklists", _read_lists)}
