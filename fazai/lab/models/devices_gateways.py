"""Groups of gateways: names that do not change, at least one tier, in use by rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fazai.lab.box import Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import GATEWAY_GROUPS, GATEWAYS
from fazai.lab.engine.schema import ItemModel

RULES: Final = "Firewall.Filter.rules.rule"
TIERS: Final = ("item", "item2", "item3", "item4", "item5")


def _check_group(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    old, name = box.items(model.path).get(uuid), item["name"]
    if old is not None and old["name"] != name:
        yield "name", "Changing name on a gateway group is not allowed."
    if name and any(gateway["name"] == name for gateway in box.items(GATEWAYS).values()):
        text = f"A gateway group cannot have the same name with a gateway '{name}'"
        yield "name", f"{text} please choose another name."
    if not any(item[tier] for tier in TIERS):
        yield from ((tier, "At least one tier must be set.") for tier in TIERS)


def _refuse_used_group(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    for key, rule in box.items(RULES).items():
        if rule["gateway"] == item["name"]:
            text = f"Gateway group {item['name']} in use by rule {rule['description']} ({key})"
            raise UserError(text)


def _member(gateway: Item) -> dict[str, str]:
    return {
        "name": gateway["name"],
        "address": gateway["gateway"],
        "status": "none",
        "loss": "~",
        "delay": "~",
        "stddev": "~",
        "monitor": gateway["monitor"] or "~",
        "status_translated": "Online",
        "label": "success",
    }


def _add_members(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    gateways = {gateway["name"]: gateway for gateway in box.items(GATEWAYS).values()}
    row["gateways"] = {
        str(number): [_member(gateways[name]) for name in item[tier].split(",") if name in gateways]
        for number, tier in enumerate(TIERS, 1)
    }


HOOKS: Final = ModelHooks(
    checks={"gateway_group": _check_group},
    guards={"gateway_group_unused": _refuse_used_group},
    collections={GATEWAY_GROUPS: CollectionHooks(paths=(GATEWAYS,), add=_add_members)},
)
