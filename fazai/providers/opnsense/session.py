"""A session with one firewall: observe, diff, write, activate, probe, verify (`model.Session`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from fazai.errors import DeviceError, FazaiError, NotAvailable, Rejected, Unreachable, Unsure
from fazai.findings import Findings
from fazai.model import Change, Diff, Resource, Target, Value, Verb
from fazai.providers.opnsense.api.answers import nonsense_error, validations_of
from fazai.providers.opnsense.api.budget import Budget
from fazai.providers.opnsense.api.calls import ApiCall, ApiSettings
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.clock import RetryClock, SystemClock
from fazai.providers.opnsense.api.masking import as_one_line
from fazai.providers.opnsense.catalogue.kinds import UUID, CatalogueKind, names_of
from fazai.providers.opnsense.catalogue.ownership import add_mark, own_ref
from fazai.providers.opnsense.catalogue.rows import SERVICES, KindRow
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import text_of
from fazai.providers.opnsense.importing import find_items
from fazai.providers.opnsense.planning.diffing import Unresolved, resolve_references
from fazai.providers.opnsense.planning.placing import touches_groups
from fazai.providers.opnsense.planning.policy import TargetPolicy
from fazai.providers.opnsense.planning.snapshot import (
    SETTINGS_REF,
    Collection,
    ItemRow,
    Keys,
    Snapshot,
    cell_text,
    row_of_answer,
)
from fazai.providers.opnsense.planning.steps import plan_firewall
from fazai.providers.opnsense.settings import read_api_settings, read_target_policy
from fazai.providers.opnsense.writing import verifying
from fazai.providers.opnsense.writing.bodies import nest_body, rejection_error
from fazai.providers.opnsense.writing.joining import count_joined, write_together
from fazai.providers.opnsense.writing.rehearsal import rehearse_changes

#: The firewall may offer an old list of gateways for so long after one was made; the pause between tries.
OPTION_LISTS_S, OPTION_PAUSE_S = 65.0, 2.5
UNDONE = "undone"
HIDING_MODES = ("automatic", "disabled")


def open_firewall_session(
    target: Target,
    kinds: Mapping[str, CatalogueKind],
    clock: RetryClock | None = None,
    budget: Budget | None = None,
) -> OpnsenseSession:
    """Return a session with a target, as its options say; nothing is sent yet. Raises InventoryError."""
    clock = clock or SystemClock()
    return OpnsenseSession(read_api_settings(target), read_target_policy(target), kinds, clock, budget)


class OpnsenseSession:
    """One firewall. The engine calls it as `model.Session` says; nothing is sent before `observe`."""

    def __init__(
        self,
        settings: ApiSettings,
        policy: TargetPolicy,
        kinds: Mapping[str, CatalogueKind],
        clock: RetryClock,
        budget: Budget | None = None,
    ) -> None:
        self._target = settings.target
        self._settings = settings
        self._policy = policy
        self._kinds = kinds
        self._clock = clock
        self._budget = budget
        self._api: Api | None = None
        self._seen: Snapshot | None = None
        self._wanted: tuple[Resource, ...] = ()
        self._made: dict[tuple[str, str], str] = {}
        self._written = 0

    @property
    def api(self) -> Api:
        """The client, opened on first use."""
        if self._api is None:
            self._api = Api(self._settings, self._clock, self._budget)
        return self._api

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None

    async def observe(self, wanted: Sequence[Resource]) -> Snapshot:
        """Read each collection that is wanted, referred to, or to be pruned, with one search."""
        needed = self._needed_kinds(wanted)
        collections: dict[str, Collection] = {}
        for name, kind in self._kinds.items():
            if name in needed:
                try:
                    collections[name] = await self._read_collection(kind, wanted, collections)
                except NotAvailable as error:
                    raise _lacks_kind(error, name, wanted) from error
        rules, groups = collections.get("opnsense.rule"), "opnsense.interface_group"
        named = touches_groups(rules.rows.values(), wanted) if rules is not None else False
        if named and groups not in collections:
            collections[groups] = await self._read_collection(self._kinds[groups], (), collections)
        self._made = {}
        self._wanted = tuple(wanted)
        self._seen = Snapshot(collections)
        return self._seen

    async def find_items(self, kinds: Sequence[str]) -> Findings:
        """Return all items of these kinds, or of all, as they would be declared (`findings.Importing`).
        Raises Unreachable, DeviceError."""

        async def look(kind: CatalogueKind, seen: Mapping[str, Collection]) -> Collection:
            return await self._read_collection(kind, (), seen)

        return await find_items(self._kinds, kinds, self._policy, look)

    def _needed_kinds(self, wanted: Sequence[Resource]) -> set[str]:
        """Return the kinds to read: wanted ones, those they name, and settings that hide items."""
        needed = {resource.kind for resource in wanted}
        if isinstance(self._policy.prune, tuple):
            needed.update(self._policy.prune)
        for resource in wanted:
            for name, row in self._kinds[resource.kind].keyed.items():
                if resource.fields.get(name):
                    needed.update(row.references)
        hidden = {self._kinds[name].row.hidden_by for name in needed if name in self._kinds}
        return needed | (hidden - {""})

    async def _read_collection(
        self, kind: CatalogueKind, wanted: Sequence[Resource], seen: Mapping[str, Collection]
    ) -> Collection:
        row = kind.row
        if row.any_path:
            paths = {text_of(one.fields["path"]) for one in wanted if one.kind == kind.name}
            return Collection(kind, {path: await self._read_any(row, path) for path in sorted(paths)}, "")
        if row.settings:
            path = f"{row.path}/{row.verbs.get}"
            found = row_of_answer(await self.api.get(path, privilege=row.privilege), row.root, SETTINGS_REF)
            if found is None:
                raise nonsense_error(self._target, path, "an answer without settings")
            return Collection(kind, {SETTINGS_REF: found}, self._policy.owner)
        if row.hidden_by and self._hides_items(seen.get(row.hidden_by)):
            return await self._read_hidden(kind, wanted)
        path = f"{row.path}/{row.verbs.search}"
        listed = await self.api.search(path, privilege=row.privilege)
        if not all(row.get("uuid").__class__ is str or row.get("is_automatic") for row in listed):
            raise nonsense_error(self._target, path, "items that have no uuid")
        return Collection.of(kind, listed, self._policy.owner)

    async def _read_any(self, row: KindRow, controller: str) -> ItemRow:
        """Read all settings of a controller, under the names that its model has at the top."""
        path = f"{controller}/{row.verbs.get}"
        found = row_of_answer(await self.api.get(path, privilege=row.privilege), "", controller)
        if found is None:
            raise nonsense_error(self._target, path, "an answer without settings")
        return {**found, "path": controller}

    def _hides_items(self, setting: Collection | None) -> bool:
        row = setting.rows.get(SETTINGS_REF, {}) if setting is not None else {}
        return cell_text(row, "snat_mode") in HIDING_MODES

    async def _read_hidden(self, kind: CatalogueKind, wanted: Sequence[Resource]) -> Collection:
        """Read items that the search hides, one by one, under uuids given or our own."""
        rows: dict[str, Mapping[str, Any]] = {}
        for resource in wanted:
            if resource.kind == kind.name:
                ref = text_of(resource.fields.get(UUID, ""))
                ref = ref or own_ref(self._policy.mark, kind.name, resource.identity)
                path = f"{kind.row.path}/{kind.row.verbs.get}"
                answer = await self.api.get(f"{path}/{ref}", privilege=kind.row.privilege)
                found = row_of_answer(answer, kind.row.root, ref)
                if found is not None:
                    rows[ref] = found
                elif answer != []:  # only that means that there is no such item
                    raise nonsense_error(self._target, path, "neither an item nor that there is none")
        return Collection(kind, rows, self._policy.owner, complete=False)

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """Return what the firewall needs; see `planning.steps.plan_firewall`."""
        try:
            found = plan_firewall(
                self._policy, self._kinds, wanted, seen, adopted=adopted, pending=pending, prune=prune
            )
        except Unreachable as error:  # an answer that could not be read
            error.where = error.where or self._target
            raise
        settings = self._settings
        if settings.base_url.startswith("https:") and not settings.verify_tls and not settings.pin:
            note = f"the certificate of {self._target} is not verified (verify_tls: false)"
            found = replace(found, notes=(*found.notes, note))
        return found

    async def rehearse(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Return the firewall's objections to these changes, as far as it can be asked without writing."""
        return await rehearse_changes(
            self.api,
            self._kinds,
            changes,
            keys=self._keys_for,
            along=self._fields_along,
            owner=self._policy.owner,
        )

    async def write(self, change: Change) -> str:
        """Carry out one change with one call; returns the item's ref.

        Raises Rejected with our field names, DeviceError, Unreachable, and Unsure where the firewall
        chooses the uuid, the answer was lost, and the item cannot be found either.
        """
        kind = self._kinds[change.kind]
        self._written += verifying.calls_to_undo(kind, change)
        deadline_s = self._clock.now_s() + OPTION_LISTS_S
        try:
            while True:
                try:
                    return await self._write_change(kind, change)
                except Rejected as error:
                    late = self._clock.now_s() >= deadline_s
                    if late or not self._names_only_new_items(kind, change, error):
                        raise
                await self._clock.sleep(OPTION_PAUSE_S)
        except DeviceError as error:
            if error.where == self._target:
                error.where = change.mark or change.where
            raise

    def join(self, changes: Sequence[Change]) -> int:
        """Return how many of these, from the first on, go in one call (`model.Joining`)."""
        return count_joined(self._kinds, changes)

    async def write_joined(self, changes: Sequence[Change]) -> tuple[list[str], FazaiError | None]:
        """Carry out several changes of one kind in one call; what that did not do, one by one."""
        kind = self._kinds[changes[0].kind]
        self._written += len(changes)
        return await write_together(
            self.api,
            kind,
            changes,
            body_of=self._changed_texts,
            look=lambda: self._read_collection(kind, (), {}),
            write=self.write,
        )

    async def _changed_texts(self, kind: CatalogueKind, change: Change) -> dict[str, str]:
        return {
            name: await self._text_of(kind.rows[name], value, change) for name, value in change.after.items()
        }

    def _names_only_new_items(self, kind: CatalogueKind, change: Change, error: Rejected) -> bool:
        """Return whether only names were refused that this session made: some lists are kept for a while."""
        return bool(error.fields) and all(
            name in kind.rows
            and any((of, text_of(change.after.get(name))) in self._made for of in kind.rows[name].references)
            for name in error.fields
        )

    async def _write_change(self, kind: CatalogueKind, change: Change) -> str:
        ref = self._made.get((change.kind, change.ref), change.ref)
        if change.verb is Verb.DELETE:
            await self._delete_item(kind, change, ref)
            return ref
        if change.verb is Verb.CREATE and kind.row.create == "add":
            made = await self._add_item(kind, change)
            self._made[change.kind, change.ref] = made
            self._made[change.kind, change.identity] = made
            return made
        if kind.row.out_of_nothing and change.verb is not Verb.CREATE:
            await verifying.check_there(self.api, kind, change, ref)
        body = await self._body_of(kind, change)
        action = kind.row.verbs.set
        path = f"{kind.row.path_of(ref)}/{action}"
        if not kind.row.settings:
            path += f"/{ref}"
        answer = await self._post_body(kind, path, nest_body(kind.row.root, body))
        self._check_saved(kind, change, answer)
        if change.verb is Verb.CREATE:
            for name in names_of(kind, change.identity, change.after):
                self._made[change.kind, name] = ref
        return ref

    async def _post_body(
        self, kind: CatalogueKind, path: str, body: Mapping[str, Any], *, repeatable: bool = True
    ) -> Any:
        return await self.api.call(
            ApiCall("POST", path, body, repeatable=repeatable, privilege=kind.row.privilege)
        )

    async def _delete_item(self, kind: CatalogueKind, change: Change, ref: str) -> None:
        try:
            answer = await self._post_body(kind, f"{kind.row.path}/{kind.row.verbs.delete}/{ref}", {})
        except Unreachable:
            if not await self._is_gone(kind, ref):
                raise
            return  # some controllers fail over an item that is not there any more
        result = answer.get("result") if isinstance(answer, dict) else None
        if result in ("deleted", "not found") or (result == "failed" and await self._is_gone(kind, ref)):
            return
        said = as_one_line(result or "nothing")
        text = f'{self._target} did not delete "{change.identity}": it answered {said}'
        raise DeviceError(text, where=change.mark or change.where)

    async def _is_gone(self, kind: CatalogueKind, ref: str) -> bool:
        """Return whether there is no such item; False when it cannot be found out."""
        try:
            return ref not in (await self._read_collection(kind, (), {})).rows
        except FazaiError:
            return False

    async def _add_item(self, kind: CatalogueKind, change: Change) -> str:
        """Add under a uuid of the firewall's choosing; look for the item before a lost call is sent again,
        and before a deletion is undone that may never have been done."""
        if change.note == UNDONE and (there := await self._find_made(kind, change)) is not None:
            return there
        body = nest_body(kind.row.root, await self._body_of(kind, change))
        path = f"{kind.row.path}/{kind.row.verbs.add}"
        for last in (False, True):
            try:
                answer = await self._post_body(kind, path, body, repeatable=False)
            except Unsure as error:
                found = await self._find_made(kind, change)
                if found is not None:
                    return found
                if last:
                    error.where = change.where
                    raise
                continue
            self._check_saved(kind, change, answer)
            return str(answer.get("uuid", "")) or await self._find_made(kind, change) or change.ref
        raise AssertionError("unreachable")

    async def _find_made(self, kind: CatalogueKind, change: Change) -> str | None:
        collection = await self._read_collection(kind, (), {})
        found = collection.labels.get(change.identity, [])
        if kind.row.unmarked:  # none was there when it was planned
            return found[0] if len(found) == 1 else None
        return next((ref for ref in found if collection.carries_mark(ref, self._policy.mark)), None)

    async def _body_of(self, kind: CatalogueKind, change: Change) -> dict[str, str]:
        """Return the fields to send, in the API's texts."""
        body: dict[str, str] = {}
        for name, value in change.after.items():
            row = kind.rows[name]
            body[(row.source or name) if kind.row.settings else name] = await self._text_of(
                row, value, change
            )
        if kind.row.mark_field in change.after and change.verb is Verb.CREATE:
            body[kind.row.mark_field] = add_mark(body[kind.row.mark_field], self._policy.owner)
        if change.verb is Verb.CREATE:
            body.update((name, text) for name, text in kind.row.undo if _needs_undo_fields(kind.row, change))
            return {**_told_along(kind.row, change), **body}
        return {**_told_along(kind.row, change), **body, **self._fields_along(kind, change)}

    def _fields_along(self, kind: CatalogueKind, change: Change) -> dict[str, str]:
        """Return the fields that the firewall wants with every write, though they stay as they are."""
        if change.verb is Verb.CREATE or kind.row.settings:
            return {}
        rows = {name: row for name, row in kind.rows.items() if row.always or name in kind.row.identity}
        texts = {n: self._current_text(kind, change, row) for n, row in rows.items() if n not in change.after}
        return {name: text for name, text in texts.items() if text}

    async def _text_of(self, row: FieldRow, value: Value, change: Change) -> str:
        keys = self._keys_for(row)
        try:
            return resolve_references(row, value, keys)
        except Unresolved:
            if row.reference is None or self._seen is None:
                raise
        # made in this run: its key is the firewall's
        fresh = {kind: await self._read_collection(self._kinds[kind], (), {}) for kind in row.references}
        self._seen = Snapshot({**self._seen.collections, **fresh})
        try:
            return resolve_references(row, value, self._keys_for(row))
        except Unresolved as error:
            error.where = change.origins.get(row.name) or change.mark or change.where
            raise

    def _keys_for(self, row: FieldRow) -> Keys:
        if row.reference is None or row.key == "name" or self._seen is None:
            return Keys()
        return Keys.joined([self._keys_of(self._seen, kind, row.key) for kind in row.references])

    def _keys_of(self, seen: Snapshot, kind: str, key: str) -> Keys:
        keys = seen.keys(kind, key)
        if keys.several:  # a name is clear when all but one of its items are to go
            going = {one.identity for one in self._wanted if one.state == "absent"}
            staying = [item for item in seen.items(kind, key) if item[0] not in going]
            keys = Keys({**Keys.of(staying).known, **keys.known}, keys.several)
        if key == "uuid":
            made = {name: ref for (one, name), ref in self._made.items() if one == kind}
            return Keys({**keys.known, **made}, keys.several) if made else keys
        return keys

    def _current_text(self, kind: CatalogueKind, change: Change, row: FieldRow) -> str:
        """Return the present text of a field that is sent along, with the owner's mark if it carries one."""
        collection = self._seen.collections.get(kind.name) if self._seen is not None else None
        item = collection.rows.get(change.ref) if collection is not None else None
        if collection is None or item is None:
            return text_of(change.before.get(row.name, ""))
        if row.name == kind.row.mark_field:
            return cell_text(item, row.name)
        return collection.text(item, row)

    def _check_saved(self, kind: CatalogueKind, change: Change, answer: Any) -> None:
        """Check that the firewall says that it saved. Raises Rejected, DeviceError."""
        name, word = kind.row.saved
        if isinstance(answer, dict) and answer.get(name) == word:
            return
        found = validations_of(answer)
        if not found:
            text = f'{self._target} did not save "{change.identity}" and gave no reason'
            hint = "the item may have been deleted meanwhile, or the key may not write; "
            hint += "run again to look anew"
            raise DeviceError(text, where=change.mark or change.where, hint=hint)
        raise rejection_error(self._target, kind, change, found)

    def inverse(self, change: Change, ref: str) -> Change:
        """Return the change that undoes this one: create and delete swap, an update or a move goes back."""
        verb = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}.get(change.verb, change.verb)
        return replace(
            change, verb=verb, before=change.after, after=change.before, ref=ref, note=UNDONE, adopts=False
        )

    async def hold(self) -> None:
        """Open reserve connections, enough to undo what this session wrote, and to read it then."""
        reads = len(self._seen.collections) if self._seen is not None else 0
        await self.api.hold(self._written + reads + 3)  # and what is activated again

    async def activate(self, service: str) -> None:
        """Reconfigure a service once. Raises DeviceError when the firewall says that it failed."""
        found = next((one for one in SERVICES if one.name == service), None)
        if found is None:
            raise DeviceError(f'there is no service "{service}"', where=self._target)
        await self.api.refresh()
        answer = await self.api.call(
            ApiCall(
                "POST",
                found.path,
                {},
                privilege=found.privilege,
                timeout_s=max(self._settings.activate_timeout_s, self._settings.timeout_s),
                attempts=0,
            )
        )
        status = ""
        if isinstance(answer, dict):
            status = str(answer.get("status", answer.get("result", ""))).strip().lower()
        if status != "ok":
            said = as_one_line(status or "nothing")
            raise DeviceError(
                f"the firewall could not activate {found.summary}: it answered {said}",
                where=self._target,
                hint=f"saved, but not in effect; POST /api/{found.path} by hand says more",
            )

    async def probe(self) -> None:
        """Call over a fresh connection until `probe_timeout` is over."""
        await self.api.probe()

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """Return an error for each change that the running state contradicts, where it can be asked."""
        if self._seen is None:
            return []
        return await verifying.verify_changes(self.api, self._seen, changes)


def _lacks_kind(error: NotAvailable, kind: str, wanted: Iterable[Resource]) -> NotAvailable:
    """Return the error with the kind that the firewall lacks, at the first resource of it."""
    marks = (one.mark for one in wanted if one.kind == kind)
    where = next((mark for mark in marks if mark), None) or error.where
    return NotAvailable(f"{error.message}: it lacks {kind}", where=where, hint=error.hint)


def _told_along(row: KindRow, change: Change) -> dict[str, str]:
    """Return the fields that the row has sent with a write, declared or not."""
    return {
        one.name: one.text
        for one in row.along
        if one.verb == change.verb.value and (not one.beside or one.beside in change.after)
    }


def _needs_undo_fields(row: KindRow, change: Change) -> bool:
    return bool(row.undo) and not all(name in change.after for name in row.needed_on_create)
