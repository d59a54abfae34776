"""firewall/alias and firewall/alias_util."""

from __future__ import annotations

import ipaddress
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address, is_ip_network
from fazai.lab.engine.names import ALIASES, CATEGORIES, INTERFACES, builtin_aliases, natural_key
from fazai.lab.engine.render import as_php, nested_item
from fazai.lab.engine.search import SearchRow, grid_answer, make_rows, recordset_answer
from fazai.lab.engine.verbs import (
    FAILED,
    blank_item,
    compute_fields,
    flatten_fields,
    get_item,
    merge_sent,
    posted_body,
    row_maker_of,
    rows_of,
    set_item,
    validate_item,
)
from fazai.lab.models.alias import builtin_item, content_map, make_tables


def _builtin_rows(call: ActionCall) -> list[SearchRow]:
    box, model = call.box, call.model(ALIASES)

    def build() -> list[SearchRow]:
        make = row_maker_of(box, model)
        return [make(name, builtin_item(box, name) or {}) for name in builtin_aliases(box)]

    return box.derived("builtin alias rows", (INTERFACES,), build, box.running.tables)


def _filter_rows(call: ActionCall, rows: list[SearchRow]) -> list[SearchRow]:
    """Apply the filters of a search: types, and categories by uuid."""
    types, categories = call.body.get("type"), call.body.get("category")
    if isinstance(types, list) and types:
        rows = [row for row in rows if row.data["type"] in types]
    if isinstance(categories, list) and categories:
        rows = [row for row in rows if any(uuid in row.data["categories_uuid"] for uuid in categories)]
    return rows


def search_aliases(call: ActionCall) -> Any:
    rows = rows_of(call.box, call.model(ALIASES)) + _builtin_rows(call)
    rows.sort(key=lambda row: row.key)
    return grid_answer(call, _filter_rows(call, rows))


def get_alias(call: ActionCall) -> Any:
    """Show an alias; under an unknown uuid only `content` is there."""
    uuid, box, model = call.param(0), call.box, call.model(ALIASES)
    if uuid is None:
        body = get_item(call, model)
        body["alias"]["content"] = content_map(box, "", blank_item(box, model))
        return body
    item = box.items(ALIASES).get(uuid) or builtin_item(box, uuid)
    if item is None:
        return {"alias": {"content": content_map(box, uuid, None)}}
    more = {**compute_fields(box, model, uuid, item), "content": content_map(box, uuid, item)}
    return {"alias": nested_item(box, model.fields, item, more)}


def set_alias(call: ActionCall) -> Any:
    """Set an alias; a built-in one answers `saved` and does not change."""
    if call.posted and call.param(0) in builtin_aliases(call.box) and "alias" in call.body:
        call.save(call.box.config.edit())
        return {"result": "saved"}
    return set_item(call, call.model(ALIASES))


def get_alias_uuid(call: ActionCall) -> Any:
    name = call.param(0) or ""
    if name in builtin_aliases(call.box):
        return {"uuid": name}
    for uuid, item in call.box.items(ALIASES).items():
        if item["name"] == name:
            return {"uuid": uuid}
    return []


def get_alias_model(call: ActionCall) -> Any:
    """Show the whole model; contents are shown without the other aliases here."""
    if call.method not in ("GET", "HEAD"):
        return []
    box, model = call.box, call.model(ALIASES)
    items = {}
    for uuid, item in box.items(ALIASES).items():
        content = {entry: {"value": entry, "selected": 1} for entry in item["content"].split("\n")}
        known = {**compute_fields(box, model, uuid, item), "content": content}
        items[uuid] = nested_item(box, model.fields, item, known)
    url = box.config.settings("Firewall.Alias").get("geoip.url", "")
    return {"alias": {"geoip": {"url": url}, "aliases": {"alias": as_php(items)}}}


def _flat_item(call: ActionCall, uuid: str, item: Item) -> dict[str, Any]:
    model = call.model(ALIASES)
    more = compute_fields(call.box, model, uuid, item)
    return {field.name: more.get(field.name, item.get(field.name, "")) for field in model.fields}


