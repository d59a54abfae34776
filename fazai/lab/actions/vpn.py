"""WireGuard: what its page for new peers asks for. OpenVPN: keys, and sets that are those of one item."""

from __future__ import annotations

import ipaddress
import secrets
import uuid as uuids
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box, Handler
from fazai.lab.engine.config import SETTINGS, Item
from fazai.lab.engine.verbs import FAILED, add_item, get_item
from fazai.lab.models.ipsec import CONNECTIONS
from fazai.lab.models.wireguard import CLIENTS, SERVERS

SWITCH: Final = "IPsec.Switch"  # no setting of the model: the product keeps it with its older ones


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


def show_connection(call: ActionCall) -> Any:
    """Show a connection with its uuid, as its page wants it; a new one gets one."""
    found = get_item(call, call.model(CONNECTIONS))
    if found:
        uuid = call.param(0)
        found["connection"] |= {"org_uuid": uuid, "uuid": uuid or str(uuids.uuid4())}
    return found


def is_ipsec_enabled(call: ActionCall) -> Any:
    return {"enabled": call.box.config.settings(SWITCH).get("enabled") == "1"}


def switch_ipsec(call: ActionCall) -> Any:
    """Switch IPsec on or off; without saying which, over."""
    on = call.box.config.settings(SWITCH).get("enabled") == "1"
    wanted = call.param(0) or ("0" if on else "1")
    edit = call.box.config.edit()
    edit.put(SWITCH, SETTINGS, {"enabled": "1" if wanted == "1" else "0"})
    call.save(edit)
    return {"status": "ok"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "ipsec/connections/getConnection": show_connection,
    "ipsec/connections/isEnabled": is_ipsec_enabled,
    "ipsec/connections/toggle": switch_ipsec,
    "ipsec/connections/swanctl": lambda call: {"status": "failed", "message": "swanctl.conf file not found"},
    "openvpn/instances/genKey": make_static_key,
    "wireguard/client/addClient": add_client,
    "wireguard/client/getServerInfo": describe_server,
    "wireguard/client/getClientBuilder": show_new_client,
}
