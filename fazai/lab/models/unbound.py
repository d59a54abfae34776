"""Unbound: records that need certain fields, and the aliases of a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

HOSTS: Final = "Unbound.hosts.host"
ALIASES: Final = "Unbound.aliases.alias"

SHARED: Final = ("rr", "mxprio", "mx", "ttl", "server", "txtdata", "addptr")


def aliases_of(box: Box, uuid: str) -> dict[str, Item]:
    """Return the aliases of a host, by uuid."""

    def build() -> dict[str, dict[str, Item]]:
        found: dict[str, dict[str, Item]] = {}
        for key, item in box.items(ALIASES).items():
            found.setdefault(item["host"], {})[key] = item
        return found

    return box.derived("unbound aliases", (ALIASES,), build).get(uuid, {})


def host_fqdn(item: Item) -> str:
    return f"{item['hostname']}.{item['domain']}" if item["hostname"] else item["domain"]


def _compute_aliases(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    return {"aliases": ",".join(host_fqdn(alias) for alias in aliases_of(box, uuid).values())}


def _add_children(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    """Put aliases below their host, with its record."""
    row["isAlias"] = False
    children = []
    for key, alias in aliases_of(box, uuid).items():
        child = {
            "uuid": key,
            "enabled": alias["enabled"],
            "hostname": alias["hostname"],
            "domain": alias["domain"],
        }
        for name in SHARED:
            child |= {shown: row[shown] for shown in (name, f"%{name}") if shown in row}
        children.append({**child, "description": alias["description"], "isAlias": True})
    if children:
        row["_children"] = children


HOOKS: Final = ModelHooks(
    collections={HOSTS: CollectionHooks(computed=_compute_aliases, paths=(ALIASES,), add=_add_children)}
)