def export_aliases(call: ActionCall) -> Any:
    wanted = call.body.get("ids")
    chosen = call.box.items(ALIASES)
    if call.posted and isinstance(wanted, list):
        chosen = {uuid: item for uuid, item in chosen.items() if uuid in wanted}
        return {
            "aliases": {
                "alias": as_php({uuid: _flat_item(call, uuid, item) for uuid, item in chosen.items()})
            }
        }
    url = call.box.config.settings("Firewall.Alias").get("geoip.url", "")
    built_in = {name: builtin_item(call.box, name) or {} for name in builtin_aliases(call.box)}
    rows = {uuid: _flat_item(call, uuid, item) for uuid, item in {**chosen, **built_in}.items()}
    return {"geoip": {"url": url}, "aliases": {"alias": as_php(rows)}}


@posted_only(otherwise={"status": "failed"})
def import_aliases(call: ActionCall) -> Any:
    """Take all aliases or none, even though the counters say otherwise; known names are updated."""
    data = posted_body(call, "data") or {}
    entries = data.get("aliases", {})
    entries = entries.get("alias", {}) if isinstance(entries, Mapping) else {}
    if not isinstance(entries, Mapping) or not entries:
        return {"existing": 0, "new": 0, "status": "failed"}
    box, model = call.box, call.model(ALIASES)
    by_name = {item["name"]: uuid for uuid, item in box.items(ALIASES).items()}
    edit, existing, new = box.config.edit(), 0, 0
    wrong: dict[str, Any] = {}
    for key, values in entries.items():
        sent = flatten_fields(values if isinstance(values, Mapping) else {}, model.by_name())
        known = by_name.get(sent.get("name", ""))
        existing, new = existing + (known is not None), new + (known is None)
        uuid = known or str(uuids.uuid4())
        item = merge_sent(box, model.fields, box.items(ALIASES).get(uuid) or blank_item(box, model), sent)
        wrong |= validate_item(box, model, uuid, item, key).body()
        edit.put(ALIASES, uuid, item)
    if wrong:
        return {"existing": existing, "new": new, "status": "failed", "validations": wrong}
    call.save(edit)
    return {"existing": existing, "new": new, "status": "ok"}


def count_categories(call: ActionCall, paths: tuple[str, ...]) -> Any:
    """List categories, and how many items of the collections are in each."""
    box = call.box
    used: dict[str, int] = {}
    for path in paths:
        for item in box.items(path).values():
            for uuid in item.get("categories", "").split(","):
                used[uuid] = used.get(uuid, 0) + 1
    rows = [
        {"uuid": uuid, "name": item["name"], "color": item["color"], "used": used.get(uuid, 0)}
        for uuid, item in sorted(
            box.items(CATEGORIES).items(), key=lambda entry: natural_key(entry[1]["name"])
        )
    ]
    return {"rows": rows}


def list_networks(call: ActionCall) -> Any:
    """List the aliases that may stand in a network group."""
    known = {
        name: row["description"]
        for name, row in builtin_aliases(call.box).items()
        if row["type"] == "internal"
    }
    for item in call.box.items(ALIASES).values():
        if item["type"] not in ("port", "external"):
            known[item["name"]] = item["description"]
    return {name: {"name": name, "description": known[name]} for name in sorted(known)}


def get_geoip(call: ActionCall) -> Any:
    url = call.box.config.settings("Firewall.Alias").get("geoip.url", "")
    usages = sum(item["type"] == "geoip" for item in call.box.items(ALIASES).values())
    body = {
        "url": url,
        "usages": usages,
        "address_count": 0,
        "file_count": 0,
        "timestamp": None,
        "locations_filename": None,
        "address_sources": {"IPv4": None, "IPv6": None},
    }
    return {"alias": {"geoip": body}}


