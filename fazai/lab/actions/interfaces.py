"""interfaces/*: VLANs, virtual addresses, assignments, the overview."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler, UserError
from fazai.lab.engine.config import Item, stored_text
from fazai.lab.engine.names import INTERFACES, interface_label
from fazai.lab.engine.schema import read_json
from fazai.lab.engine.search import grid_answer, make_rows, recordset_answer
from fazai.lab.engine.verbs import FAILED, delete_each, get_item, get_model, posted_body
from fazai.lab.models.devices_links import made_devices
from fazai.lab.models.interfaces import VIPS, VLANS, vlan_devices
from fazai.lab.server.wire import make_json_reply

ICON: Final = "fa fa-plug text-success"


# virtual addresses


def get_vip(call: ActionCall) -> Any:
    """Show the two stored fields of a virtual address as one."""
    body = get_item(call, call.model(VIPS))
    if body:
        del body["vip"]["subnet"], body["vip"]["subnet_bits"]
        body["vip"]["network"] = body["vip"]["address"]
    return body


def get_unused_vhid(call: ActionCall) -> Any:
    used = {item["vhid"] for item in call.box.items(VIPS).values()}
    free = next((number for number in range(1, 256) if str(number) not in used), None)
    return {"vhid": free, "status": "ok" if free else "not_found"}


# assignments


def _list_devices(box: Box) -> dict[str, dict[str, Any]]:
    found = {
        device: {"value": f"{device} ({item['mac']})", "optgroup": "hardware", "data": {"icon": ICON}}
        for device, item in box.items("devices").items()
    }
    for item in box.items(VLANS).values():
        text = f"{item['vlanif']} {item['descr']} (Parent: {item['if']}, Tag: {item['tag']})"
        found[item["vlanif"]] = {"value": text, "optgroup": "vlan", "data": {"icon": ICON}}
    for device, (group, item) in made_devices(box).items():
        label = item.get("description") or item.get("descr", "")
        found[device] = {"value": f"{device} ({label})", "optgroup": group, "data": {"icon": ICON}}
    return found


def _assignment_row(box: Box, name: str, item: Item) -> dict[str, Any]:
    device = _list_devices(box).get(item["if"], {"value": item["if"], "optgroup": ""})
    row = {"uuid": name, "descr": item["descr"]}
    if interface_label(name, item) != item["descr"]:
        row["%descr"] = interface_label(name, item)
    return row | {
        "identifier": name,
        "icon": ICON,
        "optgroup": device["optgroup"],
        "if": item["if"],
        "%if": device["value"],
        "lock": item["lock"],
    }


def search_assignments(call: ActionCall) -> Any:
    rows = [_assignment_row(call.box, name, item) for name, item in call.box.items(INTERFACES).items()]
    return grid_answer(call, make_rows(rows))


def get_assignment(call: ActionCall) -> Any:
    box, name = call.box, call.param(0)
    item = box.items(INTERFACES).get(name or "")
    if name is None:
        body: dict[str, Any] = {"descr": "", "identifier": "", "icon": "", "optgroup": "", "lock": "1"}
        device = ""
    elif item is None:
        return []
    else:
        body = _assignment_row(box, name, item)
        del body["uuid"], body["%if"]
        device = item["if"]
    body["if"] = {
        key: {**choice, "selected": int(key == device)} for key, choice in _list_devices(box).items()
    }
    return {"interface": body}


def _assignment_problems(call: ActionCall, name: str, item: Item) -> dict[str, str]:
    problems = {}
    used = {other["if"] for key, other in call.box.items(INTERFACES).items() if key != name}
    if not item["if"]:
        problems["interface.if"] = "A value is required."
    elif item["if"] not in _list_devices(call.box):
        problems["interface.if"] = "Option [] not in list."
    elif item["if"] in used:
        problems["interface.if"] = "This device is already assigned."
    if not re.fullmatch(r"[a-zA-Z0-9_]*", item["descr"]):
        problems["interface.descr"] = (
            "The interface description may only consist of the characters a-zA-Z0-9_."
        )
    return problems


def add_assignment(call: ActionCall) -> Any:
    """Assign a device under the next name; a new assignment is locked."""
    sent = posted_body(call, "interface")
    if sent is None:
        return FAILED
    names = call.box.items(INTERFACES)
    number = next(number for number in range(1, len(names) + 2) if f"opt{number}" not in names)
    item = {
        "enable": "1",
        "descr": stored_text(sent.get("descr")),
        "if": stored_text(sent.get("if")),
        "lock": "1",
    }
    return _store_assignment(call, f"opt{number}", item) or {"result": "saved", "uuid": f"opt{number}"}


def set_assignment(call: ActionCall) -> Any:
    name = call.param(0) or ""
    item = call.box.items(INTERFACES).get(name)
    sent = posted_body(call, "interface")
    if sent is None or item is None:
        return FAILED
    fresh = {**item, **{key: stored_text(sent[key]) for key in ("descr", "if", "lock") if key in sent}}
    return _store_assignment(call, name, fresh) or {"result": "saved"}


def _store_assignment(call: ActionCall, name: str, item: Item) -> dict[str, Any] | None:
    problems = _assignment_problems(call, name, item)
    if problems:
        return {"result": "failed", "validations": problems}
    call.put(INTERFACES, name, item)
    return None


def delete_assignment(call: ActionCall) -> Any:
    def delete(name: str) -> bool:
        item = call.box.items(INTERFACES).get(name)
        if item is None:
            return False
        if item["lock"] == "1":
            raise UserError("Interface locked, unset lock first before removal", "locked")
        edit = call.box.config.edit()
        edit.drop(INTERFACES, name)
        call.save(edit)
        return True

    return delete_each(call, delete)


# settings


def get_settings(call: ActionCall) -> Any:
    controller = call.box.catalogue.controllers["interfaces/settings"]
    body = get_model(call, controller, call.box.catalogue.models["Interfaces.Settings"])
    return body and {**body, "duids": read_json("answers.json")["duids"]}


# overview: what the devices say, and what they are assigned to


def _overview_rows(box: Box, *, details: bool) -> list[dict[str, Any]]:
    names = {item["if"]: name for name, item in box.items(INTERFACES).items()}
    rows = []
    unassigned = {"identifier": "", "description": "Unassigned Interface"}
    made = {device: {**facts, **unassigned} for device, facts in vlan_devices(box).items()}
    for device, facts in {**read_json("devices.json"), **made}.items():
        row = dict(facts)
        if details:
            row["statistics"] = None
        name = names.get(device)
        if name is not None:
            row |= _assigned_facts(box, name, row.pop("ipv6", []))
        rows.append(row)
    return rows


def _assigned_facts(box: Box, name: str, ipv6: list[Any]) -> dict[str, Any]:
    item = box.items(INTERFACES)[name]
    shown = {key: value for key, value in item.items() if value and key != "lock"} | {"identifier": name}
    address = f"{item['ipaddr']}/{item['subnet']}" if item.get("ipaddr") else ""
    gateways = [
        gateway["gateway"]
        for gateway in box.items("Routing.Gateways.gateway_item").values()
        if gateway["name"] == item.get("gateway")
    ]
    row = {
        "config": shown,
        "identifier": name,
        "description": interface_label(name, item),
        "enabled": item.get("enable") == "1",
        "link_type": "static" if address else "none",
        "link_typev6": "none",
        "addr4": address,
        "addr6": "",
        "ipv4": [{"ipaddr": address}] if address else [],
        "vlan_tag": None,
        "gateways": gateways,
    }
    if ipv6:
        row["ipv6"] = ipv6
    if box.settings.release.startswith("26.1"):
        del row["link_typev6"]
    return row


def search_overview(call: ActionCall) -> Any:
    return recordset_answer(call, make_rows(_overview_rows(call.box, details=call.param(0) == "1")))


def get_interface(call: ActionCall) -> Any:
    """Show an interface by its device name, not by its identifier."""
    titles = read_json("answers.json")["overview_titles"]
    for row in _overview_rows(call.box, details=True):
        if row["device"] == call.param(0):
            row.pop("config", None)
            return {
                "message": {
                    key: {"value": value, "translation": titles.get(key, key)} for key, value in row.items()
                }
            }
    return {"message": "failed"}


def export_overview(call: ActionCall) -> Any:
    """Send JSON under a type for pages, as the product does."""
    return make_json_reply(_overview_rows(call.box, details=True), content_type="text/html; charset=UTF-8")


def reload_interface(call: ActionCall) -> Any:
    if call.posted and call.param(0) in call.box.items(INTERFACES):
        return {"message": "OK"}
    return {"message": "failed"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "interfaces/vip_settings/getItem": get_vip,
    "interfaces/vip_settings/getUnusedVhid": get_unused_vhid,
    "interfaces/settings/get": get_settings,
    "interfaces/assignment/searchItem": search_assignments,
    "interfaces/assignment/getItem": get_assignment,
    "interfaces/assignment/addItem": add_assignment,
    "interfaces/assignment/setItem": set_assignment,
    "interfaces/assignment/delItem": delete_assignment,
    "interfaces/overview/interfacesInfo": search_overview,
    "interfaces/overview/getInterface": get_interface,
    "interfaces/overview/export": export_overview,
    "interfaces/overview/reloadInterface": reload_interface,
}
