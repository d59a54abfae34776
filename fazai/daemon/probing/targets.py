"""Names and addresses of the inventory's targets and of the registered firewalls, which probes may ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fazai.daemon.firewalls.poller import Firewalls
from fazai.daemon.firewalls.registry import inventory_files, read_inventory
from fazai.daemon.runs.config import ProbesConfig
from fazai.daemon.settings import DaemonSettings
from fazai.errors import FazaiError
from fazai.probes.dns import DnsServer
from fazai.probes.reach import LimitedReach
from fazai.service.log import Log

if TYPE_CHECKING:
    from fazai.playbook.scopes import HostScopes

MOST_AT_ONCE = 16
_LOGGER = "fazai.daemon.probes"
#: The variables that hold the address of a host or of a firewall, the first that is there.
_ADDRESS_VARIABLES = ("base_url", "host", "ansible_host", "ansible_ssh_host")


class ProbeTargets:
    """Knows where probes may go. The inventory is read again when one of its files changed; where it cannot
    be read, what was known stays."""

    def __init__(self, settings: DaemonSettings, firewalls: Firewalls, log: Log) -> None:
        self.config: ProbesConfig = settings.config.probes
        self._settings, self._firewalls, self._log = settings, firewalls, log
        jobs = settings.config.jobs.values()
        self._sources = dict.fromkeys(
            [settings.inventory, *(job.inventory for job in jobs)]
            if settings.inventory
            else [job.inventory for job in jobs]
        )
        self._read: dict[tuple[str, ...], tuple[object, dict[str, str]]] = {}
        #: The ports that the daemon listens to, which are set once they are known.
        self.own_ports = frozenset({settings.port, settings.config.agents.port})
        #: So many probes at once; others wait for as long as their tool may take.
        self.gate = asyncio.Semaphore(MOST_AT_ONCE)

    @property
    def server(self) -> DnsServer | None:
        """The DNS server that is asked where a probe names none; None: the system's."""
        return self.config.resolver

    async def reach(self) -> LimitedReach:
        """Return where a probe may go now."""
        hosts: dict[str, str] = {}
        for sources in self._sources:
            hosts |= await asyncio.to_thread(self._read_again, sources)
        for seen in self._firewalls.all():
            hosts |= _named(seen.firewall.name, seen.firewall.base_url)
        server = self.config.resolver
        return LimitedReach(
            hosts,
            self.config.names,
            self.config.networks,
            self.own_ports,
            ((server.address, server.port),) if server is not None else (),
        )

    def _read_again(self, sources: tuple[str, ...]) -> dict[str, str]:
        files = inventory_files(sources)
        before = self._read.get(sources)
        if before is not None and before[0] == files:
            return before[1]
        try:
            hosts = read_host_addresses(sources, dict(os.environ), self._settings.secrets)
        except FazaiError as error:
            self._log.say("error", f"probes do not know the inventory: {error}", logger=_LOGGER)
            hosts = before[1] if before is not None else {}
        self._read[sources] = (files, hosts)
        return hosts


def read_host_addresses(sources: Sequence[str], environ: Mapping[str, str], secrets: Path) -> dict[str, str]:
    """Return the name or address of each host of an inventory. Blocks. Raises FazaiError."""
    from fazai.playbook.scopes import HostScopes
    from fazai.template import Templates

    inventory, reader = read_inventory(sources, environ, secrets)
    scopes = HostScopes(inventory, Templates(secrets=reader.read), {})
    found: dict[str, str] = {}
    for host in inventory.hosts:
        found |= _named(host, next(_address_values(scopes, host), host))
    return found


def _address_values(scopes: HostScopes, host: str) -> Iterator[str]:
    """Yield the texts that say where a host is; what cannot be rendered says nothing."""
    from fazai.template import is_static

    raw = scopes.raw(host)
    for name in _ADDRESS_VARIABLES:
        value = raw.get(name)
        try:
            found = value if is_static(value) else scopes.host(host).render(value)
        except FazaiError:
            continue
        if isinstance(found, str) and found:
            yield found


def _named(name: str, place: str) -> dict[str, str]:
    """Return a host by its name; of a URL its host, of one of the lab nothing, as that is this machine."""
    try:
        found = urlsplit(place).hostname if "://" in place else place
    except ValueError:
        return {}
    if not found or place.startswith("lab:"):
        return {}
    return {name.lower(): found.lower()}
