"""The difference between wanted and seen, item by item. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fazai.errors import DeviceError, FazaiError, Mark, NotAvailable, Refused, spelling_hint
from fazai.model import Change, Resource, SecretRef, Value, Verb
from fazai.providers.opnsense.catalogue.kinds import UNMANAGED, CatalogueKind
from fazai.providers.opnsense.catalogue.ownership import is_uuid, other_owner
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import composed, same, text_of, to_api
from fazai.providers.opnsense.planning.matching import Matcher
from fazai.providers.opnsense.planning.snapshot import Collection, Keys, Row, Snapshot

__all__ = ["Item", "Judge", "Result", "Unresolved", "resolve"]


class Unresolved(DeviceError):
    """A resource names something that is neither on the firewall nor wanted there."""


@dataclass(slots=True)
class Result:
    """What was found for one kind, before it is put in order."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    refused: list[tuple[Change, FazaiError]] = field(default_factory=list)
    errors: list[FazaiError] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)  # the present ones, in list order
    wanted_refs: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Item:
    """A wanted, present item and its place in the list of changes (None: nothing differs). `astray`: the
    defaults that fields get back which are not declared.
    """

    resource: Resource
    ref: str
    row: Row | None
    ours: bool
    change: int | None
    astray: Mapping[str, Value] = field(default_factory=dict)

    def declared(self, name: str) -> Value:
        """What a field will be, as far as this run says it; None: as it is."""
        return self.resource.fields.get(name, self.astray.get(name))


def resolve(field_row: FieldRow, value: Value, keys: Keys) -> str:
    """The API text of a canonical value, with names of other items replaced. Raises Unresolved."""
    if field_row.reference is None or field_row.key == "name":
        return to_api(field_row, value)
    found = [
        _key(field_row, name, keys) for name in (value if isinstance(value, tuple) else (value,)) if name
    ]
    return field_row.separator.join(found)


