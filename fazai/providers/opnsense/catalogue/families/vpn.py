"""Rows of WireGuard, OpenVPN, IPsec and certificates."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import KindRow, verbs_of

_WIREGUARD: tuple[KindRow, ...] = (
    KindRow(
        short="wireguard_server",
        path="wireguard/server",
        verbs=verbs_of("Server"),
        label="{name}",
        tiebreak=("instance",),
        unique=("instance",),
        phase=86,
        needed_on_create=("privkey",),
        omit=("peers",),  # the same link as `servers` of a peer
        summary="An instance of WireGuard. Its peers name it in their `servers`.",
        example=(
            "opnsense.wireguard_server: {name: wg0, privkey: !env WG0_PRIVATE_KEY, port: 51820,\n"
            "                            tunneladdress: [10.110.0.1/24]}"
        ),
    ),
    KindRow(
        short="wireguard_peer",
        path="wireguard/client",
        root="client",
        verbs=verbs_of("Client"),
        label="{name}",
        tiebreak=("pubkey",),
        unique=("pubkey",),
        phase=87,
        summary="A peer of WireGuard, and the instances that let it in.",
        example=(
            "opnsense.wireguard_peer: {name: laptop, tunneladdress: [10.110.0.2/32], servers: [wg0],\n"
            '                          pubkey: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}'
        ),
    ),
)

VPN: tuple[KindRow, ...] = (*_WIREGUARD,)

#: Facts by kind and field, beyond the device's own.
VPN_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "wireguard_server": {
        "instance": {
            "required": False,
            "filled": True,
            "doc": "the number of the device wg…; chosen by the firewall when left out",
        },
        "privkey": {"secret": True, "required": False, "doc": "needed when the instance is made"},
        "pubkey": {"filled": True},
        "carp_depend_on": {
            "reference": "opnsense.vip",
            "doc": "a CARP address, without which the instance is down: interface and address",
        },
    },
    "wireguard_peer": {
        "psk": {"secret": True},
        "servers": {
            "type": "list",
            "api": "ModelRelation",
            "reference": "opnsense.wireguard_server",
            "always": True,  # a set without it takes the peer from every instance
            "doc": "instances",
        },
    },
}
