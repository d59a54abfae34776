"""Reads the state of the tunnels: WireGuard, OpenVPN and IPsec.

`openvpn/service/searchSessions` is recorded for instances that do not run (`openvpn_service`). The other
rows are those of opnsense/core: `Wireguard/Api/ServiceController.php` (show),
`OpenVPN/Api/ServiceController.php` with `scripts/openvpn/ovpn_status.py`,
`IPsec/Api/SessionsController.php` with `scripts/ipsec/list_status.py`. A part that the firewall does not
have, or that the key may not read, is named in `missing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from fazai.errors import AccessDenied, DeviceError
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.losses import Forbidden
from fazai.providers.opnsense.reading.values import (
    Row,
    count_at,
    first_rows,
    flag_at,
    search_rows,
    text_at,
    time_at,
)
from fazai.timestamps import utc_now
from fazai.wire.opn import OpnTunnel, OpnVpnAnswer

_MOST = 500
_MOST_CONNECTIONS = 16  # whose children are asked for, one call each
_WIREGUARD: Mapping[str, Literal["interface", "peer"]] = {"interface": "interface", "peer": "peer"}
_OPENVPN: Mapping[str, Literal["server", "client"]] = {"server": "server", "client": "client"}
_Part = tuple[list[OpnTunnel], int]


async def read_vpn(api: Api) -> OpnVpnAnswer:
    """Read all tunnels with their state. Raises Unreachable, AccessDenied (a wrong key); DeviceError where no
    part can be read."""
    found: list[OpnTunnel] = []
    missing: list[DeviceError] = []
    total = 0
    for kind, read_part in _PARTS.items():
        try:
            tunnels, count = await read_part(api)
        except DeviceError as error:
            if isinstance(error, AccessDenied) and not isinstance(error, Forbidden):
                raise  # the key itself is wrong
            missing.append(DeviceError(f"{kind}: {error.message}", hint=error.hint))
            continue
        found += tunnels
        total += count
    if len(missing) == len(_PARTS):
        text = "; ".join(error.message for error in missing)
        raise DeviceError(text, where=api.settings.target, hint=missing[0].hint)
    names = tuple(error.message for error in missing)
    return OpnVpnAnswer(data=tuple(found), total=total, missing=names)


async def _search(
    api: Api, path: str, parse: Callable[[Row], OpnTunnel | None], more: Row | None = None
) -> _Part:
    rows, total = await search_rows(api, path, _MOST, more)
    kept, _ = await first_rows(rows, parse, _MOST)
    return list(kept), total


async def _read_wireguard(api: Api) -> _Part:
    return await _search(api, "wireguard/service/show", parse_wireguard)


async def _read_openvpn(api: Api) -> _Part:
    return await _search(api, "openvpn/service/searchSessions", parse_openvpn)


async def _read_ipsec(api: Api) -> _Part:
    """Read the connections, and the children of those that are up."""
    now = utc_now()
    rows, total = await search_rows(api, "ipsec/sessions/searchPhase1", _MOST)
    kept, _ = await first_rows(rows, lambda row: parse_connection(row, now), _MOST)
    found = list(kept)
    up = [name for row in rows if flag_at(row, "connected") and (name := text_at(row, "name")) is not None]
    for name in up[:_MOST_CONNECTIONS]:
        children, count = await _search(
            api, "ipsec/sessions/searchPhase2", lambda row: parse_child(row, now), {"id": name}
        )
        found += children
        total += count
    return found[:_MOST], total


_PARTS: Mapping[str, Callable[[Api], Awaitable[_Part]]] = {
    "wireguard": _read_wireguard,
    "openvpn": _read_openvpn,
    "ipsec": _read_ipsec,
}


def parse_wireguard(row: Row) -> OpnTunnel | None:
    """Parse an interface or a peer of `wg show all dump`; keys are left out."""
    role = _WIREGUARD.get(text_at(row, "type") or "")
    if role is None:
        return None
    return OpnTunnel(
        kind="wireguard",
        role=role,
        name=text_at(row, "name"),
        interface=text_at(row, "ifname", "if"),
        status=text_at(row, "status" if role == "interface" else "peer-status"),
        remote=text_at(row, "endpoint") if role == "peer" else None,
        local=text_at(row, "listen-port"),
        addresses=text_at(row, "allowed-ips"),
        rx_bytes=count_at(row, "transfer-rx"),
        tx_bytes=count_at(row, "transfer-tx"),
        since=time_at(row, "latest-handshake"),
    )


def parse_openvpn(row: Row) -> OpnTunnel | None:
    """Parse an instance or one of a server's clients; without a status it does not run."""
    role = _OPENVPN.get(text_at(row, "type") or "")
    if role is None:
        return None
    is_client = row.get("is_client") is True
    return OpnTunnel(
        kind="openvpn",
        role="session" if is_client else role,
        name=text_at(row, "common_name", "description", "id")
        if is_client
        else text_at(row, "description", "id"),
        interface=text_at(row, "description") if is_client else None,
        status="connected" if is_client else text_at(row, "status") or "stopped",
        remote=text_at(row, "real_address"),
        addresses=text_at(row, "virtual_address"),
        rx_bytes=count_at(row, "bytes_received"),
        tx_bytes=count_at(row, "bytes_sent"),
        since=time_at(row, "connected_since__time_t_") or time_at(row, "timestamp"),
    )


def parse_connection(row: Row, now: datetime) -> OpnTunnel | None:
    """Parse a connection (phase 1)."""
    name = text_at(row, "phase1desc", "name")
    if name is None:
        return None
    connected = flag_at(row, "connected")
    return OpnTunnel(
        kind="ipsec",
        role="connection",
        name=name,
        status=None if connected is None else "connected" if connected else "down",
        remote=text_at(row, "remote-addrs"),
        local=text_at(row, "local-addrs"),
        rx_bytes=count_at(row, "bytes-in"),
        tx_bytes=count_at(row, "bytes-out"),
        since=_installed_at(row, now),
    )


def parse_child(row: Row, now: datetime) -> OpnTunnel | None:
    """Parse a child of a connection (phase 2)."""
    name = text_at(row, "phase2desc", "name")
    if name is None:
        return None
    near, far = text_at(row, "local-ts"), text_at(row, "remote-ts")
    return OpnTunnel(
        kind="ipsec",
        role="child",
        name=name,
        status=text_at(row, "state"),
        remote=text_at(row, "remote-host"),
        addresses=f"{near} - {far}" if near is not None and far is not None else near or far,
        rx_bytes=count_at(row, "bytes-in"),
        tx_bytes=count_at(row, "bytes-out"),
        since=_installed_at(row, now),
    )


def _installed_at(row: Row, now: datetime) -> datetime | None:
    """Return when the (oldest) child was installed: charon tells the seconds since then."""
    ago_s = count_at(row, "install-time")
    if not ago_s or ago_s > 10 * 366 * 86400:
        return None
    return (now - timedelta(seconds=ago_s)).replace(microsecond=0)
