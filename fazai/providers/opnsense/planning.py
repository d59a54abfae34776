"""From differences to steps: order of ordered collections, pruning, order of kinds, activations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fazai.errors import DeviceError, FazaiError, Refused
from fazai.model import Activate, Change, Diff, Resource, Secret, Step, Value, Verb
from fazai.providers.opnsense.catalogue import service_order
from fazai.providers.opnsense.diffing import Item, Judge, Result
from fazai.providers.opnsense.kinds import CatalogueKind, called
from fazai.providers.opnsense.ordering import arrange
from fazai.providers.opnsense.ownership import own_ref
from fazai.providers.opnsense.snapshot import Collection, Keys, Row, Snapshot, cell
from fazai.providers.opnsense.values import text_of

__all__ = ["Policy", "pruned_kinds", "reference_keys", "work_out"]

SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the target's options allow."""

    target: str
    mark: str
    adopt: bool
    protected: tuple[str, ...]
    prune: bool | tuple[str, ...]
    max_prune: int | str


def pruned_kinds(prune: Any) -> bool | tuple[str, ...]:
    """The option `prune` as True, False, or the kinds it names."""
    if isinstance(prune, Mapping):
        return tuple(kind for kind, on in prune.items() if on)
    if isinstance(prune, (list, tuple)):
        return tuple(prune)
    return bool(prune)


def reference_keys(
    wanted: Sequence[Resource], kinds: Mapping[str, CatalogueKind], snapshot: Snapshot, mark: str
) -> dict[tuple[str, str], Keys]:
    """For every reference that a wanted resource makes: name -> what the API wants, with the items that
    are to come and without those that are to go.
    """
    needed = {
        (row.reference, row.key)
        for name in {resource.kind for resource in wanted}
        for row in kinds[name].keyed.values()
        if row.reference
    }
    return {
        (reference, key): Keys.of(
            _nameable([r for r in wanted if r.kind == reference], kinds[reference], snapshot, mark, key)
        )
        for reference, key in needed
    }


def _nameable(
    wanted: Sequence[Resource], kind: CatalogueKind, snapshot: Snapshot, mark: str, key: str
) -> Iterable[tuple[str, str, str]]:
    """Label, second name and key of each item of a kind that is there, or will be after this run."""
    going = {resource.identity for resource in wanted if resource.state == "absent"}
    seen = [item for item in snapshot.items(kind.name, key) if item[0] not in going]
    yield from seen
    there = {label for label, _, _ in seen}
    for resource in wanted:
        if resource.state != "absent" and resource.identity not in there:
            second = called(kind, resource.fields) if kind.row.called else ""
            yield resource.identity, second, own_ref(mark, kind.name, resource.identity)


def work_out(
    policy: Policy,
    kinds: Mapping[str, CatalogueKind],
    wanted: Sequence[Resource],
    snapshot: Snapshot,
    *,
    adopted: frozenset[str],
    pending: frozenset[str],
    prune: bool,
) -> Diff:
    """Everything that one target needs."""
    judge = Judge(
        target=policy.target,
        mark=policy.mark,
        snapshot=snapshot,
        adopt=policy.adopt,
        adopted=adopted,
        protected=policy.protected,
        keys=reference_keys(wanted, kinds, snapshot, policy.mark),
    )
    grouped: dict[str, list[Resource]] = {}
    for resource in wanted:
        grouped.setdefault(resource.kind, []).append(resource)
    results: dict[str, Result] = {}
    for name, kind in kinds.items():
        collection = snapshot.collections.get(name)
        if collection is None or (name not in grouped and not _prunes(policy, name, listed=False)):
            continue
        result = judge.compare(kind, grouped.get(name, ()))
        if kind.row.ordered:
            _put_in_order(judge, kind, collection, result)
        if prune and collection.complete and _prunes(policy, name, listed=name in grouped):
            _prune(policy, judge, kind, collection, result)
        results[name] = result
    return _assemble(policy.target, kinds, results, pending, _notes(policy, kinds, snapshot, results))


def _prunes(policy: Policy, kind: str, *, listed: bool) -> bool:
    return listed if policy.prune is True else policy.prune is not False and kind in policy.prune


