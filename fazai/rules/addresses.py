"""Says whether an address may be put into an alias: never fazai's own, never a protected one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from fazai.rules.values import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
    *("::/128", "::1/128", "fe80::/10", "ff00::/8"),
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
NEVER: tuple[Network, ...] = tuple(map(ipaddress.ip_network, _NEVER))
PRIVATE: tuple[Network, ...] = tuple(map(ipaddress.ip_network, _PRIVATE))


def parse_address(text: str, *, zones: bool = False) -> Address | None:
    """Return the address of a text, an IPv4 one where it is written as a mapped IPv6 one; None where it is
    none. One with a zone is none, either, as no alias can hold it; with `zones` it is read without it."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            if not zones:
                return None
            found = ipaddress.IPv6Address(int(found))  # else it equals no address without a zone
        return found.ipv4_mapped or found
    return found


def parse_network(text: str) -> Network:
    """Return the network of a text, an IPv4 one where it is written as a mapped IPv6 one: no address that was
    parsed would be in it otherwise. Raises ValueError."""
    found = ipaddress.ip_network(text)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        first = found.network_address.ipv4_mapped
        return ipaddress.IPv4Network(f"{first}/{found.prefixlen - _MAPPED.prefixlen}")
    return found


def explain_protection(
    address: Address, *, never: Iterable[Network], own: Iterable[Address], private: bool
) -> str | None:
    """Return why an address may not be put into an alias; None where it may. `own`: those of firewalls and of
    the daemon; `private`: addresses of private networks may be."""
    if address in set(own):
        return "it is a firewall's, or the daemon's own"
    if any(address in network for network in NEVER):
        return "it is no address of another host"
    for network in never:
        if address in network:
            return f"it is in {network}, of which nothing is ever blocked (`never`)"
    if not private and any(address in network for network in PRIVATE):
        return "it is in a private network (`private: true` lets the rule)"
    return None
