"""WireGuard: peers and instances that name each other; the link is stored with the instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import ConfigEdit, Item, stored_text
from fazai.lab.engine.fieldtypes import validate_field
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

CLIENTS: Final = "Wireguard.Client.clients.client"
SERVERS: Final = "Wireguard.Server.servers.server"


def _peers_of(server: Item) -> list[str]:
    return server["peers"].split(",") if server["peers"] else []


def _link_client(box: Box, edit: ConfigEdit, client: str, servers: Iterable[str] = ()) -> None:
    """Make the client a peer of these instances, and of no other; of none when it is deleted."""
    wanted = set(servers)
    for uuid, server in box.items(SERVERS).items():
        peers = [peer for peer in _peers_of(server) if peer != client]
        if uuid in wanted:
            peers = _peers_of(server) if client in _peers_of(server) else [*peers, client]
        if peers != _peers_of(server):
            edit.put(SERVERS, uuid, {**server, "peers": ",".join(peers)})


def _read_servers(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    sent = call.body.get("client", {})
    new["servers"] = stored_text(sent.get("servers")) if isinstance(sent, Mapping) else ""


def _check_servers(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for message in validate_field(box, model.by_name()["servers"], item.get("servers", ""), item):
        yield "servers", message


def _link_sent(call: ActionCall, edit: ConfigEdit, uuid: str, old: Item, new: Item) -> None:
    """Link the instances sent with the client; those that are not sent lose it."""
    names = cast("dict[str, str]", new).pop("servers")  # stored with the instances
    _link_client(call.box, edit, uuid, names.split(","))


def _compute_client(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    servers = [key for key, server in box.items(SERVERS).items() if uuid in _peers_of(server)] if uuid else []
    return {"endpoint": "", "servers": ",".join(servers)}


def _compute_server(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """Return the device of a stored instance; one that is not yet stored has none."""
    if not uuid:
        return {"cnfFilename": "", "statFilename": "", "interface": ""}
    device = f"wg{item['instance']}"
    folder = "/usr/local/etc/wireguard"
    return {
        "cnfFilename": f"{folder}/{device}.conf",
        "statFilename": f"{folder}/{device}.stat",
        "interface": device,
    }


HOOKS: Final = ModelHooks(
    checks={"wireguard_servers": _check_servers},
    collections={
        CLIENTS: CollectionHooks(
            computed=_compute_client,
            paths=(SERVERS,),
            before=(_read_servers,),
            after=(_link_sent,),
            deleted=(_link_client,),
        ),
        SERVERS: CollectionHooks(computed=_compute_server, paths=(CLIENTS,)),
    },
)
