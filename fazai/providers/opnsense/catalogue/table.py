"""The catalogue: one row per kind, and its traps as attributes of the row. Pure data.

The facts of the fields (`fields.json`) are the device's own, as its API describes them in release 26.7.2;
`tools/opnsense_data.py` makes them of the recordings. What a field means to us (references, rewriting,
secrets) stands in `rows_fields`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from fazai.providers.opnsense.catalogue.rows import SERVICES, KindRow
from fazai.providers.opnsense.catalogue.rows_fields import EXTRA
from fazai.providers.opnsense.catalogue.rows_firewall import FIREWALL
from fazai.providers.opnsense.catalogue.rows_system import ACCESS, NETWORK, SERVICE_KINDS

#: Rules by which the API's own field types are compared when the texts differ (see `values.comparison_key`).
_FOLDS = {
    "Hostname": "host",
    "Port": "port",
    "PortMapped": "port",
    "MacAddress": "mac",
    "Network": "address",
    "NetworkAlias": "address",
    "NetworkMapped": "address",
    "AliasContent": "content",
    "Protocol": "case",
}


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field of a kind as the API has it.

    `reference` is the kind whose names are meant and `key` what the API wants for it: "uuid", "name", or a
    field of the referenced item. `source` is the row's key it is read from where that differs, and `cut`
    where a label begins that the search adds. `always`: sent with every set (the identity is as well:
    controllers take its absence for a new name). `write_once`: only sent when the item is created, never
    compared.
    """

    name: str
    type: str
    api: str
    required: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    reference: str | None = None
    key: str = "uuid"
    separator: str = ","
    in_order: bool = False
    secret: bool = False
    source: str = ""
    always: bool = False
    cut: str = ""
    write_once: bool = False
    fold: str = ""
    doc: str = ""
    pattern: str = ""  # what the device holds a text against, and what it says of one that does not fit
    wanted: str = ""

    @property
    def multiple(self) -> bool:
        return self.type == "list"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A kind of the catalogue: its row and its fields."""

    row: KindRow
    fields: Mapping[str, FieldRow] = field(default_factory=dict)


@lru_cache(maxsize=1)
def load_catalogue() -> Mapping[str, CatalogueEntry]:
    """Return every kind by its full name ("opnsense.alias"), in the order in which kinds are written."""
    facts: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("fields.json").read_bytes())
    return {
        row.name: CatalogueEntry(row, _field_rows(row, facts.get(row.short, [])))
        for row in sorted((*FIREWALL, *NETWORK, *SERVICE_KINDS, *ACCESS), key=attrgetter("phase"))
    }


def _field_rows(row: KindRow, facts: list[dict[str, Any]]) -> dict[str, FieldRow]:
    """Merge the device's facts with what the row adds to, changes in, or leaves out of them."""
    found: dict[str, FieldRow] = {}
    for fact in facts:
        name = fact["name"]
        if name in row.omit:
            continue
        choices = tuple(fact.pop("choices", ()))
        found[name] = FieldRow(**fact, choices=choices, fold=_FOLDS.get(fact["api"], ""))
    extra = EXTRA.get(row.short, {})
    for name, more in extra.items():
        found[name] = replace(found[name], **more) if name in found else FieldRow(name=name, **more)
    return found


def service_order(name: str) -> int:
    """Return the place of a service in the order of activation."""
    return next((place for place, service in enumerate(SERVICES) if service.name == name), len(SERVICES))
