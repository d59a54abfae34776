"""Places the items of an ordered list among those of others, and notes it in the plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from fazai.errors import DeviceError, spelling_hint
from fazai.model import Resource, Value, Verb
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.catalogue.values import compose_name, text_of
from fazai.providers.opnsense.planning.diffing import ItemComparer, KindDiff, PlannedItem
from fazai.providers.opnsense.planning.ordering import LAST, assign_sequences, make_room
from fazai.providers.opnsense.planning.policy import ListPlacement
from fazai.providers.opnsense.planning.snapshot import Collection, ItemRow, cell_text

SEQUENCE = "sequence"
SINGLE, FLOATING = "single", "floating"
_ASSIGNED = re.compile("wan|lan|opt[0-9]+|lo0")


def put_in_order(
    comparer: ItemComparer, collection: Collection, result: KindDiff, place: ListPlacement | None
) -> None:
    """Give new items a sequence, and move those that stand out of order or out of their place."""
    kind = collection.kind
    groups: dict[str, list[PlannedItem]] = {}
    for item in result.items:
        if item.ours and SEQUENCE not in item.resource.fields:
            groups.setdefault(_item_group(kind, item), []).append(item)
    ours = [item for items in groups.values() for item in items]
    before = {item.ref: number for item in ours if (number := number_of(item.row)) is not None}
    taken = _taken_sequences(collection, result, {item.ref for item in ours})
    foreign = _ForeignItems(comparer, collection, result, {item.ref for item in ours})
    placed: list[PlannedItem] = []
    for group, items in groups.items():
        rest = [item for other, more in groups.items() if other != group for item in more]
        others = taken | {before[item.ref] for item in rest if item.ref in before}
        current = [before.get(item.ref) for item in items]
        try:
            numbers, moved = foreign.choose_sequences(*foreign.split(group, items, place), current, others)
        except DeviceError as error:
            result.errors.append(error)
            continue
        foreign.move(moved)
        for item, number in zip(items, numbers, strict=True):
            if before.get(item.ref) != number:
                _set_sequence(comparer, kind, result, item, before.get(item.ref), number)
                placed.append(item)
        taken.update((*numbers, *moved.values()))
    if placed:
        _note_neighbours(collection, result, placed)


class _ForeignItems:
    """Items of an ordered collection that are not the list's: they stay, unless they must make room."""

    def __init__(
        self, comparer: ItemComparer, collection: Collection, result: KindDiff, ours: set[str]
    ) -> None:
        self._comparer, self._collection, self._result = comparer, collection, result
        self._kind = collection.kind
        gone = ours | result.leaving
        rows = ((ref, row) for ref, row in collection.rows.items() if ref not in gone)
        self._rows = dict(sorted(rows, key=lambda entry: number_of(entry[1]) or 0))

    def number(self, ref: str) -> int:
        return number_of(self._rows[ref]) or 0

    def split(
        self, group: str, items: Sequence[PlannedItem], place: ListPlacement | None
    ) -> tuple[list[str], list[str]]:
        """Return what must stand ahead of the items, and what behind them; both are empty without a place.

        Raises DeviceError when the place names no item, or one that stands elsewhere by its nature.
        """
        if place is None:
            return [], []
        peers = [ref for ref, row in self._rows.items() if self._is_peer(group, items, row)]
        if place.where == "first":
            return [], peers
        labels = self._collection.labels.get(place.name, ())
        found = [ref for ref in self._rows if ref in labels or ref == place.name]
        if not found:
            return self._not_found(place)
        other = self._kind.row.floating and is_floating(self._rows[found[0]]) != (group == FLOATING)
        if other:
            if (place.where == "before") == (group == FLOATING):
                return [], []  # floating rules come before the others in any case
            raise self._place_error(f'no {group} rule can stand {place.where} "{place.name}"', None)
        at = found[0] if place.where == "before" else found[-1]
        peers = [ref for ref in self._rows if ref in peers or ref == at]
        cut = peers.index(at) + (place.where == "after")
        return peers[:cut], peers[cut:]

    def _not_found(self, place: ListPlacement) -> tuple[list[str], list[str]]:
        """Look among rules that are no items of the API: they all stand behind those that are."""
        for row in self._collection.automatic:
            if compose_name(cell_text(row, self._kind.row.identity[0])) == place.name:
                if place.where == "before":
                    return [], []
                raise self._place_error(f'no rule of the API can stand after "{place.name}"', None)
        hint = spelling_hint(place.name, (self._collection.label(row) for row in self._rows.values()))
        raise self._place_error(f'there is no "{place.name}" of others to stand {place.where}', hint)

    def _place_error(self, text: str, hint: str | None) -> DeviceError:
        where = f"{self._comparer.policy.target}/{self._kind.name}"
        return DeviceError(
            f"place of {self._kind.name} on {self._comparer.policy.target}: {text}", where=where, hint=hint
        )

    def _is_peer(self, group: str, items: Sequence[PlannedItem], row: ItemRow) -> bool:
        """Return whether a row competes with the items: floating with floating, else on one interface."""
        if not self._kind.row.floating:
            return True
        if (group == FLOATING) != is_floating(row):
            return False
        mine = {name for item in items for name in _item_interfaces(self._kind, item)}
        return group == FLOATING or bool(mine.intersection(interfaces_of(row)))

    def choose_sequences(
        self, ahead: Sequence[str], behind: Sequence[str], current: Sequence[int | None], taken: set[int]
    ) -> tuple[list[int], dict[str, int]]:
        """Return sequences for our items, and for those of the items behind them that must make room.

        Raises DeviceError when no numbers are left.
        """
        low = max(map(self.number, ahead), default=0)
        had = [self.number(ref) for ref in behind]
        numbers = assign_sequences(current, taken, low, min(had, default=None))
        moved: list[int] = []
        if numbers is None and behind:
            numbers, moved = make_room(len(current), low, had, taken - set(had))
        if numbers is None or max((*numbers, *moved), default=0) > LAST:
            where = f"{self._comparer.policy.target}/{self._kind.name}"
            text = f"{self._comparer.policy.target} has no sequence numbers left for {self._kind.name}"
            raise DeviceError(text, where=where)
        return numbers, dict(zip(behind, moved, strict=False))

    def move(self, numbers: Mapping[str, int]) -> None:
        """Give others' items that make room another sequence, and nothing else."""
        for ref, number in numbers.items():
            row = self._rows[ref]
            had = self.number(ref)
            if number == had:
                continue
            move = self._comparer.change_of(
                self._kind,
                None,
                Verb.MOVE,
                ref,
                {SEQUENCE: str(had)},
                {SEQUENCE: str(number)},
                label=self._collection.label(row),
                note=f"{self._collection.maker(ref)}, makes room for this list (place)",
            )
            self._result.changes.append(move)
            self._rows[ref] = {**row, SEQUENCE: str(number)}


