"""Options that depend on the configuration: interfaces, gateways, related items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fazai.lab.access import read_privileges
from fazai.lab.box import Box
from fazai.lab.engine.names import (
    ALIASES,
    CATEGORIES,
    GATEWAY_GROUPS,
    GATEWAYS,
    GROUPS,
    INTERFACES,
    builtin_aliases,
    interface_label,
    natural_key,
)
from fazai.lab.engine.schema import Field, Relation

Choices = Mapping[str, Mapping[str, Any]]

_LAGGS: Final = "Interfaces.Lagg.lagg"
NULL_GATEWAYS: Final = {"Null4": "127.0.0.1", "Null6": "::1"}


def _sorted_labels(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(labels.items(), key=lambda entry: natural_key(entry[1])))


def _interface_labels(box: Box, *, loopback: bool = False, ordered: bool = True) -> Mapping[str, str]:
    labels = {name: interface_label(name, item) for name, item in box.items(INTERFACES).items()}
    if loopback:
        labels["lo0"] = "Loopback"
    return _sorted_labels(labels) if ordered else labels


def _rule_interface_labels(box: Box) -> Mapping[str, str]:
    groups = {group["ifname"]: group["ifname"] for group in box.running.items("group", GROUPS).values()}
    return _sorted_labels({**_interface_labels(box), **groups})


def _gateway_labels(box: Box) -> Mapping[str, str]:
    found = NULL_GATEWAYS | {item["name"]: item["gateway"] for item in box.items(GATEWAYS).values()}
    return {name: f"{name} - {found[name]}" for name in sorted(found)}


def _plain_gateway_labels(box: Box) -> Mapping[str, str]:
    return {name: label for name, label in _gateway_labels(box).items() if name not in NULL_GATEWAYS}


def _rule_gateway_labels(box: Box) -> Mapping[str, str]:
    groups = {item["name"]: item["name"] for item in box.items(GATEWAY_GROUPS).values()}
    return {**_gateway_labels(box), **groups}


def _vlan_parent_labels(box: Box) -> Mapping[str, str]:
    labels = {item["if"]: interface_label(name, item) for name, item in box.items(INTERFACES).items()}
    found = {}
    for device, item in box.items("devices").items():
        used = f" [{labels[device]}]" if device in labels else ""
        found[device] = f"{device} ({item['mac']}){used}"
    for item in box.running.items("lagg", _LAGGS).values():  # devices that exist by now
        found[item["laggif"]] = f"{item['laggif']} ({item['descr']})"
    for item in box.items("Interfaces.Vlan.vlan").values():
        found[item["vlanif"]] = f"{item['vlanif']} (Tag: {item['tag']}, Parent: {item['if']})"
    return found


def _free_device_labels(box: Box) -> Mapping[str, str]:
    used = {item["if"] for item in box.items(INTERFACES).values()}
    devices = box.items("devices").items()
    return {device: f"{device} ({item['mac']})" for device, item in devices if device not in used}


def _virtual_ip_labels(box: Box) -> Mapping[str, str]:
    return {
        uuid: f"[{item['subnet']}] {item['descr']} on {item['interface']} (vhid {item['vhid']})"
        for uuid, item in box.items("Interfaces.Vip.vip").items()
        if item["mode"] == "carp"
    }


def _alias_table_labels(box: Box) -> Mapping[str, str]:
    found = {name: name for name in builtin_aliases(box)}
    for uuid, item in box.items(ALIASES).items():
        if item["type"] != "port" and item["enabled"] == "1":
            found[uuid] = item["name"]
    return _sorted_labels(found)


def _openvpn_key_labels(box: Box) -> Mapping[str, str]:
    modes = _labels_of(box, "OpenVPN.StaticKeys.StaticKey", "mode")
    keys = box.items("OpenVPN.StaticKeys.StaticKey")
    return {uuid: f"{key['description']} [{modes.get(key['mode'], '')}]" for uuid, key in keys.items()}


def _openvpn_server_labels(box: Box) -> Mapping[str, str]:
    protocols = _labels_of(box, "OpenVPN.Instances.Instance", "proto")
    return {
        uuid: f"{item['description']} ({item['port'] or 1194} / {protocols.get(item['proto'], '')})"
        for uuid, item in box.items("OpenVPN.Instances.Instance").items()
        if item["role"] == "server"
    }


def _ipsec_pool_labels(box: Box) -> Mapping[str, str]:
    names = {uuid: pool["name"] for uuid, pool in box.items("IPsec.Swanctl.Pools.Pool").items()}
    return {**_sorted_labels(names), "radius": "radius"}


def _ipsec_child_labels(box: Box) -> Mapping[str, str]:
    connections = box.items("IPsec.Swanctl.Connections.Connection")
    names = {uuid: item["description"] for uuid, item in connections.items()}
    children = box.items("IPsec.Swanctl.children.child").items()
    return _sorted_labels(
        {uuid: f"{names.get(child['connection'], '')} - {child['description']}" for uuid, child in children}
    )


def _labels_of(box: Box, path: str, name: str) -> Mapping[str, str]:
    """Return the labels of a field's fixed options."""
    options = box.catalogue.items[path].by_name()[name].options
    assert isinstance(options, dict)
    return options


_Source = tuple[tuple[str, ...], Callable[[Box], Mapping[str, str]]]


