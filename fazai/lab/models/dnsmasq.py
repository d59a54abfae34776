"""Dnsmasq: names made of labels, and what a host needs to be an override or a reservation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import ModelHooks
from fazai.lab.engine.schema import ItemModel

HOSTS: Final = "Dnsmasq.hosts"
LABEL: Final = re.compile(r"(?![_-])[A-Za-z0-9_-]{1,63}")
LABELS: Final = (
    "Labels must be 1\N{EN DASH}63 characters, start with a letter or digit, and may contain only"
    " letters, digits, '-' or '_'. "
)


def _split_list(text: str) -> list[str]:
    return text.split(",") if text else []


def _wrong_name(text: str, *, domain: bool) -> str:
    """Return the message about a name; "" when nothing is wrong."""
    if domain and text == "*":
        return "Wildcards are not allowed."
    if domain and len(text) > 255:
        return "All labels combined may not exceed 255 characters."
    labels = text.split(".") if domain else [text]
    return "" if all(map(LABEL.fullmatch, labels)) else LABELS


def _check_names(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["host"] and item["host"] != "*" and _wrong_name(item["host"], domain=False):
        yield "host", LABELS
    for name in ("domain", "cnames", "aliases"):
        for text in [item[name]] if name == "domain" and item[name] else _split_list(item[name]):
            wrong = _wrong_name(text, domain=True)
            if wrong:
                yield name, wrong
                break


def _is_reservation(item: Item) -> bool:
    return bool(item["hwaddr"] or item["client_id"])


def _check_dnsmasq_reservation(others: list[Item], item: Item) -> Iterator[tuple[str, str]]:
    addresses = _split_list(item["ip"])
    used = {address for other in others if _is_reservation(other) for address in _split_list(other["ip"])}
    for address in addresses:
        if address in used and not address.startswith("::"):
            yield "ip", f"'{address}' is already used in another DHCP host entry."
    if sum(":" not in address for address in addresses) > 1:
        yield "ip", "For IPv4 dhcp reservations, only a single address is allowed."
    if not item["host"] and not item["ip"]:
        for name in ("host", "ip"):
            yield name, "At least a hostname or IP address must be provided for DHCP reservations."
    if item["host"] == "*":
        yield "host", "Wildcard entries are not allowed for DHCP reservations."


def _check_dnsmasq_host(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    others = [item for key, item in box.items(HOSTS).items() if key != uuid]
    if _is_reservation(item):
        yield from _check_dnsmasq_reservation(others, item)
    elif not item["host"] or not item["ip"]:
        for name in ("host", "ip"):
            yield name, "Both hostname and IP address are required for host overrides."
    cnames = [name for other in others for name in _split_list(other["cnames"])] + _split_list(item["cnames"])
    full = {f"{other['host']}.{other['domain']}" for other in (*others, item) if other["domain"]}
    for name in _split_list(item["cnames"]):
        if cnames.count(name) > 1:
            yield "cnames", f"CNAME '{name}' is already in use by a host override."
        if name in full:
            yield "cnames", f"CNAME '{name}' overlaps with a host and domain combination in a host override."


HOOKS: Final = ModelHooks(checks={"dnsmasq_names": _check_names, "dnsmasq_host": _check_dnsmasq_host})
