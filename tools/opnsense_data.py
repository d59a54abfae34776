"""Make the data of the firewall's kinds and of the lab from recorded exchanges with the API.

`python tools/opnsense_data.py fields` writes `fields.json` and `families/*.json` of
`fazai/providers/opnsense/catalogue/`: what the device says of the fields of each kind. In `fields.json` the
masks (`pattern`, `wanted`) come from the product's models, not from the recordings, and are kept as they
stand in the file.

`python tools/opnsense_data.py rows SUBJECT...` prints skeleton rows for `fazai/lab/data/`: for every
recorded kind whose name starts with SUBJECT, and for every whole-settings `get` given as
`=module/controller`, the fields one a line with their options and labels. They are completed by hand:
references, unique fields, checks, messages. docs/lab.md says how. `models SUBJECT...` does the same of the
second recording, which says more: masks, messages, relations, what must be unique.

The recordings are found through FAZAI_RECORDINGS and FAZAI_RECORDINGS_MORE.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow
from fazai.providers.opnsense.catalogue.table import FAMILIES, Family

Json = dict[str, Any]
HERE = Path(__file__).parents[1]
CATALOGUE = HERE / "fazai" / "providers" / "opnsense" / "catalogue"

#: Types of the API -> ours; others are text.
TYPES = {
    "Boolean": "boolean",
    "Integer": "integer",
    "AutoNumber": "integer",
    "FilterSequence": "integer",
    "DNatSequence": "integer",
    "Numeric": "number",
    "Option": "choice",
    "Protocol": "choice",
}
#: Types whose free values are a list where a `get` shows them as a map.
LISTED = ("AliasContent", "Hostname", "Network", "MacAddress")
#: Kinds that were recorded under the name of another one with the same fields.
RECORDED_AS = {"unbound/settings Dot": "unbound/settings Forward"}
#: Options of a field with a source, by its type, for the lab.
SOURCES = {
    "Interface": "interfaces",
    "VipInterface": "vip_interfaces",
    "VlanInterface": "vlan_parents",
    "LaggInterface": "free_devices",
    "BridgeMember": "bridge_members",
    "Category": "categories_by_name",
    "Member": "users",
    "GroupMembership": "groups",
    "Certificate": "certificates",
    "Schedule": "none",
    "VirtualIP": "virtual_ips",
}


def is_option_map(value: Any) -> bool:
    """Return whether this is a map of options, each with `selected`."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(entry, dict) and "selected" in entry for entry in value.values())
    )


