"""Options that depend on the configuration: interfaces, gateways, related items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fazai.lab.access import read_privileges
from fazai.lab.box import Box
from fazai.lab.engine.names import (
    ALIASES,
    CATEGORIES,
    GATEWAYS,
    GROUPS,
    INTERFACES,
    builtin_aliases,
    interface_label,
    natural_key,
)
from fazai.lab.engine.schema import Field, Relation

Choices = Mapping[str, Mapping[str, Any]]

NULL_GATEWAYS: Final = {"Null4": "127.0.0.1", "Null6": "::1"}


def _interface_choices(
    box: Box, *, loopback: bool = False, ordered: bool = True
) -> dict[str, dict[str, Any]]:
    labels = {name: interface_label(name, item) for name, item in box.items(INTERFACES).items()}
    if loopback:
        labels["lo0"] = "Loopback"
    names = sorted(labels, key=lambda name: natural_key(labels[name])) if ordered else list(labels)
    return {name: {"value": labels[name]} for name in names}


def _rule_interface_choices(box: Box) -> dict[str, dict[str, Any]]:
    found = _interface_choices(box)
    for group in box.running.items("group", GROUPS).values():
        found[group["ifname"]] = {"value": group["ifname"]}
    return dict(sorted(found.items(), key=lambda entry: natural_key(entry[1]["value"])))


def _gateway_choices(box: Box) -> dict[str, dict[str, Any]]:
    found = dict(NULL_GATEWAYS)
    found |= {item["name"]: item["gateway"] for item in box.items(GATEWAYS).values()}
    return {name: {"value": f"{name} - {found[name]}"} for name in sorted(found)}


def _vlan_parent_choices(box: Box) -> dict[str, dict[str, Any]]:
    labels = {item["if"]: interface_label(name, item) for name, item in box.items(INTERFACES).items()}
    found = {}
    for device, item in box.items("devices").items():
        used = f" [{labels[device]}]" if device in labels else ""
        found[device] = {"value": f"{device} ({item['mac']}){used}"}
    for item in box.items("Interfaces.Vlan.vlan").values():
        found[item["vlanif"]] = {"value": f"{item['vlanif']} (Tag: {item['tag']}, Parent: {item['if']})"}
    return found


def _free_device_choices(box: Box) -> dict[str, dict[str, Any]]:
    used = {item["if"] for item in box.items(INTERFACES).values()}
    return {
        device: {"value": f"{device} ({item['mac']})"}
        for device, item in box.items("devices").items()
        if device not in used
    }


def _category_choices(box: Box) -> dict[str, dict[str, Any]]:
    names = sorted((item["name"] for item in box.items(CATEGORIES).values()), key=natural_key)
    return {name: {"value": name} for name in names}


def _ids_job_choices(box: Box) -> dict[str, dict[str, Any]]:
    jobs = box.items("Cron.jobs.job").items()
    return {uuid: {"value": job["description"]} for uuid, job in jobs if "IDS" in job["origin"]}


def _virtual_ip_choices(box: Box) -> dict[str, dict[str, Any]]:
    return {
        uuid: {"value": f"[{item['subnet']}] {item['descr']} on {item['interface']} (vhid {item['vhid']})"}
        for uuid, item in box.items("Interfaces.Vip.vip").items()
        if item["mode"] == "carp"
    }


def _alias_table_choices(box: Box) -> dict[str, dict[str, Any]]:
    found = {name: name for name in builtin_aliases(box)}
    for uuid, item in box.items(ALIASES).items():
        if item["type"] != "port" and item["enabled"] == "1":
            found[uuid] = item["name"]
    return {key: {"value": found[key]} for key in sorted(found, key=lambda key: natural_key(found[key]))}


_Source = tuple[tuple[str, ...], Callable[[Box], Choices]]


def _items_by(path: str, key: str, label: str) -> _Source:
    """Return a source: the items of a collection, by one field and with another as their label."""
    return (path,), lambda box: {item[key]: {"value": item[label]} for item in box.items(path).values()}


SOURCES: Final[Mapping[str, _Source]] = {
    # name: (collections it depends on, the options)
    "interfaces": ((INTERFACES,), _interface_choices),
    "interfaces_and_loopback": ((INTERFACES,), lambda box: _interface_choices(box, loopback=True)),
    "vip_interfaces": ((INTERFACES,), lambda box: _interface_choices(box, loopback=True, ordered=False)),
    "bridge_members": ((INTERFACES,), lambda box: _interface_choices(box, ordered=False)),
    "rule_interfaces": ((INTERFACES, GROUPS), _rule_interface_choices),
    "gateways": ((GATEWAYS,), _gateway_choices),
    "alias_tables": ((ALIASES, INTERFACES), _alias_table_choices),
    "vlan_parents": ((INTERFACES, "devices", "Interfaces.Vlan.vlan"), _vlan_parent_choices),
    "free_devices": ((INTERFACES, "devices"), _free_device_choices),
    "categories_by_name": ((CATEGORIES,), _category_choices),
    "users": _items_by("Auth.User.user", "uid", "name"),
    "groups": _items_by("Auth.Group.group", "gid", "name"),
    "certificates": _items_by("Trust.Cert.cert", "refid", "descr"),
    "authorities": _items_by("Trust.CA.ca", "refid", "descr"),
    "ids_jobs": (("Cron.jobs.job",), _ids_job_choices),
    "virtual_ips": (("Interfaces.Vip.vip",), _virtual_ip_choices),
    "privileges": (
        (),
        lambda box: {name: {"value": row["name"]} for name, row in read_privileges(box).items()},
    ),
    "none": ((), lambda box: {}),
}


def relation_choices(box: Box, relation: Relation) -> Choices:
    """Return the items of another collection, by uuid."""

    def build() -> Choices:
        labels = {
            uuid: relation.label.format_map(item) for uuid, item in box.items(relation.collection).items()
        }
        order = sorted(labels, key=lambda uuid: natural_key(labels[uuid])) if relation.sort else list(labels)
        return {uuid: {"value": labels[uuid]} for uuid in order}

    return box.derived(f"relation {relation.collection} {relation.label}", (relation.collection,), build)


def choices_of(box: Box, field: Field) -> Choices | None:
    """Return the options of a field, in the order of a get; None for a plain field."""
    if field.relation is not None:
        found = relation_choices(box, field.relation)
    elif field.source:
        paths, build = SOURCES[field.source]
        found = box.derived(
            f"source {field.source}", paths, lambda: build(box), box.running.applied.get("group")
        )
    elif field.options is not None:
        return _fixed_options(box, field)
    else:
        return None
    return {"": {"value": field.none}, **found} if field.none else found


def _fixed_options(box: Box, field: Field) -> Choices:
    options = field.options
    named = options if isinstance(options, str) else ""
    key = f"options {named}" if named else f"options {id(options)}"

    def build() -> Choices:
        raw = box.catalogue.options[named] if named else options
        assert isinstance(raw, dict)
        return {name: entry if isinstance(entry, dict) else {"value": entry} for name, entry in raw.items()}

    return box.derived(key, (), build)
