"""Reads versions and pending updates: GET `core/firmware/status`, as recorded (`core`).

It answers what the last check found. A POST to the same address makes the firewall look for updates first
(`Core/Api/FirmwareController.php` of opnsense/core), which this never does.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from fazai.errors import DeviceError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.reading.values import Row, first_rows, flag_at, map_at, rows_of, text_at
from fazai.wire.opn import OpnFirmware, OpnFirmwareAnswer, OpnUpdate

_MOST = 200


async def read_firmware(api: Api) -> OpnFirmwareAnswer:
    """Read what the firewall knows of its firmware. Raises as `Api.get`."""
    answer = await api.get("core/firmware/status")
    if not map_at(answer):
        raise DeviceError("the firewall said nothing of its firmware", where=api.settings.target)
    listed = chain(rows_of(answer.get("all_packages")), rows_of(answer.get("all_sets")))
    updates, total = await first_rows(listed, parse_update, _MOST)
    return OpnFirmwareAnswer(data=parse_firmware(answer, updates, total))


def parse_firmware(answer: Any, updates: tuple[OpnUpdate, ...], total: int) -> OpnFirmware:
    """Parse the answer. Before the first check it names the product alone."""
    row, product = map_at(answer), map_at(answer, "product")
    return OpnFirmware(
        version=text_at(row, "product_version") or text_at(product, "product_version"),
        latest=text_at(product, "product_latest"),
        os=text_at(row, "os_version"),
        last_check=text_at(row, "last_check"),
        status=text_at(row, "status"),
        message=text_at(row, "status_msg"),
        needs_reboot=flag_at(row, "needs_reboot"),
        upgrade=text_at(row, "upgrade_major_version"),
        upgrade_needs_reboot=flag_at(row, "upgrade_needs_reboot"),
        updates=updates,
        total=total,
    )


def parse_update(row: Row) -> OpnUpdate | None:
    """Parse one package or set; None for what has no name."""
    name = text_at(row, "name")
    if name is None:
        return None
    return OpnUpdate(
        name=name, old=_version(row, "old"), new=_version(row, "new"), reason=text_at(row, "reason")
    )


def _version(row: Row, name: str) -> str | None:
    text = text_at(row, name)
    return None if text == "N/A" else text
