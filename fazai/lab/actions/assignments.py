"""interfaces/assignment: which device is which interface. The box chooses the names, and none twice."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler, UserError
from fazai.lab.engine.config import SETTINGS, ConfigEdit, Item, stored_text
from fazai.lab.engine.names import INTERFACES, interface_label
from fazai.lab.engine.search import grid_answer, make_rows
from fazai.lab.engine.verbs import FAILED, delete_each, is_uuid4, posted_body
from fazai.lab.models.devices_links import made_devices
from fazai.lab.models.interfaces import VLANS

ICON: Final = "fa fa-plug text-success"
NUMBERS: Final = "Interfaces.Assignment"  # the highest number that was given
FIELDS: Final = ("descr", "if", "lock")
_TWICE: Final = "Can not assign a device to more interfaces."


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


def _row(box: Box, name: str, item: Item) -> dict[str, Any]:
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


def _shown(box: Box, name: str, item: Item) -> dict[str, Any]:
    body = _row(box, name, item)
    del body["uuid"], body["%if"]
    body["if"] = _choices(box, item["if"])
    return body


def _choices(box: Box, chosen: str) -> dict[str, Any]:
    return {key: {**choice, "selected": int(key == chosen)} for key, choice in list_devices(box).items()}


def search(call: ActionCall) -> Any:
    rows = [_row(call.box, name, item) for name, item in call.box.items(INTERFACES).items()]
    return grid_answer(call, make_rows(rows))


def get(call: ActionCall) -> Any:
    """Show an interface by its name; without one a new one, which is locked."""
    box, name = call.box, call.param(0)
    if name is None:
        blank = {"descr": "", "identifier": "", "icon": "", "optgroup": "", "lock": "1"}
        return {"interface": {**blank, "if": _choices(box, "")}}
    item = box.items(INTERFACES).get(name)
    return [] if item is None else {"interface": _shown(box, name, item)}


def get_all(call: ActionCall) -> Any:
    items = {name: _shown(call.box, name, item) for name, item in call.box.items(INTERFACES).items()}
    return {"interface": {"interface": items}}


def _problems(box: Box, item: Item) -> dict[str, Any]:
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


def _merged(item: Item, sent: Mapping[str, Any]) -> dict[str, str]:
    return {**item, **{name: stored_text(sent[name]) for name in FIELDS if name in sent}}


def _blank() -> dict[str, str]:
    return {"enable": "1", "descr": "", "if": "", "lock": "1"}


def _put_new(box: Box, edit: ConfigEdit, item: Item) -> str:
    """Store a new interface under the next name, which no other had before."""
    last = int(box.config.settings(NUMBERS).get("last", "0"))
    numbers = [int(name[3:]) for name in edit.items(INTERFACES) if re.fullmatch(r"opt\d+", name)]
    name = f"opt{max([last, *numbers]) + 1}"
    edit.put(INTERFACES, name, item)
    edit.put(NUMBERS, SETTINGS, {"last": name[3:]})
    return name


def _refused(box: Box, name: str, item: Item) -> dict[str, Any] | None:
    problems = _problems(box, item)
    used = {other["if"] for key, other in box.items(INTERFACES).items() if key != name}
    if "if" not in problems and item["if"] in used:
        problems["if"] = _TWICE
    found = {f"interface.{field}": texts for field, texts in problems.items()}
    return {"result": "failed", "validations": found} if found else None


def add(call: ActionCall) -> Any:
    """Assign a device; a name that was sent is not taken."""
    sent = posted_body(call, "interface")
    if sent is None:
        return FAILED
    item = _merged(_blank(), sent)
    refused = _refused(call.box, "", item)
    if refused is not None:
        return refused
    edit = call.box.config.edit()
    name = _put_new(call.box, edit, item)
    call.save(edit)
    return {"result": "saved", "uuid": name}


def set_one(call: ActionCall) -> Any:
    """Set an interface; a version 4 uuid makes a new one, under a name of the box's own."""
    box, name = call.box, call.param(0) or ""
    sent, item = posted_body(call, "interface"), box.items(INTERFACES).get(name)
    if sent is None or (item is None and not is_uuid4(name)):
        return FAILED
    fresh = _merged(item or _blank(), sent)
    refused = _refused(box, name, fresh)
    if refused is not None:
        return refused
    edit = box.config.edit()
    if item is None:
        _put_new(box, edit, fresh)
    else:
        edit.put(INTERFACES, name, fresh)
    call.save(edit)
    return {"result": "saved"}


def set_all(call: ActionCall) -> Any:
    """Set several interfaces, all or none; a device that two would have is wrong in both."""
    body = posted_body(call, "interface")
    if body is None:
        return FAILED
    box, sent = call.box, body.get("interface", {})
    known = box.items(INTERFACES)
    fresh = {
        name if name in known else str(uuids.uuid4()): _merged(known.get(name) or _blank(), values)
        for name, values in sent.items()
    }
    every = {**known, **fresh}
    devices = [item["if"] for item in every.values()]
    found: dict[str, Any] = {}
    for name, item in every.items():
        problems = _problems(box, item) if name in fresh else {}
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
            _put_new(box, edit, item)
    call.save(edit)
    return {"result": "saved"}


def delete(call: ActionCall) -> Any:
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


ACTIONS: Final[Mapping[str, Handler]] = {
    "interfaces/assignment/searchItem": search,
    "interfaces/assignment/getItem": get,
    "interfaces/assignment/addItem": add,
    "interfaces/assignment/setItem": set_one,
    "interfaces/assignment/delItem": delete,
    "interfaces/assignment/get": get_all,
    "interfaces/assignment/set": set_all,
}
