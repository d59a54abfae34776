"""The addresses that belong to fazai: those of the daemon's machine and of the firewalls it knows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fazai.compat.timeouts import deadline
from fazai.rules.addresses import Address, parse_address

_SIOCGIFADDR = 0x8915
_NET = Path("/proc/self/net")
_AGAIN_S = 600.0
_FAILED_AGAIN_S = 60.0  # it is not protected meanwhile, unless it was resolved before
_RESOLVE_S = 10.0

#: Returns the base URL of each firewall, and the addresses that it was seen to have.
FirewallAddresses = Callable[[], Iterable[tuple[str, tuple[str, ...]]]]


class OwnAddresses:
    """Finds the addresses, and remembers what names were resolved to for a while. `net`: the folder in which
    the kernel says what addresses the machine has."""

    def __init__(
        self,
        firewalls: FirewallAddresses,
        *,
        net: Path = _NET,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._firewalls, self._net, self._monotonic = firewalls, net, monotonic
        self._resolved: dict[str, tuple[float, tuple[Address, ...]]] = {}  # until when, and to what

    async def find(self) -> frozenset[Address]:
        """Return all of them. A name that cannot be resolved keeps what it was resolved to before: such a
        firewall cannot be reached by the daemon, either."""
        found = find_local_addresses(self._net)
        hosts: set[str] = set()
        for url, seen in self._firewalls():
            found.update(_parse_all(text.partition("/")[0] for text in seen))
            with contextlib.suppress(ValueError):
                host = urlsplit(url).hostname if "://" in url and not url.startswith("lab:") else None
                hosts.update(() if host is None else (host,))
        for addresses in await asyncio.gather(*map(self._resolve, sorted(hosts))):
            found.update(addresses)
        return frozenset(found)

    async def _resolve(self, host: str) -> tuple[Address, ...]:
        literal = parse_address(host, zones=True)
        if literal is not None:
            return (literal,)
        until, addresses = self._resolved.get(host, (float("-inf"), ()))
        if self._monotonic() < until:
            return addresses
        again_s = _AGAIN_S
        loop = asyncio.get_running_loop()
        try:
            async with deadline(_RESOLVE_S):
                rows = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = tuple(_parse_all(str(row[4][0]) for row in rows))
        except (OSError, TimeoutError, ValueError):  # ValueError: what no name can be, such as an empty label
            again_s = _FAILED_AGAIN_S
        self._resolved[host] = (self._monotonic() + again_s, addresses)
        return addresses


def _parse_all(texts: Iterable[str]) -> set[Address]:
    return {address for text in texts if (address := parse_address(text, zones=True)) is not None}


def find_local_addresses(net: Path = _NET) -> set[Address]:
    """Return the addresses of this machine's interfaces, as far as the system says them: the kernel's tables
    have all of them, of an interface with several, too."""
    found: set[Address] = set()
    try:
        found |= _parse_all(_ipv4_of((net / "fib_trie").read_text()))
    except OSError:
        found |= _parse_all(_first_ipv4_addresses())
    with contextlib.suppress(OSError):
        found |= _parse_all(_ipv6_of((net / "if_inet6").read_text()))
    return found


def _ipv4_of(table: str) -> Iterator[str]:
    """Yield the local addresses of the routing table: a leaf `|-- ADDRESS`, and below it what it is."""
    leaf = ""
    for line in table.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1] if len(words) > 1 else ""
        elif words == ["/32", "host", "LOCAL"]:
            yield leaf


def _ipv6_of(table: str) -> Iterator[str]:
    for line in table.splitlines():
        digits = line.split(maxsplit=1)[0] if line.strip() else ""
        yield ":".join(digits[at : at + 4] for at in range(0, 32, 4))


def _first_ipv4_addresses() -> Iterator[str]:
    """Yield the first address of each interface, as far as it can be asked for without the tables."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                request = struct.pack("256s", name.encode()[:15])
                yield socket.inet_ntoa(fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)[20:24])
