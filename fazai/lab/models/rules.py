"""Rules and NAT: order, groups, checks across fields, and what a search shows beside the stored fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import Item
from fazai.lab.engine.fieldtypes import is_ip_address, is_ip_network
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.names import ALIASES, CATEGORIES, GROUPS, INTERFACES, builtin_aliases, network_names
from fazai.lab.engine.schema import Field, ItemModel

RULES: Final = "Firewall.Filter.rules.rule"
SOURCE_NAT: Final = "Firewall.Filter.snatrules.rule"
ONE_TO_ONE: Final = "Firewall.Filter.onetoone.rule"
NPT: Final = "Firewall.Filter.npt.rule"
DNAT: Final = "Firewall.DNat.rule"

_NETS: Final = ("source_net", "destination_net")
_SIDES: Final = ("source_net", "source_port", "destination_net", "destination_port")
# collection -> fields in which a rule may name an alias
META: Final[Mapping[str, tuple[str, ...]]] = {
    RULES: _SIDES,
    SOURCE_NAT: (*_SIDES, "target", "target_port"),
    ONE_TO_ONE: _NETS,
    NPT: (),
    DNAT: (
        *(f"{side}.{part}" for side in ("source", "destination") for part in ("network", "port")),
        "target",
        "local-port",
    ),
}
WITH_PORTS: Final = ("TCP", "UDP", "TCP/UDP")


def order_of(box: Box, item: Item) -> tuple[str, str]:
    """Return prio_group and sort_order: floating rules, then those of groups, then of one interface."""
    names = [name for name in item.get("interface", "").split(",") if name]
    if len(names) != 1 or item.get("interfacenot") == "1":
        group = 200000
    else:
        uuid = box.index(GROUPS, "ifname").get(names[0])
        group = 400000 if uuid is None else 300000 + int(box.items(GROUPS)[uuid].get("sequence") or 0)
    return str(group), f"{group}.{int(item.get('sequence') or 0):07d}"


def _compute_order(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    if not uuid:
        return {"sort_order": "", "prio_group": ""}
    group, order = order_of(box, item)
    return {"sort_order": order, "prio_group": group}


def describe_names(box: Box, value: str) -> list[dict[str, Any]]:
    """Return what is behind each name in a rule's field."""
    memo: dict[str, list[dict[str, Any]]] = box.derived(
        "alias meta", (ALIASES, INTERFACES), dict, _groups_running(box)
    )
    found = memo.get(value)
    if found is None:
        found = memo[value] = [_name_meta(box, part) for part in value.split(",")]
    return found


def _name_meta(box: Box, name: str) -> dict[str, Any]:
    uuid = box.index(ALIASES, "name").get(name)
    row = box.items(ALIASES)[uuid] if uuid is not None else builtin_aliases(box).get(name)
    if row is None:
        label = network_names(box).get(name, name)
        return {"value": name, "%value": label, "isAlias": False, "description": ""}
    text = f"<strong>{row['description']}</strong><br/>" if row["description"] else ""
    summary = text + "<br/>".join(row.get("content", "").split("\n"))
    return {
        "summary": summary,
        "description": row["description"],
        "value": name,
        "%value": name,
        "isAlias": True,
    }


def category_colors(box: Box, value: str) -> list[dict[str, str]]:
    known = box.items(CATEGORIES)
    return [
        {"color": f"#{known[uuid]['color']}", "name": known[uuid]["name"], "uuid": uuid}
        for uuid in value.split(",")
        if uuid in known
    ]


