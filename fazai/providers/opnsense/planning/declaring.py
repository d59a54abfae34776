"""Declares the items of a firewall as they are: names for references, defaults and secrets left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fazai.errors import count_noun
from fazai.findings import Findings, FoundItem
from fazai.masking.redaction import redact_text
from fazai.model import Diff, Problem, Resource, Secret, Value
from fazai.providers.opnsense.catalogue.kinds import UNMANAGED, UUID, CatalogueKind
from fazai.providers.opnsense.catalogue.ownership import is_uuid
from fazai.providers.opnsense.catalogue.table import SECRET_NAMES, FieldRow
from fazai.providers.opnsense.catalogue.values import text_of
from fazai.providers.opnsense.planning.snapshot import Collection, ItemRow, Snapshot
from fazai.providers.opnsense.writing.bodies import nest_fields

_HIDDEN_VALUE = "a secret"
_LIKE_HIDDEN = "it looks like a secret"
_PUBLIC = re.compile(
    r"\s*-----BEGIN (?:PUBLIC KEY|CERTIFICATE|X509 CRL)-----[^-]*-----END [A-Z0-9 ]*-----\s*"
)
#: Of these types only the name of a field can say that it is a secret: public keys look like one.
_KEYS = frozenset(("Base64",))
NO_ITEMS = "are no items of the API: the product's own, and those from before it"
_SEQUENCE = "sequence"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Declared:
    """An item as it would be declared, and the resource that a playbook would make of it."""

    ref: str
    item: FoundItem
    resource: Resource

    @property
    def place(self) -> tuple[str, str]:
        return self.item.kind, self.ref


@dataclass(frozen=True, slots=True)
class Undeclarable:
    """An item that a playbook cannot say as it is: why."""

    kind: str
    name: str
    why: str


def declare_collection(snapshot: Snapshot, collection: Collection) -> list[Declared | Undeclarable]:
    """Return every item of a collection, ordered ones as they stand, others by name; none that the product
    makes itself."""
    kind = collection.kind
    found: list[Declared | Undeclarable] = []
    told = _tell_apart(collection)
    for ref in _in_order(collection):
        if not (kind.row.settings or kind.row.unmarked or is_uuid(ref)):
            continue  # the product makes it itself
        row = collection.rows[ref]
        label = collection.label(row)
        fields, left = _read_fields(snapshot, collection, row)
        apart = told[ref]
        if not kind.row.settings and (not label or apart is None or not _is_named(kind, fields)):
            fields, apart = {UUID: ref, **fields}, ""
        found.append(_declare(kind, ref, label, fields, left, apart or ""))
    if collection.automatic:  # nothing in their rows tells the two sorts apart
        rules = count_noun(len(collection.automatic), "rule")
        found.append(Undeclarable(kind.name, "", f"{rules} that {NO_ITEMS}"))
    return found


def _in_order(collection: Collection) -> list[str]:
    if collection.kind.ordered:
        return list(collection.rows)  # the search has the product's order

    def place(ref: str) -> tuple[str, ...]:
        row = collection.rows[ref]
        apart = (collection.text(row, collection.kind.rows[name]) for name in collection.kind.row.tiebreak)
        return (collection.label(row), *apart, ref)

    return sorted(collection.rows, key=place)


def _tell_apart(collection: Collection) -> dict[str, str | None]:
    """Return, by ref, the text that tells an item from others of its name, "" where there are none; None:
    nothing does, so that only its uuid is left."""
    kind, found = collection.kind, dict[str, str | None]()
    for label, refs in collection.labels.items():
        if not label or len(refs) == 1:
            found.update(dict.fromkeys(refs, "" if label else None))
            continue
        texts = {
            ref: tuple(collection.text(collection.rows[ref], kind.rows[name]) for name in kind.row.tiebreak)
            for ref in refs
        }
        told = len(set(texts.values())) == len(refs) and all(any(text) for text in texts.values())
        for ref, each in texts.items():
            pairs = zip(kind.row.tiebreak, each, strict=True)
            found[ref] = ", ".join(f"{name} {text}".strip() for name, text in pairs) if told else None
    return found


def _is_named(kind: CatalogueKind, fields: Mapping[str, Value]) -> bool:
    return not isinstance(kind.identify(fields), Problem)


def _read_fields(
    snapshot: Snapshot, collection: Collection, row: ItemRow
) -> tuple[dict[str, Value], list[tuple[str, str]]]:
    """Return the canonical values that have to be declared, those of the identity first, and what is left
    out."""
    kind = collection.kind
    found: dict[str, Value] = {}
    left: list[tuple[str, str]] = []
    spared: list[str] = []  # else it would get its default back
    names = [*kind.row.identity, *(name for name in kind.rows if name not in kind.row.identity)]
    for name in names:
        field_row = kind.rows[name]
        if name not in row and field_row.source not in row:
            continue  # a release may not have it
        if field_row.secret or field_row.write_once:
            if collection.text(row, field_row) or field_row.write_once:
                left.append((name, _HIDDEN_VALUE))
            continue
        if _looks_secret(field_row, collection.text(row, field_row)):
            left.append((name, _LIKE_HIDDEN))
            spared.append(name)
            continue
        if kind.ordered and name == _SEQUENCE:
            continue
        value = snapshot.value(collection, row, field_row)
        if not _goes_without_saying(kind, field_row, text_of(value)):
            found[name] = value
    if spared and not kind.row.settings:
        found[UNMANAGED] = tuple(spared)
    return found, left


def _looks_secret(row: FieldRow, text: str) -> bool:
    """Return whether a text may be a secret that the model does not call one."""
    free = row.type in ("text", "list") and not row.reference and not row.choices
    if not text or not free or _PUBLIC.fullmatch(text):
        return False
    return SECRET_NAMES.search(row.name) is not None or (row.api not in _KEYS and _holds_secret(text))


def _holds_secret(text: str) -> bool:
    return redact_text(text)[1] > 0


def _goes_without_saying(kind: CatalogueKind, row: FieldRow, text: str) -> bool:
    """Return whether a field has this value where it is not declared; in settings nothing has."""
    if row.name in kind.row.identity:
        return not text
    if kind.row.settings:
        return not text
    default = row.default if row.default is not None else "0" if row.type == "boolean" else ""
    return text == default and not (row.required and row.default is None and row.type != "boolean")


def _declare(
    kind: CatalogueKind,
    ref: str,
    label: str,
    fields: Mapping[str, Value],
    left: Sequence[tuple[str, str]],
    apart: str,
) -> Declared | Undeclarable:
    given = {name: _plain(kind.rows.get(name), value) for name, value in fields.items()}
    label = "" if _holds_secret(label) else label
    name = label or ref
    identity = kind.identify(given)
    if isinstance(identity, Problem):
        return Undeclarable(kind.name, name, _problem_text([identity]))
    values, problems = kind.normalise(given, "present")
    if problems:
        return Undeclarable(kind.name, name, _problem_text(problems))
    named, told = (label, f"uuid {ref}") if UUID in given else (identity, apart)
    item = FoundItem(kind.name, named, nest_fields(given), tuple(left), told, kind.ordered)
    known = identity if apart else kind.label_in(values)
    if apart:
        identity = f"{identity} ({apart})"
    return Declared(ref, item, Resource(kind=kind.name, identity=identity, fields=values, label=known))


def _problem_text(problems: Iterable[Problem]) -> str:
    text = "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in problems)
    return "a value that a playbook cannot hold" if _holds_secret(text) else text


def _plain(row: FieldRow | None, value: Value) -> Any:
    """Return a canonical value in YAML's types."""
    assert not isinstance(value, Secret)
    if isinstance(value, tuple):
        return list(value)
    if row is not None and row.type == "boolean":
        return value == "1"
    if row is not None and row.type == "integer" and _INTEGER.fullmatch(str(value)):
        return int(str(value))
    return value


