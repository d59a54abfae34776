"""kea: settings that fill in options, leases, the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.daemons import daemon_handlers
from fazai.lab.actions.sheets import download, upload
from fazai.lab.box import Call, Handler
from fazai.lab.engine.search import recordset
from fazai.lab.engine.verbs import set_model
from fazai.lab.models.kea import RESERVATIONS, SUBNETS, collected, subnet_of

__all__ = ["ACTIONS"]

MODEL: Final = "Kea.dhcp4"


def change(call: Call) -> Any:
    """Also puts the firewall's address into the options of the subnets that ask for it."""
    edit = call.box.config.edit()
    for uuid, item in collected(call.box).items():
        edit.put(SUBNETS, uuid, item)
    catalogue = call.box.catalogue
    return set_model(call, catalogue.controllers["kea/dhcpv4"], catalogue.models[MODEL], edit)


def leases(call: Call) -> Any:
    """Nobody asks the lab for an address."""
    stats = {"active": 0, "inactive": 0, "total": 0}
    return {**recordset(call, []), "stats": stats, "interfaces": []}


def _find(call: Call, sent: dict[str, str]) -> str:
    """The subnet follows from the address; a reservation is known by its subnet and its MAC address."""
    sent["subnet"] = subnet_of(call.box, sent.get("ip_address", "")) or sent.get("subnet", "")
    same = (sent["subnet"], sent.get("hw_address", ""))
    reservations = call.box.items(RESERVATIONS).items()
    return next((uuid for uuid, item in reservations if (item["subnet"], item["hw_address"]) == same), "")


ACTIONS: Final[Mapping[str, Handler]] = {
    **daemon_handlers("kea"),
    "kea/dhcpv4/set": change,
    "kea/dhcpv4/downloadReservations": download(RESERVATIONS, with_uuid=False, leave_out=("subnet",)),
    "kea/dhcpv4/uploadReservations": upload(RESERVATIONS, _find),
    "kea/leases4/search": leases,
}
