"""A session: observe, diff, write, activate, probe, verify on one firewall (`model.Session`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fazai.errors import DeviceError, FazaiError, InventoryError, Rejected, Unreachable, Unsure
from fazai.model import Change, Diff, Resource, Target, Value, Verb
from fazai.providers.opnsense import verifying
from fazai.providers.opnsense.answers import nonsense, refusal
from fazai.providers.opnsense.bodies import nest, rejected
from fazai.providers.opnsense.budget import MIB, Budget
from fazai.providers.opnsense.catalogue import FieldRow
from fazai.providers.opnsense.client import Api, Call, Clock, Settings, SystemClock
from fazai.providers.opnsense.credentials import read_credentials
from fazai.providers.opnsense.diffing import Unresolved, resolve
from fazai.providers.opnsense.kinds import UUID, CatalogueKind, called
from fazai.providers.opnsense.masking import told
from fazai.providers.opnsense.ownership import mark_of, marked, own_ref
from fazai.providers.opnsense.placing import places_of
from fazai.providers.opnsense.planning import Policy, pruned_kinds, work_out
from fazai.providers.opnsense.provider import OPTIONS
from fazai.providers.opnsense.rehearsal import rehearse
from fazai.providers.opnsense.rows import SERVICES, KindRow
from fazai.providers.opnsense.snapshot import SETTINGS_REF, Collection, Keys, Row, Snapshot, cell, item_row
from fazai.providers.opnsense.tls import read_ca
from fazai.providers.opnsense.values import text_of

__all__ = ["OpnsenseSession"]

#: How long the firewall may go on offering a list of gateways from before one was made, and how often to ask.
OPTION_LISTS_S, OPTION_PAUSE_S = 65.0, 2.5
_ASSIGNED = re.compile("wan|lan|opt[0-9]+|lo0")
HIDING_MODES = ("automatic", "disabled")


class OpnsenseSession:
    """One firewall. The engine calls it as `model.Session` says; nothing is sent before `observe`."""

    def __init__(
        self,
        target: Target,
        kinds: Mapping[str, CatalogueKind],
        clock: Clock | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._target = target
        self._kinds = kinds
        self._settings = _settings(target)
        self._clock = clock or SystemClock()
        self._budget = budget
        owner = str(_option(target, "owner"))
        self._owner = owner
        self._policy = Policy(
            target=target.name,
            mark=mark_of(owner),
            adopt=bool(_option(target, "adopt")),
            protected=tuple(_option(target, "protected") or ()),
            prune=pruned_kinds(_option(target, "prune")),
            max_prune=_option(target, "max_prune"),
            place=places_of(_option(target, "place") or {}),
            unmanaged={
                kind: frozenset(names) for kind, names in (_option(target, "unmanaged") or {}).items()
            },
        )
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None

    async def observe(self, wanted: Sequence[Resource]) -> Snapshot:
        """One search per collection that is wanted, referred to, or to be pruned."""
        needed = self._needed(wanted)
        collections: dict[str, Collection] = {}
        for name, kind in self._kinds.items():
            if name in needed:
                collections[name] = await self._read(kind, wanted, collections)
        rules, groups = collections.get("opnsense.rule"), "opnsense.interface_group"
        named = _of_groups(rules.rows.values(), wanted) if rules is not None else False
        if named and groups not in collections:
            collections[groups] = await self._read(self._kinds[groups], (), collections)
        self._made = {}
        self._wanted = tuple(wanted)
        self._seen = Snapshot(collections)
        return self._seen

    def _needed(self, wanted: Sequence[Resource]) -> set[str]:
        """The kinds to read: also those whose names must be turned into keys, and settings that hide
        items.
        """
        needed = {resource.kind for resource in wanted}
        if isinstance(self._policy.prune, tuple):
            needed.update(self._policy.prune)
        for resource in wanted:
            for name, row in self._kinds[resource.kind].keyed.items():
                if row.reference and resource.fields.get(name):
                    needed.add(row.reference)
        hidden = {self._kinds[name].row.hidden_by for name in needed if name in self._kinds}
        return needed | (hidden - {""})

    async def _read(
        self, kind: CatalogueKind, wanted: Sequence[Resource], seen: Mapping[str, Collection]
    ) -> Collection:
        row = kind.row
        search, get, *_ = row.verbs
        if row.settings:
            found = item_row(
                await self.api.get(f"{row.path}/{get}", privilege=row.privilege), row.root, SETTINGS_REF
            )
            if found is None:
                raise nonsense(self._target.name, f"{row.path}/{get}", "an answer without settings")
            return Collection(kind, {SETTINGS_REF: found}, self._owner)
        if row.hidden_by and self._hides(seen.get(row.hidden_by)):
            return await self._read_hidden(kind, wanted)
        listed = await self.api.search(f"{row.path}/{search}", privilege=row.privilege)
        if not all(row.get("uuid").__class__ is str or row.get("is_automatic") for row in listed):
            raise nonsense(self._target.name, f"{row.path}/{search}", "items that have no uuid")
        return Collection.of(kind, listed, self._owner)

    def _hides(self, setting: Collection | None) -> bool:
        row = setting.rows.get(SETTINGS_REF, {}) if setting is not None else {}
        return cell(row, "snat_mode") in HIDING_MODES

    async def _read_hidden(self, kind: CatalogueKind, wanted: Sequence[Resource]) -> Collection:
        """Where search hides the items: one by one, under uuids that are named or that ours would have."""
        rows: dict[str, Mapping[str, Any]] = {}
        for resource in wanted:
            if resource.kind == kind.name:
                ref = text_of(resource.fields.get(UUID, ""))
                ref = ref or own_ref(self._policy.mark, kind.name, resource.identity)
                answer = await self.api.get(
                    f"{kind.row.path}/{kind.row.verbs[1]}/{ref}", privilege=kind.row.privilege
                )
                found = item_row(answer, kind.row.root, ref)
                if found is not None:
                    rows[ref] = found
                elif answer != []:  # only that means that there is no such item
                    path = f"{kind.row.path}/{kind.row.verbs[1]}"
                    raise nonsense(self._target.name, path, "neither an item nor that there is none")
        return Collection(kind, rows, self._owner, complete=False)

    def diff(
        self,
        wanted: Sequence[Resource],
        seen: Any,
        *,
        adopted: frozenset[str] = frozenset(),
        pending: frozenset[str] = frozenset(),
        prune: bool = False,
    ) -> Diff:
        """What the firewall needs; see `planning.work_out`."""
        try:
            found = work_out(
                self._policy, self._kinds, wanted, seen, adopted=adopted, pending=pending, prune=prune
            )
        except Unreachable as error:  # an answer that could not be read
            error.where = error.where or self._target.name
            raise
        if (
            self._settings.base_url.startswith("https:")
            and not self._settings.verify_tls
            and not self._settings.pin
        ):
            note = f"the certificate of {self._target.name} is not verified (verify_tls: false)"
            found = replace(found, notes=(*found.notes, note))
        return found

    async def rehearse(self, changes: Sequence[Change]) -> list[FazaiError]:
        """What the firewall has against these changes, as far as it can be asked without writing."""
        return await rehearse(
            self.api, self._kinds, changes, keys=self._keys, along=self._along, owner=self._owner
        )

    async def write(self, change: Change) -> str:
        """Carry out one change with one call; returns the item's ref.

        Raises Rejected with our field names, DeviceError, Unreachable, and Unsure where the firewall
        chooses the uuid, the answer was lost, and the item cannot be found either.
        """
        kind = self._kinds[change.kind]
        self._written += 1
        deadline_s = self._clock.now_s() + OPTION_LISTS_S
        try:
            while True:
                try:
                    return await self._write(kind, change)
                except Rejected as error:
                    if not self._names_new(kind, change, error) or self._clock.now_s() >= deadline_s:
                        raise
                await self._clock.sleep(OPTION_PAUSE_S)
        except DeviceError as error:
            if error.where == self._target.name:
                error.where = change.mark or change.where
            raise

    def _names_new(self, kind: CatalogueKind, change: Change, error: Rejected) -> bool:
        """Was only a name refused that this session has just made? The firewall keeps some lists for a
        while.
        """
        return bool(error.fields) and all(
            name in kind.rows
            and (kind.rows[name].reference or "", text_of(change.after.get(name))) in self._made
            for name in error.fields
        )

    async def _write(self, kind: CatalogueKind, change: Change) -> str:
        ref = self._made.get((change.kind, change.ref), change.ref)
        if change.verb is Verb.DELETE:
            await self._delete(kind, change, ref)
            return ref
        if change.verb is Verb.CREATE and kind.row.create == "add":
            made = await self._add(kind, change)
            self._made[change.kind, change.ref] = made
            self._made[change.kind, change.identity] = made
            return made
        body = await self._body(kind, change)
        action = kind.row.verbs[3]
        path = f"{kind.row.path}/{action}" if kind.row.settings else f"{kind.row.path}/{action}/{ref}"
        answer = await self._call(kind, path, nest(kind.row.root, body))
        self._saved(kind, change, answer)
        if change.verb is Verb.CREATE:
            self._made[change.kind, change.identity] = ref
            if kind.row.called:
                self._made[change.kind, called(kind, change.after)] = ref
        return ref

    async def _call(
        self, kind: CatalogueKind, path: str, body: Mapping[str, Any], *, repeatable: bool = True
    ) -> Any:
        return await self.api.call(
            Call("POST", path, body, repeatable=repeatable, privilege=kind.row.privilege)
        )

    async def _delete(self, kind: CatalogueKind, change: Change, ref: str) -> None:
        try:
            answer = await self._call(kind, f"{kind.row.path}/{kind.row.verbs[4]}/{ref}", {})
        except Unreachable:
            if not await self._is_gone(kind, ref):
                raise
            return  # some controllers fail over an item that is not there any more
        result = answer.get("result") if isinstance(answer, dict) else None
        if result in ("deleted", "not found") or (result == "failed" and await self._is_gone(kind, ref)):
            return
        raise DeviceError(
            f'{self._target.name} did not delete "{change.identity}": '
            f"it answered {told(result or 'nothing')}",
            where=change.mark or change.where,
        )

    async def _is_gone(self, kind: CatalogueKind, ref: str) -> bool:
        """Is there no such item? False when it cannot be found out."""
        try:
            return ref not in (await self._read(kind, (), {})).rows
        except FazaiError:
            return False

    async def _add(self, kind: CatalogueKind, change: Change) -> str:
        """Add under a uuid of the firewall's choosing; a lost answer is looked for before it is sent
        again.
        """
        body = nest(kind.row.root, await self._body(kind, change))
        path = f"{kind.row.path}/{kind.row.verbs[2]}"
        for last in (False, True):
            try:
                answer = await self._call(kind, path, body, repeatable=False)
            except Unsure as error:
                found = await self._find(kind, change)
                if found is not None:
                    return found
                if last:
                    error.where = change.where
                    raise
                continue
            self._saved(kind, change, answer)
            return str(answer.get("uuid", "")) or await self._find(kind, change) or change.ref
        raise AssertionError("unreachable")

    async def _find(self, kind: CatalogueKind, change: Change) -> str | None:
        collection = await self._read(kind, (), {})
        found = collection.labels.get(change.identity, [])
        return next((ref for ref in found if collection.carries_mark(ref, self._policy.mark)), None)

    async def _body(self, kind: CatalogueKind, change: Change) -> dict[str, str]:
        """The fields to send, in the API's texts."""
        body: dict[str, str] = {}
        for name, value in change.after.items():
            row = kind.rows[name]
            body[row.source if kind.row.settings else name] = await self._text(row, value, change)
        if kind.row.mark_field in change.after and change.verb is Verb.CREATE:
            body[kind.row.mark_field] = marked(body[kind.row.mark_field], self._owner)
        if change.verb is Verb.CREATE:
            body.update((name, text) for name, text in kind.row.undo if _lacks(kind.row, change))
            return body
        return {**body, **self._along(kind, change)}

    def _along(self, kind: CatalogueKind, change: Change) -> dict[str, str]:
        """What the firewall wants to be told of an item that is there, though it stays as it is."""
        if change.verb is Verb.CREATE:
            return {}
        rows = {name: row for name, row in kind.rows.items() if row.always or name in kind.row.identity}
        texts = {n: self._current(kind, change, row) for n, row in rows.items() if n not in change.after}
        return {name: text for name, text in texts.items() if text}

    async def _text(self, row: FieldRow, value: Value, change: Change) -> str:
        keys = self._keys(row)
        try:
            return resolve(row, value, keys)
        except Unresolved:
            if row.reference is None or self._seen is None:
                raise
        fresh = await self._read(
            self._kinds[row.reference], (), {}
        )  # made in this run, its key is the firewall's
        self._seen = Snapshot({**self._seen.collections, row.reference: fresh})
        try:
            return resolve(row, value, self._keys(row))
        except Unresolved as error:
            error.where = change.origins.get(row.name) or change.mark or change.where
            raise

    def _keys(self, row: FieldRow) -> Keys:
        if row.reference is None or row.key == "name" or self._seen is None:
            return Keys()
        keys = self._seen.keys(row.reference, row.key)
        if keys.several:  # a name is clear when all but one of its items are to go
            going = {one.identity for one in self._wanted if one.state == "absent"}
            staying = [item for item in self._seen.items(row.reference, row.key) if item[0] not in going]
            keys = Keys({**Keys.of(staying).known, **keys.known}, keys.several)
        if row.key == "uuid":
            made = {name: ref for (kind, name), ref in self._made.items() if kind == row.reference}
            return Keys({**keys.known, **made}, keys.several) if made else keys
        return keys

    def _current(self, kind: CatalogueKind, change: Change, row: FieldRow) -> str:
        """What the firewall has now in a field that is sent along; with the owner's mark if it carries
        one.
        """
        collection = self._seen.collections.get(kind.name) if self._seen is not None else None
        item = collection.rows.get(change.ref) if collection is not None else None
        if collection is None or item is None:
            return text_of(change.before.get(row.name, ""))
        if row.name == kind.row.mark_field:
            return cell(item, row.name)
        return collection.text(item, row)

    def _saved(self, kind: CatalogueKind, change: Change, answer: Any) -> None:
        """Raise Rejected or DeviceError unless the firewall says that it saved."""
        if isinstance(answer, dict) and answer.get("result") == "saved":
            return
        found = refusal(answer)
        if not found:
            raise DeviceError(
                f'{self._target.name} did not save "{change.identity}" and gave no reason',
                where=change.mark or change.where,
                hint=(
                    "the item may have been deleted meanwhile, or the key may not write; run "
                    "again to look anew"
                ),
            )
        raise rejected(self._target.name, kind, change, found)

    def inverse(self, change: Change, ref: str) -> Change:
        """The change that undoes this one: create and delete swap, an update or a move goes back."""
        verb = {Verb.CREATE: Verb.DELETE, Verb.DELETE: Verb.CREATE}.get(change.verb, change.verb)
        return replace(
            change, verb=verb, before=change.after, after=change.before, ref=ref, note="undone", adopts=False
        )

    async def hold(self) -> None:
        """Open reserve connections, enough to undo what this session wrote, and to read it then."""
        reads = len(self._seen.collections) if self._seen is not None else 0
        await self.api.hold(self._written + reads + 3)  # and what is activated again

    async def activate(self, service: str) -> None:
        """One reconfigure; raises DeviceError when the firewall says that it failed."""
        found = next((one for one in SERVICES if one.name == service), None)
        if found is None:
            raise DeviceError(f'there is no service "{service}"', where=self._target.name)
        await self.api.refresh()
        answer = await self.api.call(
            Call(
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
            raise DeviceError(
                f"the firewall could not activate {found.summary}: it answered {told(status or 'nothing')}",
                where=self._target.name,
                hint=f"saved, but not in effect; POST /api/{found.path} by hand says more",
            )

    async def probe(self) -> None:
        """One call over a fresh connection, tried until `probe_timeout` is over."""
        await self.api.probe()

    async def verify(self, changes: Sequence[Change]) -> list[FazaiError]:
        """What the running state says of these changes, where it can be asked."""
        if self._seen is None:
            return []
        return await verifying.verify(self.api, self._seen, changes)


def _of_groups(rules: Iterable[Row], wanted: Iterable[Resource]) -> bool:
    """Is one of these rules, or a wanted one, on a group of interfaces? Which rules it stands in front of,
    its members say. No group has the name of an assigned interface.
    """
    if any(cell(row, "prio_group").startswith("3") for row in rules):
        return True
    names = [r.fields.get("interface") for r in wanted if r.kind == "opnsense.rule"]
    return any(len(n) == 1 and not _ASSIGNED.fullmatch(str(n[0])) for n in names if isinstance(n, tuple))


def _lacks(row: KindRow, change: Change) -> bool:
    return bool(row.undo) and not all(name in change.after for name in row.needed_on_create)


def _option(target: Target, name: str) -> Any:
    value = target.options.get(name)
    return OPTIONS[name].default if value is None else value


def _settings(target: Target) -> Settings:
    base_url = str(target.options.get("base_url", ""))
    if not base_url.startswith(("https://", "http://")):
        raise InventoryError(
            f"{target.name}: base_url is not an address that can be reached: {base_url or 'missing'}",
            where=target.where("base_url"),
            hint="a lab:// firewall is served by the lab that fazai starts"
            if base_url.startswith("lab:")
            else None,
        )
    try:
        credentials = read_credentials(target.options.get("secret"))
    except ValueError as error:
        raise InventoryError(f"{target.name}: secret {error}", where=target.where("secret")) from None
    ca = target.options.get("ca")
    return Settings(
        target=target.name,
        base_url=base_url,
        credentials=credentials,
        verify_tls=bool(_option(target, "verify_tls")),
        ca_pem=read_ca(text_of(ca), target.where("ca"))
        if ca and not target.options.get("fingerprint")
        else "",
        pin=str(target.options.get("fingerprint") or "")
        .lower()
        .replace(":", "")
        .replace(" ", "")
        .removeprefix("sha256"),
        timeout_s=float(_option(target, "timeout")),
        connect_timeout_s=float(_option(target, "connect_timeout")),
        activate_timeout_s=float(_option(target, "activate_timeout")),
        probe_timeout_s=float(_option(target, "probe_timeout")),
        retries=int(_option(target, "retries")),
        max_answer_bytes=int(_option(target, "max_answer")) * MIB,
    )
