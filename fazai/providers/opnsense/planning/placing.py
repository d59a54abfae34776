"""Where the items of an ordered list stand among those of others, and what the plan says of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from fazai.errors import DeviceError, spelling_hint
from fazai.model import Change, Value, Verb
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind
from fazai.providers.opnsense.catalogue.values import composed, text_of
from fazai.providers.opnsense.planning.diffing import Item, Judge, Result
from fazai.providers.opnsense.planning.ordering import LAST, arrange, make_room
from fazai.providers.opnsense.planning.snapshot import Collection, Row, cell

__all__ = [
    "SEQUENCE",
    "Place",
    "interfaces_of",
    "is_floating",
    "number_of",
    "place_of",
    "places_of",
    "put_in_order",
]

SEQUENCE = "sequence"
SINGLE, FLOATING = "single", "floating"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list stands among the items of others: `first`, or `before` or `after` the named one."""

    where: str
    name: str = ""


def place_of(value: Any) -> Place | None:
    """The place that the option says; None for `last`, which is where a new list stands anyway.

    Raises ValueError with what is wrong.
    """
    if value in ("first", "last"):
        return Place("first") if value == "first" else None
    if isinstance(value, Mapping) and len(value) == 1:
        ((where, name),) = value.items()
        if where in ("before", "after") and isinstance(name, str) and name.strip():
            return Place(where, composed(" ".join(name.split())))
    raise ValueError("first, last, {before: NAME} or {after: NAME} is expected")


def places_of(option: Mapping[str, Any]) -> dict[str, Place]:
    """The places by kind; those of the kinds whose list stands last are left out."""
    found = {kind: place_of(value) for kind, value in option.items()}
    return {kind: place for kind, place in found.items() if place is not None}


def put_in_order(
    judge: Judge, kind: CatalogueKind, collection: Collection, result: Result, place: Place | None
) -> None:
    """Sequences for new items, and moves for those that stand out of order or out of their place."""
    groups: dict[str, list[Item]] = {}
    for item in result.items:
        if item.ours and SEQUENCE not in item.resource.fields:
            groups.setdefault(_group(kind, item), []).append(item)
    ours = [item for items in groups.values() for item in items]
    before = {item.ref: number for item in ours if (number := number_of(item.row)) is not None}
    taken = _taken(collection, result, {item.ref for item in ours})
    foreign = _Foreign(judge, kind, collection, result, {item.ref for item in ours})
    placed: list[Item] = []
    for group, items in groups.items():
        rest = [item for other, more in groups.items() if other != group for item in more]
        others = taken | {before[item.ref] for item in rest if item.ref in before}
        current = [before.get(item.ref) for item in items]
        try:
            ahead, behind = foreign.split(group, items, place)
        except DeviceError as error:
            result.errors.append(error)
            continue
        low = max((foreign.number(ref) for ref in ahead), default=0)
        high = min((foreign.number(ref) for ref in behind), default=None)
        numbers = arrange(current, others, low, high)
        moved: list[int] = []
        if numbers is None and behind:
            had = [foreign.number(ref) for ref in behind]
            numbers, moved = make_room(len(items), low, had, others - set(had))
        if numbers is None or max((*numbers, *moved), default=0) > LAST:
            text = f"{judge.target} has no sequence numbers left for {kind.name}"
            result.errors.append(DeviceError(text, where=f"{judge.target}/{kind.name}"))
            continue
        foreign.move(zip(behind, moved, strict=False))
        for item, number in zip(items, numbers, strict=True):
            if before.get(item.ref) != number:
                _sequence(judge, kind, result, item, before.get(item.ref), number)
                placed.append(item)
        taken.update((*numbers, *moved))
    if placed:
        _say_places(kind, collection, result, placed)


class _Foreign:
    """The items of an ordered collection that are not the list's: they stay, unless they must make room."""

    def __init__(
        self, judge: Judge, kind: CatalogueKind, collection: Collection, result: Result, ours: set[str]
    ) -> None:
        self._judge, self._kind, self._collection, self._result = judge, kind, collection, result
        leaving = {change.ref for change in result.changes if change.verb is Verb.DELETE}
        rows = ((ref, row) for ref, row in collection.rows.items() if ref not in ours and ref not in leaving)
        self._rows = dict(sorted(rows, key=lambda entry: number_of(entry[1]) or 0))

    def number(self, ref: str) -> int:
        return number_of(self._rows[ref]) or 0

    def split(self, group: str, items: Sequence[Item], place: Place | None) -> tuple[list[str], list[str]]:
        """What must stand ahead of the items and what behind them; both are empty without a place.

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
            raise self._wrong(f'no {group} rule can stand {place.where} "{place.name}"', None)
        at = found[0] if place.where == "before" else found[-1]
        peers = [ref for ref in self._rows if ref in peers or ref == at]
        cut = peers.index(at) + (place.where == "after")
        return peers[:cut], peers[cut:]

    def _not_found(self, place: Place) -> tuple[list[str], list[str]]:
        """A rule from before the API, or one that fazai does not see as an item, stands behind all others."""
        for row in self._collection.automatic:
            if composed(cell(row, self._kind.row.identity[0])) == place.name:
                if place.where == "before":
                    return [], []
                raise self._wrong(f'no rule of the API can stand after "{place.name}"', None)
        hint = spelling_hint(place.name, (self._collection.label(row) for row in self._rows.values()))
        raise self._wrong(f'there is no "{place.name}" of others to stand {place.where}', hint)

    def _wrong(self, text: str, hint: str | None) -> DeviceError:
        where = f"{self._judge.target}/{self._kind.name}"
        return DeviceError(
            f"place of {self._kind.name} on {self._judge.target}: {text}", where=where, hint=hint
        )

    def _is_peer(self, group: str, items: Sequence[Item], row: Row) -> bool:
        """Does this row compete with one of the items: floating with floating, else on one interface?"""
        if not self._kind.row.floating:
            return True
        if (group == FLOATING) != is_floating(row):
            return False
        mine = {name for item in items for name in _interfaces(self._kind, item)}
        return group == FLOATING or bool(mine.intersection(interfaces_of(row)))

    def move(self, numbers: Iterable[tuple[str, int]]) -> None:
        """Others' items that make room get another sequence, and nothing else."""
        for ref, number in numbers:
            row = self._rows[ref]
            had = self.number(ref)
            if number == had:
                continue
            self._result.changes.append(
                Change(
                    target=self._judge.target,
                    kind=self._kind.name,
                    identity=self._collection.label(row),
                    verb=Verb.MOVE,
                    before={SEQUENCE: str(had)},
                    after={SEQUENCE: str(number)},
                    ref=ref,
                    note=f"{self._collection.maker(ref)}, makes room for this list (place)",
                    activates=self._kind.services,
                )
            )
            self._rows[ref] = {**row, SEQUENCE: str(number)}


