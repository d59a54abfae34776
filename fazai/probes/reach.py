"""Limits where a probe may go: anywhere by hand; for a model or a client only to what is the inventory's or
allowed.

The name is judged before it is looked up (a lookup alone tells somebody), each address of it afterwards, and
the connection is made to an address that was judged, never to the name again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Protocol

from fazai.errors import InputError, Refused
from fazai.probes.result import clean_text

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ALLOW_HINT = "add it to probes: allow: in daemon.yml"
_MOST_ADDRESSES = 8  # of one name, that are tried
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class Reach(Protocol):
    """Judges where a probe may go."""

    def locate(self, host: str) -> str:
        """Return the name or address at which a host is asked: of a target its own. Raises Refused."""
        ...

    def check_address(self, host: str, address: Address, port: int | None) -> None:
        """Judge an address that the host has. `port` None: of no port, such as ping. Raises Refused."""
        ...

    def check_name(self, name: str) -> None:
        """Judge a name that a DNS server is asked about. Raises Refused."""
        ...

    def check_server(self, address: Address, port: int) -> None:
        """Judge a DNS server that was named. Raises Refused."""
        ...


class Anywhere:
    """No limit: of a person at the terminal, who could as well use other programs."""

    def locate(self, host: str) -> str:
        return host

    def check_address(self, host: str, address: Address, port: int | None) -> None:
        return

    def check_name(self, name: str) -> None:
        return

    def check_server(self, address: Address, port: int) -> None:
        return


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of a host, that may be asked. `name` is what the host calls itself: in HTTP and TLS."""

    name: str
    address: Address

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.address.version == 4 else socket.AF_INET6


def parse_address(text: str) -> Address | None:
    """Return the address that a text is, with or without brackets; None for a name. One of IPv4 in the form
    of IPv6 is that of IPv4; zones (`%eth0`) stay."""
    try:
        return plain_address(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def plain_address(address: Address) -> Address:
    """Return the address that is meant: `::ffff:1.2.3.4` is 1.2.3.4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def check_host(host: str) -> str:
    """Return a name in the form in which it is looked up (IDNA), or an address. Raises InputError for a text
    that is neither, such as `1.2` and `0x7f.1`, which some resolvers take for addresses."""
    address = parse_address(host)
    if address is not None:
        return str(address)
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    labels = name.removesuffix(".").split(".")
    if (
        not name
        or len(name) > 253
        or not all(_LABEL.fullmatch(label) for label in labels)
        or re.fullmatch(r"\d+|0[xX][0-9a-fA-F]*", labels[-1])
    ):
        raise InputError(
            f"{clean_text(host, 64)!r} is no host", hint="a name, or an address such as 192.0.2.1"
        )
    return name.lower()


async def find_endpoints(
    host: str, port: int | None, reach: Reach, family: int | None = None
) -> list[Endpoint]:
    """Return the addresses of a host that may be asked, in the order of preference. The caller's deadline
    holds. Raises InputError, Refused where none of them may be asked, OSError where it has none."""
    asked = check_host(host)
    located = check_host(reach.locate(asked))
    # A server knows itself by a name, where there is one: of a target with a bare address, the target's own.
    name = asked if parse_address(located) is not None and parse_address(asked) is None else located
    found, refused = [], None
    for address in await _look_up(located, family):
        try:
            reach.check_address(located, address, port)
        except Refused as error:
            refused = refused or error
        else:
            found.append(Endpoint(name, address))
    if not found and refused is not None:
        raise refused
    return found[:_MOST_ADDRESSES]


async def _look_up(name: str, family: int | None) -> list[Address]:
    address = parse_address(name)
    if address is not None:
        if family is not None and address.version != family:
            raise InputError(f"{address} is no IPv{family} address")
        return [address]
    wanted = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[family]
    loop = asyncio.get_running_loop()
    # deadline: the caller's, each probe has one for everything
    rows = await loop.getaddrinfo(name, None, family=wanted, type=socket.SOCK_STREAM)
    found = [plain_address(ipaddress.ip_address(row[4][0])) for row in rows]
    return list(dict.fromkeys(found))


# -- a limited reach

_EMBEDDING = tuple(
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)


def is_special(address: Address) -> bool:
    """Return whether an address is this machine, its link or nobody's: what a probe of others never means."""
    address = plain_address(address)
    if (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    ):
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.IPv4Network("0.0.0.0/8") or address == ipaddress.IPv4Address(2**32 - 1)
    return address.is_site_local or any(address in network for network in _EMBEDDING)


def is_own(address: Address) -> bool:
    """Return whether an address is one of this machine's own, by binding a socket to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((str(address), 0))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class LimitedReach:
    """The reach of a model and of a client of the API.

    `hosts` maps each name that may be asked (of a target, in lower case) to its name or address; `names` are
    further names, `*.example.org` for all below; `networks` are those whose addresses may be asked, special
    ones included; `own_ports` are never asked on this machine; `servers` are DNS servers that may be asked.
    """

    hosts: dict[str, str]
    names: tuple[str, ...] = ()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    own_ports: frozenset[int] = frozenset()
    servers: tuple[tuple[Address, int], ...] = ()

    def locate(self, host: str) -> str:
        if host in self.hosts:
            return self.hosts[host]
        address = parse_address(host)
        if address is not None and (self._is_listed(address) or self._is_a_hosts(address)):
            return host
        if address is None and (host in self.hosts.values() or self._is_named(host)):
            return host
        raise Refused(
            f"{clean_text(host, 64)} is no target of the inventory, and is not allowed",
            hint=_ALLOW_HINT,
        )

    def check_address(self, host: str, address: Address, port: int | None) -> None:
        if port in self.own_ports and (address.is_unspecified or is_own(address)):
            raise Refused(f"port {port} of this machine is the daemon's own")
        if is_special(address) and not self._is_listed(address):
            whose = "" if host == str(address) else f", an address of {host},"
            raise Refused(f"{address}{whose} is this machine's, its link's or nobody's", hint=_ALLOW_HINT)

    def check_name(self, name: str) -> None:
        plain = name.lower().removesuffix(".")
        if plain not in self.hosts and plain not in self.hosts.values() and not self._is_named(plain):
            raise Refused(
                f"{clean_text(plain, 64)} is no name of a target, and is not allowed",
                hint=_ALLOW_HINT,
            )

    def check_server(self, address: Address, port: int) -> None:
        if (address, port) in self.servers:
            return
        self.locate(str(address))
        self.check_address(str(address), address, port)

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)

    def _is_a_hosts(self, address: Address) -> bool:
        return any(parse_address(each) == address for each in self.hosts.values())

    def _is_named(self, host: str) -> bool:
        return any(
            host == name or (name.startswith("*.") and host.endswith(name[1:]) and host != name[2:])
            for name in self.names
        )
