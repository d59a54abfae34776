"""DHCP reservations, monit services, shaper pipes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from fazai.lab.box import Box, Call
from fazai.lab.config import Item
from fazai.lab.fieldtypes import is_address
from fazai.lab.hooktypes import Extra, Hooks
from fazai.lab.schema import ItemModel

__all__ = ["HOOKS"]

PIPES: Final = "TrafficShaper.pipes.pipe"
SUBNETS: Final = "Kea.dhcp4.subnets.subnet4"
WITH_PATH: Final = ("file", "fifo", "filesystem", "directory", "custom")


def _reservation(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    address = item["ip_address"]
    if not is_address(address, "4"):
        return
    subnet = box.items(SUBNETS).get(item["subnet"])
    if subnet is None or ipaddress.ip_address(address) not in ipaddress.ip_network(
        subnet["subnet"], strict=False
    ):
        yield "ip_address", "Address not in specified subnet"


def _monit_path(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["type"] in WITH_PATH and not item["path"]:
        yield "path", "Path is mandatory."


def _pipe_number(call: Call, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """The firewall numbers the pipes itself, from 10000."""
    if not new["number"]:
        used = {item["number"] for item in call.box.items(PIPES).values()}
        number = 10000
        while str(number) in used:
            number += 1
        new["number"], new["origin"] = str(number), "TrafficShaper"


HOOKS: Final = Hooks(
    checks={"kea_reservation": _reservation, "monit_path": _monit_path},
    extra={PIPES: Extra(before=(_pipe_number,))},
)