def check_declared(
    found: Iterable[Declared | Undeclarable],
    plan: Callable[[Sequence[Resource]], Diff],
    left: Iterable[tuple[str, str, str]],
) -> Findings:
    """Return the items of which a plan says that they would change nothing; the others with the reason."""
    told = list(left)
    kept: list[Declared] = []
    for each in found:
        if isinstance(each, Declared):
            kept.append(each)
        else:
            told.append((each.kind, each.name, each.why))
    while wrong := _find_changes(plan([one.resource for one in kept]), kept):  # without these, others may
        told += [
            (one.item.kind, one.resource.identity, wrong[one.place]) for one in kept if one.place in wrong
        ]
        kept = [one for one in kept if one.place not in wrong]
    return Findings(tuple(one.item for one in kept), tuple(told))


def _find_changes(diff: Diff, kept: Sequence[Declared]) -> dict[tuple[str, str], str]:
    """Return why some of the items would not stay as they are, by kind and ref. Raises FazaiError: a plan has
    an error that is of none of them."""
    places = {one.place for one in kept}
    wrong = {
        (change.kind, change.ref): f"it would be changed: {', '.join(change.after) or change.verb}"
        for change in (*diff.changes, *(change for change, _ in diff.refused))
        if (change.kind, change.ref) in places
    }
    for error in diff.errors:
        where = str(error.where)
        meant = [one for one in kept if where.endswith(f"/{one.item.kind}/{one.resource.identity}")]
        if not meant:
            raise error
        wrong |= {one.place: error.message for one in meant}
    return wrong