def _items_by(path: str, key: str, label: str) -> _Source:
    """Return a source: the items of a collection, by one field and with another as their label."""
    return (path,), lambda box: {item[key]: item[label] for item in box.items(path).values()}


SOURCES: Final[Mapping[str, _Source]] = {
    # name: (collections it depends on, the options with their labels)
    "interfaces": ((INTERFACES,), _interface_labels),
    "interfaces_and_loopback": ((INTERFACES,), lambda box: _interface_labels(box, loopback=True)),
    "vip_interfaces": ((INTERFACES,), lambda box: _interface_labels(box, loopback=True, ordered=False)),
    "bridge_members": ((INTERFACES,), lambda box: _interface_labels(box, ordered=False)),
    "rule_interfaces": ((INTERFACES, GROUPS), _rule_interface_labels),
    "gateways": ((GATEWAYS,), _gateway_labels),
    "plain_gateways": ((GATEWAYS,), _plain_gateway_labels),
    "gateways_and_groups": ((GATEWAYS, GATEWAY_GROUPS), _rule_gateway_labels),
    "alias_tables": ((ALIASES, INTERFACES), _alias_table_labels),
    "vlan_parents": ((INTERFACES, "devices", _LAGGS, "Interfaces.Vlan.vlan"), _vlan_parent_labels),
    "free_devices": ((INTERFACES, "devices"), _free_device_labels),
    "categories_by_name": (
        (CATEGORIES,),
        lambda box: _sorted_labels({item["name"]: item["name"] for item in box.items(CATEGORIES).values()}),
    ),
    "users": _items_by("Auth.User.user", "uid", "name"),
    "groups": _items_by("Auth.Group.group", "gid", "name"),
    "certificates": _items_by("Trust.Cert.cert", "refid", "descr"),
    "authorities": _items_by("Trust.CA.ca", "refid", "descr"),
    "auth_servers": ((), lambda box: {"Local Database": "Local Database"}),
    "ipsec_pools": (("IPsec.Swanctl.Pools.Pool",), _ipsec_pool_labels),
    "ipsec_children": (
        ("IPsec.Swanctl.Connections.Connection", "IPsec.Swanctl.children.child"),
        _ipsec_child_labels,
    ),
    "openvpn_keys": (("OpenVPN.StaticKeys.StaticKey",), _openvpn_key_labels),
    "openvpn_servers": (("OpenVPN.Instances.Instance",), _openvpn_server_labels),
    "ids_jobs": (
        ("Cron.jobs.job",),
        lambda box: {
            uuid: job["description"]
            for uuid, job in box.items("Cron.jobs.job").items()
            if "IDS" in job["origin"]
        },
    ),
    "virtual_ips": (("Interfaces.Vip.vip",), _virtual_ip_labels),
    "privileges": ((), lambda box: {name: row["name"] for name, row in read_privileges(box).items()}),
    "none": ((), lambda box: {}),
}

#: The service whose running state the options of a source depend on, where it is not that of the groups.
_RUNNING: Final = {"vlan_parents": "lagg"}


def _as_choices(labels: Mapping[str, str]) -> Choices:
    return {key: {"value": label} for key, label in labels.items()}


def relation_choices(box: Box, relation: Relation) -> Choices:
    """Return the items of another collection, by uuid."""

    def build() -> Choices:
        labels = {}
        for path in relation.collections:
            model = box.catalogue.items[path]
            shown = [field for field in model.fields if f"{{%{field.name}}}" in relation.label]
            for uuid, item in box.items(path).items():
                labels[uuid] = relation.label.format_map(_with_labels(box, shown, item))
        return _as_choices(_sorted_labels(labels) if relation.sort else labels)

    paths = (*relation.collections, *((INTERFACES,) if "{%interface}" in relation.label else ()))
    return box.derived(f"relation {' '.join(relation.collections)} {relation.label}", paths, build)


def _with_labels(box: Box, shown: Iterable[Field], item: Mapping[str, str]) -> Mapping[str, str]:
    """Return an item with the labels of some of its fields, as `%name`."""
    labels = {}
    for field in shown:
        choices = choices_of(box, field) or {}
        labels[f"%{field.name}"] = choices.get(item[field.name], {}).get("value", item[field.name])
    return {**item, **labels}


def choices_of(box: Box, field: Field) -> Choices | None:
    """Return the options of a field, in the order of a get; None for a plain field."""
    if field.relation is not None:
        found = relation_choices(box, field.relation)
    elif field.source:
        paths, build = SOURCES[field.source]
        runs = box.running.applied.get(_RUNNING.get(field.source, "group"))
        found = box.derived(f"source {field.source}", paths, lambda: _as_choices(build(box)), runs)
    elif field.options is not None:
        return _fixed_options(box, field)
    else:
        return None
    return {"": {"value": field.none}, **found} if field.none else found


def _fixed_options(box: Box, field: Field) -> Choices:
    options = field.options
    named = options if isinstance(options, str) else ""
    key = f"options {named} {field.required}" if named else f"options {id(options)}"

    def build() -> Choices:
        raw = box.catalogue.options[named] if named else options
        assert isinstance(raw, dict)
        return {
            name: entry if isinstance(entry, dict) else {"value": entry}
            for name, entry in raw.items()
            if name or not (named and field.required)  # who must choose is not offered nothing
        }

    return box.derived(key, (), build)