def number_of(row: ItemRow | None) -> int | None:
    """Return the sequence of a row; None where it has none that is a number."""
    text = cell_text(row, SEQUENCE) if row is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _taken_sequences(collection: Collection, result: KindDiff, ordered: set[str]) -> set[int]:
    """Return the sequences of others' items that stay, and of items that declare theirs."""
    gone = ordered | result.leaving
    rows = (row for ref, row in collection.rows.items() if ref not in gone)
    declared = (item.resource.fields for item in result.items)
    return {number for row in rows if (number := number_of(row)) is not None} | {
        int(text_of(fields[SEQUENCE])) for fields in declared if SEQUENCE in fields
    }


def interfaces_of(row: ItemRow) -> tuple[str, ...]:
    """Return the interfaces that a rule of the firewall names."""
    return tuple(part for part in cell_text(row, "interface").split(",") if part)


def is_floating(row: ItemRow) -> bool:
    """Return whether the firewall evaluates a rule before those of one interface, whatever its sequence."""
    return len(interfaces_of(row)) != 1 or cell_text(row, "interfacenot") == "1"


def _item_interfaces(kind: CatalogueKind, item: PlannedItem) -> tuple[str, ...]:
    value = item.declared(kind.row.floating)
    if value is None:
        return interfaces_of(item.row or {})
    return value if isinstance(value, tuple) else ()


