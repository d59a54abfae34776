"""Settings that depend on each other or on those of another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import ModelHooks, SettingsHooks

#: Where the firewall's own collector of flows listens.
COLLECTOR: Final = "127.0.0.1:2056"


def _split_list(text: str) -> list[str]:
    return text.split(",") if text else []


def _mirror_port(box: Box, item: Item) -> Mapping[str, str]:
    return {"dns_port": item["port"]}


def _check_dnsmasq(box: Box, old: Item, item: Item) -> Iterable[tuple[str, str]]:
    if not item["port"].removeprefix("-").isdigit() and item["port"]:
        for _ in range(2):  # of a list, as that of the port itself
            yield "dns_port", "Invalid integer value."
    if all(item[name] not in ("", "0") for name in ("dhcp.log_dhcp", "dhcp.log_quiet")):
        yield (
            "dhcp.log_quiet",
            'This option and "Log DHCP options and tags" cannot be enabled at the same time.',
        )
    if (old["enable"], old["port"]) == (item["enable"], item["port"]):
        return
    unbound = box.config.settings("Unbound")
    own, other = item["port"] or "53", unbound.get("general.port", "53")
    if item["enable"] == "1" and own == other and unbound.get("general.enabled", "1") == "1":
        name = "Unbound" if box.catalogue.release.startswith("26.7") else "Unbound DNS"
        yield "port", f"{name} is currently using this port."


def _add_collector(box: Box, fresh: dict[str, str]) -> None:
    """Send the flows to the firewall's own collector, too, when it is on."""
    targets = _split_list(fresh["capture.targets"])
    if fresh["collect.enable"] == "1" and COLLECTOR not in targets:
        fresh["capture.targets"] = ",".join([*targets, COLLECTOR])


def _check_netflow(box: Box, old: Item, item: Item) -> Iterable[tuple[str, str]]:
    listening = _split_list(item["capture.interfaces"])
    missing = [name for name in _split_list(item["capture.egress_only"]) if name not in listening]
    if missing:
        yield "capture.interfaces", f"WAN interfaces missing in listening interfaces: {','.join(missing)}"


HOOKS: Final = ModelHooks(
    settings={
        "Dnsmasq": SettingsHooks(computed=_mirror_port, check=_check_dnsmasq),
        "IPsec.Settings": SettingsHooks(computed=lambda *_: {"general.enabled": ""}),  # never shown here
        "Netflow": SettingsHooks(before=_add_collector, check=_check_netflow),
    }
)
