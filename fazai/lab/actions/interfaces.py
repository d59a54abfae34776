"""interfaces/*: VLANs, virtual addresses, assignments, the overview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler
from fazai.lab.engine.names import INTERFACES, interface_label
from fazai.lab.engine.schema import read_json
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.verbs import get_item, get_model
from fazai.lab.models.interfaces import VIPS, vlan_devices
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
    "interfaces/overview/interfacesInfo": search_overview,
    "interfaces/overview/getInterface": get_interface,
    "interfaces/overview/export": export_overview,
    "interfaces/overview/reloadInterface": reload_interface,
}
