"""The observation of a firewall: collections of rows, read lazily, and a digest of the managed state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec

from fazai.errors import Unreachable
from fazai.model import Secret, Value
from fazai.providers.opnsense.catalogue.kinds import CatalogueKind, build_label, second_name_of
from fazai.providers.opnsense.catalogue.ownership import is_uuid, mark_of, split_mark
from fazai.providers.opnsense.catalogue.table import FieldRow
from fazai.providers.opnsense.catalogue.values import compose_name, flatten_item

SETTINGS_REF = "settings"
ItemRow = Mapping[str, Any]


def cell_text(row: ItemRow, name: str) -> str:
    """Return a value of a row as text. Raises Unreachable when it is none.

    Searches answer some booleans and numbers bare, and empty maps as lists.
    """
    value = row.get(name, "")
    if value.__class__ is str:
        return value
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, dict)):
        what = "list" if isinstance(value, list) else "map"
        raise Unreachable(f"the firewall answered a {what} where the text of {name} belongs", stage="answer")
    return str(value)


@dataclass(slots=True)
class Collection:
    """All items of one kind. `complete` is False where the firewall hides items from its search.

    `automatic` are the rules among them that are no items: the product's own, and those of older releases.
    """

    kind: CatalogueKind
    rows: dict[str, ItemRow]
    owner: str
    complete: bool = True
    automatic: tuple[ItemRow, ...] = ()
    _labels: dict[str, list[str]] | None = None

    @classmethod
    def of(cls, kind: CatalogueKind, listed: Iterable[ItemRow], owner: str) -> Collection:
        """Make a collection of search rows, without what they mix in.

        That is: rules that are automatic or from before the API, aliases among Unbound's hosts, and tunables
        that nobody set.
        """
        rows: dict[str, ItemRow] = {}
        automatic: list[ItemRow] = []
        for row in listed:
            if row.get("is_automatic") or row.get("legacy"):
                automatic.append(row)
            elif row.get("uuid").__class__ is not str or row.get("isAlias"):
                continue
            elif not kind.row.lists_defaults or is_uuid(row["uuid"]):
                rows[row["uuid"]] = row
        return cls(kind, rows, owner, automatic=tuple(automatic))

    @property
    def labels(self) -> dict[str, list[str]]:
        """Refs of the items by identity."""
        if self._labels is None:
            found: dict[str, list[str]] = {}
            for ref, row in self.rows.items():
                found.setdefault(self.label(row), []).append(ref)
            self._labels = found
        return self._labels

    def label(self, row: ItemRow) -> str:
        """Return the identity of a row."""
        kind = self.kind
        if len(kind.row.identity) == 1 and not kind.row.mark_field:
            name = kind.row.identity[0]
            if not kind.rows[name].fold and kind.row.label == f"{{{name}}}":
                return compose_name(" ".join(cell_text(row, name).split()))
        return build_label(
            kind.row, kind.rows, {name: self.text(row, kind.rows[name]) for name in kind.row.identity}
        )

    def text(self, row: ItemRow, field_row: FieldRow) -> str:
        """Return a field of a row as the API has it, without the owner's mark."""
        text = cell_text(row, field_row.source if field_row.source in row else field_row.name)
        if field_row.cut:
            text = text.partition(field_row.cut)[0]
        if field_row.own:
            parts = text.split(field_row.separator)
            text = field_row.separator.join(part for part in parts if part not in field_row.own)
        if field_row.name == self.kind.row.mark_field:
            return split_mark(text, self.owner)[0]
        return text

    def maker(self, ref: str) -> str:
        """Return in words who made an item that our list does not have."""
        return "no longer listed" if self.carries_mark(ref, mark_of(self.owner)) else "made by others"

    def carries_mark(self, ref: str, mark: str) -> bool:
        """Return whether this owner made the item."""
        name = self.kind.row.mark_field
        if name:
            return split_mark(cell_text(self.rows[ref], name), self.owner)[1]
        return ref.startswith(f"{mark}-") and is_uuid(ref)