def _decorate_rule(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    row["category_colors"] = category_colors(box, item.get("categories", ""))
    for name in META[model.path]:
        if item.get(name):
            row[f"alias_meta_{name}"] = describe_names(box, item[name])


def _decorate_dnat(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    _decorate_rule(box, model, uuid, item, row)
    row["prio_group"], row["sort_order"] = order_of(box, item)


def _stamp_item(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Stamp an item of d_nat with who made and changed it."""
    stamp = {
        "username": call.user,
        "time": f"{call.box.clock():.2f}",
        "description": "/api/api.php made changes",
    }
    for part in ("updated",) if uuid in call.box.items(model.path) else ("created", "updated"):
        new.update({f"{part}.{name}": value for name, value in stamp.items()})


# checks


def _check_ports(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for side, title in (("source", "Source"), ("destination", "Destination")):
        if item.get(f"{side}_port") and item.get("protocol", "").upper() not in WITH_PORTS:
            yield f"{side}_port", f"{title} ports are only valid for tcp or udp type rules."


def _check_negation(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for side in ("source", "destination"):
        if item.get(f"{side}_not") == "1" and "," in item.get(f"{side}_net", ""):
            text = f"Inverting {side}s is only allowed for single targets to avoid mis-interpretations"
            yield f"{side}_not", text


def _check_family(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    family = {"inet": "4", "inet6": "6"}.get(item.get("ipprotocol", ""))
    for side, title in (("source", "Source"), ("destination", "Destination")):
        value = item.get(f"{side}_net", "")
        if (
            family
            and (is_ip_address(value) or is_ip_network(value))
            and not (is_ip_address(value, family) or is_ip_network(value, family))
        ):
            yield f"{side}_net", f"{title} address type should match selected TCP/IP protocol version."


def _prefix_length(value: str) -> str:
    """Return the prefix length of a network, of an address the full one; "" for anything else."""
    if is_ip_network(value):
        return value.partition("/")[2]
    return ("128" if ":" in value else "32") if is_ip_address(value) else ""


def _check_binat(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["type"] != "binat":
        return
    if not _prefix_length(item["source_net"]):
        yield "source_net", "For BINAT rules only addresses or subnets are allowed."
    elif _prefix_length(item["source_net"]) != _prefix_length(item["external"]):
        yield "external", "External subnet should match internal subnet."


def _check_prefixes(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if (
        item["source_net"]
        and item["destination_net"]
        and _prefix_length(item["source_net"]) != _prefix_length(item["destination_net"])
    ):
        yield "destination_net", "External subnet should match internal subnet."


def _refuse_used_group(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    users = ""
    for path in (RULES, SOURCE_NAT, ONE_TO_ONE, NPT, DNAT):
        rules = box.catalogue.items[path]
        mount = box.catalogue.models[rules.model].mount
        for key, rule in box.items(path).items():
            if item["ifname"] in rule.get("interface", "").split(","):
                users += f"\n[{mount}.{rules.inner}.{key}] "
    if users:
        raise UserError(f"Cannot delete group. Currently in use by {users}", "Group in use")


def _next_dnat_sequence(box: Box, model: ItemModel, field: Field) -> str:
    highest = max((int(item.get("sequence") or 0) for item in box.items(model.path).values()), default=100)
    return str(min(highest + 100, 999999))


def _groups_running(box: Box) -> object:
    return box.running.applied.get("group")


_LABELLED: Final = (ALIASES, CATEGORIES, INTERFACES, GROUPS)
_PLAIN: Final = CollectionHooks(
    computed=_compute_order, paths=_LABELLED, version=_groups_running, add=_decorate_rule
)

HOOKS: Final = ModelHooks(
    checks={
        "rule_ports": _check_ports,
        "rule_not": _check_negation,
        "rule_family": _check_family,
        "binat": _check_binat,
        "npt_prefixes": _check_prefixes,
    },
    guards={"group_unused": _refuse_used_group},
    defaults={"DNatSequence": _next_dnat_sequence},
    collections={
        **dict.fromkeys((RULES, SOURCE_NAT, ONE_TO_ONE, NPT), _PLAIN),
        DNAT: CollectionHooks(
            paths=_LABELLED, version=_groups_running, add=_decorate_dnat, before=(_stamp_item,)
        ),
    },
)
