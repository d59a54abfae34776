"""Addresses and networks: `ipaddr` and its kin, as ansible.utils has them, on the standard `ipaddress`.

As there, what is no address (or has no answer) gives False or nothing, and a list is filtered. A query that
does not exist is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)
from typing import Any, Final

from fazai.errors import spelling_hint
from fazai.template.filters.base import FilterError, TemplateFilter, taint

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class _InterfaceAddress:
    """An address in its network. `bare`: it was written without a prefix."""

    value: str
    interface: IPv4Interface | IPv6Interface
    bare: bool

    @property
    def ip(self) -> Address:
        return self.interface.ip

    @property
    def net(self) -> IPv4Network | IPv6Network:
        return self.interface.network

    @property
    def prefix(self) -> int:
        return self.net.prefixlen

    @property
    def size(self) -> int:
        return self.net.num_addresses

    @property
    def is_network(self) -> bool:
        return self.size > 1 and self.ip == self.net.network_address

    def with_prefix(self, ip: Address) -> str:
        return str(ip) if self.bare else f"{ip}/{self.prefix}"

    def nth_address(self, number: int) -> Address | None:
        """The address at this place of the network, from its end when negative."""
        place = number if number >= 0 else self.size + number
        return self.net.network_address + place if 0 <= place < self.size else None

    def usable_range(self) -> tuple[Address, Address] | None:
        if self.bare:
            raise FilterError("an address without a prefix has no network", "write 192.0.2.1/24")
        if self.size == 1:
            return None
        first, last = self.net.network_address, self.net.broadcast_address
        return (first, last) if self.size == 2 else (first + 1, last - 1)


def _parse_address(value: Any) -> _InterfaceAddress | None:
    if not isinstance(value, str) or not value or len(value) > 128:
        return None
    try:
        return _InterfaceAddress(value, ip_interface(value), "/" not in value)
    except ValueError:
        return None


def _usable_range(host: _InterfaceAddress, which: Callable[[Address, Address], Any]) -> Any:
    ends = host.usable_range()
    return which(*ends) if ends else None


def _next_to(host: _InterfaceAddress, step: int) -> str | None:
    ends = host.usable_range()
    if ends is None or not int(ends[0]) <= int(host.ip) + step <= int(ends[1]):
        return None
    return str(host.ip + step)


def _value_if(condition: Callable[[_InterfaceAddress], bool]) -> Callable[[_InterfaceAddress], str | None]:
    return lambda host: host.value if condition(host) else None


def _is_member(host: _InterfaceAddress) -> bool:
    """An address that a machine can have: neither the network's nor its broadcast address."""
    return host.size <= 2 or host.ip not in (host.net.network_address, host.net.broadcast_address)


_QUERIES: Final[Mapping[str, Callable[[_InterfaceAddress], Any]]] = {
    "": lambda h: h.with_prefix(h.ip),
    "address": lambda h: str(h.ip) if not h.is_network or h.size == 2 or h.ip.version == 6 else None,
    "bool": lambda h: True,
    "broadcast": lambda h: str(h.net.broadcast_address) if h.size > 2 else None,
    "cidr": lambda h: f"{h.ip}/{h.prefix}",
    "first_usable": lambda h: _usable_range(h, lambda first, last: str(first)),
    "host": lambda h: f"{h.ip}/{h.prefix}" if not h.is_network or h.size == 2 else None,
    "host/prefix": lambda h: f"{h.ip}/{h.prefix}" if _is_member(h) else False,
    "hostmask": lambda h: str(h.net.hostmask),
    "int": lambda h: int(h.ip) if h.bare else f"{int(h.ip)}/{h.prefix}",
    "ip/prefix": lambda h: f"{h.ip}/{h.prefix}" if h.size > 1 and (not h.is_network or h.size == 2) else None,
    "ip_netmask": lambda h: (
        f"{h.ip} {h.net.netmask}" if h.size > 1 and (not h.is_network or h.size == 2) else None
    ),
    "ipv4": lambda h: h.value if h.ip.version == 4 else False,
    "ipv6": lambda h: h.value if h.ip.version == 6 else False,
    "last_usable": lambda h: _usable_range(h, lambda first, last: str(last)),
    "link-local": _value_if(lambda h: h.ip.is_link_local),
    "loopback": _value_if(lambda h: h.ip.is_loopback),
    "multicast": _value_if(lambda h: h.ip.is_multicast),
    "net": lambda h: f"{h.net}" if h.is_network else None,
    "netmask": lambda h: str(h.net.netmask),
    "network": lambda h: str(h.net.network_address),
    "network_netmask": lambda h: f"{h.net.network_address} {h.net.netmask}",
    "next_usable": lambda h: _next_to(h, 1),
    "prefix": lambda h: h.prefix,
    "previous_usable": lambda h: _next_to(h, -1),
    "private": _value_if(lambda h: h.ip.is_private),
    "public": _value_if(lambda h: h.ip.is_global and not h.ip.is_multicast),
    "range_usable": lambda h: _usable_range(h, lambda first, last: f"{first}-{last}"),
    "revdns": lambda h: h.ip.reverse_pointer + ".",
    "size": lambda h: h.size,
    "size_usable": lambda h: 0 if h.size == 1 else h.size if h.size == 2 else h.size - 2,
    "subnet": lambda h: str(h.net),
    "type": lambda h: "network" if h.is_network else "address",
    "unicast": _value_if(lambda h: not h.ip.is_multicast),
    "version": lambda h: h.ip.version,
    "wrap": lambda h: _wrap_ipv6(h),
}
_ALIASES: Final[Mapping[str, str]] = {
    "gateway": "host/prefix",
    "gw": "host/prefix",
    "ip": "address",
    "network/prefix": "subnet",
    "network_id": "network",
    "v4": "ipv4",
    "v6": "ipv6",
    "wildcard": "hostmask",
}


