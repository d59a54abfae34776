"""Defaults of fields that a list does not declare, so that a change by hand is seen. Pure data.

An item that fazai made has the default of every field that is not declared; whoever changes one of them on
the firewall makes it drift. Of items that others made only this is taken for granted: that they are not
switched off. Fields that the firewall or others fill in are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fazai.model import Value
from fazai.providers.opnsense.catalogue.rows import KindRow
from fazai.providers.opnsense.catalogue.table import FieldRow

#: Fields that are left as they are when they are not declared, though others are not: filled in by the
#: firewall itself, by other programs, or by the user whose account it is.
_LEFT: Mapping[str, frozenset[str]] = {
    "alias": frozenset({"content"}),  # lists that programs fill through the API
    "gateway": frozenset({"gateway"}),  # a dynamic address reads as what it is just now
    "unbound_forward": frozenset({"type"}),  # decided by the verb with which it is written
    "user": frozenset({"language", "landing_page"}),
    "group": frozenset({"member"}),
}
_LEFT_BELOW: Mapping[str, str] = {"kea_subnet": "option_data."}  # collected by the firewall


@dataclass(frozen=True, slots=True)
class FieldDefault:
    """The default of one field, as the API has it and as a value; `source` is the row's key for it.

    `switch`: an item without it is switched off.
    """

    row: FieldRow
    source: str
    text: str
    value: Value
    switch: bool


def is_left_alone(kind: KindRow, row: FieldRow) -> bool:
    """Return whether a field stays as it is when it is not declared."""
    below = _LEFT_BELOW.get(kind.short)
    return (
        row.name in kind.identity
        or row.name in _LEFT.get(kind.short, ())
        or (below is not None and row.name.startswith(below))
        or (kind.ordered and row.name == "sequence")
        or row.write_once
        or row.filled
        or row.secret
        or row.always
        or (row.required and row.default is None and row.type != "boolean")
    )


def defaults_of(kind: KindRow, rows: Mapping[str, FieldRow]) -> tuple[FieldDefault, ...]:
    """Return the defaults that count as declared; none of settings, which nobody makes."""
    if kind.settings:
        return ()
    return tuple(_default_of(row) for row in rows.values() if not is_left_alone(kind, row))


def _default_of(row: FieldRow) -> FieldDefault:
    text = row.default if row.default is not None else "0" if row.type == "boolean" else ""
    value: Value = tuple(part for part in text.split(row.separator) if part) if row.multiple else text
    switch = (row.name, text) in (("enabled", "1"), ("disabled", "0"))
    return FieldDefault(row, row.source or row.name, text, value, switch)
