"""Kinds of resources, each made of a row of the catalogue (`model.Kind`). Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from fazai.errors import spelling_hint
from fazai.model import FieldSpec, Problem, Secret, SecretRef, Value
from fazai.providers.opnsense.catalogue.content import alias_problems
from fazai.providers.opnsense.catalogue.defaults import FieldDefault, defaults_of, is_left_alone
from fazai.providers.opnsense.catalogue.ownership import is_uuid
from fazai.providers.opnsense.catalogue.rows import KindRow
from fazai.providers.opnsense.catalogue.table import CatalogueEntry, FieldRow, load_catalogue
from fazai.providers.opnsense.catalogue.values import comparison_key, compose_name, text_of, to_canonical

#: Words beside the fields: which item is meant where the identity does not say it, and the fields that may
#: have any value where they are not declared.
UUID, MATCH, UNMANAGED = "uuid", "match", "unmanaged"
#: The field of settings of any controller that holds them.
SET = "set"


class CatalogueKind:
    """One kind of the OPNsense API, driven by its row."""

    def __init__(self, entry: CatalogueEntry) -> None:
        self.row: KindRow = entry.row
        self.rows: Mapping[str, FieldRow] = entry.fields
        #: the fields that name other items and for which the API wants something else than the name
        self.keyed = {name: row for name, row in entry.fields.items() if row.reference and row.key != "name"}
        self.name = entry.row.name
        self.summary = entry.row.summary
        self.example = entry.row.example
        self.identity = entry.row.identity
        self.ordered = entry.row.ordered
        self.apart = entry.row.tiebreak  # fields that tell items of one identity apart in a list
        self.services: tuple[str, ...] = (entry.row.service,) if entry.row.service else ()

    @cached_property
    def fields(self) -> Mapping[str, FieldSpec]:
        return {name: _field_spec(self.row, row) for name, row in self.rows.items()}

    @cached_property
    def defaults(self) -> tuple[FieldDefault, ...]:
        """The defaults of fields that are not declared."""
        return defaults_of(self.row, self.rows)

    def apart_text(self, fields: Mapping[str, Value], name: str) -> str:
        """Return the text of a field, as it stands in a playbook, for an identity."""
        row = self.rows[name]
        value, _ = to_canonical(row, fields[name]) if name in fields else (row.default or "", None)
        return comparison_key(row, text_of(value))

    def identify(self, fields: Mapping[str, Value]) -> str | Problem:
        """Return the identity of fields as they stand in a playbook (nested maps allowed)."""
        flat = self._flatten_fields(fields)
        found = self.label_of(flat, named=not self._is_named_otherwise(flat))
        if isinstance(found, Problem):
            return found
        more = ""
        if UUID in flat:
            more = f"({UUID} {text_of(flat[UUID]).lower()})"
        elif MATCH in flat and MATCH not in self.rows:
            match, problem = self._read_match(flat)
            if problem is not None:
                return problem
            more = "(" + ", ".join(f"{name} {text_of(value)}" for name, value in match.items()) + ")"
        return f"{found} {more}".strip()

    def _is_named_otherwise(self, flat: Mapping[str, Value]) -> bool:
        """Return whether `uuid` or `match` says which item is meant."""
        return UUID in flat or (MATCH in flat and MATCH not in self.rows)

    def _read_match(self, flat: Mapping[str, Value]) -> tuple[dict[str, Value], Problem | None]:
        """Return the fields that an item is found by, with their values: those given, or those declared."""
        given = flat[MATCH]
        if self.row.create == "add":
            hint = "give it another description"
            return {}, Problem(MATCH, f"is not for {self.name}, whose uuids the firewall chooses", hint)
        if not isinstance(given, (Mapping, list, tuple)) or not given:
            return {}, Problem(MATCH, "takes names of fields, or a map of fields to values", "[interface]")
        found: dict[str, Value] = {}
        for name in given:
            row = self.rows.get(name) if isinstance(name, str) else None
            if row is None:
                return {}, Problem(MATCH, f'names no field: "{name}"', spelling_hint(str(name), self.rows))
            value = given[name] if isinstance(given, Mapping) else flat.get(name, row.default)
            if value is None:
                return {}, Problem(MATCH, f"names {name}, which is not declared", f"{{{name}: …}}")
            found[name], problem = to_canonical(row, value)
            if problem is not None:
                return {}, Problem(MATCH, f"{problem.field}: {problem.message}", problem.hint)
            if (
                isinstance(given, Mapping)
                and name in flat
                and to_canonical(row, flat[name])[0] != found[name]
            ):
                text = f"finds the item by another {name} than it is to have: it would not be found again"
                return {}, Problem(MATCH, text, "name the item by its uuid:")
        return found, None

    def label_in(self, fields: Mapping[str, Value]) -> str:
        """Return the name on the firewall of an item with a `uuid` or a `match`; "" for all others."""
        if not self._is_named_otherwise(fields):
            return ""
        found = self.label_of(fields, named=False)
        return "" if isinstance(found, Problem) else found

    def label_of(self, flat: Mapping[str, Value], *, named: bool = True) -> str | Problem:
        """Return the name of an item on the firewall; it may have none when `named` is false."""
        texts: dict[str, str] = {}
        for name in self.row.identity:
            row = self.rows[name]
            value, problem = to_canonical(row, flat[name]) if name in flat else (row.default or "", None)
            if problem is not None:
                return problem
            texts[name] = text_of(value).strip()
            if named and row.required and not texts[name]:
                return Problem(name, "is missing: it names the item", self._misspelt_hint(name, flat))
        return build_label(self.row, self.rows, texts)

    def normalise(self, fields: Mapping[str, Value], state: str) -> tuple[dict[str, Value], list[Problem]]:
        """Return canonical values under the API's own field names, and everything that is wrong with them."""
        found: dict[str, Value] = {}
        problems: list[Problem] = []
        flat = self._flatten_fields(fields)
        beside = self._is_named_otherwise(flat)
        for name, value in flat.items():
            row = self.rows.get(name)
            if row is None and name not in (UUID, MATCH, UNMANAGED):
                hint = spelling_hint(name, self.rows)
                problems.append(Problem(name, f"{self.name} has no such field", hint))
                continue
            if row is None:
                found[name], problem = self._read_word(name, flat)
            else:
                if beside and name in self.row.identity:
                    row = replace(row, required=False)  # it may have no name
                found[name], problem = to_canonical(row, value)
            if problem is not None:
                problems.append(problem)
        if not beside:
            problems.extend(self._find_either(found))
        if state == "present":
            problems.extend(self._find_missing(found, self.row.identity if beside else ()))
            if self.row.short in _CHECKS:
                problems.extend(_CHECKS[self.row.short](found))
        elif self.row.settings:
            problems.append(Problem(None, f"{self.name} is a setting and cannot be absent"))
        return found, problems

    def _read_word(self, name: str, flat: Mapping[str, Value]) -> tuple[Value, Problem | None]:
        """Return the value of a word that stands beside the fields."""
        if name == MATCH:
            return self._read_match(flat)
        if name == UNMANAGED:
            return self._read_unmanaged(flat[name])
        text = text_of(flat[name])
        return text.lower(), None if is_uuid(text) else Problem(name, f'is no uuid: "{text}"')

    def _read_unmanaged(self, value: Value) -> tuple[tuple[str, ...], Problem | None]:
        if not isinstance(value, (list, tuple)):
            return (), Problem(UNMANAGED, "takes a list of fields", "[log]")
        for name in value:
            if not isinstance(name, str) or name not in self.rows:
                hint = spelling_hint(str(name), self.rows)
                return (), Problem(UNMANAGED, f'names no field: "{name}"', hint)
        return tuple(value), None

    def _find_missing(self, found: Mapping[str, Value], spared: Sequence[str]) -> Iterable[Problem]:
        for name, row in self.rows.items():
            if name in spared:
                continue
            if row.required and row.default is None and row.type != "boolean" and name not in found:
                yield Problem(name, "is missing", self._misspelt_hint(name, found))

    def _find_either(self, found: Mapping[str, Value]) -> Iterable[Problem]:
        """Yield what is wrong with fields of which exactly one is to be declared."""
        given = [name for name in self.row.one_of if text_of(found.get(name, ""))]
        if len(given) != 1 and self.row.one_of:
            first, *others = self.row.one_of
            if given:
                yield Problem(
                    given[1], f"excludes {given[0]}", f"declare one of {', '.join(self.row.one_of)}"
                )
            else:
                yield Problem(first, f"is missing: it or {' or '.join(others)} names the item")

    def _misspelt_hint(self, name: str, given: Mapping[str, Value]) -> str | None:
        unknown = [word for word in given if word not in self.rows]
        near = spelling_hint(name, unknown)
        return f'"{near.split(chr(34))[1]}" was given' if near else None

    def _flatten_fields(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        """Return `destination: {network: …}` as `destination.network: …`, where such a field is known."""
        if not any(isinstance(value, Mapping) for value in fields.values()):
            return dict(fields)
        found: dict[str, Value] = {}
        for name, value in fields.items():
            prefix = f"{name}."
            if self.row.any_path and name == SET and isinstance(value, Mapping):
                found.update(_flatten_settings(value))
                continue
            if isinstance(value, Mapping) and any(known.startswith(prefix) for known in self.rows):
                inner = {f"{prefix}{part}": one for part, one in value.items()}
                found.update(self._flatten_fields(inner))
            else:
                found[name] = value
        return found


def _flatten_settings(values: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """Return settings under their dotted names, as the API has them: lists with commas, 1 and 0."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flatten_settings(value, f"{prefix}{name}."))
        elif isinstance(value, (list, tuple)) and all(isinstance(one, (str, int)) for one in value):
            found[f"{prefix}{name}"] = ",".join(str(one) for one in value)
        elif isinstance(value, bool):
            found[f"{prefix}{name}"] = "1" if value else "0"
        else:
            found[f"{prefix}{name}"] = value
    return found


def _field_spec(row: KindRow, field: FieldRow) -> FieldSpec:
    kind = "secret" if field.secret else field.type
    doc = field.doc or (
        "the owner's mark is added to it on the firewall" if field.name == row.mark_field else ""
    )
    if not field.required and not field.secret and not row.settings and field.name not in row.identity:
        left = "stays as it is when it is not declared" if is_left_alone(row, field) else ""
        doc = "; ".join(filter(None, (doc, left)))
    return FieldSpec(
        name=field.name,
        type="reference" if field.reference and kind == "text" else kind,
        doc=doc,
        required=field.required and field.default is None and kind != "boolean",
        default=field.default,
        choices=field.choices,
        minimum=field.minimum,
        maximum=field.maximum,
        reference=field.reference,
        secret=field.secret,
    )


def names_of(kind: CatalogueKind, identity: str, fields: Mapping[str, Value]) -> list[str]:
    """Return the names by which references may call an item."""
    return [identity, second_name_of(kind, fields)] if kind.row.called else [identity]


def second_name_of(kind: CatalogueKind, fields: Mapping[str, Value]) -> str:
    """Return the second name of an item, by which references may call it; "" for kinds that have none."""
    if not kind.row.called:
        return ""
    parts = {name: text_of(fields.get(name, "")) for name in kind.rows}
    return kind.row.called.format_map(parts).lower().lstrip(".")


def build_label(row: KindRow, rows: Mapping[str, FieldRow], texts: Mapping[str, str]) -> str:
    """Return the identity as text, the same for a resource and for what the firewall answers."""
    if not row.identity:
        return row.label
    parts = {name: _label_part(row, rows[name], texts.get(name, "")) for name in row.identity}
    filled = "".join(
        before + (parts[name] if name else "") for before, name, _, _ in string.Formatter().parse(row.label)
    )
    return compose_name(" ".join(filled.split()).lstrip("."))


def _label_part(row: KindRow, field: FieldRow, text: str) -> str:
    text = text.strip()
    if row.short == "vip" and field.name == "network":
        text = text.partition("/")[0]
    return comparison_key(field, text) if field.fold else text


_RECORD_NEEDS = {"A": ("server",), "AAAA": ("server",), "MX": ("mx", "mxprio"), "TXT": ("txtdata",)}


def _check_unbound_host(fields: Mapping[str, Value]) -> list[Problem]:
    record = text_of(fields.get("rr", "A")) or "A"
    return [
        Problem(name, f"is missing: a record of type {record} needs it")
        for name in _RECORD_NEEDS.get(record, ())
        if not text_of(fields.get(name, ""))
    ]


def _check_unbound_alias(fields: Mapping[str, Value]) -> list[Problem]:
    if text_of(fields.get("hostname", "")) or text_of(fields.get("domain", "")):
        return []
    return [Problem("hostname", "is missing: hostname or domain must be given")]


def _check_vip_network(fields: Mapping[str, Value]) -> list[Problem]:
    network = fields.get("network")
    if isinstance(network, (Secret, SecretRef)) or not network or "/" in str(network):
        return []
    return [Problem("network", f'"{network}" has no prefix length', f'write "{network}/32" or the like')]


_CONTROLLER = re.compile(r"[a-z0-9_]{1,64}/[a-z0-9_]{1,64}")


def _check_settings(fields: Mapping[str, Value]) -> list[Problem]:
    if not _CONTROLLER.fullmatch(text_of(fields.get("path", ""))):  # it is part of an address
        return [Problem("path", "names no controller", "module/controller, such as monit/settings")]
    named = [name for name in fields if "." in name]
    if SET in fields or not named:
        return [Problem(SET, "takes a map of names to values", "{unbound.general.dnssec: true}")]
    items = [name for name in named if any(map(is_uuid, name.split(".")))]
    return [Problem(name, "is a field of an item, not a setting") for name in items]


_CHECKS: Mapping[str, Callable[[Mapping[str, Value]], list[Problem]]] = {
    "alias": alias_problems,
    "settings": _check_settings,
    "unbound_host": _check_unbound_host,
    "unbound_alias": _check_unbound_alias,
    "vip": _check_vip_network,
}


def load_kinds() -> Mapping[str, CatalogueKind]:
    """Return every kind of the catalogue, in the order in which kinds are written."""
    return {name: CatalogueKind(entry) for name, entry in load_catalogue().items()}
