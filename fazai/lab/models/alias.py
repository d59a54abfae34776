"""Aliases: their names and contents, who uses them, and the tables they become."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import ConfigEdit, Item
from fazai.lab.engine.fieldtypes import is_hostname, is_ip_address, is_ip_network
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import ALIASES, alias_type, alias_uuid, builtin_aliases, port_names
from fazai.lab.engine.schema import ItemModel
from fazai.lab.models.rules import META

# collection -> fields in which rules name aliases
REFERENCES: Final = {path: names for path, names in META.items() if names}
COUNTERS: Final = tuple(
    f"{way}_{verdict}_{unit}" for way in ("in", "out") for verdict in ("block", "pass") for unit in "pb"
)
NAME_TEXT: Final = (
    "The name must start with a letter or single underscore, be less than 32 characters and only consist of "
    "alphanumeric characters or underscores."
)
_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,30}\Z")
_PARTIAL_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){0,5}\Z")


def _check_name(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    name = item["name"]
    if not name:
        return
    if not _NAME.match(name):
        yield "name", NAME_TEXT
    elif name.lower() in box.catalogue.options["reserved_names"]:
        # not filled in by the product, either
        yield "name", 'The name cannot be the internally reserved keyword "%s".'
    elif alias_uuid(box, name) not in (None, uuid):
        yield "name", "An alias with this name already exists."


def _is_address_range(text: str) -> bool:
    first, dash, last = text.partition("-")
    return bool(dash) and is_ip_address(first) and is_ip_address(last)


def _is_host_entry(box: Box, text: str) -> bool:
    bare = text.removeprefix("!")
    if alias_type(box, bare) or _is_address_range(bare) or is_ip_address(bare):
        return True
    return is_hostname(bare) and not re.fullmatch(r"[\d.]+", bare)


def _is_net(box: Box, text: str) -> bool:
    bare = text.removeprefix("!")
    if alias_type(box, bare) or is_ip_address(bare) or is_ip_network(bare) or _is_address_range(bare):
        return True
    address, slash, mask = bare.partition("/")
    return bool(slash) and is_ip_address(address, "4") and is_ip_address(mask, "4")


def _is_port_entry(box: Box, text: str) -> bool:
    if alias_type(box, text) == "port":
        return True
    parts = text.split(":")
    return len(parts) <= 2 and all(
        (part.isdigit() and 1 <= int(part) <= 65535) or part in port_names(box) for part in parts
    )


ENTRY_CHECKS: Final = {
    # type: (is an entry right?, what is said when it is not)
    "host": (_is_host_entry, "a valid hostname, IP address or range"),
    "network": (_is_net, "a network"),
    "port": (_is_port_entry, "a valid port number"),
    "geoip": (lambda box, text: text in box.catalogue.options["country_names"], "a valid country code"),
    "mac": (lambda box, text: bool(_PARTIAL_MAC.match(text)), "a valid (partial) MAC address"),
    "networkgroup": (lambda box, text: bool(alias_type(box, text)), "a valid alias"),
    "asn": (lambda box, text: text.isdigit() and 1 <= int(text) <= 4294967296, "a valid ASN"),
    "authgroup": (
        lambda box, text: any(row.get("gid") == text for row in box.items("Auth.Group.group").values()),
        "a valid group id",
    ),
    "dynipv6host": (
        lambda box, text: text.startswith("::") and is_ip_address(text, "6"),
        "a valid partial ipv6 address definition (e.g. ::1000)",
    ),
}


def _check_content(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    found = ENTRY_CHECKS.get(item["type"])
    if found is None or not item["content"]:
        return
    right, text = found
    for entry in item["content"].split("\n"):
        if entry != item["name"] and not right(box, entry):
            yield "content", f'Entry "{entry}" is not {text}.'


def _drop_duplicates(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Store the same entry once."""
    lines = new["content"].split("\n")
    if all(lines):
        new["content"] = "\n".join(dict.fromkeys(lines))


def _rename_users(call: ActionCall, edit: ConfigEdit, uuid: str, old: Item, new: Item) -> None:
    """Write a new name into everything that uses the alias."""
    if not old["name"] or old["name"] == new["name"] or uuid not in call.box.items(ALIASES):
        return
    for key, item in call.box.items(ALIASES).items():
        lines = item["content"].split("\n")
        if key != uuid and old["name"] in lines:
            content = "\n".join(new["name"] if line == old["name"] else line for line in lines)
            edit.put(ALIASES, key, {**item, "content": content})
    for path, names in REFERENCES.items():
        for key, item in call.box.items(path).items():
            changed = {}
            for name in names:
                parts = item.get(name, "").split(",")
                if old["name"] in parts:
                    changed[name] = ",".join(new["name"] if part == old["name"] else part for part in parts)
            if changed:
                edit.put(path, key, {**item, **changed})


