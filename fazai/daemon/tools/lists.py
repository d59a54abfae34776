"""The names in the live fleet from which an argument of a tool is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import get_args

from fazai.daemon.services import Services
from fazai.loop.tools import FleetList

ALL_LISTS: tuple[FleetList, ...] = get_args(FleetList)
#: A fleet is that large at most, as far as names go; what is beyond cannot be named.
_MOST = 20_000
_NAME_CHARS = 256


def fleet_lists(
    services: Services, wanted: Collection[FleetList] = ALL_LISTS
) -> dict[FleetList, tuple[str, ...]]:
    """Return the names of each wanted list, in order. It asks nobody: all of it is in memory."""
    return {name: _bounded(_LISTS[name](services)) for name in wanted}


def _bounded(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if 0 < len(name) <= _NAME_CHARS})[:_MOST])


def _firewalls(services: Services) -> Iterable[str]:
    """Names, and beside them the ids of firewalls that share one."""
    watched = [seen.firewall for seen in services.firewalls.all()]
    shared = Counter(one.name for one in watched)
    yield from shared
    yield from (one.id for one in watched if shared[one.name] > 1)


def _hosts(services: Services) -> Iterable[str]:
    return (one.host for one in services.store.hosts())


def _targets(services: Services) -> Iterable[str]:
    """Targets that a run left somehow, and those of the inventory."""
    yield from services.drift.targets
    yield from services.firewalls.inventory_targets
    yield from (seen.firewall.name for seen in services.firewalls.all())


def _playbooks(services: Services) -> Iterable[str]:
    return services.settings.config.jobs


def _sessions(services: Services) -> Iterable[str]:
    return services.loop.ids()


_LISTS: Mapping[FleetList, Callable[[Services], Iterable[str]]] = MappingProxyType(
    {
        "firewalls": _firewalls,
        "hosts": _hosts,
        "targets": _targets,
        "playbooks": _playbooks,
        "sessions": _sessions,
    }
)