def get_table_size(call: ActionCall) -> Any:
    counts = {name: {"count": len(table)} for name, table in call.box.running.tables.items() if table}
    used = sum(row["count"] for row in counts.values())
    return {"status": "ok", "size": 1000000, "used": used, "details": as_php(counts)}


def refresh_tables(call: ActionCall) -> None:
    """Make the tables from what is stored now."""
    call.box.apply("alias")
    call.box.running.tables = make_tables(call.box)


@posted_only(otherwise={"status": "failed"})
def reconfigure_aliases(call: ActionCall) -> Any:
    refresh_tables(call)
    return {"status": "ok"}


# alias_util: the running tables


def list_tables(call: ActionCall) -> Any:
    names = list(builtin_aliases(call.box))
    names += [item["name"] for item in call.box.items(ALIASES).values() if item["type"] != "port"]
    return sorted(names, key=natural_key)


def list_table_entries(call: ActionCall) -> Any:
    table = call.box.running.tables.get(call.param(0) or "", {})
    return recordset_answer(call, make_rows({"ip": entry} for entry in table))


def _replace_table(call: ActionCall, table: dict[str, None]) -> None:
    """Replace a table: rows that show its size live as long as it does."""
    running = call.box.running
    running.tables = {**running.tables, call.param(0) or "": table}


@posted_only(otherwise={"status": "failed"})
def add_address(call: ActionCall) -> Any:
    address = call.body.get("address")
    if not isinstance(address, str) or not (is_ip_address(address) or is_ip_network(address)):
        return {"status": "not_an_address"}
    _replace_table(call, {**call.box.running.tables.get(call.param(0) or "", {}), address: None})
    return {"status": "done"}


@posted_only(otherwise={"status": "failed"})
def delete_address(call: ActionCall) -> Any:
    table = dict(call.box.running.tables.get(call.param(0) or "", {}))
    table.pop(str(call.body.get("address")), None)
    _replace_table(call, table)
    return {"status": "done"}


@posted_only(otherwise={"status": "failed"})
def flush_table(call: ActionCall) -> Any:
    _replace_table(call, {})
    return {"status": "done"}


def find_references(call: ActionCall) -> Any:
    """List the running tables that hold an address."""
    wanted = str(call.body.get("ip", ""))
    if not call.posted or not is_ip_address(wanted):
        return {"status": "failed"}
    address = ipaddress.ip_address(wanted)
    matches = [
        name
        for name, table in call.box.running.tables.items()
        if name and not name.startswith("__") and any(_entry_holds(entry, address) for entry in table)
    ]
    return {"status": "ok", "matches": matches}


def _entry_holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not entry.startswith("!") and address in ipaddress.ip_network(entry, strict=False)


def list_user_groups(call: ActionCall) -> Any:
    return {
        item["gid"]: {"name": item["name"], "gid": item["gid"]}
        for item in call.box.items("Auth.Group.group").values()
    } or FAILED


ACTIONS: Final[Mapping[str, Handler]] = {
    "firewall/alias/searchItem": search_aliases,
    "firewall/alias/getItem": get_alias,
    "firewall/alias/setItem": set_alias,
    "firewall/alias/getAliasUUID": get_alias_uuid,
    "firewall/alias/get": get_alias_model,
    "firewall/alias/export": export_aliases,
    "firewall/alias/import": import_aliases,
    "firewall/alias/listCategories": lambda call: count_categories(call, (ALIASES,)),
    "firewall/alias/listNetworkAliases": list_networks,
    "firewall/alias/listCountries": lambda call: call.box.catalogue.options["country_names"],
    "firewall/alias/listUserGroups": list_user_groups,
    "firewall/alias/getGeoIP": get_geoip,
    "firewall/alias/getTableSize": get_table_size,
    "firewall/alias/reconfigure": reconfigure_aliases,
    "firewall/alias_util/aliases": list_tables,
    "firewall/alias_util/list": list_table_entries,
    "firewall/alias_util/add": add_address,
    "firewall/alias_util/delete": delete_address,
    "firewall/alias_util/flush": flush_table,
    "firewall/alias_util/findReferences": find_references,
}
