"""Tunnels of a firewall of the lab. WireGuard's are those that are configured and run; of OpenVPN and
IPsec, which the lab has no models for, there is one each where `LabSettings.traffic` is set. Rows are as
opnsense/core makes them: `Wireguard`, `OpenVPN/Api/ServiceController.php`,
`IPsec/Api/SessionsController.php`."""

from __future__ import annotations

import datetime
from typing import Any, Final

from fazai.lab.box import Box
from fazai.lab.engine.config import Item
from fazai.lab.live.chance import chance_of
from fazai.lab.models.wireguard import CLIENTS, SERVERS

_OPENVPN: Final = "2f0a5f2c-6f4e-4d38-9a53-5f6a8f3d1c11"
_CONNECTION: Final = "7c9b2f6e-1d0a-4b57-8f1e-0a4f6f7b2d22"
_CHILD: Final = "0d3e1a4b-5c6d-4e7f-8a9b-1c2d3e4f5a33"
_ONLINE_S: Final = 300


def list_wireguard(box: Box) -> list[dict[str, Any]]:
    """Return interfaces and peers as `wg show all dump` has them, with the names of the configuration."""
    clients = box.running.items("wireguard", CLIENTS)
    rows: list[dict[str, Any]] = []
    if box.running.services.get("wireguard") != "running":
        return rows
    for server in box.running.items("wireguard", SERVERS).values():
        if server["enabled"] != "1":
            continue
        device = f"wg{server['instance']}"
        port = server["port"] or "51820"
        about = {"latest-handshake-age": None, "latest-handshake-epoch": None, "ifname": server["name"]}
        rows.append(
            {
                "if": device,
                "type": "interface",
                "public-key": server["pubkey"],
                "listen-port": port,
                "fwmark": "off",
                "endpoint": port,
                "status": "up",
                "name": server["name"],
                **about,
                "peer-status": "offline",
            }
        )
        peers = [clients[uuid] for uuid in server["peers"].split(",") if uuid in clients]
        rows += [
            {**_peer(box, device, peer), "ifname": server["name"]} for peer in peers if peer["enabled"] == "1"
        ]
    return rows


def _peer(box: Box, device: str, peer: Item) -> dict[str, Any]:
    chance = chance_of(box, peer["name"])
    now = int(box.clock())
    age = chance.randrange(5, 900) if box.settings.traffic else None
    at = None if age is None else datetime.datetime.fromtimestamp(now - age, datetime.UTC)
    return {
        "if": device,
        "type": "peer",
        "public-key": peer["pubkey"],
        "endpoint": f"{peer['serveraddress']}:{peer['serverport']}" if peer["serveraddress"] else "(none)",
        "allowed-ips": peer["tunneladdress"],
        "latest-handshake": 0 if age is None else now - age,
        "transfer-rx": 0 if age is None else chance.randrange(1_000_000),
        "transfer-tx": 0 if age is None else chance.randrange(1_000_000),
        "persistent-keepalive": peer["keepalive"] or "off",
        "name": peer["name"],
        "latest-handshake-age": age,
        "latest-handshake-epoch": None if at is None else f"{at:%Y-%m-%d %H:%M:%S}",
        "peer-status": "offline" if age is None else "online" if age <= _ONLINE_S else "stale",
    }


def list_openvpn(box: Box) -> list[dict[str, Any]]:
    """Return the sessions of one server with two clients."""
    if not box.settings.traffic:
        return []
    rows = []
    for number, name in enumerate(("alice", "bob"), 1):
        since = int(box.started_at) - 600 * number
        moment = datetime.datetime.fromtimestamp(since, datetime.UTC)
        rows.append(
            {
                "socket": f"/var/etc/openvpn/instance-{_OPENVPN}.sock",
                "status": "ok",
                "type": "server",
                "id": f"{_OPENVPN}_198.51.100.{number}:41194",
                "description": "road warriors",
                "common_name": name,
                "real_address": f"198.51.100.{number}:41194",
                "virtual_address": f"10.8.0.{number + 1}",
                "bytes_received": str(52_000 * number),
                "bytes_sent": str(48_000 * number),
                "connected_since": f"{moment:%Y-%m-%d %H:%M:%S}",
                "connected_since__time_t_": str(since),
                "username": name,
                "is_client": True,
            }
        )
    return rows


def list_connections(box: Box) -> list[dict[str, Any]]:
    """Return one connection of IPsec to another site."""
    if not box.settings.traffic:
        return []
    row = {
        "local-addrs": "192.0.2.2",
        "remote-addrs": "203.0.113.1",
        "local-id": "fw",
        "remote-id": "branch",
        "version": "IKEv2",
        "routed": True,
        "local-class": "pre-shared key",
        "remote-class": "pre-shared key",
        "ikeid": _CONNECTION,
        "phase1desc": "to the branch",
        "name": _CONNECTION,
        "connected": True,
        "bytes-in": 120_000,
        "bytes-out": 98_000,
        "packets-in": 900,
        "packets-out": 870,
        "install-time": "1200",
    }
    return [row]


def list_children(box: Box, connection: str) -> list[dict[str, Any]]:
    """Return the child of that connection."""
    if not box.settings.traffic or connection != _CONNECTION:
        return []
    row = {
        "name": _CHILD,
        "uniqueid": "3",
        "reqid": "1",
        "state": "INSTALLED",
        "mode": "TUNNEL",
        "protocol": "ESP",
        "spi-in": "c2a1f0e1",
        "spi-out": "c7b0d9aa",
        "install-time": "1200",
        "bytes-in": "120000",
        "bytes-out": "98000",
        "packets-in": "900",
        "packets-out": "870",
        "local-ts": "192.168.1.0/24",
        "remote-ts": "10.50.0.0/16",
        "remote-host": "203.0.113.1",
        "ikeid": _CONNECTION,
        "phase2desc": "LAN to branch",
    }
    return [row]
