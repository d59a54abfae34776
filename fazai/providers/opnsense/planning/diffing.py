"""The difference between wanted and seen items, item by item. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fazai.errors import DeviceError, FazaiError, NotAvailable, Refused, spelling_hint
from fazai.model import Change, Resource, Secret, SecretRef, Value, Verb
from fazai.providers.opnsense.catalogue.kinds import UNMANAGED, CatalogueKind
from fazai.providers.opnsense.catalogue.ownership import is_uuid, other_owner
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import compose_name, is_same, text_of, to_api
from fazai.providers.opnsense.planning.matching import Matcher, place_of
from fazai.providers.opnsense.planning.policy import TargetPolicy
from fazai.providers.opnsense.planning.snapshot import Collection, ItemRow, Keys, Snapshot


class Unresolved(DeviceError):
    """A resource names something that is neither on the firewall nor wanted there."""


@dataclass(slots=True)
class KindDiff:
    """Differences found for one kind, before they are put in order."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    refused: list[tuple[Change, FazaiError]] = field(default_factory=list)
    errors: list[FazaiError] = field(default_factory=list)
    items: list[PlannedItem] = field(default_factory=list)  # the present ones, in list order
    wanted_refs: set[str] = field(default_factory=set)

    @property
    def leaving(self) -> set[str]:
        """The refs of the items that are deleted."""
        return {change.ref for change in self.changes if change.verb is Verb.DELETE}


@dataclass(slots=True)
class PlannedItem:
    """A wanted, present item and its place in the list of changes (None: nothing differs).

    `astray`: the defaults that fields get back which are not declared.
    """

    resource: Resource
    ref: str
    row: ItemRow | None
    ours: bool
    change: int | None
    astray: Mapping[str, Value] = field(default_factory=dict)

    def declared(self, name: str) -> Value:
        """Return what a field will be, as far as this run says it; None: as it is."""
        return self.resource.fields.get(name, self.astray.get(name))


def resolve_references(field_row: FieldRow, value: Value, keys: Keys) -> str:
    """Return the API text of a canonical value, names of other items replaced. Raises Unresolved."""
    if field_row.reference is None or field_row.key == "name":
        return to_api(field_row, value)
    found = [
        _resolve_name(field_row, name, keys)
        for name in (value if isinstance(value, tuple) else (value,))
        if name
    ]
    return field_row.separator.join(found)


def _resolve_name(field_row: FieldRow, name: str, keys: Keys) -> str:
    known = compose_name(name)
    name_ = known if known in keys.known or known in keys.several else known.lower()
    key = keys.known.get(name_)
    if key is not None:
        return key
    kind = " or ".join(one.partition(".")[2].replace("_", " ") for one in field_row.references)
    if name_ in keys.several:
        several = keys.several[name_]
        raise Unresolved(
            f'{len(several)} items of the kind {kind} are called "{name}": which one is meant is not clear',
            hint=f"write one of: {', '.join(several)}",
        )
    if is_uuid(name) or name.startswith("__") or name in field_row.literal:
        return name
    raise Unresolved(f'there is no {kind} "{name}" on this firewall', hint=spelling_hint(name, keys.known))


