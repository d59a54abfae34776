"""firewall/group: the groups that the product brings, and when a new one can be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure
from fazai.lab.box import Call, Handler
from fazai.lab.engine.names import GROUPS, natural
from fazai.lab.engine.search import Row, grid
from fazai.lab.engine.verbs import rows_of

__all__ = ["ACTIONS"]

BUILTIN: Final = {
    "enc0": "IPsec encapsulation",
    "openvpn": "OpenVPN (Group)",
    "wireguard": "WireGuard (Group)",
}


def search(call: Call) -> Any:
    rows = list(rows_of(call.box, call.box.catalogue.items[GROUPS]))
    for name, text in BUILTIN.items():
        row = {"uuid": name, "ifname": name, "members": "", "nogroup": "", "sequence": "10", "descr": text}
        rows.append(Row(row, [natural(name)]))
    rows.sort(key=lambda row: row.key)
    return grid(call, rows)


ACTIONS: Final[Mapping[str, Handler]] = {
    "firewall/group/searchItem": search,
    "firewall/group/reconfigure": reconfigure("group"),
}