def number_of(row: Row | None) -> int | None:
    """The sequence of a row; None where it has none that is a number."""
    text = cell(row, SEQUENCE) if row is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _taken(collection: Collection, result: Result, ordered: set[str]) -> set[int]:
    """The sequences of what is not ours to order: others' items that stay, and items that declare theirs."""
    leaving = {change.ref for change in result.changes if change.verb is Verb.DELETE}
    rows = (row for ref, row in collection.rows.items() if ref not in ordered and ref not in leaving)
    declared = (item.resource.fields for item in result.items)
    return {number for row in rows if (number := number_of(row)) is not None} | {
        int(text_of(fields[SEQUENCE])) for fields in declared if SEQUENCE in fields
    }


def interfaces_of(row: Row) -> tuple[str, ...]:
    """The interfaces that a rule of the firewall names."""
    return tuple(part for part in cell(row, "interface").split(",") if part)


def is_floating(row: Row) -> bool:
    """Does the firewall put this rule before those of one interface, whatever its sequence?"""
    return len(interfaces_of(row)) != 1 or cell(row, "interfacenot") == "1"


def _interfaces(kind: CatalogueKind, item: Item) -> tuple[str, ...]:
    value = item.declared(kind.row.floating)
    if value is None:
        return interfaces_of(item.row or {})
    return value if isinstance(value, tuple) else ()


def _group(kind: CatalogueKind, item: Item) -> str:
    """Floating rules (not exactly one interface) come before all others on the firewall, whatever their
    sequence.
    """
    if not kind.row.floating:
        return ""
    inverted = item.declared("interfacenot")
    if inverted is None:
        inverted = cell(item.row or {}, "interfacenot")
    return SINGLE if len(_interfaces(kind, item)) == 1 and text_of(inverted) != "1" else FLOATING


def _sequence(
    judge: Judge, kind: CatalogueKind, result: Result, item: Item, before: int | None, number: int
) -> None:
    """Give an item its sequence: with the change that there is, or as a move."""
    seen: dict[str, Value] = {} if before is None else {SEQUENCE: str(before)}
    if item.change is not None:
        change = result.changes[item.change]
        was = {**change.before, **seen} if change.verb is Verb.UPDATE else change.before
        after = {**change.after, SEQUENCE: str(number)}
        result.changes[item.change] = replace(change, before=was, after=after)
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
            activates=kind.services,
            mark=resource.mark,
            origins=resource.origins,
        )
    )


def _say_places(kind: CatalogueKind, collection: Collection, result: Result, placed: Sequence[Item]) -> None:
    """Each placed item's change says behind which one it will stand on the firewall, whoever made that."""
    listed = {item.ref: item for item in result.items}
    moved = {change.ref: change.after for change in result.changes if SEQUENCE in change.after}
    leaving = {change.ref for change in result.changes if change.verb is Verb.DELETE}
    lines: dict[str, list[tuple[int, str]]] = {}
    for ref in {**collection.rows, **listed}:
        if ref in leaving:
            continue
        row = collection.rows.get(ref, {})
        number = int(text_of(moved[ref][SEQUENCE])) if ref in moved else number_of(row) or 0
        for line in _lines(kind, listed.get(ref), row):
            lines.setdefault(line, []).append((number, ref))
    ahead_of: dict[tuple[str, str], tuple[int, str]] = {}
    for name, entries in lines.items():
        entries.sort()
        ahead_of.update(((name, ref), ahead) for ahead, (_, ref) in pairwise(entries))
    for item in placed:
        assert item.change is not None
        ahead = [ahead_of.get((line, item.ref), (0, "")) for line in _lines(kind, item, item.row or {})]
        _, ref = max(ahead, default=(0, ""))
        note = "first"
        if ref in listed:
            note = f'after "{listed[ref].resource.identity}"'
        elif ref:
            note = f'after "{collection.label(collection.rows[ref])}", {collection.maker(ref)}'
        change = result.changes[item.change]
        result.changes[item.change] = replace(change, note="; ".join(filter(None, (note, change.note))))


def _lines(kind: CatalogueKind, item: Item | None, row: Row) -> tuple[str, ...]:
    """The orders in which an item stands: that of its interface, or that of all floating rules."""
    if not kind.row.floating:
        return ("",)
    if item is None:
        return (FLOATING,) if is_floating(row) else interfaces_of(row)
    return _interfaces(kind, item) if _group(kind, item) == SINGLE else (FLOATING,)
