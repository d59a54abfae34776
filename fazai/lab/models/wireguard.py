"""WireGuard: peers and instances that name each other; the link is stored with the instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import Box, Call
from fazai.lab.engine.config import Edit, Item, as_text
from fazai.lab.engine.hooktypes import Extra, Hooks
from fazai.lab.engine.schema import ItemModel

__all__ = ["CLIENTS", "HOOKS", "SERVERS", "link"]

CLIENTS: Final = "Wireguard.Client.clients.client"
SERVERS: Final = "Wireguard.Server.servers.server"


def _peers(server: Item) -> list[str]:
    return server["peers"].split(",") if server["peers"] else []


def link(box: Box, edit: Edit, client: str, servers: Iterable[str]) -> None:
    """Make the client a peer of these instances, and of no other."""
    wanted = set(servers)
    for uuid, server in box.items(SERVERS).items():
        peers = [peer for peer in _peers(server) if peer != client]
        if uuid in wanted:
            peers = _peers(server) if client in _peers(server) else [*peers, client]
        if peers != _peers(server):
            edit.put(SERVERS, uuid, {**server, "peers": ",".join(peers)})


def _link_sent(call: Call, edit: Edit, uuid: str, old: Item, new: Item) -> None:
    """The instances are sent with the client; those that are not sent lose it."""
    sent = call.body.get("client", {})
    names = as_text(sent.get("servers")) if isinstance(sent, Mapping) else ""
    link(call.box, edit, uuid, names.split(","))


def _client(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    servers = [key for key, server in box.items(SERVERS).items() if uuid in _peers(server)] if uuid else []
    return {"endpoint": "", "servers": ",".join(servers)}


def _server(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """A stored instance knows its device; one that is not yet stored does not."""
    if not uuid:
        return {"cnfFilename": "", "statFilename": "", "interface": ""}
    device = f"wg{item['instance']}"
    folder = "/usr/local/etc/wireguard"
    return {
        "cnfFilename": f"{folder}/{device}.conf",
        "statFilename": f"{folder}/{device}.stat",
        "interface": device,
    }


def _routes(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["gateway"] and item["disableroutes"] != "1":
        yield "disableroutes", "You have to enable Disable Routes option."


HOOKS: Final = Hooks(
    checks={"wireguard_server": _routes},
    computed={CLIENTS: _client, SERVERS: _server},
    extra={CLIENTS: Extra(paths=(SERVERS,), after=(_link_sent,)), SERVERS: Extra(paths=(CLIENTS,))},
)