@dataclass(frozen=True, slots=True)
class ItemComparer:
    """Compares the resources of one target with what was seen of it."""

    policy: TargetPolicy
    snapshot: Snapshot
    adopted: frozenset[str]
    keys: Mapping[tuple[str, str], Keys]  # by kind and key, with what this run creates

    def compare(self, kind: CatalogueKind, resources: Sequence[Resource]) -> KindDiff:
        """Compare every resource of one kind."""
        result = KindDiff()
        collection = self.snapshot.collections[kind.name]
        matcher = Matcher(collection, self.policy.target, self.policy.mark, self.adopted, self._to_api)
        try:
            shared = matcher.match_all(resources)
        except DeviceError as error:
            error.where = error.where or f"{self.policy.target}/{kind.name}"
            result.errors.append(error)
            return result
        for resource in resources:
            try:
                self._compare_resource(matcher, resource, shared.get(resource.identity), result)
            except Unresolved as error:
                error.where = error.where or place_of(self.policy.target, resource)
                result.errors.append(error)
            except (DeviceError, Refused) as error:
                result.errors.append(error)
        return result

    def _compare_resource(
        self, matcher: Matcher, resource: Resource, shared: str | None, result: KindDiff
    ) -> None:
        collection = matcher.collection
        if shared is None:
            ref, ours = matcher.match(resource)
        else:
            ref, ours = shared, shared not in collection.rows or matcher.is_ours(shared)
        row = collection.rows.get(ref)
        result.wanted_refs.add(ref)
        if resource.state == "absent":
            self._compare_absent(collection, resource, ref, ours, result)
        elif row is None:
            created = self._plan_creation(
                collection.kind, resource, ref
            )  # may refuse: nothing is put in order then
            result.items.append(PlannedItem(resource, ref, None, True, len(result.changes)))
            result.changes.append(created)
        else:
            self._compare_present(collection, resource, ref, row, ours, result)

    def _to_api(self, field_row: FieldRow, value: Value) -> str:
        if field_row.reference is None or field_row.key == "name":
            return to_api(field_row, value)
        found = [self.keys.get((kind, field_row.key), Keys()) for kind in field_row.references]
        return resolve_references(field_row, value, Keys.joined(found))

    def _plan_creation(self, kind: CatalogueKind, resource: Resource, ref: str) -> Change:
        fields = {
            name: value
            for name, value in resource.fields.items()
            if name in kind.rows and not isinstance(value, SecretRef)
        }
        for name in kind.row.needed_on_create:
            if name not in fields:
                raise DeviceError(
                    f'{name} is missing: "{resource.identity}" does not exist on {self.policy.target} '
                    "and cannot be made without it",
                    where=place_of(self.policy.target, resource),
                )
        for name, value in fields.items():
            self._resolve_field(kind.rows[name], value, resource)
        return self.change_of(kind, resource, Verb.CREATE, ref, {}, fields, adopts=kind.row.unmarked)

    def _resolve_field(self, field_row: FieldRow, value: Value, resource: Resource) -> str:
        try:
            return self._to_api(field_row, value)
        except Unresolved as error:
            error.where = place_of(self.policy.target, resource, field_row.name)
            raise

    def _compare_present(
        self, collection: Collection, resource: Resource, ref: str, row: ItemRow, ours: bool, result: KindDiff
    ) -> None:
        kind = collection.kind
        changed = self._changed_fields(collection, resource, row)
        made = collection.carries_mark(ref, self.policy.mark)
        astray = self._astray_fields(collection, resource, row, made=made)
        if not changed and not astray:
            result.unchanged += 1
            result.items.append(PlannedItem(resource, ref, row, ours, None))
            return
        fields = (*changed, *astray)
        before = {name: self.snapshot.value(collection, row, kind.rows[name]) for name in fields}
        after = {**{name: resource.fields[name] for name in changed}, **astray}
        for name in changed:  # a value that is given as a secret replaces one
            if isinstance(after[name], Secret) and not isinstance(before[name], Secret):
                before[name] = Secret(text_of(before[name]))
        taking = not ours and self._may_adopt(resource)
        notes = [f"not declared, so as by default: {', '.join(astray)}"] if astray else []
        if taking and (owner := other_owner(ref, kind.name, (resource.identity, resource.label))):
            notes.append(f"taken over: it is managed by fazai for {owner}")
        change = self.change_of(
            kind, resource, Verb.UPDATE, ref, before, after, adopts=taking, note="; ".join(notes)
        )
        refusal = self._reason_to_refuse(collection, resource, ref, ours=ours or taking, verb="changed")
        if refusal is not None:
            result.refused.append((change, refusal))
            return
        result.items.append(PlannedItem(resource, ref, row, True, len(result.changes), astray))
        result.changes.append(change)

    def _changed_fields(self, collection: Collection, resource: Resource, row: ItemRow) -> list[str]:
        """Return the declared fields that differ; quick, as there may be thousands of rows."""
        changed = []
        rows = collection.kind.rows
        for name, value in resource.fields.items():
            field_row = rows.get(name)
            if field_row is None or field_row.write_once or isinstance(value, SecretRef):
                continue
            if field_row.reference is None and value.__class__ is str:
                wanted = value
            else:
                wanted = self._resolve_field(field_row, value, resource)
            if wanted == row.get(field_row.source or name):
                continue
            if name not in row and field_row.source not in row and not _is_default(field_row, wanted):
                raise NotAvailable(
                    f"{collection.kind.name} has no field {name} in the release of {self.policy.target}",
                    where=place_of(self.policy.target, resource, name),
                    hint="leave the field out for this firewall, or update it",
                )
            if not is_same(field_row, wanted, collection.text(row, field_row)):
                changed.append(name)
        return changed

    def _astray_fields(
        self, collection: Collection, resource: Resource, row: ItemRow, *, made: bool
    ) -> dict[str, Value]:
        """Return fields that are not declared and differ from their default, with that default.

        Of an item that fazai made these are all such fields, of others' only the switch. Quick, as
        `_changed_fields`.
        """
        kind = collection.kind
        found: dict[str, Value] = {}
        spared = self.policy.unmanaged.get(kind.name, frozenset()).union(resource.fields.get(UNMANAGED, ()))
        for default in kind.defaults:
            field_row, name = default.row, default.row.name
            seen = row.get(default.source)
            if seen == default.text or name in resource.fields or not (made or default.switch):
                continue
            if name in spared or (seen is None and name not in row):  # a release may not have the field
                continue
            if not is_same(field_row, default.text, collection.text(row, field_row)):
                found[name] = default.value
        return found

    def _compare_absent(
        self, collection: Collection, resource: Resource, ref: str, ours: bool, result: KindDiff
    ) -> None:
        if ref not in collection.rows:
            result.unchanged += 1
            return
        taking = not ours and self._may_adopt(resource)
        change = self.deletion(collection, ref, resource, adopts=taking)
        refusal = self._reason_to_refuse(collection, resource, ref, ours=ours or taking, verb="deleted")
        if refusal is not None:
            result.refused.append((change, refusal))
        else:
            result.changes.append(change)

    def deletion(
        self,
        collection: Collection,
        ref: str,
        resource: Resource | None = None,
        *,
        adopts: bool = False,
        note: str = "",
    ) -> Change:
        """Return the deletion of an item, with all that is needed to make it again."""
        kind = collection.kind
        row = collection.rows[ref]
        before = {}
        for name, field_row in kind.rows.items():
            if (name in row or field_row.source in row) and not field_row.write_once:
                value = self.snapshot.value(collection, row, field_row)
                if text_of(value) or field_row.default:
                    before[name] = value
        label = "" if resource else collection.label(row)
        return self.change_of(
            kind, resource, Verb.DELETE, ref, before, {}, label=label, adopts=adopts, note=note
        )

    def _reason_to_refuse(
        self, collection: Collection, resource: Resource, ref: str, *, ours: bool, verb: str
    ) -> Refused | None:
        kind = collection.kind
        where = place_of(self.policy.target, resource)
        name = resource.identity
        if not kind.row.settings and not kind.row.unmarked and not is_uuid(ref):
            return Refused(f'"{name}" is built into {self.policy.target} and cannot be {verb}', where=where)
        names = (resource.label or name, *((ref,) if kind.row.unmarked else ()))
        if verb == "deleted" and any(self.is_protected(kind, one) for one in names):
            return Refused(
                f'"{name}" is protected and is not deleted',
                where=where,
                hint="protected: of the firewall, or fazai itself, says so",
            )
        if not ours and (owner := other_owner(ref, kind.name, (name, resource.label))):
            return Refused(
                f'"{name}" on {self.policy.target} is managed by fazai for {owner}, and is not {verb}',
                where=where,
                hint="change it where that owner lists it; adopt: true takes it over, and then both do",
            )
        if not ours:
            return Refused(
                f'"{name}" on {self.policy.target} was not made by fazai and is not {verb}',
                where=where,
                hint="adopt: true on the resource or the firewall takes it over",
            )
        return None

    def is_protected(self, kind: CatalogueKind, name: str) -> bool:
        """Return whether an item of this name is never deleted."""
        name = compose_name(name)
        patterns = map(compose_name, (*kind.row.protected, *self.policy.protected))
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    def _may_adopt(self, resource: Resource) -> bool:
        return self.policy.adopt if resource.adopt is None else resource.adopt

    def change_of(
        self,
        kind: CatalogueKind,
        resource: Resource | None,
        verb: Verb,
        ref: str,
        before: Mapping[str, Value],
        after: Mapping[str, Value],
        *,
        label: str = "",
        adopts: bool = False,
        note: str = "",
    ) -> Change:
        """Return a change of the item of a resource, or of one that is not listed and has this label."""
        return Change(
            target=self.policy.target,
            kind=kind.name,
            identity=resource.identity if resource else label,
            verb=verb,
            before=before,
            after=after,
            ref=ref,
            note=note,
            activates=tuple(filter(None, [kind.row.service_of(ref)])),
            adopts=adopts,
            mark=resource.mark if resource else None,
            origins=resource.origins if resource else {},
        )


def _is_default(field_row: FieldRow, wanted: str) -> bool:
    return wanted in ("", "0") or wanted == field_row.default
