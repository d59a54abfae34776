"""routes/routes, routes/gateway, routing/settings."""

from __future__ import annotations

import ipaddress
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler
from fazai.lab.engine.config import Item
from fazai.lab.engine.names import GATEWAYS, INTERFACES, interface_name
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.verbs import FAILED, blank_item, delete_one, get_item, is_uuid4, posted_body, save_item

# the values of dpinger where nothing is set
CURRENT: Final = {
    "latencylow": "200",
    "latencyhigh": "500",
    "losslow": "10",
    "losshigh": "20",
    "interval": "1",
    "time_period": "60",
    "loss_interval": "4",
    "data_length": "1",
}


def _fits_interface(box: Box, item: Item) -> bool:
    """Return whether the address is inside the network of its interface."""
    interface = box.items(INTERFACES).get(item["interface"], {})
    if item["ipprotocol"] != "inet" or not interface.get("ipaddr"):
        return True
    network = ipaddress.ip_network(f"{interface['ipaddr']}/{interface['subnet']}", strict=False)
    return item["fargw"] == "1" or ipaddress.ip_address(item["gateway"]) in network


def _gateway_row(box: Box, index: int, uuid: str, item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"disabled": item["disabled"] == "1"}
    for field in box.catalogue.items[GATEWAYS].fields[1:]:
        row[field.name] = item[field.name]
        if field.name in CURRENT:
            row[f"current_{field.name}"] = item[field.name] or CURRENT[field.name]
    good = _fits_interface(box, item)
    upstream = item["defaultgw"] == "1"
    return row | {
        "defaultgw": upstream,
        "uuid": uuid,
        "if": box.items(INTERFACES).get(item["interface"], {}).get("if", ""),
        "attribute": index,
        "virtual": False,
        "upstream": upstream,
        "interface_descr": interface_name(box, item["interface"]),
        "status": "Online" if good else "Misconfigured Gateway IP",
        "delay": "~",
        "stddev": "~",
        "loss": "~",
        "label_class": f"fa fa-plug text-{'success' if good else 'warning'}",
    }


def search_gateways(call: ActionCall) -> Any:
    rows = [
        _gateway_row(call.box, index, *entry) for index, entry in enumerate(call.box.items(GATEWAYS).items())
    ]
    return recordset_answer(call, make_rows(rows))


def get_gateway(call: ActionCall) -> Any:
    """Show a gateway; something that is no uuid is a new one."""
    if call.param(0) is not None and not _looks_like_uuid(call.param(0) or ""):
        call.params = []
    return get_item(call, call.model(GATEWAYS))


def _looks_like_uuid(text: str) -> bool:
    try:
        return str(uuids.UUID(text)) == text.lower()
    except ValueError:
        return False


def set_gateway(call: ActionCall) -> Any:
    """Set a gateway; something that is no uuid of one makes a new one.

    It gets a uuid of the firewall's own choosing unless a version 4 one was given.
    """
    model, uuid = call.model(GATEWAYS), call.param(0) or ""
    sent = posted_body(call, model.root)
    if sent is None:
        return FAILED
    item = call.box.items(GATEWAYS).get(uuid)
    if item is None:
        item = blank_item(call.box, model)
        uuid = uuid if is_uuid4(uuid) else str(uuids.uuid4())
    return save_item(call, model, uuid, item, sent) or {"result": "saved"}


def delete_gateway(call: ActionCall) -> Any:
    if not call.posted or not delete_one(call, call.model(GATEWAYS), call.param(0) or ""):
        return FAILED
    return {"result": "deleted"}


def get_gateway_status(call: ActionCall) -> Any:
    items = [
        {
            "name": item["name"],
            "address": item["gateway"],
            "status": "none",
            "loss": "~",
            "delay": "~",
            "stddev": "~",
            "monitor": item["monitor"] or "~",
            "status_translated": "Online",
        }
        for item in call.box.items(GATEWAYS).values()
        if item["disabled"] != "1"
    ]
    return {"items": items, "status": "ok"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "routing/settings/searchGateway": search_gateways,
    "routing/settings/getGateway": get_gateway,
    "routing/settings/setGateway": set_gateway,
    "routing/settings/delGateway": delete_gateway,
    "routes/gateway/status": get_gateway_status,
}