def _find_alias_users(box: Box, name: str, uuid: str) -> Iterator[str]:
    for path, names in REFERENCES.items():
        model = box.catalogue.items[path]
        mount = box.catalogue.models[model.model].mount
        for index, item in enumerate(box.items(path).values()):
            for field in names:
                if name in item.get(field, "").split(","):
                    yield f"{mount}.{model.inner}.{index}/{field}"
    for key, item in box.items(ALIASES).items():
        if key != uuid and name in item["content"].split("\n"):
            yield f"aliases.alias.{key}"


def _refuse_used_alias(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    users = "".join(f"\n[{user}] " for user in _find_alias_users(box, item["name"], uuid))
    if users:
        raise UserError(f"Cannot delete alias {item['name']}. Currently in use by {users}", "Alias in use")


# reading


def content_map(box: Box, uuid: str, item: Item | None) -> dict[str, dict[str, Any]]:
    """Return an alias' entries, mixed with all other aliases as a get shows them."""
    known = {other["name"]: other["description"] for other in box.items(ALIASES).values()}
    known |= {name: row["description"] for name, row in builtin_aliases(box).items()}
    body: dict[str, dict[str, Any]] = {}
    if item is not None:
        for entry in item["content"].split("\n"):
            body[entry] = {"value": entry, "selected": 1}
            if entry in known or not uuid:
                body[entry]["description"] = known.get(entry, "")
    for name, description in known.items():
        body.setdefault(name, {"selected": 0, "value": name, "description": description})
    return body


def builtin_item(box: Box, name: str) -> Item | None:
    """Return a built-in alias as if it were stored."""
    row = builtin_aliases(box).get(name)
    if row is None:
        return None
    blank = dict.fromkeys(box.catalogue.items[ALIASES].blank(), "")
    return {**blank, "enabled": "1", "name": name, **row}


def table_stats(box: Box, name: str) -> dict[str, str]:
    """Return the counters of the running table; none for an alias that no table was made of yet."""
    table = box.running.tables.get(name)
    if table is None:
        return {}
    return {"current_items": str(len(table)), **dict.fromkeys(COUNTERS, "0")}


def _compute_alias(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    blank = {field.name: "" for field in model.fields if field.volatile}
    return {**blank, **table_stats(box, item["name"]), "content": item["content"]}


def _add_categories(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    row["categories_uuid"] = item["categories"].split(",") if item["categories"] else []


# running


def make_tables(box: Box) -> dict[str, dict[str, None]]:
    """Return the pf tables of the stored aliases; names are not resolved, lists not fetched."""
    stored = {item["name"]: item for item in box.items(ALIASES).values() if item["enabled"] == "1"}
    old = box.running.tables
    result: dict[str, dict[str, None]] = {name: old.get(name, {}) for name in builtin_aliases(box)}
    for name, item in box.items("interfaces").items():
        if item.get("ipaddr") and f"__{name}_network" in result:
            network = ipaddress.ip_network(f"{item['ipaddr']}/{item['subnet']}", strict=False)
            result[f"__{name}_network"] = {str(network): None}
    for name, item in stored.items():
        if item["type"] == "external":
            result[name] = old.get(name, {})
        elif item["type"] != "port":
            result[name] = dict.fromkeys(_table_entries(name, stored, result, set()))
    return result


def _table_entries(
    name: str, stored: Mapping[str, Item], made: Mapping[str, dict[str, None]], seen: set[str]
) -> Iterator[str]:
    if name in seen:
        return
    seen.add(name)
    item = stored.get(name)
    if item is None:
        yield from made.get(name, {})
        return
    for entry in item["content"].split("\n"):
        if entry in stored or entry in made:
            yield from _table_entries(entry, stored, made, seen)
        elif is_ip_address(entry.removeprefix("!")) or is_ip_network(entry.removeprefix("!")):
            yield entry
        elif _is_address_range(entry):
            first, _, last = entry.partition("-")
            yield from _range_networks(first, last)


def _range_networks(first: str, last: str) -> Iterator[str]:
    """Yield a range as the fewest networks; single addresses without a prefix length."""
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    if low.version != high.version or int(low) > int(high):
        return
    for network in ipaddress.summarize_address_range(low, high):
        yield str(network.network_address) if network.num_addresses == 1 else str(network)


HOOKS: Final = ModelHooks(
    checks={"alias_name": _check_name, "alias_content": _check_content},
    guards={"alias_unused": _refuse_used_alias},
    collections={
        ALIASES: CollectionHooks(
            computed=_compute_alias,
            version=lambda box: box.running.tables,
            add=_add_categories,
            before=(_drop_duplicates,),
            after=(_rename_users,),
        )
    },
)