def ipaddr(value: Any, query: Any = "", version: int | None = None) -> Any:
    """Answer `query` for an address or network; for each in a list, without those that have no answer."""
    answer = _find_query(str(query) if isinstance(query, int) else query)
    if isinstance(value, list | tuple):
        answers = [_answer_query(item, answer, version) for item in value]
        return [each for each in answers if each is not None and each is not False]
    return _answer_query(value, answer, version)


def _answer_query(value: Any, answer: Callable[[_InterfaceAddress], Any], version: int | None) -> Any:
    host = _parse_address(value)
    if host is None or (version is not None and host.ip.version != version):
        return False
    return answer(host)


def _find_query(query: Any) -> Callable[[_InterfaceAddress], Any]:
    if not isinstance(query, str):
        raise FilterError(f"ipaddr takes the name of a query, not {type(query).__name__}")
    known = _QUERIES.get(_ALIASES.get(query, query))
    if known is not None:
        return known
    try:
        number = int(query)
    except ValueError:
        return _within_network(query)
    return lambda host: _nth_address(host, number)


def _nth_address(host: _InterfaceAddress, number: int) -> Any:
    if host.size == 1:
        return host.with_prefix(host.ip)
    ip = host.nth_address(number)
    return host.with_prefix(ip) if ip is not None else False


def _within_network(query: str) -> Callable[[_InterfaceAddress], Any]:
    other = _parse_address(query)
    if other is None:
        raise FilterError(
            f'ipaddr has no query "{query}"',
            spelling_hint(query, _QUERIES) or "or a network, such as 192.0.2.0/24",
        )
    start, end, version = int(other.net.network_address), int(other.net.broadcast_address), other.ip.version
    return _value_if(
        lambda host: (
            host.ip.version == version
            and start <= int(host.net.network_address if not host.bare else host.ip)
            and int(host.net.broadcast_address) <= end
        )
    )


def _wrap_ipv6(host: _InterfaceAddress) -> str:
    if host.ip.version == 4:
        return host.value
    return f"[{host.ip}]" if host.bare else f"[{host.ip}]/{host.prefix}"


def ipv4(value: Any, query: Any = "") -> Any:
    return ipaddr(value, query, 4)


def ipv6(value: Any, query: Any = "") -> Any:
    return ipaddr(value, query, 6)


def ipwrap(value: Any) -> Any:
    """IPv6 addresses in brackets; everything else as it is."""
    if isinstance(value, list | tuple):
        return [ipwrap(item) for item in value]
    host = _parse_address(value)
    return value if host is None else _wrap_ipv6(host)


def nthhost(value: Any, query: Any) -> Any:
    """The address number `query` of the network, False if there is none."""
    host = _parse_address(value)
    if host is None:
        return False
    try:
        ip = host.nth_address(int(query))
    except (TypeError, ValueError):
        raise FilterError("nthhost takes a number") from None
    return str(ip) if ip is not None else False


def ipmath(value: Any, amount: Any) -> str:
    """The address that is `amount` further on."""
    host = _parse_address(value)
    if host is None or not isinstance(amount, int):
        raise FilterError("ipmath takes an address and a whole number")
    return str(host.ip + amount)


def ipsubnet(value: Any, query: Any = "", index: Any = None) -> Any:
    """Count the subnets of this size in a network, or return the one number `index`; without a size, the
    network."""
    host = _parse_address(value)
    if host is None:
        return False
    if query == "":
        return str(host.net)
    prefix = _check_prefix(query, host)
    if prefix < host.prefix:
        return str(host.net.supernet(new_prefix=prefix))
    count = 1 << (prefix - host.prefix)
    if index is None:
        return str(count)
    place = int(index) if int(index) >= 0 else count + int(index)
    if not 0 <= place < count:
        return False
    start = host.net.network_address + place * (1 << (host.net.max_prefixlen - prefix))
    return f"{start}/{prefix}"


def _check_prefix(query: Any, host: _InterfaceAddress) -> int:
    try:
        prefix = int(query)
    except (TypeError, ValueError):
        raise FilterError("ipsubnet takes the length of a prefix") from None
    if not 0 <= prefix <= host.net.max_prefixlen:
        raise FilterError(f"a prefix is 0 to {host.net.max_prefixlen}")
    return prefix


FILTERS: Final[Mapping[str, TemplateFilter]] = {
    "ipaddr": taint(ipaddr),
    "ipv4": taint(ipv4),
    "ipv6": taint(ipv6),
    "ipwrap": taint(ipwrap),
    "nthhost": taint(nthhost),
    "ipmath": taint(ipmath),
    "ipsubnet": taint(ipsubnet),
}
