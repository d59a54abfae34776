"""firewall/group: the groups that the product brings, and the moment from which a new one can be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.names import GROUPS, natural_key
from fazai.lab.engine.search import SearchRow, grid_answer
from fazai.lab.engine.verbs import rows_of

BUILTIN: Final = {
    "enc0": "IPsec encapsulation",
    "openvpn": "OpenVPN (Group)",
    "wireguard": "WireGuard (Group)",
}


def search_groups(call: ActionCall) -> Any:
    rows = list(rows_of(call.box, call.model(GROUPS)))
    for name, text in BUILTIN.items():
        row = {"uuid": name, "ifname": name, "members": "", "nogroup": "", "sequence": "10", "descr": text}
        rows.append(SearchRow(row, [natural_key(name)]))
    rows.sort(key=lambda row: row.key)
    return grid_answer(call, rows)


ACTIONS: Final[Mapping[str, Handler]] = {
    "firewall/group/searchItem": search_groups,
}
