"""Turns differences into steps: order within lists, pruning, order of kinds, activations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fazai.errors import FazaiError, Refused
from fazai.model import Activate, Change, Diff, Resource, Secret, Step, Value, Verb
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind, second_name_of
from fazai.providers.opnsense.catalogue.ownership import own_ref
from fazai.providers.opnsense.catalogue.table import service_order
from fazai.providers.opnsense.catalogue.values import text_of
from fazai.providers.opnsense.planning.diffing import ItemComparer, KindDiff
from fazai.providers.opnsense.planning.placing import put_in_order
from fazai.providers.opnsense.planning.policy import TargetPolicy
from fazai.providers.opnsense.planning.shadowing import find_shadowed
from fazai.providers.opnsense.planning.snapshot import Collection, Keys, Snapshot, cell_text


def build_reference_keys(
    wanted: Sequence[Resource], kinds: Mapping[str, CatalogueKind], snapshot: Snapshot, mark: str
) -> dict[tuple[str, str], Keys]:
    """Return the API's keys by name, for every reference that a wanted resource makes.

    The items that are to come are among them, and those that are to go are not.
    """
    needed = {
        (reference, row.key)
        for name in {resource.kind for resource in wanted}
        for row in kinds[name].keyed.values()
        for reference in row.references
    }
    return {
        (reference, key): Keys.of(
            _nameable_items([r for r in wanted if r.kind == reference], kinds[reference], snapshot, mark, key)
        )
        for reference, key in needed
    }


def _nameable_items(
    wanted: Sequence[Resource], kind: CatalogueKind, snapshot: Snapshot, mark: str, key: str
) -> Iterable[tuple[str, str, str]]:
    """Yield label, second name and key of each item of a kind that is there, or will be after this run."""
    going = {resource.identity for resource in wanted if resource.state == "absent"}
    seen = [item for item in snapshot.items(kind.name, key) if item[0] not in going]
    yield from seen
    there = {label for label, _, _ in seen}
    for resource in wanted:
        name = resource.label or resource.identity
        if resource.state != "absent" and name not in there:
            yield name, second_name_of(kind, resource.fields), own_ref(mark, kind.name, resource.identity)


def plan_firewall(
    policy: TargetPolicy,
    kinds: Mapping[str, CatalogueKind],
    wanted: Sequence[Resource],
    snapshot: Snapshot,
    *,
    adopted: frozenset[str],
    pending: frozenset[str],
    prune: bool,
) -> Diff:
    """Return everything that one target needs."""
    keys = build_reference_keys(wanted, kinds, snapshot, policy.mark)
    comparer = ItemComparer(policy, snapshot, adopted, keys)
    grouped: dict[str, list[Resource]] = {}
    for resource in wanted:
        grouped.setdefault(resource.kind, []).append(resource)
    results: dict[str, KindDiff] = {}
    for name, kind in kinds.items():
        collection = snapshot.collections.get(name)
        if collection is None or (name not in grouped and not _prunes_kind(policy, name, listed=False)):
            continue
        result = comparer.compare(kind, grouped.get(name, ()))
        if kind.row.ordered:
            put_in_order(comparer, collection, result, policy.place.get(name))
        known = collection.complete and not result.errors  # else what is wanted may be among what would go
        if prune and known and _prunes_kind(policy, name, listed=name in grouped):
            _prune_unlisted(comparer, collection, result)
        results[name] = result
    for name, result in results.items():
        if kinds[name].row.children:
            _spare_children(policy, snapshot.collections[name], result, results)
    return _assemble_steps(
        policy.target, kinds, results, pending, _collect_notes(policy, kinds, snapshot, results)
    )


def _prunes_kind(policy: TargetPolicy, kind: str, *, listed: bool) -> bool:
    return listed if policy.prune is True else policy.prune is not False and kind in policy.prune


def _collect_notes(
    policy: TargetPolicy,
    kinds: Mapping[str, CatalogueKind],
    snapshot: Snapshot,
    results: Mapping[str, KindDiff],
) -> tuple[str, ...]:
    found = []
    for name in results:
        hidden_by = kinds[name].row.hidden_by
        mode = _coming_nat_mode(kinds, snapshot, results, hidden_by) if hidden_by else ""
        if mode in ("automatic", "disabled"):
            found.append(
                f"source NAT on {policy.target} is in {mode} mode: rules are stored and take no effect until "
                "opnsense.source_nat_mode is hybrid or advanced"
            )
    rules = results.get("opnsense.rule")
    if rules is not None:
        found.extend(_note_unlimited_rules(rules))
        found.extend(find_shadowed(kinds["opnsense.rule"], snapshot, rules, policy.target))
    return tuple(found)


#: Fields of a rule for which empty means all of them, and what is then passed.
_EMPTY_IS_ALL = {
    "interface": "on every interface",
    "source_port": "from every port",
    "destination_port": "to every port",
}


def _note_unlimited_rules(rules: KindDiff) -> list[str]:
    """Return a sentence for each new or changed rule that passes more because a declared field is empty.

    A template that came out empty opens what it was to limit.
    """
    found = []
    for item in rules.items:
        fields = item.resource.fields
        if item.change is None or fields.get("action", "pass") != "pass":
            continue
        found += [
            f'opnsense.rule "{item.resource.identity}" passes {what}: {name} is declared, and empty'
            for name, what in _EMPTY_IS_ALL.items()
            if name in fields and not text_of(fields[name])
        ]
    return found


def _coming_nat_mode(
    kinds: Mapping[str, CatalogueKind], snapshot: Snapshot, results: Mapping[str, KindDiff], setting: str
) -> str:
    """Return the mode of source NAT that will hold after this run."""
    coming = next((text_of(change.after["mode"]) for change in results.get(setting, KindDiff()).changes), "")
    collection = snapshot.collections.get(setting)
    seen = next((cell_text(row, "snat_mode") for row in collection.rows.values()), "") if collection else ""
    return coming or seen


def _prune_unlisted(comparer: ItemComparer, collection: Collection, result: KindDiff) -> None:
    """Delete items of ours that nobody wants any more, if they are not too many."""
    policy, kind = comparer.policy, collection.kind
    if kind.row.settings:
        return
    owned = [ref for ref in collection.rows if collection.carries_mark(ref, policy.mark)]
    going = [
        ref
        for ref in owned
        if ref not in result.wanted_refs
        and not comparer.is_protected(kind, collection.label(collection.rows[ref]))
    ]
    changes = [comparer.deletion(collection, ref, note="no longer listed") for ref in going]
    cap = _prune_limit(policy.max_prune, len(owned))
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


def _spare_children(
    policy: TargetPolicy, collection: Collection, result: KindDiff, results: Mapping[str, KindDiff]
) -> None:
    """Refuse deletions with which the firewall would delete items that this run does not touch itself.

    What goes along belongs to somebody, and no undoing brings it back.
    """
    kind = collection.kind
    seen_to = {
        change.ref
        for change in results.get(kind.row.children, KindDiff()).changes
        if change.verb is Verb.DELETE or "host" in change.after
    }
    for change in [each for each in result.changes if each.verb is Verb.DELETE]:
        listed = collection.rows[change.ref].get("_children")
        rows = listed if isinstance(listed, list) else []
        left = [row for row in rows if isinstance(row, Mapping) and row.get("uuid") not in seen_to]
        if left:
            names = ", ".join(
                f"{cell_text(row, 'hostname')}.{cell_text(row, 'domain')}".lstrip(".") for row in left[:5]
            )
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            reason = Refused(
                f'with "{change.identity}" {policy.target} would delete the {kind.row.children} of it that '
                f"this run does not: {names}{more}",
                where=change.mark or change.where,
                hint="declare them absent (adopt: true where others made them), or give them another host",
            )
            result.changes.remove(change)
            result.refused.append((change, reason))


def _prune_limit(limit: int | str, owned: int) -> int:
    if isinstance(limit, str) and limit.endswith("%"):
        return max(1, owned * int(limit[:-1]) // 100) if limit != "0%" else 0
    return int(limit)


def _assemble_steps(
    target: str,
    kinds: Mapping[str, CatalogueKind],
    results: Mapping[str, KindDiff],
    pending: frozenset[str],
    notes: tuple[str, ...],
) -> Diff:
    """Order the steps: writes by kind, deletions last and backwards, each service once at the end."""
    steps: list[Step] = []
    touched = set(pending)
    early: dict[str, list[Change]] = {}
    for name, result in results.items():
        kind = kinds[name]
        writes = [change for change in result.changes if change.verb is not Verb.DELETE]
        writes = _dependents_last(kind, writes)
        early[name] = _deletions_first(kind, result.changes)
        steps.extend((*early[name], *writes))
        if kind.row.before_use and any(change.verb is Verb.CREATE for change in writes):
            steps.append(Activate(target, kind.row.service))  # later kinds may name it only then
        else:
            touched.update(service for change in writes for service in change.activates)
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


def _deletions_first(kind: CatalogueKind, changes: Sequence[Change]) -> list[Change]:
    """Return deletions that free a value which only one item may have, and another now wants."""
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
    """Order items before those of the same kind that name them (nested aliases); else as given."""
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
            stack.extend((by_name[need], False) for need in _plain_names(needs) if need in by_name)
    return list(placed.values())


def _plain_names(value: Value) -> Iterable[str]:
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, Secret):
            yield str(part).removeprefix("!")
