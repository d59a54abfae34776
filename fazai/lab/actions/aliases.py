"""firewall/alias and firewall/alias_util."""

from __future__ import annotations

import ipaddress
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import Call, Handler
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_address, is_network
from fazai.lab.engine.names import ALIASES, CATEGORIES, INTERFACES, builtin_aliases, natural
from fazai.lab.engine.render import as_php, nested_item
from fazai.lab.engine.schema import ItemModel
from fazai.lab.engine.search import Row, grid, plain_rows, recordset
from fazai.lab.engine.verbs import (
    FAILED,
    Problems,
    blank,
    computed,
    flatten,
    get_item,
    maker_of,
    merged,
    posted,
    problems_of,
    rows_of,
    set_item,
)
from fazai.lab.models.alias import builtin_item, content_map, tables

__all__ = ["ACTIONS", "refresh_tables"]


def _model(call: Call) -> ItemModel:
    return call.box.catalogue.items[ALIASES]


def _builtin_rows(call: Call) -> list[Row]:
    box, model = call.box, _model(call)

    def build() -> list[Row]:
        make = maker_of(box, model)
        return [make(name, builtin_item(box, name) or {}) for name in builtin_aliases(box)]

    return box.derived("builtin alias rows", (INTERFACES,), build, box.running.tables)


def _wanted(call: Call, rows: list[Row]) -> list[Row]:
    """The filters of a search: types, and categories by uuid."""
    types, categories = call.body.get("type"), call.body.get("category")
    if isinstance(types, list) and types:
        rows = [row for row in rows if row.data["type"] in types]
    if isinstance(categories, list) and categories:
        rows = [row for row in rows if any(uuid in row.data["categories_uuid"] for uuid in categories)]
    return rows


def search(call: Call) -> Any:
    rows = rows_of(call.box, _model(call)) + _builtin_rows(call)
    rows.sort(key=lambda row: row.key)
    return grid(call, _wanted(call, rows))


def get(call: Call) -> Any:
    """An unknown uuid is an alias of which only `content` is there."""
    uuid, box, model = call.param(0), call.box, _model(call)
    if uuid is None:
        body = get_item(call, model)
        body["alias"]["content"] = content_map(box, "", blank(box, model))
        return body
    item = box.items(ALIASES).get(uuid) or builtin_item(box, uuid)
    if item is None:
        return {"alias": {"content": content_map(box, uuid, None)}}
    more = {**computed(box, model, uuid, item), "content": content_map(box, uuid, item)}
    return {"alias": nested_item(box, model.fields, item, more)}


def change(call: Call) -> Any:
    """A built-in alias answers `saved` and does not change."""
    if call.posted and call.param(0) in builtin_aliases(call.box) and "alias" in call.body:
        call.save(call.box.config.edit())
        return {"result": "saved"}
    return set_item(call, _model(call))


def get_uuid(call: Call) -> Any:
    name = call.param(0) or ""
    if name in builtin_aliases(call.box):
        return {"uuid": name}
    for uuid, item in call.box.items(ALIASES).items():
        if item["name"] == name:
            return {"uuid": uuid}
    return []


def whole(call: Call) -> Any:
    """The whole model; contents are shown without the other aliases here."""
    if call.method not in ("GET", "HEAD"):
        return []
    box, model = call.box, _model(call)
    items = {}
    for uuid, item in box.items(ALIASES).items():
        known = {**computed(box, model, uuid, item)}
        known["content"] = {entry: {"value": entry, "selected": 1} for entry in item["content"].split("\n")}
        items[uuid] = nested_item(box, model.fields, item, known)
    url = box.config.settings("Firewall.Alias").get("geoip.url", "")
    return {"alias": {"geoip": {"url": url}, "aliases": {"alias": as_php(items)}}}


def _flat(call: Call, uuid: str, item: Item) -> dict[str, Any]:
    model = _model(call)
    more = computed(call.box, model, uuid, item)
    return {field.name: more.get(field.name, item.get(field.name, "")) for field in model.fields}


def export(call: Call) -> Any:
    wanted = call.body.get("ids")
    chosen = call.box.items(ALIASES)
    if call.posted and isinstance(wanted, list):
        chosen = {uuid: item for uuid, item in chosen.items() if uuid in wanted}
        return {
            "aliases": {"alias": as_php({uuid: _flat(call, uuid, item) for uuid, item in chosen.items()})}
        }
    url = call.box.config.settings("Firewall.Alias").get("geoip.url", "")
    built_in = {name: builtin_item(call.box, name) or {} for name in builtin_aliases(call.box)}
    rows = {uuid: _flat(call, uuid, item) for uuid, item in {**chosen, **built_in}.items()}
    return {"geoip": {"url": url}, "aliases": {"alias": as_php(rows)}}


def bring_in(call: Call) -> Any:
    """All or nothing, even though the counters say otherwise; known names are updated."""
    if not call.posted:
        return {"status": "failed"}
    data = posted(call, "data") or {}
    entries = data.get("aliases", {})
    entries = entries.get("alias", {}) if isinstance(entries, Mapping) else {}
    if not isinstance(entries, Mapping) or not entries:
        return {"existing": 0, "new": 0, "status": "failed"}
    box, model = call.box, _model(call)
    by_name = {item["name"]: uuid for uuid, item in box.items(ALIASES).items()}
    edit, existing, new = box.config.edit(), 0, 0
    wrong: dict[str, Any] = {}
    for key, values in entries.items():
        sent = flatten(values if isinstance(values, Mapping) else {}, model.by_name())
        known = by_name.get(sent.get("name", ""))
        existing, new = existing + (known is not None), new + (known is None)
        uuid = known or str(uuids.uuid4())
        item = merged(box, model.fields, box.items(ALIASES).get(uuid) or blank(box, model), sent)
        problems = Problems(key)
        problems_of(box, model, uuid, item, problems)
        wrong |= problems.body()
        edit.put(ALIASES, uuid, item)
    if wrong:
        return {"existing": existing, "new": new, "status": "failed", "validations": wrong}
    call.save(edit)
    return {"existing": existing, "new": new, "status": "ok"}