def _key(field_row: FieldRow, name: str, keys: Keys) -> str:
    known = composed(name)
    name_ = known if known in keys.known or known in keys.several else known.lower()
    key = keys.known.get(name_)
    if key is not None:
        return key
    kind = (field_row.reference or "").partition(".")[2].replace("_", " ")
    if name_ in keys.several:
        several = keys.several[name_]
        raise Unresolved(
            f'{len(several)} items of the kind {kind} are called "{name}": which one is meant is not clear',
            hint=f"write one of: {', '.join(several)}",
        )
    if is_uuid(name) or name.startswith("__"):
        return name
    raise Unresolved(f'there is no {kind} "{name}" on this firewall', hint=spelling_hint(name, keys.known))


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares the resources of one target with what was seen of it."""

    target: str
    mark: str
    snapshot: Snapshot
    adopt: bool
    adopted: frozenset[str]
    protected: tuple[str, ...]
    unmanaged: Mapping[str, frozenset[str]]  # kind -> fields whose defaults do not count
    keys: Mapping[tuple[str, str], Keys]  # by kind and key, with what this run creates

    def compare(self, kind: CatalogueKind, resources: Sequence[Resource]) -> Result:
        """Every resource of one kind."""
        result = Result()
        collection = self.snapshot.collections[kind.name]
        matcher = Matcher(kind, collection, self.target, self.mark, self.adopted, self._api)
        try:
            shared = matcher.match_all(resources)
        except DeviceError as error:
            error.where = error.where or f"{self.target}/{kind.name}"
            result.errors.append(error)
            return result
        for resource in resources:
            try:
                self._one(kind, matcher, resource, shared.get(resource.identity), result)
            except Unresolved as error:
                error.where = error.where or resource.mark or self._where(resource)
                result.errors.append(error)
            except (DeviceError, Refused) as error:
                result.errors.append(error)
        return result

    def _one(
        self, kind: CatalogueKind, matcher: Matcher, resource: Resource, shared: str | None, result: Result
    ) -> None:
        collection = matcher.collection
        if shared is None:
            ref, ours = matcher.match(resource)
        else:
            ref, ours = shared, shared not in collection.rows or matcher.is_ours(shared)
        row = collection.rows.get(ref)
        result.wanted_refs.add(ref)
        if resource.state == "absent":
            self._absent(kind, collection, resource, ref, ours, result)
        elif row is None:
            created = self._create(kind, resource, ref)  # may refuse: nothing is put in order then
            result.items.append(Item(resource, ref, None, True, len(result.changes)))
            result.changes.append(created)
        else:
            self._present(kind, collection, resource, ref, row, ours, result)

    def _api(self, field_row: FieldRow, value: Value) -> str:
        if field_row.reference is None or field_row.key == "name":
            return to_api(field_row, value)
        return resolve(field_row, value, self.keys.get((field_row.reference, field_row.key), Keys()))

    def _create(self, kind: CatalogueKind, resource: Resource, ref: str) -> Change:
        fields = {
            name: value
            for name, value in resource.fields.items()
            if name in kind.rows and not isinstance(value, SecretRef)
        }
        for name in kind.row.needed_on_create:
            if name not in fields:
                raise DeviceError(
                    f'{name} is missing: "{resource.identity}" does not exist on {self.target} '
                    "and cannot be made without it",
                    where=resource.mark or self._where(resource),
                )
        for name, value in fields.items():
            self._resolvable(kind.rows[name], value, resource)
        return self._change(kind, resource, Verb.CREATE, ref, {}, fields)

    def _resolvable(self, field_row: FieldRow, value: Value, resource: Resource) -> str:
        try:
            return self._api(field_row, value)
        except Unresolved as error:
            error.where = resource.origins.get(field_row.name) or resource.mark or self._where(resource)
            raise

    def _present(
        self,
        kind: CatalogueKind,
        collection: Collection,
        resource: Resource,
        ref: str,
        row: Row,
        ours: bool,
        result: Result,
    ) -> None:
        changed = self._changed(kind, collection, resource, row)
        made = collection.carries_mark(ref, self.mark)
        astray = self._astray(kind, collection, resource, row, made=made)
        if not changed and not astray:
            result.unchanged += 1
            result.items.append(Item(resource, ref, row, ours, None))
            return
        fields = (*changed, *astray)
        before = {name: self.snapshot.value(collection, row, kind.rows[name]) for name in fields}
        after = {**{name: resource.fields[name] for name in changed}, **astray}
        taking = not ours and self._may_adopt(resource)
        change = self._change(kind, resource, Verb.UPDATE, ref, before, after, adopts=taking)
        notes = [f"not declared, so as by default: {', '.join(astray)}"] if astray else []
        if taking and (owner := other_owner(ref, kind.name, (resource.identity, resource.label))):
            notes.append(f"taken over: it is managed by fazai for {owner}")
        change = replace(change, note="; ".join(notes))
        refusal = self._refusal(kind, collection, resource, ref, ours=ours or taking, verb="changed")
        if refusal is not None:
            result.refused.append((change, refusal))
            return
        result.items.append(Item(resource, ref, row, True, len(result.changes), astray))
        result.changes.append(change)

    def _changed(
        self, kind: CatalogueKind, collection: Collection, resource: Resource, row: Row
    ) -> list[str]:
        """The declared fields that differ. Nothing else is looked at: it has to be quick for thousands of
        rows.
        """
        changed = []
        rows = kind.rows
        for name, value in resource.fields.items():
            field_row = rows.get(name)
            if field_row is None or field_row.write_once or isinstance(value, SecretRef):
                continue
            if field_row.reference is None and value.__class__ is str:
                wanted = value
            else:
                wanted = self._resolvable(field_row, value, resource)
            if wanted == row.get(field_row.source or name):
                continue
            if name not in row and field_row.source not in row and not _is_default(field_row, wanted):
                raise NotAvailable(
                    f"{kind.name} has no field {name} in the release of {self.target}",
                    where=resource.origins.get(name) or resource.mark or self._where(resource),
                    hint="leave the field out for this firewall, or update it",
                )
            if not same(field_row, wanted, collection.text(row, field_row)):
                changed.append(name)
        return changed

    def _astray(
        self, kind: CatalogueKind, collection: Collection, resource: Resource, row: Row, *, made: bool
    ) -> dict[str, Value]:
        """The fields that are not declared and have another value than their default, with it: of an item
        that fazai made all of them, of others' only whether it is switched off. Quick, as `_changed` is.
        """
        found: dict[str, Value] = {}
        spared = self.unmanaged.get(kind.name, frozenset()).union(resource.fields.get(UNMANAGED, ()))
        for default in kind.defaults:
            field_row, name = default.row, default.row.name
            seen = row.get(default.source)
            if seen == default.text or name in resource.fields or not (made or default.switch):
                continue
            if name in spared or (seen is None and name not in row):  # a release may not have the field
                continue
            if not same(field_row, default.text, collection.text(row, field_row)):
                found[name] = default.value
        return found

    def _absent(
        self,
        kind: CatalogueKind,
        collection: Collection,
        resource: Resource,
        ref: str,
        ours: bool,
        result: Result,
    ) -> None:
        if ref not in collection.rows:
            result.unchanged += 1
            return
        taking = not ours and self._may_adopt(resource)
        change = self.delete(kind, collection, ref, resource, adopts=taking)
        refusal = self._refusal(kind, collection, resource, ref, ours=ours or taking, verb="deleted")
        if refusal is not None:
            result.refused.append((change, refusal))
        else:
            result.changes.append(change)

    def delete(
        self,
        kind: CatalogueKind,
        collection: Collection,
        ref: str,
        resource: Resource | None = None,
        *,
        adopts: bool = False,
        note: str = "",
    ) -> Change:
        """The deletion of an item, with all that is needed to make it again."""
        row = collection.rows[ref]
        before = {}
        for name, field_row in kind.rows.items():
            if (name in row or field_row.source in row) and not field_row.write_once:
                value = self.snapshot.value(collection, row, field_row)
                if text_of(value) or field_row.default:
                    before[name] = value
        return Change(
            target=self.target,
            kind=kind.name,
            identity=resource.identity if resource else collection.label(row),
            verb=Verb.DELETE,
            before=before,
            after={},
            ref=ref,
            note=note,
            activates=kind.services,
            adopts=adopts,
            mark=resource.mark if resource else None,
            origins=resource.origins if resource else {},
        )

    def _refusal(
        self,
        kind: CatalogueKind,
        collection: Collection,
        resource: Resource,
        ref: str,
        *,
        ours: bool,
        verb: str,
    ) -> Refused | None:
        where: Mark | str = resource.mark or self._where(resource)
        name = resource.identity
        if not kind.row.settings and not is_uuid(ref):
            return Refused(f'"{name}" is built into {self.target} and cannot be {verb}', where=where)
        if verb == "deleted" and self.is_protected(kind, resource.label or name):
            return Refused(
                f'"{name}" is protected and is not deleted',
                where=where,
                hint="protected: of the firewall, or fazai itself, says so",
            )
        if not ours and (owner := other_owner(ref, kind.name, (name, resource.label))):
            return Refused(
                f'"{name}" on {self.target} is managed by fazai for {owner}, and is not {verb}',
                where=where,
                hint="change it where that owner lists it; adopt: true takes it over, and then both do",
            )
        if not ours:
            return Refused(
                f'"{name}" on {self.target} was not made by fazai and is not {verb}',
                where=where,
                hint="adopt: true on the resource or the firewall takes it over",
            )
        return None

    def is_protected(self, kind: CatalogueKind, name: str) -> bool:
        """Is this a name that is never deleted?"""
        name = composed(name)
        patterns = map(composed, (*kind.row.protected, *self.protected))
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    def _may_adopt(self, resource: Resource) -> bool:
        return self.adopt if resource.adopt is None else resource.adopt

    def _where(self, resource: Resource) -> str:
        return f"{self.target}/{resource.kind}/{resource.identity}"

    def _change(
        self,
        kind: CatalogueKind,
        resource: Resource,
        verb: Verb,
        ref: str,
        before: Mapping[str, Value],
        after: Mapping[str, Value],
        *,
        adopts: bool = False,
    ) -> Change:
        return Change(
            target=self.target,
            kind=kind.name,
            identity=resource.identity,
            verb=verb,
            before=before,
            after=after,
            ref=ref,
            activates=kind.services,
            adopts=adopts,
            mark=resource.mark,
            origins=resource.origins,
        )


def _is_default(field_row: FieldRow, wanted: str) -> bool:
    return wanted in ("", "0") or wanted == field_row.default