def flatten_body(body: Json, prefix: str = "") -> Json:
    """Return nested maps under dotted names; maps of options stay as they are."""
    flat: Json = {}
    for key, value in body.items():
        if isinstance(value, dict) and value and not is_option_map(value):
            flat.update(flatten_body(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def recordings_folder() -> Path:
    """Return the folder of the recordings."""
    return Path(os.environ.get("FAZAI_RECORDINGS", HERE.parent / "shared" / "opnsense"))


def wider_recordings() -> Path:
    """Return the folder of the second recording."""
    beside = recordings_folder().with_name("opnsense-more")
    return Path(os.environ.get("FAZAI_RECORDINGS_MORE", beside))


def read_answers(root: Path) -> dict[str, list[Any]]:
    """Return the recorded answers by path."""
    answers: dict[str, list[Any]] = {}
    for path in sorted(root.glob("*.json")):
        records = json.loads(path.read_text())
        if isinstance(records, list):
            for record in records:
                key = record["path"].removeprefix("/api/").split("?")[0].lower()
                answers.setdefault(key, []).append(record["response"])
    return answers


def read_labels(value: Any) -> Json:
    """Return the options of a map, each with its label and what else is said of it."""
    options: Json = {}
    for key, entry in value.items():
        extra = {name: entry[name] for name in entry if name not in ("value", "selected")}
        options[key] = {"value": entry["value"], **extra} if extra else entry["value"]
    return options


def make_row(field: Json, blank: Json) -> Json:
    """Return the lab's row of a field, with the options that an item shows."""
    row: Json = {key: field[key] for key in ("name", "type") if key in field}
    for key in ("required", "multiple", "volatile"):
        if field.get(key):
            row[key] = True
    for key in ("default", "min", "max"):
        if field.get(key, "") != "":
            row[key] = field[key]
    shown = blank.get(field["name"])
    if field["type"] in SOURCES:
        row["source"] = SOURCES[field["type"]]
    elif field.get("shape") == "map" and field["type"] in ("Network", "Hostname", "MacAddress"):
        row["list"] = True
    elif is_option_map(shown):
        row["options"] = read_labels(shown)
    elif isinstance(shown, list) and shown and "selected" in shown[0]:
        row["options"] = {str(index): entry["value"] for index, entry in enumerate(shown)}
    elif field.get("options"):
        row["options"] = {key: key for key in field["options"]}
    return row


def guess_row(name: str, value: Any) -> Json:
    """Return the lab's row of a setting that was seen in a `get` only: its type is to be checked by hand."""
    if isinstance(value, list) and value and "selected" in value[0]:
        value = {str(index): entry for index, entry in enumerate(value)}
    if not is_option_map(value):
        kind = "Boolean" if value in ("0", "1") else "Integer" if str(value).isdigit() else "Text"
        return {"name": name, "type": kind, **({"default": value} if value else {})}
    chosen = [key for key, entry in value.items() if entry["selected"]]
    if all(entry["value"] == key and entry["selected"] for key, entry in value.items()):
        return {"name": name, "type": "Text", "list": True, "default": ",".join(chosen)}
    row: Json = {"name": name, "type": "Option"}
    if len(chosen) != 1:
        row["multiple"] = True
    if set(value) - {""} == {"opt1", "lan", "wan"}:
        row |= {"type": "Interface", "source": "interfaces"}
    else:
        row["options"] = read_labels(value)
    if chosen and chosen != [""]:
        row["default"] = ",".join(chosen)
    return row


def find_item(kind: str, spec: Json, endpoints: Json, answers: dict[str, list[Any]]) -> Json:
    """Return an item of a kind as a recorded `get` shows it; empty when there is none."""
    controller = kind.partition(" ")[0]
    names = {field["name"] for field in spec["fields"]}
    for action, params in endpoints[controller]["actions"].items():
        if not action.lower().startswith("get") or params != ["[uuid]"]:
            continue
        path = f"{controller}/{action}".lower()
        found = answers.get(path, []) + [
            a for key in answers if key.startswith(f"{path}/") for a in answers[key]
        ]
        for answer in found:
            if isinstance(answer, dict) and isinstance(answer.get(spec["root_key"]), dict):
                flat = flatten_body(answer[spec["root_key"]])
                if len(names & set(flat)) >= 2:
                    return flat
    return {}


def print_rows(title: str, rows: list[Json]) -> None:
    """Print the rows of one kind."""
    body = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in rows)
    sys.stdout.write(f'"{title}": {{"fields": [\n{body}\n]}}\n')


def recorded_name(row: KindRow) -> str:
    """Return the name under which the fields of a kind were recorded."""
    suffix = row.verbs.get.removeprefix("get")
    name = row.path if suffix in ("Item", "Rule", "") else f"{row.path} {suffix}"
    return RECORDED_AS.get(name, name)


def make_fact(field: Json, item: Json, known: Json) -> Json:
    """Return what the catalogue keeps of a recorded field; `known` is what it kept so far."""
    choices = field.get("options", []) if field["type"] in ("Option", "Protocol") else []
    if choices and "options_total" in field:  # the list was cut when it was recorded
        choices = list(item[field["name"]])
    kind = TYPES.get(field["type"], "text")
    if field.get("multiple") or (field.get("shape") == "map" and field["type"] in LISTED):
        kind = "list"
    fact: Json = {"name": field["name"], "type": kind}
    if choices:
        fact["choices"] = choices
    fact["api"] = field["type"]
    if field["required"]:
        fact["required"] = True
    if field["default"] and (not choices or field["default"] in choices):
        fact["default"] = field["default"]
    fact |= {
        ours: field[theirs] for theirs, ours in (("min", "minimum"), ("max", "maximum")) if theirs in field
    }
    return fact | {name: known[name] for name in ("pattern", "wanted") if name in known}


def is_of_row(row: KindRow, spec: Json) -> bool:
    """Return whether the second recording means this kind."""
    if spec.get("singleton"):
        return row.settings and spec["controller"] == row.path and spec["root_key"] == row.root
    return not row.settings and (spec["controller"], spec["verbs"]["get"]) == (row.path, row.verbs.get)


def python_pattern(mask: str) -> str:
    """Return a mask of the product as a full match in Python; "" where that is not the same."""
    found = re.fullmatch(r"/\^(.*)\$/u?", mask, re.DOTALL)
    if found is None or re.search(r"\(\?[^:]|\\[phHR]|\[\[:", found[1]):
        return ""
    try:
        re.compile(found[1])
    except re.error:
        return ""
    return found[1]


def with_mask(fact: Json, field: Json) -> Json:
    """Return the fact with the field's mask, and what the device says where it does not fit."""
    pattern = python_pattern(field.get("mask", ""))
    if not pattern or fact["type"] != "text":
        return fact
    anchored = f"^{pattern}$"  # the catalogue searches for it, the lab's rows match it in full
    return fact | {"pattern": anchored} | ({"wanted": field["message"]} if field.get("message") else {})


def make_wider_facts(row: KindRow, spec: Json) -> list[Json]:
    """Return what the catalogue keeps of the fields of a kind of the second recording."""
    found = []
    for field in spec["fields"]:
        if field.get("volatile") or field.get("in_get_only") or field["type"] == "?":
            continue
        fact = make_fact({"required": False, "default": "", **field}, {}, {})
        if row.settings:  # nobody makes settings: what is not declared stays
            fact = {key: value for key, value in fact.items() if key not in ("required", "default")}
        found.append(with_mask(fact, field))
    return found


def make_fields(root: Path, wider: Path, family: Family) -> str:
    """Return the text of a family's file of facts as the recordings say it."""
    recorded = json.loads((root / "fields.json").read_text())
    more = json.loads((wider / "fields_more.json").read_text())
    endpoints = json.loads((root / "endpoints.json").read_text())
    answers = read_answers(root)
    kept = json.loads((CATALOGUE / family.facts).read_text())
    made: dict[str, list[Json]] = {}
    for name, spec in recorded.items():
        item = find_item(name, spec, endpoints, answers)
        for row in (row for row in family.rows if not row.settings and recorded_name(row) == name):
            known = {fact["name"]: fact for fact in kept.get(row.short, ())}
            stored = [field for field in spec["fields"] if not field.get("volatile")]
            made[row.short] = [make_fact(field, item, known.get(field["name"], {})) for field in stored]
    for spec in more.values():
        for row in (row for row in family.rows if row.short not in made and is_of_row(row, spec)):
            made[row.short] = make_wider_facts(row, spec)
    kinds = []
    for short, facts in made.items():
        lines = ",\n".join("  " + json.dumps(fact, ensure_ascii=False) for fact in facts)
        kinds.append(f' "{short}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def make_wider_row(field: Json) -> Json:
    """Return the lab's row of a field of the second recording."""
    row = make_row({"required": False, "default": "", **field}, {})
    if isinstance(field.get("labels"), dict):
        row["options"] = field["labels"]
    for theirs, ours in (("message", "message"), ("relation", "relation")):
        if theirs in field:
            row[ours] = field[theirs]
    if pattern := python_pattern(field.get("mask", "")):
        row["pattern"] = pattern
    for name in ("constraints", "xml", "mask"):
        if name in field and not (name == "mask" and pattern):
            row[f"? {name}"] = field[name]  # to be read by hand
    return row


def print_models(wider: Path, wanted: tuple[str, ...]) -> None:
    """Print the rows of kinds of the second recording, for the lab's data."""
    for kind, spec in json.loads((wider / "fields_more.json").read_text()).items():
        if any(kind.startswith(prefix) for prefix in wanted):
            title = f"{kind} {spec.get('model_path')} root={spec['root_key']}"
            fields = [field for field in spec["fields"] if not field.get("in_get_only")]
            print_rows(title, [make_wider_row(field) for field in fields])


def main(command: str, *wanted: str) -> None:
    """Write the fields of the catalogue, or print rows for the lab."""
    root = recordings_folder()
    if command == "fields":
        for family in FAMILIES:
            (CATALOGUE / family.facts).write_text(make_fields(root, wider_recordings(), family))
    elif command == "models":
        print_models(wider_recordings(), wanted)
    else:
        print_lab_rows(root, wanted)


def print_lab_rows(root: Path, wanted: tuple[str, ...]) -> None:
    """Print the rows of kinds, and of whole settings, for the lab's data."""
    fields = json.loads((root / "fields.json").read_text())
    endpoints = json.loads((root / "endpoints.json").read_text())
    answers = read_answers(root)
    for kind, spec in fields.items():
        if any(kind.startswith(prefix) for prefix in wanted):
            item = find_item(kind, spec, endpoints, answers)
            title = f"{kind} {spec['model_path']} root={spec['root_key']}"
            print_rows(title, [make_row(field, item) for field in spec["fields"]])
    for name in (name[1:] for name in wanted if name.startswith("=")):
        answer = next(a for a in answers[f"{name}/get".lower()] if isinstance(a, dict) and a)
        root_key = next(iter(answer))
        settings = flatten_body(answer[root_key])
        print_rows(f"{name} root={root_key}", [guess_row(key, value) for key, value in settings.items()])


if __name__ == "__main__":
    main(*sys.argv[1:])
