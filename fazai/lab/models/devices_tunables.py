"""Tunables: what the product sets where nobody does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel, read_json

TUNABLES: Final = "Core.Tunables.item"


def builtin_tunables(box: Box) -> Mapping[str, str]:
    """Return the product's own values by name."""
    return box.derived("values of tunables", (), lambda: dict[str, str](read_json("tunables.json")))


def _tell_default(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    return {"default_value": builtin_tunables(box).get(item["tunable"], ""), "type": ""}


HOOKS: Final = ModelHooks(collections={TUNABLES: CollectionHooks(computed=_tell_default)})
