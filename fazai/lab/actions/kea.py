"""kea: settings that fill in options, leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.sheets import download_csv, upload_csv
from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.search import recordset_answer
from fazai.lab.engine.verbs import set_model
from fazai.lab.models.kea import RESERVATIONS, SUBNETS, collect_options, subnet_of

MODEL: Final = "Kea.dhcp4"


def set_kea(call: ActionCall) -> Any:
    """Set the model, and put the firewall's address into the options of subnets that ask for it."""
    edit = call.box.config.edit()
    for uuid, item in collect_options(call.box).items():
        edit.put(SUBNETS, uuid, item)
    catalogue = call.box.catalogue
    return set_model(call, catalogue.controllers["kea/dhcpv4"], catalogue.models[MODEL], edit)


def search_leases(call: ActionCall) -> Any:
    """List no leases: nobody asks the lab for an address."""
    stats = {"active": 0, "inactive": 0, "total": 0}
    return {**recordset_answer(call, []), "stats": stats, "interfaces": []}


def _find_reservation(call: ActionCall, sent: dict[str, str]) -> str:
    """Find a reservation by its subnet, which follows from the address, and its MAC address."""
    sent["subnet"] = subnet_of(call.box, sent.get("ip_address", "")) or sent.get("subnet", "")
    same = (sent["subnet"], sent.get("hw_address", ""))
    reservations = call.box.items(RESERVATIONS).items()
    return next((uuid for uuid, item in reservations if (item["subnet"], item["hw_address"]) == same), "")


ACTIONS: Final[Mapping[str, Handler]] = {
    "kea/dhcpv4/set": set_kea,
    "kea/dhcpv4/downloadReservations": download_csv(RESERVATIONS, with_uuid=False, leave_out=("subnet",)),
    "kea/dhcpv4/uploadReservations": upload_csv(RESERVATIONS, _find_reservation),
    "kea/leases4/search": search_leases,
}
