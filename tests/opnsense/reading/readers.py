"""All readers, each with the calls that it cannot do without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.activity import read_activity
from fazai.providers.opnsense.reading.backup import read_backup
from fazai.providers.opnsense.reading.filterlog import read_log
from fazai.providers.opnsense.reading.firmware import read_firmware
from fazai.providers.opnsense.reading.rules import read_rules
from fazai.providers.opnsense.reading.services import read_services
from fazai.providers.opnsense.reading.states import read_states
from fazai.providers.opnsense.reading.vpn import read_vpn
from fazai.wire import opn


@dataclass(frozen=True)
class Reader:
    """A reader, and the calls without which it has no answer."""

    read: Callable[[Api], Awaitable[Any]]
    calls: tuple[str, ...]


READERS: Mapping[str, Reader] = {
    "rules": Reader(lambda api: read_rules(api, opn.OpnRulesQuery()), ("firewall/filter/searchRule",)),
    "states": Reader(
        lambda api: read_states(api, opn.OpnStatesQuery()), ("diagnostics/firewall/queryStates",)
    ),
    "activity": Reader(
        lambda api: read_activity(api, opn.OpnActivityQuery()), ("diagnostics/activity/getActivity",)
    ),
    "log": Reader(
        lambda api: read_log(api, opn.OpnLogQuery(limit=20, scan=20)), ("diagnostics/firewall/log",)
    ),
    "vpn": Reader(
        read_vpn,
        (
            "wireguard/service/show",
            "openvpn/service/searchSessions",
            "ipsec/sessions/searchPhase1",
        ),
    ),
    "firmware": Reader(read_firmware, ("core/firmware/status",)),
    "services": Reader(read_services, ("core/service/search",)),
    "backup": Reader(read_backup, ("core/backup/download/this",)),
}
