"""Finds items that name what the same list of one firewall deletes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from fazai.errors import InputError, PlaybookError
from fazai.model import Resource, Value
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind, names_of
from fazai.providers.opnsense.catalogue.table import FieldRow

#: Kinds that a field may name beside its declared reference, by the API's type of the field.
_NAMED_BY_TYPE: Mapping[str, str] = {
    "AliasContent": "opnsense.alias",
    "NetworkAlias": "opnsense.alias",
    "NetworkMapped": "opnsense.alias",
    "Port": "opnsense.alias",
    "PortMapped": "opnsense.alias",
    "Interface": "opnsense.interface_group",
}


def find_contradictions(
    kinds: Mapping[str, CatalogueKind], resources: Sequence[Resource]
) -> Iterable[InputError]:
    """Yield an error for each field of a present item that names one declared absent."""
    going: dict[tuple[str, str], Resource] = {}
    staying: set[tuple[str, str]] = set()
    for resource in resources:
        called = names_of(kinds[resource.kind], resource.identity, resource.fields)
        names = [(resource.kind, name) for name in called]
        if resource.state == "absent":
            going.update((name, resource) for name in names)
        else:
            staying.update(names)
    for name in staying:
        going.pop(name, None)
    if not going:
        return
    for resource in resources:
        if resource.state != "absent":
            yield from _find_in_resource(kinds[resource.kind], resource, going)


def _find_in_resource(
    kind: CatalogueKind, resource: Resource, going: Mapping[tuple[str, str], Resource]
) -> Iterable[InputError]:
    for field, value in resource.fields.items():
        for named, name in product(kinds_named(kind.rows[field]), names_in(value)):
            deleted = going.get((named, name)) or going.get((named, name.lower()))
            if deleted is not None:
                noun = named.partition(".")[2].replace("_", " ")
                yield PlaybookError(
                    f'{kind.name} "{resource.identity}": {field} names the {noun} "{name}", '
                    "which the same list deletes",
                    where=resource.origins.get(field) or resource.mark or resource.identity,
                    hint=f"it is declared absent at {deleted.mark}" if deleted.mark else None,
                )


def kinds_named(field: FieldRow) -> tuple[str, ...]:
    """Return the kinds whose items a field may name."""
    by_type = _NAMED_BY_TYPE.get(field.api, "")
    return field.references or ((by_type,) if by_type else ())


def names_in(value: Value) -> Iterable[str]:
    """Yield the single names in a canonical value, without the mark of negation."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, str):  # a secret is none
            yield from (name.strip().removeprefix("!") for name in part.split(","))
