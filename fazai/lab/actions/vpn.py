"""WireGuard: what its page for new peers asks for. OpenVPN: keys, and sets that are those of one item."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler
from fazai.lab.engine.config import Item
from fazai.lab.engine.verbs import FAILED, add_item, get_item
from fazai.lab.models.wireguard import CLIENTS, SERVERS


def add_client(call: ActionCall) -> Any:
    """Add a peer; nothing at all is refused without saying why."""
    return add_item(call, call.model(CLIENTS)) if call.body.get("client") else FAILED


def describe_server(call: ActionCall) -> Any:
    """Return what a new peer of an instance needs to know of it."""
    server = call.box.items(SERVERS).get(call.param(0) or "")
    if server is None:
        return {"status": "failed"}
    known = {name: server[name] for name in ("endpoint", "peer_dns", "mtu", "pubkey")}
    return {"status": "ok", **known, "address": _find_free_address(call.box, server)}


def _find_free_address(box: Box, server: Item) -> str:
    """Return the first address of each tunnel network that neither the instance nor a peer of it has."""
    clients = [box.items(CLIENTS).get(uuid) for uuid in server["peers"].split(",")]
    taken = [server["tunneladdress"], *(client["tunneladdress"] for client in clients if client is not None)]
    used = {ipaddress.ip_interface(part).ip for text in taken for part in text.split(",") if part}
    found = []
    for part in server["tunneladdress"].split(",") if server["tunneladdress"] else []:
        free = next((one for one in ipaddress.ip_interface(part).network.hosts() if one not in used), None)
        if free is not None:
            found.append(f"{free}/{free.max_prefixlen}")
    return ",".join(found)


def show_new_client(call: ActionCall) -> Any:
    """Return a new peer, under the name of the page."""
    return {"configbuilder": get_item(call, call.model(CLIENTS))["client"]}


def make_static_key(call: ActionCall) -> Any:
    lines = "\n".join(secrets.token_hex(16) for _ in range(16))
    key = f"-----BEGIN OpenVPN Static key V1-----\n{lines}\n-----END OpenVPN Static key V1-----"
    return {"result": "ok", "key": key}


ACTIONS: Final[Mapping[str, Handler]] = {
    "openvpn/instances/genKey": make_static_key,
    "wireguard/client/addClient": add_client,
    "wireguard/client/getServerInfo": describe_server,
    "wireguard/client/getClientBuilder": show_new_client,
}
