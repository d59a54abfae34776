"""kea: settings that fill in options, leases, the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.daemons import daemon_handlers
from fazai.lab.actions.sheets import download
from fazai.lab.box import Call, Handler
from fazai.lab.engine import get_model, set_model
from fazai.lab.models.kea import SUBNETS, collected
from fazai.lab.search import recordset

__all__ = ["ACTIONS"]

MODEL: Final = "Kea.dhcp4"
HOSTNAME: Final = "OPNsense"


def get(call: Call) -> Any:
    """The name of this server is the firewall's own unless it is set."""
    body = get_model(call, call.box.catalogue.controllers["kea/dhcpv4"], call.box.catalogue.models[MODEL])
    if body:
        body["dhcpv4"]["ha"]["%this_server_name"] = HOSTNAME
    return body


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


ACTIONS: Final[Mapping[str, Handler]] = {
    **daemon_handlers("kea"),
    "kea/dhcpv4/get": get,
    "kea/dhcpv4/set": change,
    "kea/dhcpv4/downloadReservations": download(
        "Kea.dhcp4.reservations.reservation", with_uuid=False, leave_out=("subnet",)
    ),
    "kea/leases4/search": leases,
}