def list_categories(call: Call) -> Any:
    """The categories with the number of aliases in each."""
    return categories_used(call, (ALIASES,))


def categories_used(call: Call, paths: tuple[str, ...]) -> Any:
    """Categories, and how many items of the collections are in each."""
    box = call.box
    used: dict[str, int] = {}
    for path in paths:
        for item in box.items(path).values():
            for uuid in item.get("categories", "").split(","):
                used[uuid] = used.get(uuid, 0) + 1
    rows = [
        {"uuid": uuid, "name": item["name"], "color": item["color"], "used": used.get(uuid, 0)}
        for uuid, item in sorted(box.items(CATEGORIES).items(), key=lambda entry: natural(entry[1]["name"]))
    ]
    return {"rows": rows}


def list_networks(call: Call) -> Any:
    """Aliases that may stand in a network group."""
    known = {
        name: row["description"]
        for name, row in builtin_aliases(call.box).items()
        if row["type"] == "internal"
    }
    for item in call.box.items(ALIASES).values():
        if item["type"] not in ("port", "external"):
            known[item["name"]] = item["description"]
    return {name: {"name": name, "description": known[name]} for name in sorted(known)}


def list_countries(call: Call) -> Any:
    return call.box.catalogue.options["country_names"]


def geoip(call: Call) -> Any:
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


def table_size(call: Call) -> Any:
    counts = {name: {"count": len(table)} for name, table in call.box.running.tables.items() if table}
    used = sum(row["count"] for row in counts.values())
    return {"status": "ok", "size": 1000000, "used": used, "details": as_php(counts)}


def refresh_tables(call: Call) -> None:
    """The tables are made from what is stored now."""
    call.box.apply("alias")
    call.box.running.tables = tables(call.box)


def reconfigure(call: Call) -> Any:
    if not call.posted:
        return {"status": "failed"}
    refresh_tables(call)
    return {"status": "ok"}


# alias_util: the running tables


def table_names(call: Call) -> Any:
    names = list(builtin_aliases(call.box))
    names += [item["name"] for item in call.box.items(ALIASES).values() if item["type"] != "port"]
    return sorted(names, key=natural)


def table_entries(call: Call) -> Any:
    table = call.box.running.tables.get(call.param(0) or "", {})
    return recordset(call, plain_rows({"ip": entry} for entry in table))


def _address(call: Call) -> str | None:
    value = call.body.get("address")
    return value if isinstance(value, str) and (is_address(value) or is_network(value)) else None


def _table(call: Call, table: dict[str, None]) -> None:
    """Tables are replaced, not changed: rows that show their size live as long as they do."""
    running = call.box.running
    running.tables = {**running.tables, call.param(0) or "": table}


def add_address(call: Call) -> Any:
    if not call.posted:
        return {"status": "failed"}
    address = _address(call)
    if address is None:
        return {"status": "not_an_address"}
    _table(call, {**call.box.running.tables.get(call.param(0) or "", {}), address: None})
    return {"status": "done"}


def delete_address(call: Call) -> Any:
    if not call.posted:
        return {"status": "failed"}
    table = dict(call.box.running.tables.get(call.param(0) or "", {}))
    table.pop(str(call.body.get("address")), None)
    _table(call, table)
    return {"status": "done"}


def flush_table(call: Call) -> Any:
    if not call.posted:
        return {"status": "failed"}
    _table(call, {})
    return {"status": "done"}


def find_references(call: Call) -> Any:
    """Which running tables hold an address."""
    wanted = str(call.body.get("ip", ""))
    if not call.posted or not is_address(wanted):
        return {"status": "failed"}
    address = ipaddress.ip_address(wanted)
    matches = [
        name
        for name, table in call.box.running.tables.items()
        if name and not name.startswith("__") and any(_holds(entry, address) for entry in table)
    ]
    return {"status": "ok", "matches": matches}


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not entry.startswith("!") and address in ipaddress.ip_network(entry, strict=False)


def user_groups(call: Call) -> Any:
    return {
        item["gid"]: {"name": item["name"], "gid": item["gid"]}
        for item in call.box.items("Auth.Group.group").values()
    } or FAILED


ACTIONS: Final[Mapping[str, Handler]] = {
    "firewall/alias/searchItem": search,
    "firewall/alias/getItem": get,
    "firewall/alias/setItem": change,
    "firewall/alias/getAliasUUID": get_uuid,
    "firewall/alias/get": whole,
    "firewall/alias/export": export,
    "firewall/alias/import": bring_in,
    "firewall/alias/listCategories": list_categories,
    "firewall/alias/listNetworkAliases": list_networks,
    "firewall/alias/listCountries": list_countries,
    "firewall/alias/listUserGroups": user_groups,
    "firewall/alias/getGeoIP": geoip,
    "firewall/alias/getTableSize": table_size,
    "firewall/alias/reconfigure": reconfigure,
    "firewall/alias_util/aliases": table_names,
    "firewall/alias_util/list": table_entries,
    "firewall/alias_util/add": add_address,
    "firewall/alias_util/delete": delete_address,
    "firewall/alias_util/flush": flush_table,
    "firewall/alias_util/findReferences": find_references,
}
