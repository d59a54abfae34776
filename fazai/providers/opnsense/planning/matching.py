"""Finds the item that a resource means: by uuid, by identity, by what tells several apart. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fazai.errors import DeviceError, Mark
from fazai.model import Resource, SecretRef, Value
from fazai.providers.opnsense.catalogue.kinds import MATCH, UUID, CatalogueKind
from fazai.providers.opnsense.catalogue.ownership import own_ref
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import is_same, text_of
from fazai.providers.opnsense.planning.snapshot import SETTINGS_REF, Collection, ItemRow

#: The API's text of a canonical value.
ToApi = Callable[[FieldRow, Value], str]


def place_of(target: str, resource: Resource, field: str = "") -> Mark | str:
    """Return where a resource (or a field of it) is declared, else its names."""
    return resource.origins.get(field) or resource.mark or f"{target}/{resource.kind}/{resource.identity}"


@dataclass(frozen=True, slots=True)
class Matcher:
    """Finds the items of one kind."""

    collection: Collection
    target: str
    mark: str
    adopted: frozenset[str]
    to_api: ToApi

    @property
    def kind(self) -> CatalogueKind:
        return self.collection.kind

    def match_all(self, resources: Iterable[Resource]) -> dict[str, str]:
        """Return refs by identity for resources that share their label with others of the list.

        Each gets an item of its own: first the one that is like it, then the one made for it, then what is
        left, in order.
        """
        groups: dict[str, list[Resource]] = {}
        for resource in resources:
            if resource.label and UUID not in resource.fields and MATCH not in resource.fields:
                groups.setdefault(resource.label, []).append(resource)
        found: dict[str, str] = {}
        for label, group in groups.items():
            self._share_out(group, self._owned_first(self.collection.labels.get(label, ())), found)
        return found

    def _share_out(self, group: Sequence[Resource], refs: Sequence[str], found: dict[str, str]) -> None:
        free = dict.fromkeys(refs)
        rest: list[Resource] = []
        for resource in group:
            ref = next((ref for ref in free if self._is_tied(ref, resource)), None)
            if ref is None:
                rest.append(resource)
            else:
                found[resource.identity] = ref
                del free[ref]
        for resource in [each for each in rest if self.own_ref(each) in free]:
            found[resource.identity] = self.own_ref(resource)
            rest.remove(resource)
            del free[self.own_ref(resource)]
        for resource in rest:
            ref = next((ref for ref in free if resource.state != "absent" and self.is_ours(ref)), None)
            found[resource.identity] = ref or self.own_ref(resource)
            free.pop(found[resource.identity], None)

    def match(self, resource: Resource) -> tuple[str, bool]:
        """Return the item's ref, and whether it is ours. Raises DeviceError: not there, or not alone."""
        if self.kind.row.settings:
            return (text_of(resource.fields["path"]) if self.kind.row.any_path else SETTINGS_REF), True
        if UUID in resource.fields:
            return self._match_uuid(resource)
        if MATCH in resource.fields:
            return self._match_fields(resource)
        mine = self.own_ref(resource)
        found = self._owned_first(self.collection.labels.get(resource.identity, ()))
        if len(found) > 1:
            alike = [ref for ref in found if self._is_tied(ref, resource)]
            if len(alike) == 1 and (mine not in found or self.is_ours(alike[0])):
                return alike[0], self.is_ours(alike[0])
        if mine in self.collection.rows:
            return mine, True
        owned = [ref for ref in found if self.collection.carries_mark(ref, self.mark)]
        ref = self._pick_one(resource, owned or found, self._is_tied)
        return (mine, True) if ref is None else (ref, self.is_ours(ref))

    def _match_uuid(self, resource: Resource) -> tuple[str, bool]:
        ref = text_of(resource.fields[UUID])
        if ref not in self.collection.rows and resource.state != "absent":
            raise DeviceError(
                f"there is no {self.kind.name} with the uuid {ref} on {self.target}",
                where=place_of(self.target, resource, UUID),
                hint="uuid: names an item that is there; leave it out to have one made",
            )
        return ref, self.is_ours(ref)

    def _match_fields(self, resource: Resource) -> tuple[str, bool]:
        mine = self.own_ref(resource)
        if mine in self.collection.rows:
            return mine, True
        wanted: Mapping[str, Value] = resource.fields[MATCH]
        refs = [
            ref
            for ref, row in self.collection.rows.items()
            if (not resource.label or self.collection.label(row) == resource.label)
            and all(self._is_same(row, name, value) for name, value in wanted.items())
        ]
        ref = self._pick_one(resource, refs, lambda ref, resource: False)
        return (mine, True) if ref is None else (ref, self.is_ours(ref))

    def _pick_one(
        self, resource: Resource, found: Sequence[str], tied: Callable[[str, Resource], bool]
    ) -> str | None:
        if len(found) <= 1:
            return found[0] if found else None
        alike = [ref for ref in found if tied(ref, resource)]
        if len(alike) != 1:
            raise DeviceError(
                f'{len(found)} items on {self.target} are called "{resource.identity}": '
                "which one is meant is not clear",
                where=place_of(self.target, resource),
                hint="say which with uuid: or match:, or rename the others: " + ", ".join(sorted(found)),
            )
        return alike[0]

    def _is_tied(self, ref: str, resource: Resource) -> bool:
        """Return whether an item has the resource's values in the fields that tell items apart."""
        row = self.collection.rows[ref]
        known = [
            (name, resource.fields.get(name, self.kind.rows[name].default)) for name in self.kind.row.tiebreak
        ]
        declared = [(name, value) for name, value in known if value is not None]
        return bool(declared) and all(self._is_same(row, name, value) for name, value in declared)

    def _is_same(self, row: ItemRow, name: str, value: Value) -> bool:
        field_row = self.kind.rows[name]
        if isinstance(value, SecretRef):
            return False
        return is_same(field_row, self.to_api(field_row, value), self.collection.text(row, field_row))

    def own_ref(self, resource: Resource) -> str:
        """Return the uuid under which fazai would make it."""
        return own_ref(self.mark, self.kind.name, resource.identity)

    def is_ours(self, ref: str) -> bool:
        return ref in self.adopted or (
            ref in self.collection.rows and self.collection.carries_mark(ref, self.mark)
        )

    def _owned_first(self, refs: Iterable[str]) -> list[str]:
        return sorted(refs, key=lambda ref: not self.is_ours(ref))
