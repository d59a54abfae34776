"""Print skeleton rows for `fazai/lab/data/` from the recordings: `python tests/lab/derive.py SUBJECT...`.

For every kind of item in `fields.json` whose name starts with SUBJECT, and for every whole-settings `get`
given as `=module/controller`, the fields are printed one a line with their options and labels. The rows
are then completed by hand: references, unique fields, checks, messages. docs/lab.md says how.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ROOT = Path(os.environ.get("FAZAI_RECORDINGS", Path(__file__).parents[3] / "shared" / "opnsense"))

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


def is_map(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(entry, dict) and "selected" in entry for entry in value.values())
    )


def flatten(body: Json, prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in body.items():
        if isinstance(value, dict) and value and not is_map(value):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def recorded_gets() -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {}
    for path in sorted(ROOT.glob("*.json")):
        records = json.loads(path.read_text())
        if isinstance(records, list):
            for record in records:
                key = record["path"].removeprefix("/api/").split("?")[0].lower()
                answers.setdefault(key, []).append(record["response"])
    return answers


def labels(value: Any) -> Json:
    options: Json = {}
    for key, entry in value.items():
        extra = {name: entry[name] for name in entry if name not in ("value", "selected")}
        options[key] = {"value": entry["value"], **extra} if extra else entry["value"]
    return options


def field_row(field: Json, blank: Json) -> Json:
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
    elif is_map(shown):
        row["options"] = labels(shown)
    elif isinstance(shown, list) and shown and "selected" in shown[0]:
        row["options"] = {str(index): entry["value"] for index, entry in enumerate(shown)}
    elif field.get("options"):
        row["options"] = {key: key for key in field["options"]}
    return row


def guess(name: str, value: Any) -> Json:
    """A settings field seen only in a `get`: its type is a guess to be checked by hand."""
    if isinstance(value, list) and value and "selected" in value[0]:
        value = {str(index): entry for index, entry in enumerate(value)}
    if not is_map(value):
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
        row["options"] = labels(value)
    if chosen and chosen != [""]:
        row["default"] = ",".join(chosen)
    return row


def blank_of(kind: str, spec: Json, endpoints: Json, answers: dict[str, list[Any]]) -> Json:
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
                flat = flatten(answer[spec["root_key"]])
                if len(names & set(flat)) >= 2:
                    return flat
    return {}


def show(title: str, rows: list[Json]) -> None:
    body = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in rows)
    sys.stdout.write(f'"{title}": {{"fields": [\n{body}\n]}}\n')


def main(wanted: list[str]) -> None:
    fields = json.loads((ROOT / "fields.json").read_text())
    endpoints = json.loads((ROOT / "endpoints.json").read_text())
    answers = recorded_gets()
    for kind, spec in fields.items():
        if any(kind.startswith(prefix) for prefix in wanted):
            blank = blank_of(kind, spec, endpoints, answers)
            show(
                f"{kind} {spec['model_path']} root={spec['root_key']}",
                [field_row(f, blank) for f in spec["fields"]],
            )
    for name in (name[1:] for name in wanted if name.startswith("=")):
        answer = next(a for a in answers[f"{name}/get".lower()] if isinstance(a, dict) and a)
        root = next(iter(answer))
        show(f"{name} root={root}", [guess(key, value) for key, value in flatten(answer[root]).items()])


if __name__ == "__main__":
    main(sys.argv[1:])