def _notes(
    policy: Policy, kinds: Mapping[str, CatalogueKind], snapshot: Snapshot, results: Mapping[str, Result]
) -> tuple[str, ...]:
    found = []
    for name in results:
        hidden_by = kinds[name].row.hidden_by
        mode = _mode(kinds, snapshot, results, hidden_by) if hidden_by else ""
        if mode in ("automatic", "disabled"):
            found.append(
                f"source NAT on {policy.target} is in {mode} mode: rules are stored and take no effect until "
                "opnsense.source_nat_mode is hybrid or advanced"
            )
    return tuple(found)


def _mode(
    kinds: Mapping[str, CatalogueKind], snapshot: Snapshot, results: Mapping[str, Result], setting: str
) -> str:
    """The mode that will hold after this run."""
    coming = next((text_of(change.after["mode"]) for change in results.get(setting, Result()).changes), "")
    collection = snapshot.collections.get(setting)
    seen = next((cell(row, "snat_mode") for row in collection.rows.values()), "") if collection else ""
    return coming or seen


def _put_in_order(judge: Judge, kind: CatalogueKind, collection: Collection, result: Result) -> None:
    """Sequences for new items, and moves for those that stand out of order."""
    groups: dict[str, list[Item]] = {}
    for item in result.items:
        if item.ours and SEQUENCE not in item.resource.fields:
            groups.setdefault(_group(kind, item), []).append(item)
    ours = [item for items in groups.values() for item in items]
    before = {item.ref: number for item in ours if (number := _number(item.row)) is not None}
    taken = _taken(collection, result, {item.ref for item in ours})
    for group, items in groups.items():
        rest = [item for other, more in groups.items() if other != group for item in more]
        others = {before[item.ref] for item in rest if item.ref in before}
        numbers = arrange([before.get(item.ref) for item in items], taken | others)
        if numbers is None:
            text = f"{judge.target} has no sequence numbers left for {kind.name}"
            result.errors.append(DeviceError(text, where=f"{judge.target}/{kind.name}"))
            continue
        for place, (item, number) in enumerate(zip(items, numbers, strict=True)):
            if before.get(item.ref) != number:
                _place(judge, kind, result, item, before.get(item.ref), number, items[:place])
        taken.update(numbers)


def _number(row: Row | None) -> int | None:
    text = cell(row, SEQUENCE) if row is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _taken(collection: Collection, result: Result, ordered: set[str]) -> set[int]:
    """The sequences of what is not ours to order: others' items that stay, and items that declare theirs."""
    leaving = {change.ref for change in result.changes if change.verb is Verb.DELETE}
    rows = (row for ref, row in collection.rows.items() if ref not in ordered and ref not in leaving)
    declared = (item.resource.fields for item in result.items)
    return {number for row in rows if (number := _number(row)) is not None} | {
        int(text_of(fields[SEQUENCE])) for fields in declared if SEQUENCE in fields
    }


def _group(kind: CatalogueKind, item: Item) -> str:
    """Floating rules (not exactly one interface) come before all others on the firewall, whatever their
    sequence.
    """
    if not kind.row.floating:
        return ""
    value = item.resource.fields.get(kind.row.floating)
    if value is None:
        value = tuple(part for part in cell(item.row or {}, kind.row.floating).split(",") if part)
    return "single" if isinstance(value, tuple) and len(value) == 1 else "floating"


def _place(
    judge: Judge,
    kind: CatalogueKind,
    result: Result,
    item: Item,
    before: int | None,
    number: int,
    earlier: Sequence[Item],
) -> None:
    note = f'after "{earlier[-1].resource.identity}"' if earlier else "first"
    seen: dict[str, Value] = {} if before is None else {SEQUENCE: str(before)}
    if item.change is not None:
        change = result.changes[item.change]
        was = {**change.before, **seen} if change.verb is Verb.UPDATE else change.before
        result.changes[item.change] = replace(
            change, before=was, after={**change.after, SEQUENCE: str(number)}, note=note
        )
        return
    resource = item.resource
    item.change = len(result.changes)
    result.unchanged -= 1
    result.changes.append(
        Change(
            target=judge.target,
            kind=kind.name,
            identity=resource.identity,
            verb=Verb.MOVE,
            before=seen,
            after={SEQUENCE: str(number)},
            ref=item.ref,
            note=note,
            activates=kind.services,
            mark=resource.mark,
            origins=resource.origins,
        )
    )


