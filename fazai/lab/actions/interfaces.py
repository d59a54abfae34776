"""interfaces/*: VLANs, virtual addresses, assignments, the overview."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler, UserError
from fazai.lab.engine.config import SETTINGS, ConfigEdit, Item, stored_text
from fazai.lab.engine.names import INTERFACES, interface_label
from fazai.lab.engine.schema import read_json
from fazai.lab.engine.search import grid_answer, make_rows, recordset_answer
from fazai.lab.engine.verbs import FAILED, delete_each, get_item, get_model, is_uuid4, posted_body
from fazai.lab.models.devices_links import made_devices
from fazai.lab.models.interfaces import VIPS, VLANS, vlan_devices
from fazai.lab.server.wire import make_json_reply

ICON: Final = "fa fa-plug text-success"
NUMBERS: Final = "Interfaces.Assignment"  # the highest number that was given
ASSIGNED: Final = ("descr", "if", "lock")
_TWICE: Final = "Can not assign a device to more interfaces."


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


# assignments: the box chooses the names, and none of them twice


def list_devices(box: Box) -> dict[str, dict[str, Any]]:
    """Return what can be assigned: hardware, VLANs, and other devices that are made."""
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
    device = list_devices(box).get(item["if"], {"value": item["if"], "optgroup": ""})
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


def _shown_assignment(box: Box, name: str, item: Item) -> dict[str, Any]:
    body = _assignment_row(box, name, item)
    del body["uuid"], body["%if"]
    body["if"] = _device_choices(box, item["if"])
    return body


def _device_choices(box: Box, chosen: str) -> dict[str, Any]:
    return {key: {**choice, "selected": int(key == chosen)} for key, choice in list_devices(box).items()}


def search_assignments(call: ActionCall) -> Any:
    rows = [_assignment_row(call.box, name, item) for name, item in call.box.items(INTERFACES).items()]
    return grid_answer(call, make_rows(rows))


def get_assignment(call: ActionCall) -> Any:
    """Show an interface by its name; without one a new one, which is locked."""
    box, name = call.box, call.param(0)
    if name is None:
        blank = {"descr": "", "identifier": "", "icon": "", "optgroup": "", "lock": "1"}
        return {"interface": {**blank, "if": _device_choices(box, "")}}
    item = box.items(INTERFACES).get(name)
    return [] if item is None else {"interface": _shown_assignment(box, name, item)}


def get_assignments(call: ActionCall) -> Any:
    known = call.box.items(INTERFACES)
    items = {name: _shown_assignment(call.box, name, item) for name, item in known.items()}
    return {"interface": {"interface": items}}


def _assignment_problems(box: Box, item: Item) -> dict[str, Any]:
    """Return what is wrong with an item by itself."""
    found: dict[str, Any] = {}
    if not re.fullmatch(r"[a-zA-Z0-9_]{0,255}", item["descr"]):
        texts = ["Description should be a string between 1 and 255 characters."]
        if "\n" in item["descr"]:
            texts.insert(0, "Text may not contain newlines.")
        found["descr"] = texts if len(texts) > 1 else texts[0]
    if not item["if"]:
        found["if"] = "A value is required."
    elif item["if"] not in list_devices(box):
        found["if"] = "Option [] not in list."
    if not item["lock"]:
        found["lock"] = "A value is required."
    elif item["lock"] not in ("0", "1"):
        found["lock"] = "Value should be a boolean (0,1)."
    return found


def _merge_assignment(item: Item, sent: Mapping[str, Any]) -> dict[str, str]:
    return {**item, **{name: stored_text(sent[name]) for name in ASSIGNED if name in sent}}


def _blank_assignment() -> dict[str, str]:
    return {"enable": "1", "descr": "", "if": "", "lock": "1"}


def _put_assignment(box: Box, edit: ConfigEdit, item: Item) -> str:
    """Store a new interface under the next name, which no other had before."""
    last = int(box.config.settings(NUMBERS).get("last", "0"))
    numbers = [int(name[3:]) for name in edit.items(INTERFACES) if re.fullmatch(r"opt\d+", name)]
    name = f"opt{max([last, *numbers]) + 1}"
    edit.put(INTERFACES, name, item)
    edit.put(NUMBERS, SETTINGS, {"last": name[3:]})
    return name


def _refuse_assignment(box: Box, name: str, item: Item) -> dict[str, Any] | None:
    problems = _assignment_problems(box, item)
    used = {other["if"] for key, other in box.items(INTERFACES).items() if key != name}
    if "if" not in problems and item["if"] in used:
        problems["if"] = _TWICE
    found = {f"interface.{field}": texts for field, texts in problems.items()}
    return {"result": "failed", "validations": found} if found else None


def add_assignment(call: ActionCall) -> Any:
    """Assign a device; a name that was sent is not taken."""
    sent = posted_body(call, "interface")
    if sent is None:
        return FAILED
    item = _merge_assignment(_blank_assignment(), sent)
    refused = _refuse_assignment(call.box, "", item)
    if refused is not None:
        return refused
    edit = call.box.config.edit()
    name = _put_assignment(call.box, edit, item)
    call.save(edit)
    return {"result": "saved", "uuid": name}


def set_assignment(call: ActionCall) -> Any:
    """Set an interface; a version 4 uuid makes a new one, under a name of the box's own."""
    box, name = call.box, call.param(0) or ""
    sent, item = posted_body(call, "interface"), box.items(INTERFACES).get(name)
    if sent is None or (item is None and not is_uuid4(name)):
        return FAILED
    fresh = _merge_assignment(item or _blank_assignment(), sent)
    refused = _refuse_assignment(box, name, fresh)
    if refused is not None:
        return refused
    edit = box.config.edit()
    if item is None:
        _put_assignment(box, edit, fresh)
    else:
        edit.put(INTERFACES, name, fresh)
    call.save(edit)
    return {"result": "saved"}


