"""The addresses that belong to fazai: those of the daemon's machine and of the firewalls it knows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from fazai.compat.timeouts import deadline
from fazai.rules.addresses import Address, parse_address

_SIOCGIFADDR = 0x8915
_IF_INET6 = Path("/proc/net/if_inet6")
_AGAIN_S = 600.0
_RESOLVE_S = 10.0

#: Returns the base URL of each firewall, and the addresses that it was seen to have.
FirewallAddresses = Callable[[], Iterable[tuple[str, tuple[str, ...]]]]


class OwnAddresses:
    """Finds the addresses, and remembers what names were resolved to for a while."""

    def __init__(
        self, firewalls: FirewallAddresses, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._firewalls, self._monotonic = firewalls, monotonic
        self._resolved: dict[str, tuple[float, tuple[Address, ...]]] = {}

    async def find(self) -> frozenset[Address]:
        """Return all of them. A name that cannot be resolved keeps what it was resolved to before: such a
        firewall cannot be reached by the daemon, either."""
        found = set(_local_addresses())
        hosts: set[str] = set()
        for url, seen in self._firewalls():
            parsed = (parse_address(text.partition("/")[0]) for text in seen)
            found.update(address for address in parsed if address is not None)
            with contextlib.suppress(ValueError):
                host = urlsplit(url).hostname if "://" in url and not url.startswith("lab:") else None
                hosts.update(() if host is None else (host,))
        for addresses in await asyncio.gather(*map(self._resolve, sorted(hosts))):
            found.update(addresses)
        return frozenset(found)

    async def _resolve(self, host: str) -> tuple[Address, ...]:
        literal = parse_address(host)
        if literal is not None:
            return (literal,)
        known = self._resolved.get(host)
        if known is not None and self._monotonic() - known[0] < _AGAIN_S:
            return known[1]
        loop = asyncio.get_running_loop()
        try:
            async with deadline(_RESOLVE_S):
                rows = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            parsed = (parse_address(str(row[4][0])) for row in rows)
            addresses = tuple({address for address in parsed if address is not None})
        except (OSError, TimeoutError, UnicodeError):
            addresses = known[1] if known is not None else ()
        self._resolved[host] = (self._monotonic(), addresses)
        return addresses


def _local_addresses() -> list[Address]:
    """Return the addresses of this machine's interfaces, as far as the system says them."""
    texts = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                request = struct.pack("256s", name.encode()[:15])
                texts.append(socket.inet_ntoa(fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, request)[20:24]))
    with contextlib.suppress(OSError):
        for line in _IF_INET6.read_text().splitlines():
            digits = line.split()[0]
            texts.append(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    return [address for address in map(parse_address, texts) if address is not None]
