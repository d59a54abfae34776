"""firewall/filter, source_nat, one_to_one, npt, d_nat, group: what is not the generic verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fazai.lab.actions.aliases import count_categories, refresh_tables
from fazai.lab.box import UNEXPECTED, ActionCall, Box, Handler, UserError, posted_only
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooks import HOOKS
from fazai.lab.engine.names import (
    ALIASES,
    GROUPS,
    builtin_aliases,
    interface_name,
    natural_key,
    network_names,
    port_names,
)
from fazai.lab.engine.schema import ItemModel, read_json
from fazai.lab.engine.search import SearchRow, grid_answer, recordset_answer
from fazai.lab.engine.sources import SOURCES
from fazai.lab.engine.verbs import FAILED, get_item, rows_of
from fazai.lab.live.flows import count_rules
from fazai.lab.models.rules import DNAT, NPT, ONE_TO_ONE, RULES, SOURCE_NAT, order_of

COLLECTIONS: Final = {
    "firewall/filter": RULES,
    "firewall/source_nat": SOURCE_NAT,
    "firewall/one_to_one": ONE_TO_ONE,
    "firewall/npt": NPT,
    "firewall/d_nat": DNAT,
}
BUILTIN_GROUPS: Final = {
    "enc0": "IPsec encapsulation",
    "openvpn": "OpenVPN (Group)",
    "wireguard": "WireGuard (Group)",
}


def rule_model(call: ActionCall) -> ItemModel:
    """Return the model of the rules that the called controller keeps."""
    return call.box.catalogue.items[COLLECTIONS[call.endpoint.controller]]


def automatic_rules(box: Box, name: str) -> list[SearchRow]:
    """Return the rules that the product makes itself; in 26.1 those of the factory are among them."""
    legacy = name == "filter" and box.settings.has_legacy_rules

    def build() -> list[SearchRow]:
        rows = read_json("automatic.json")
        found = rows[name] + (rows["factory 26.1"] if legacy else [])
        return [SearchRow(row, [natural_key(row["sort_order"])]) for row in found]

    return box.derived(f"automatic {name}", (), build)


def _matches_interface(box: Box, interface: str) -> Callable[[SearchRow], bool]:
    """Return a filter: rules of an interface, its groups, and floating ones; for "" floating ones alone."""
    label = interface_name(box, interface) if interface else ""
    groups = box.items(GROUPS).values() if interface else ()
    names = {interface} | {group["ifname"] for group in groups if interface in group["members"].split(",")}

    def wanted(row: SearchRow) -> bool:
        on = row.data.get("interface", "")
        if row.data.get("is_automatic"):
            return on in ("", label)
        parts = on.split(",") if on else []
        floating = row.data["prio_group"] == "200000"
        return (floating and (not interface or not parts or interface in parts)) or (
            len(parts) == 1 and parts[0] in names
        )

    return wanted


def search_rules(call: ActionCall) -> Any:
    """List the rules, with the automatic ones mixed in."""
    box = call.box
    rows = automatic_rules(box, "filter") + rows_of(box, rule_model(call))
    interface, categories = call.argument("interface"), call.argument("category")
    if isinstance(interface, str) and interface != "__any":
        wanted = _matches_interface(box, "" if interface == "__floating" else interface)
        rows = [row for row in rows if wanted(row)]
    if isinstance(categories, list) and categories:
        rows = [row for row in rows if set(categories) & set(str(row.data.get("categories", "")).split(","))]
    counters = count_rules(box) if call.argument("show_all") not in (None, "", "0", False) else {}
    rows = [
        SearchRow({**row.data, **counters[uuid]}, row.key) if (uuid := row.data["uuid"]) in counters else row
        for row in rows
    ]
    return recordset_answer(call, rows)


def search_source_nat(call: ActionCall) -> Any:
    """List manual rules only where they are used: in the modes hybrid and advanced."""
    box = call.box
    mode = box.config.settings("Firewall.Filter").get("general.snat_mode", "automatic")
    rows = rows_of(box, rule_model(call)) if mode in ("hybrid", "advanced") else []
    if mode in ("automatic", "hybrid"):
        rows = rows + automatic_rules(box, "source_nat")
    return recordset_answer(call, rows)


def search_d_nat(call: ActionCall) -> Any:
    """List the rules; the automatic ones come first and are not counted."""
    body = grid_answer(call, rows_of(call.box, rule_model(call)))
    return {**body, "rows": [row.raw for row in automatic_rules(call.box, "d_nat")] + body["rows"]}


def get_rule(call: ActionCall) -> Any:
    """Show a rule; with fetchmode=copy its sequence is the next free one, as a number."""
    model = rule_model(call)
    body = get_item(call, model)
    if body and call.query.get("fetchmode") == "copy" and call.param(0) is not None:
        for field in model.fields:
            if field.type in HOOKS.defaults and field.name == "sequence":
                body[model.root]["sequence"] = int(HOOKS.defaults[field.type](call.box, model, field))
    return body


@posted_only(otherwise={"status": "error"})
def apply_rules(call: ActionCall) -> Any:
    """Load the rules; up to 26.1 the aliases with them, since 26.7 they have their own reconfigure."""
    call.box.apply("filter")
    if call.box.settings.release.startswith("26.1"):
        refresh_tables(call)
    return {"status": "OK\n\n"}


def toggle_d_nat(call: ActionCall) -> Any:
    """Toggle `disabled`: 1, and anything else but 0, disables."""
    model, uuid, wanted = rule_model(call), call.param(0) or "", call.param(1)
    item = call.box.items(model.path).get(uuid)
    if not call.posted or item is None:
        return FAILED
    old = item.get("disabled", "0")
    new = ("0" if old == "1" else "1") if wanted is None else "0" if wanted == "0" else "1"
    if new != old:
        call.put(model.path, uuid, {**item, "disabled": new})
    return {"result": "Disabled" if new == "1" else "Enabled"}


def toggle_log(call: ActionCall) -> Any:
    model, uuid = rule_model(call), call.param(0) or ""
    item = call.box.items(model.path).get(uuid)
    if not call.posted or item is None:
        return {"status": "error"}
    log = "1" if call.param(1) not in ("0", "") else "0"
    if item.get("log") != log:
        call.put(model.path, uuid, {**item, "log": log})
    return {"status": "ok"}


@posted_only(otherwise={"status": "error"})
def move_before(call: ActionCall) -> Any:
    """Move a rule half way to the one before its target, within a group; those behind it make room."""
    box, model = call.box, rule_model(call)
    items = box.items(model.path)
    moved, target = items.get(call.param(0) or ""), items.get(call.param(1) or "")
    if moved is None or target is None or order_of(box, moved)[0] != order_of(box, target)[0]:
        raise UserError(UNEXPECTED, "Filter", "warning")
    group = order_of(box, target)[0]
    uuid = call.param(0) or ""
    peers = [(key, item) for key, item in items.items() if order_of(box, item)[0] == group and key != uuid]
    peers.sort(key=lambda entry: int(entry[1]["sequence"] or 0))
    at = next(index for index, (key, _) in enumerate(peers) if key == call.param(1))
    before = int(peers[at - 1][1]["sequence"]) if at else 0
    sequence = before + max(int(target["sequence"]) - before, 2) // 2
    edit = box.config.edit()
    edit.put(model.path, uuid, {**moved, "sequence": str(sequence)})
    for key, item in peers[at:]:
        if int(item["sequence"]) > sequence:
            break
        sequence += 1
        edit.put(model.path, key, {**item, "sequence": str(sequence)})
    call.save(edit)
    return {"status": "ok"}


# choices that the pages offer


def list_rule_interfaces(call: ActionCall) -> Any:
    def section(label: str, icon: str, kind: str, names: Mapping[str, str]) -> dict[str, Any]:
        items = [{"value": name, "label": text, "type": kind} for name, text in names.items()]
        return {"label": label, "icon": icon, "items": items}

    box = call.box
    interfaces = SOURCES["interfaces"][1](box)
    groups = {row["ifname"]: row["ifname"] for row in box.running.items("group", GROUPS).values()}
    return {
        "floating": section(
            "Floating", "fa fa-layer-group fa-fw text-primary", "floating", {"__floating": "Floating"}
        ),
        "groups": section("Groups", "fa fa-sitemap fa-fw text-warning", "group", groups),
        "interfaces": section("Interfaces", "fa fa-ethernet fa-fw text-info", "interface", interfaces),
        "any": section("Any", "fa fa-globe-europe fa-fw", "any", {"__any": "All rules"}),
    }


def _alias_options(box: Box, *, ports: bool) -> dict[str, str]:
    names = [] if ports else [name for name in builtin_aliases(box) if not name.startswith("__")]
    names += [item["name"] for item in box.items(ALIASES).values() if (item["type"] == "port") is ports]
    return {name: name for name in sorted(names, key=natural_key)}


def list_network_options(call: ActionCall) -> Any:
    box = call.box
    known = network_names(box)
    order = sorted(
        (name for name in known if name not in ("any", "(self)")), key=lambda name: natural_key(known[name])
    )
    return {
        "single": {"label": "Single host or Network"},
        "aliases": {"label": "Aliases", "items": _alias_options(box, ports=False)},
        "networks": {"label": "Networks", "items": {name: known[name] for name in ("any", "(self)", *order)}},
    }


def list_port_options(call: ActionCall) -> Any:
    return {
        "single": {"label": "Single port or range"},
        "aliases": {"label": "Aliases", "items": _alias_options(call.box, ports=True)},
        "ports": {"label": "Ports", "items": {"": "any", **port_names(call.box)}},
    }


def list_rule_categories(call: ActionCall) -> Any:
    return count_categories(call, (COLLECTIONS[call.endpoint.controller],))


def applied_rules(box: Box) -> list[Item]:
    """Return the rules that run, in their order."""
    return sorted(box.running.items("filter", RULES).values(), key=lambda item: order_of(box, item)[1])


def search_groups(call: ActionCall) -> Any:
    rows = list(rows_of(call.box, call.model(GROUPS)))
    for name, text in BUILTIN_GROUPS.items():
        row = {"uuid": name, "ifname": name, "members": "", "nogroup": "", "sequence": "10", "descr": text}
        rows.append(SearchRow(row, [natural_key(name)]))
    rows.sort(key=lambda row: row.key)
    return grid_answer(call, rows)


def _for_all_collections(action: str, handler: Handler) -> dict[str, Handler]:
    return {f"{controller}/{action}": handler for controller in COLLECTIONS}


ACTIONS: Final[Mapping[str, Handler]] = {
    **_for_all_collections("apply", apply_rules),
    **_for_all_collections("getRule", get_rule),
    **_for_all_collections("toggleRuleLog", toggle_log),
    **_for_all_collections("moveRuleBefore", move_before),
    **_for_all_collections("listCategories", list_rule_categories),
    **_for_all_collections("listNetworkSelectOptions", list_network_options),
    **_for_all_collections("listPortSelectOptions", list_port_options),
    "firewall/filter/searchRule": search_rules,
    "firewall/source_nat/searchRule": search_source_nat,
    "firewall/d_nat/searchRule": search_d_nat,
    "firewall/d_nat/toggleRule": toggle_d_nat,
    "firewall/filter/getInterfaceList": list_rule_interfaces,
    "firewall/group/searchItem": search_groups,
}