def set_assignments(call: ActionCall) -> Any:
    """Set several interfaces, all or none; a device that two would have is wrong in both."""
    body = posted_body(call, "interface")
    if body is None:
        return FAILED
    box, sent = call.box, body.get("interface", {})
    known = box.items(INTERFACES)
    fresh = {
        name if name in known else str(uuids.uuid4()): _merge_assignment(
            known.get(name) or _blank_assignment(), values
        )
        for name, values in sent.items()
    }
    every = {**known, **fresh}
    devices = [item["if"] for item in every.values()]
    found: dict[str, Any] = {}
    for name, item in every.items():
        problems = _assignment_problems(box, item) if name in fresh else {}
        if "if" not in problems and devices.count(item["if"]) > 1:
            problems["if"] = _TWICE
        found |= {f"interface.interface.{name}.{field}": texts for field, texts in problems.items()}
    if found:
        return {"result": "failed", "validations": found}
    edit = box.config.edit()
    for name, item in fresh.items():
        if name in known:
            edit.put(INTERFACES, name, item)
        else:
            _put_assignment(box, edit, item)
    call.save(edit)
    return {"result": "saved"}


def delete_assignments(call: ActionCall) -> Any:
    """Delete interfaces: those with addresses and rules, too, but none that is locked."""

    def delete_one(name: str) -> bool:
        item = call.box.items(INTERFACES).get(name)
        if item is None:
            return False
        if item["lock"] == "1":
            raise UserError("Interface locked, unset lock first before removal", "locked")
        edit = call.box.config.edit()
        edit.drop(INTERFACES, name)
        call.save(edit)
        return True

    return delete_each(call, delete_one)


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
    "interfaces/assignment/delItem": delete_assignments,
    "interfaces/assignment/get": get_assignments,
    "interfaces/assignment/set": set_assignments,
    "interfaces/overview/interfacesInfo": search_overview,
    "interfaces/overview/getInterface": get_interface,
    "interfaces/overview/export": export_overview,
    "interfaces/overview/reloadInterface": reload_interface,
}
