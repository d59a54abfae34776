"""Rows of WireGuard, OpenVPN, IPsec and certificates."""

from __future__ import annotations

from typing import Any

from fazai.providers.opnsense.catalogue.rows import PLAIN, Along, KindRow, verbs_of

#: What a certificate is made of is sent under names of its own; `crt` and `prv` hold the same once more.
_TRUST: tuple[KindRow, ...] = (
    KindRow(
        short="trust_ca",
        path="trust/ca",
        verbs=PLAIN,
        label="{descr}",
        phase=76,
        own_privilege="page-system-camanager",
        omit=("crt", "prv"),
        along=(Along("create", "action", "existing", beside="crt_payload"),),
        summary="A certificate authority: imported, or else made by the firewall.",
        example="opnsense.trust_ca: {descr: VPN CA, commonname: vpn-ca, lifetime: 3650}",
    ),
    KindRow(
        short="trust_cert",
        path="trust/cert",
        verbs=PLAIN,
        label="{descr}",
        phase=77,
        own_privilege="page-system-certmanager",
        omit=("crt", "csr", "prv"),
        along=(
            Along("create", "action", "import", beside="crt_payload"),
            Along("update", "action", "manual"),  # without it the firewall issues another certificate
        ),
        summary="A certificate: imported, or else made by the firewall.",
        example=(
            "opnsense.trust_cert: {descr: VPN server, caref: VPN CA, commonname: vpn.example.org,\n"
            "                      cert_type: server_cert, altnames_dns: [vpn.example.org]}"
        ),
    ),
)

_OPENVPN: tuple[KindRow, ...] = (
    KindRow(
        short="openvpn_static_key",
        path="openvpn/instances",
        root="statickey",
        verbs=verbs_of("StaticKey"),
        label="{description}",
        phase=78,
        own_privilege="page-openvpn-instances",
        needed_on_create=("key",),
        summary="A static key of OpenVPN. Release 26.1 takes none that has lines.",
        example="opnsense.openvpn_static_key: {description: site key, key: !env OPENVPN_KEY, mode: crypt}",
    ),
    KindRow(
        short="openvpn_instance",
        path="openvpn/instances",
        verbs=PLAIN,
        label="{description}",
        tiebreak=("role", "port"),
        unique=("vpnid",),
        phase=79,
        own_privilege="page-openvpn-instances",
        along=(Along("create", "vpnid", ""),),  # left out it is missing, empty it is chosen
        summary="A server or a client of OpenVPN.",
        example=(
            "opnsense.openvpn_instance: {description: road warriors, role: server, server: 10.90.0.0/24,\n"
            "                            port: 1194, cert: VPN server, ca: VPN CA}"
        ),
    ),
    KindRow(
        short="openvpn_override",
        path="openvpn/client_overwrites",
        root="cso",
        verbs=PLAIN,
        label="{common_name}",
        tiebreak=("servers",),
        phase=80,
        own_privilege="page-openvpn-csc",
        summary="What a server of OpenVPN tells one of its clients.",
        example=(
            "opnsense.openvpn_override: {common_name: laptop, servers: [road warriors],\n"
            "                            tunnel_network: 10.90.0.10/24}"
        ),
    ),
)

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

VPN: tuple[KindRow, ...] = (*_TRUST, *_OPENVPN, *_WIREGUARD)

_CARP: dict[str, Any] = {
    "reference": "opnsense.vip",
    "doc": "a CARP address, without which it is down: interface and address",
}


def _once(kind: str = "text", **more: Any) -> dict[str, Any]:
    """Return the facts of a field that only says how a certificate is made."""
    doc = "; ".join(filter(None, (more.pop("doc", ""), "only for one that is made")))
    return {"type": kind, "api": "Text", "write_once": True, "doc": doc, **more}


_PEM: dict[str, Any] = {"type": "text", "api": "Text", "fold": "lines", "filled": True}
_KEY_TYPES = "512 1024 2048 3072 4096 7680 8192 prime256v1 secp384r1 secp521r1"
_CERTIFICATE: dict[str, dict[str, Any]] = {
    "refid": {"filled": True, "doc": "what the firewall itself calls it"},
    "caref": {
        "reference": "opnsense.trust_ca",
        "key": "refid",
        "type": "reference",
        "filled": True,
        "doc": "the authority that signs one that is made; of one that is there only the link to it changes",
    },
    "key_type": _once("choice", choices=tuple(_KEY_TYPES.split())),
    "digest": _once("choice", choices=("sha1", "sha224", "sha256", "sha384", "sha512")),
    "lifetime": _once("integer", minimum=1, doc="days"),
    **{name: _once() for name in ("country", "state", "city", "organization", "organizationalunit", "email")},
    "commonname": _once(),
    "ocsp_uri": _once(),
    "crt_payload": {**_PEM, "doc": "the certificate to import"},
    "prv_payload": {**_PEM, "secret": True, "doc": "its private key, taken when it is imported"},
}

#: Facts by kind and field, beyond the device's own.
VPN_EXTRA: dict[str, dict[str, dict[str, Any]]] = {
    "trust_ca": {
        **_CERTIFICATE,
        "serial": {"filled": True, "doc": "the number of the next certificate"},
    },
    "trust_cert": {
        **_CERTIFICATE,
        "cert_type": _once("choice", choices=("usr_cert", "server_cert", "combined_server_client", "v3_ca")),
        **{f"altnames_{name}": _once("list", separator="\n") for name in ("dns", "ip", "uri", "email")},
    },
    "openvpn_static_key": {
        "key": {
            "secret": True,
            "required": False,
            "fold": "lines",
            "doc": "needed when it is made",
        }
    },
    "openvpn_instance": {
        "description": {"required": True},
        "vpnid": {
            "type": "integer",
            "required": False,
            "filled": True,
            "doc": "the number of its device; chosen by the firewall when left out",
        },
        "remote": {"type": "list", "doc": "host or host:port, of a client"},
        "cert": {"reference": "opnsense.trust_cert", "key": "refid"},
        "ca": {"reference": "opnsense.trust_ca", "key": "refid", "doc": "else that of the certificate"},
        "crl": {"doc": "the authority's refid"},
        "tls_key": {"reference": "opnsense.openvpn_static_key"},
        "local_group": {"reference": "opnsense.group", "key": "gid"},
        "carp_depend_on": _CARP,
        "password": {"secret": True},
        "auth-gen-token-secret": {"secret": True, "fold": "lines"},
    },
    "openvpn_override": {
        "servers": {"reference": "opnsense.openvpn_instance", "doc": "all instances when left out"},
    },
    "wireguard_server": {
        "instance": {
            "required": False,
            "filled": True,
            "doc": "the number of the device wg…; chosen by the firewall when left out",
        },
        "privkey": {"secret": True, "required": False, "doc": "needed when the instance is made"},
        "pubkey": {"filled": True},
        "carp_depend_on": _CARP,
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
