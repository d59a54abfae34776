"""Items as the API shows them: nested with option maps in a get, flat with labels in a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import TYPES
from fazai.lab.engine.schema import Field, ItemModel
from fazai.lab.engine.sources import choices_of


def as_php(value: Mapping[str, Any]) -> Any:
    """Return a map as PHP writes it: empty is `[]`, keys 0, 1, 2, … make a list."""
    if not value:
        return []
    if "0" in value and list(value) == [str(index) for index in range(len(value))]:
        return list(value.values())
    return value


def option_map(choices: Mapping[str, Mapping[str, Any]], value: str, *, multiple: bool) -> Any:
    """Return every option with `selected`, in the order of the options."""
    chosen = set(value.split(",")) if multiple and value else {value}
    return as_php({key: {**choice, "selected": int(key in chosen)} for key, choice in choices.items()})


def show_field(box: Box, field: Field, value: str) -> Any:
    """Return one field as a get shows it."""
    choices = choices_of(box, field)
    if choices is not None:
        return option_map(choices, value, multiple=field.multiple)
    if field.list:  # free values, as a map of themselves
        return {part: {"value": part, "selected": 1} for part in value.split(",")}
    return value


def put_at(body: dict[str, Any], name: str, value: Any) -> None:
    """Put a value at a dotted name."""
    *parents, last = name.split(".")
    for part in parents:
        body = body.setdefault(part, {})
    body[last] = value


def nested_item(
    box: Box, fields: tuple[Field, ...], item: Item, computed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an item (or the settings of a model) as a get shows it."""
    body: dict[str, Any] = {}
    for field in fields:
        if field.name in computed:
            known = computed[field.name]
            put_at(body, field.name, show_field(box, field, known) if isinstance(known, str) else known)
            continue
        value = item.get(field.name, field.default if field.volatile else "")
        put_at(body, field.name, show_field(box, field, value))
        if choices_of(box, field) is None:
            labeller = make_labeller(box, field)
            label = field.placeholder if not value else labeller(value) if labeller else value
            if label != value:
                *parents, last = field.name.split(".")
                put_at(body, ".".join([*parents, f"%{last}"]), label)
    return body


def make_labeller(box: Box, field: Field) -> Callable[[str], str] | None:
    """Return a function that gives the label of a value; None for fields that never have one."""
    choices = choices_of(box, field)
    if choices is None:
        kind = TYPES.get(field.type)
        return None if kind is None or kind.label is None else partial(kind.label, box)
    labels = {key: choice["value"] for key, choice in choices.items()}
    if not field.multiple:
        return lambda value: labels.get(value, value)
    return lambda value: ", ".join([labels.get(part, part) for part in value.split(",")])


def row_maker(box: Box, model: ItemModel) -> Callable[[str, Item, Mapping[str, Any]], dict[str, Any]]:
    """Return a function that turns an item into a row; labels are looked up once for all rows."""
    columns = [(field.name, f"%{field.name}", make_labeller(box, field)) for field in model.fields]

    def make(uuid: str, item: Item, computed: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {"uuid": uuid}
        for name, shown_name, labeller in columns:
            value = row[name] = computed[name] if name in computed else item.get(name, "")
            if labeller is not None and value and (label := labeller(value)) != value:
                row[shown_name] = label
        return row

    return make
