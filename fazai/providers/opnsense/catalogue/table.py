"""The catalogue: one row per kind, and its traps as attributes of the row. Pure data.

The facts of the fields (`fields.json`, `families/*.json`) are the device's own, as its API describes them in
release 26.7.2; `tools/opnsense_data.py` makes them of the recordings. What a field means to us (references,
rewriting, secrets) stands in `rows_fields` and in the families.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fazai.providers.opnsense.catalogue.families.devices import DEVICES, DEVICES_EXTRA
from fazai.providers.opnsense.catalogue.families.dhcp import DHCP, DHCP_EXTRA
from fazai.providers.opnsense.catalogue.families.settings import SETTINGS_EXTRA, SETTINGS_KINDS
from fazai.providers.opnsense.catalogue.families.vpn import VPN, VPN_EXTRA
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


#: Names of fields that hold secrets, whatever their model says.
SECRET_NAMES = re.compile(
    r"(?i)(?:^|[._])(?:\w*pass(?:word|wd|phrase)?|secret|\w*psk|priv(?:ate)?_?key|prv|api_?key|token|seed)(?:$|[._])"
)


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field of a kind as the API has it.

    `reference` is the kind whose names are meant, `also` a second one that shares the field, and `key` what
    the API wants for it: "uuid", "name", or a field of the referenced item. `source` is the row's key it is
    read from where that differs, and `cut` where a label begins that the search adds. `always`: sent with
    every set (the identity is as well: controllers take its absence for a new name). `write_once`: only sent
    when the item is created, never compared. `filled`: where it is not declared it is left as it is, as the
    firewall or others fill it in. `own`: entries of a list that the firewall adds by itself; they are neither
    compared nor sent. `literal`: words that a reference may hold beside names, and that name no item.
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
    also: str = ""
    key: str = "uuid"
    literal: tuple[str, ...] = ()
    separator: str = ","
    in_order: bool = False
    secret: bool = False
    source: str = ""
    always: bool = False
    cut: str = ""
    write_once: bool = False
    filled: bool = False
    own: tuple[str, ...] = ()
    fold: str = ""
    doc: str = ""
    pattern: str = ""  # what the device holds a text against, and what it says of one that does not fit
    wanted: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """The kinds whose names are meant."""
        return tuple(kind for kind in (self.reference, self.also) if kind)

    @property
    def multiple(self) -> bool:
        return self.type == "list"


class AnyFields(dict[str, FieldRow]):
    """Fields of a kind that also has every field that a controller may have, under its dotted name.

    Going through them gives only those that are known beforehand.
    """

    def __missing__(self, name: str) -> FieldRow:
        if "." not in name:
            raise KeyError(name)
        secret = SECRET_NAMES.search(name) is not None
        return FieldRow(name=name, type="text", api="Any", fold="" if secret else "set", secret=secret)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, name) or (isinstance(name, str) and "." in name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A kind of the catalogue: its row and its fields."""

    row: KindRow
    fields: Mapping[str, FieldRow] = field(default_factory=dict)


class Family(NamedTuple):
    """Kinds that belong together: their rows, what is added to the device's facts by kind and field, and the
    file of these facts."""

    rows: tuple[KindRow, ...]
    extra: Mapping[str, Mapping[str, Mapping[str, Any]]]
    facts: str

    def read_facts(self) -> dict[str, list[dict[str, Any]]]:
        """Return the device's facts of the fields, by kind."""
        found: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / self.facts).read_bytes())
        return found


FAMILIES: tuple[Family, ...] = (
    Family((*FIREWALL, *NETWORK, *SERVICE_KINDS, *ACCESS), EXTRA, "fields.json"),
    Family(DEVICES, DEVICES_EXTRA, "families/devices.json"),
    Family(DHCP, DHCP_EXTRA, "families/dhcp.json"),
    Family(VPN, VPN_EXTRA, "families/vpn.json"),
    Family(SETTINGS_KINDS, SETTINGS_EXTRA, "families/settings.json"),
)


@lru_cache(maxsize=1)
def load_catalogue() -> Mapping[str, CatalogueEntry]:
    """Return every kind by its full name ("opnsense.alias"), in the order in which kinds are written."""
    found: dict[str, CatalogueEntry] = {}
    for family in FAMILIES:
        facts = family.read_facts()
        for row in family.rows:
            fields = _field_rows(row, facts.get(row.short, []), family.extra.get(row.short, {}))
            found[row.name] = CatalogueEntry(row, fields)
    return dict(sorted(found.items(), key=lambda pair: pair[1].row.phase))


def _field_rows(
    row: KindRow, facts: list[dict[str, Any]], extra: Mapping[str, Mapping[str, Any]]
) -> dict[str, FieldRow]:
    """Merge the device's facts with what the row adds to, changes in, or leaves out of them."""
    found: dict[str, FieldRow] = AnyFields() if row.any_path else {}
    for fact in facts:
        name = fact["name"]
        if name in row.omit:
            continue
        choices = tuple(fact.pop("choices", ()))
        found[name] = FieldRow(**fact, choices=choices, fold=_FOLDS.get(fact["api"], ""))
    known = set(found)
    for name, more in extra.items():
        found[name] = replace(found[name], **more) if name in known else FieldRow(name=name, **more)
    return found


def service_order(name: str) -> int:
    """Return the place of a service in the order of activation."""
    return next((place for place, service in enumerate(SERVICES) if service.name == name), len(SERVICES))