def _item_group(kind: CatalogueKind, item: PlannedItem) -> str:
    """Return the group of a rule: floating ones come before those of one interface."""
    if not kind.row.floating:
        return ""
    inverted = item.declared("interfacenot")
    if inverted is None:
        inverted = cell_text(item.row or {}, "interfacenot")
    return SINGLE if len(_item_interfaces(kind, item)) == 1 and text_of(inverted) != "1" else FLOATING


def _set_sequence(
    comparer: ItemComparer,
    kind: CatalogueKind,
    result: KindDiff,
    item: PlannedItem,
    before: int | None,
    number: int,
) -> None:
    """Give an item its sequence: with the change that there is, or as a move."""
    seen: dict[str, Value] = {} if before is None else {SEQUENCE: str(before)}
    if item.change is not None:
        change = result.changes[item.change]
        was = {**change.before, **seen} if change.verb is Verb.UPDATE else change.before
        after = {**change.after, SEQUENCE: str(number)}
        result.changes[item.change] = replace(change, before=was, after=after)
        return
    item.change = len(result.changes)
    result.unchanged -= 1
    move = comparer.change_of(kind, item.resource, Verb.MOVE, item.ref, seen, {SEQUENCE: str(number)})
    result.changes.append(move)


def _note_neighbours(collection: Collection, result: KindDiff, placed: Sequence[PlannedItem]) -> None:
    """Note in each placed item's change behind which one it will stand, whoever made that."""
    kind = collection.kind
    listed = {item.ref: item for item in result.items}
    moved = {change.ref: change.after for change in result.changes if SEQUENCE in change.after}
    leaving = result.leaving
    lines: dict[str, list[tuple[int, str]]] = {}
    for ref in {**collection.rows, **listed}:
        if ref in leaving:
            continue
        row = collection.rows.get(ref, {})
        number = int(text_of(moved[ref][SEQUENCE])) if ref in moved else number_of(row) or 0
        for line in _evaluation_lines(kind, listed.get(ref), row):
            lines.setdefault(line, []).append((number, ref))
    ahead_of: dict[tuple[str, str], tuple[int, str]] = {}
    for name, entries in lines.items():
        entries.sort()
        ahead_of.update(((name, ref), ahead) for ahead, (_, ref) in pairwise(entries))
    for item in placed:
        assert item.change is not None
        ahead = [
            ahead_of.get((line, item.ref), (0, "")) for line in _evaluation_lines(kind, item, item.row or {})
        ]
        _, ref = max(ahead, default=(0, ""))
        note = "first"
        if ref in listed:
            note = f'after "{listed[ref].resource.identity}"'
        elif ref:
            note = f'after "{collection.label(collection.rows[ref])}", {collection.maker(ref)}'
        change = result.changes[item.change]
        result.changes[item.change] = replace(change, note="; ".join(filter(None, (note, change.note))))


def _evaluation_lines(kind: CatalogueKind, item: PlannedItem | None, row: ItemRow) -> tuple[str, ...]:
    """Return the orders in which an item stands: that of its interface, or that of all floating rules."""
    if not kind.row.floating:
        return ("",)
    if item is None:
        return (FLOATING,) if is_floating(row) else interfaces_of(row)
    return _item_interfaces(kind, item) if _item_group(kind, item) == SINGLE else (FLOATING,)


def touches_groups(rules: Iterable[ItemRow], wanted: Iterable[Resource]) -> bool:
    """Return whether one of these rules, or a wanted one, is on a group of interfaces.

    The members say which rules it stands in front of. No group has the name of an assigned interface.
    """
    if any(cell_text(row, "prio_group").startswith("3") for row in rules):
        return True
    names = [r.fields.get("interface") for r in wanted if r.kind == "opnsense.rule"]
    return any(len(n) == 1 and not _ASSIGNED.fullmatch(str(n[0])) for n in names if isinstance(n, tuple))