@dataclass(frozen=True, slots=True)
class Keys:
    """The API's keys for the names by which references call the items of one kind.

    `several` are names that more than one item has, each with the longer names (or uuids) that tell these
    items apart.
    """

    known: Mapping[str, str] = field(default_factory=dict)
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Iterable[tuple[str, str, str]]) -> Keys:
        """Make keys from label, second name ("" for none) and key of each item."""
        labelled: dict[str, dict[str, str]] = {}  # name -> key -> label
        called: dict[str, dict[str, str]] = {}
        for label_, second, key in items:
            labelled.setdefault(label_, {})[key] = label_
            if second:
                called.setdefault(second, {})[key] = label_
        by_name = {**called, **labelled}
        known, several = {}, {}
        for name, found in by_name.items():
            if len(found) == 1:
                known[name] = next(iter(found))
            else:
                several[name] = tuple(
                    text if text != name and len(labelled[text]) == 1 else key for key, text in found.items()
                )
        return cls(known, several)

    @classmethod
    def joined(cls, parts: Sequence[Keys]) -> Keys:
        """Return the keys of several kinds that one field may name; a name of two of them is not clear."""
        if len(parts) == 1:
            return parts[0]
        known: dict[str, str] = {}
        several: dict[str, tuple[str, ...]] = {}
        for part in parts:
            for name, key in part.known.items():
                if name in known:
                    several[name] = (*several.get(name, (known[name],)), key)
                known[name] = key
        for part in parts:
            several.update(part.several)
        return cls({name: key for name, key in known.items() if name not in several}, several)


@dataclass(slots=True)
class Snapshot:
    """The collections that one observation of a firewall has read."""

    collections: Mapping[str, Collection]
    _digest: str = ""
    _keys: dict[tuple[str, str], Keys] = field(default_factory=dict)
    _names: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over the managed fields of every row that was read, without counters and statistics."""
        if not self._digest:
            state = hashlib.sha256()
            for name in sorted(self.collections):
                collection = self.collections[name]
                columns = [row.source or row.name for row in collection.kind.rows.values()]
                if collection.kind.row.any_path:
                    columns = sorted({column for row in collection.rows.values() for column in row})
                pick = itemgetter("uuid", *columns) if len(columns) > 1 else None
                state.update(name.encode())
                for ref in sorted(collection.rows):
                    state.update(_ENCODE(_managed_cells(collection.rows[ref], ref, pick, columns)))
            self._digest = f"sha256:{state.hexdigest()}"
        return self._digest

    def keys(self, kind: str, key: str) -> Keys:
        """Return the API's key for each name by which an item of a kind may be called."""
        place = (kind, key)
        if place not in self._keys:
            self._keys[place] = Keys.of(self.items(kind, key))
        return self._keys[place]

    def names(self, kind: str, key: str) -> Mapping[str, str]:
        """Return the name that people use for each key of the API, as far as it belongs to one item only."""
        if (kind, key) not in self._names:
            known = self.keys(kind, key).known
            found: dict[str, str] = {}
            for label_, second, value in self.items(kind, key):
                found[value] = next((name for name in (second, label_) if name in known), value)
            self._names[kind, key] = found
        return self._names[kind, key]

    def names_for(self, field_row: FieldRow) -> Mapping[str, str]:
        """Return the name for each key that a field may hold: a longer one where two kinds share it."""
        found = [self.names(kind, field_row.key) for kind in field_row.references]
        return found[0] if len(found) == 1 else {key: name for names in found for key, name in names.items()}

    def items(self, kind: str, key: str) -> Iterable[tuple[str, str, str]]:
        """Yield label, second name ("" for none) and key of every item of a kind."""
        collection = self.collections.get(kind)
        if collection is None:
            return
        rows = collection.kind.rows if collection.kind.row.called else {}
        for ref, item in collection.rows.items():
            texts = {name: collection.text(item, row) for name, row in rows.items()}
            second = second_name_of(collection.kind, texts)
            yield collection.label(item), second, ref if key == "uuid" else cell_text(item, key)

    def value(self, collection: Collection, item: ItemRow, field_row: FieldRow) -> Value:
        """Return a field in canonical form: names for references, `Secret` for secrets, tuples for lists."""
        text = collection.text(item, field_row)
        if field_row.reference and field_row.key != "name":
            names = self.names_for(field_row)
            parts = tuple(names.get(part, part) for part in text.split(field_row.separator) if part)
            return parts if field_row.multiple else (parts[0] if parts else "")
        if field_row.multiple:
            return tuple(part for part in text.split(field_row.separator) if part)
        return Secret(text) if field_row.secret else text


def _managed_cells(
    item: ItemRow, ref: str, pick: Callable[[ItemRow], Sequence[Any]] | None, columns: Sequence[str]
) -> Sequence[Any]:
    """Return the managed cells of a row; quickly where it has all of them."""
    try:
        if pick is not None:
            return pick(item)
    except KeyError:
        pass
    return [ref, *(item.get(column) for column in columns)]


_ENCODE = msgspec.json.Encoder().encode


def row_of_answer(answer: Any, root: str, ref: str) -> ItemRow | None:
    """Return the row that `get` of one item stands for; None when there is no such item (`[]`)."""
    for part in root.split(".") if root else ():
        answer = answer.get(part) if isinstance(answer, Mapping) else None
    if not isinstance(answer, Mapping) or not answer:
        return None
    return {**flatten_item(answer), "uuid": ref}
