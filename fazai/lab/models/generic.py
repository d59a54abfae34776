"""Rows that several models share: items in use by relations, the next free number or sequence."""

from __future__ import annotations

from typing import Final

from fazai.lab.box import Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import ModelHooks
from fazai.lab.engine.schema import Field, ItemModel


def _refuse_related(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    """Refuse to delete an item whose uuid another one holds."""
    users = []
    for other in box.catalogue.items.values():
        fields = [f for f in other.fields if f.relation is not None and model.path in f.relation.collections]
        for field in fields:
            for key, row in box.items(other.path).items():
                if uuid in row.get(field.name, "").split(","):
                    tag = box.catalogue.models[other.model].mount.rpartition(".")[2]
                    users.append(f"{tag} - {row.get(other.describe, '')} {{{tag}.{other.inner}.{key}}}\n")
    if users:
        named = item.get(model.describe, "") if model.describe else uuid
        title = f"Item {model.inner} {{{named}}} in use by:"
        raise UserError("".join(users), title)


def _next_sequence(box: Box, model: ItemModel, field: Field) -> str:
    """Return the highest + 100, within the limits of the field."""
    highest = max((int(item.get(field.name) or 0) for item in box.items(model.path).values()), default=0)
    return str(min(highest + 100, field.max or highest + 100))


def _next_number(box: Box, model: ItemModel, field: Field) -> str:
    """Return the lowest number that no item has."""
    used = {item.get(field.name) for item in box.items(model.path).values()}
    number = field.min or 0
    while str(number) in used:
        number += 1
    return str(number)


HOOKS: Final = ModelHooks(
    guards={"related": _refuse_related},
    defaults={"FilterSequence": _next_sequence, "AutoNumber": _next_number},
)