def _prune(policy: Policy, judge: Judge, kind: CatalogueKind, collection: Collection, result: Result) -> None:
    """Delete items of ours that nobody wants any more, if they are not too many."""
    if kind.row.settings:
        return
    owned = [ref for ref in collection.rows if collection.carries_mark(ref, policy.mark)]
    going = [
        ref
        for ref in owned
        if ref not in result.wanted_refs
        and not judge.is_protected(kind, collection.label(collection.rows[ref]))
    ]
    changes = [judge.delete(kind, collection, ref, note="no longer listed") for ref in going]
    cap = _cap(policy.max_prune, len(owned))
    if len(changes) <= cap:
        result.changes.extend(changes)
        return
    for change in changes:
        reason = Refused(
            f"{len(changes)} of {len(owned)} items of {kind.name} on {policy.target} would be pruned, "
            f"and at most {cap} may be",
            where=f"{policy.target}/{kind.name}/{change.identity}",
            hint=f'if this is meant, raise max_prune: (now "{policy.max_prune}")',
        )
        result.refused.append((change, reason))


def _cap(limit: int | str, owned: int) -> int:
    if isinstance(limit, str) and limit.endswith("%"):
        return max(1, owned * int(limit[:-1]) // 100) if limit != "0%" else 0
    return int(limit)


def _assemble(
    target: str,
    kinds: Mapping[str, CatalogueKind],
    results: Mapping[str, Result],
    pending: frozenset[str],
    notes: tuple[str, ...],
) -> Diff:
    """Writes in the order of kinds, deletions last and backwards, each touched service once at the end."""
    steps: list[Step] = []
    touched = set(pending)
    early: dict[str, list[Change]] = {}
    for name, result in results.items():
        kind = kinds[name]
        writes = [change for change in result.changes if change.verb is not Verb.DELETE]
        writes = _dependents_last(kind, writes)
        early[name] = _in_the_way(kind, result.changes)
        steps.extend((*early[name], *writes))
        if kind.row.before_use and any(change.verb is Verb.CREATE for change in writes):
            steps.append(Activate(target, kind.row.service))  # later kinds may name it only then
        elif writes and kind.row.service:
            touched.add(kind.row.service)
    for name in reversed(list(results)):
        kind = kinds[name]
        gone = [change for change in results[name].changes if change.verb is Verb.DELETE]
        late = [change for change in gone if change not in early[name]] if early[name] else gone
        steps.extend(reversed(_dependents_last(kind, late)))
        if gone and kind.row.service:
            touched.add(kind.row.service)
    steps.extend(
        Activate(target, service) for service in sorted(touched, key=lambda s: (service_order(s), s))
    )
    refused = tuple(one for result in results.values() for one in result.refused)
    errors: tuple[FazaiError, ...] = tuple(one for result in results.values() for one in result.errors)
    return Diff(
        steps=tuple(steps),
        unchanged=sum(result.unchanged for result in results.values()),
        refused=refused,
        errors=errors,
        notes=notes,
    )


def _in_the_way(kind: CatalogueKind, changes: Sequence[Change]) -> list[Change]:
    """Deletions that must come first: they free a value that only one item may have, and another now
    wants.
    """
    if not kind.row.unique:
        return []
    wanted = {
        (name, text_of(change.after[name]))
        for change in changes
        if change.verb is not Verb.DELETE
        for name in kind.row.unique
        if name in change.after
    }
    return [
        change
        for change in changes
        if change.verb is Verb.DELETE
        and any((name, text_of(change.before.get(name, ""))) in wanted for name in kind.row.unique)
    ]


def _dependents_last(kind: CatalogueKind, changes: list[Change]) -> list[Change]:
    """Items before those of the same kind that name them (nested aliases); the given order otherwise."""
    name = kind.row.self_reference
    if not name or len(changes) < 2:
        return changes
    by_name = {change.identity: change for change in changes}
    placed: dict[str, Change] = {}
    for change in changes:
        stack: list[tuple[Change, bool]] = [(change, False)]
        open_names: set[str] = set()
        while stack:
            current, done = stack.pop()
            if done:
                placed.setdefault(current.identity, current)
                continue
            if current.identity in placed or current.identity in open_names:
                continue
            open_names.add(current.identity)
            stack.append((current, True))
            needs = {**current.before, **current.after}.get(name, ())
            stack.extend((by_name[need], False) for need in _plain(needs) if need in by_name)
    return list(placed.values())


def _plain(value: Value) -> Iterable[str]:
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, Secret):
            yield str(part).removeprefix("!")
