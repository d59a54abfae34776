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

_CONNECTION_PART = ("connection", "round")

_IPSEC: tuple[KindRow, ...] = (
    KindRow(
        short="ipsec_pool",
        path="ipsec/pools",
        verbs=PLAIN,
        label="{name}",
        phase=81,
        summary="Addresses that IPsec gives to clients.",
        example="opnsense.ipsec_pool: {name: clients, addrs: 10.60.0.0/24, dns: [10.60.0.1]}",
    ),
    KindRow(
        short="ipsec_psk",
        path="ipsec/pre_shared_keys",
        root="preSharedKey",
        label="{ident} {remote_ident}",
        phase=81,
        own_privilege="page-vpn-ipsec-editkeys",
        needed_on_create=("Key",),
        summary="A pre-shared key of IPsec, by the two identifiers that use it.",
        example=(
            "opnsense.ipsec_psk: {ident: hq@example.org, remote_ident: branch@example.org,\n"
            "                     Key: !env BRANCH_PSK}"
        ),
    ),
    KindRow(
        short="ipsec_key_pair",
        path="ipsec/key_pairs",
        root="keyPair",
        label="{name}",
        phase=81,
        own_privilege="page-vpn-ipsec-keypairs",
        omit=("keySize", "keyFingerprint"),
        summary="A public key of IPsec, with its private key where it is our own.",
        example=(
            "opnsense.ipsec_key_pair: {name: hq, keyType: ecdsa, publicKey: !env HQ_PUBLIC_KEY,\n"
            "                          privateKey: !env HQ_PRIVATE_KEY}"
        ),
    ),
    KindRow(
        short="ipsec_connection",
        path="ipsec/connections",
        verbs=verbs_of("Connection"),
        label="{description}",
        phase=82,
        summary="A connection of IPsec. With it the firewall deletes its ends and children.",
        example=(
            "opnsense.ipsec_connection: {description: branch, version: 2, local_addrs: [192.0.2.2],\n"
            "                            remote_addrs: [198.51.100.2]}"
        ),
    ),
    KindRow(
        short="ipsec_local",
        path="ipsec/connections",
        verbs=verbs_of("Local"),
        label="{description}",
        tiebreak=_CONNECTION_PART,
        phase=83,
        summary="How this firewall shows who it is, in a connection of IPsec.",
        example="opnsense.ipsec_local: {description: hq, connection: branch, auth: psk, id: hq.example.org}",
    ),
    KindRow(
        short="ipsec_remote",
        path="ipsec/connections",
        verbs=verbs_of("Remote"),
        label="{description}",
        tiebreak=_CONNECTION_PART,
        phase=83,
        summary="How the other side shows who it is, in a connection of IPsec.",
        example=(
            "opnsense.ipsec_remote: {description: branch, connection: branch, auth: psk,\n"
            "                        id: branch.example.org}"
        ),
    ),
    KindRow(
        short="ipsec_child",
        path="ipsec/connections",
        verbs=verbs_of("Child"),
        label="{description}",
        tiebreak=("connection",),
        phase=83,
        summary="The networks that a connection of IPsec joins.",
        example=(
            "opnsense.ipsec_child: {description: branch lan, connection: branch, reqid: 10,\n"
            "                       local_ts: [192.168.1.0/24], remote_ts: [10.50.0.0/24]}"
        ),
    ),
    KindRow(
        short="ipsec_vti",
        path="ipsec/vti",
        verbs=PLAIN,
        label="{reqid}",
        phase=84,
        summary="A tunnel device of IPsec, for the child that has its reqid.",
        example=(
            "opnsense.ipsec_vti: {reqid: 10, local: 192.0.2.2, remote: 198.51.100.2,\n"
            "                     tunnel_local: 10.70.0.1, tunnel_remote: 10.70.0.2}"
        ),
    ),
    KindRow(
        short="ipsec_manual_spd",
        path="ipsec/manual_spd",
        root="spd",
        verbs=PLAIN,
        label="{source} {destination}",
        tiebreak=("reqid", "connection_child"),
        phase=84,
        own_privilege="page-status-ipsec-spd",
        summary="A policy of IPsec beside those of the children: by a reqid, or by a child.",
        example=(
            "opnsense.ipsec_manual_spd: {source: 10.80.0.0/24, destination: 10.50.0.0/24,\n"
            "                            connection_child: branch lan}"
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

VPN: tuple[KindRow, ...] = (*_TRUST, *_OPENVPN, *_IPSEC, *_WIREGUARD)

_CARP: dict[str, Any] = {
    "reference": "opnsense.vip",
    "doc": "a CARP address, without which it is down: interface and address",
}


def _once(kind: str = "text", **more: Any) -> dict[str, Any]:
    """Return the facts of a field that only says how a certificate is made."""
    doc = "; ".join(filter(None, (more.pop("doc", ""), "only for one that is made")))
    return {"type": kind, "api": "Text", "write_once": True, "doc": doc, **more}


_IDENTIFIER: dict[str, Any] = {
    "pattern": "^[a-zA-Z0-9@.:_-]*$",
    "wanted": "letters, digits and @ . : _ -",
}
_OF_CONNECTION: dict[str, dict[str, Any]] = {
    "description": {"required": True},
    "connection": {"reference": "opnsense.ipsec_connection", "type": "reference"},
}
_WHO: dict[str, dict[str, Any]] = {
    **_OF_CONNECTION,
    "certs": {"reference": "opnsense.trust_cert", "key": "refid"},
    "pubkeys": {"reference": "opnsense.ipsec_key_pair"},
}

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
    "ipsec_psk": {
        "ident": _IDENTIFIER,
        "remote_ident": _IDENTIFIER,
        "Key": {"secret": True, "doc": "needed when it is made"},
    },
    "ipsec_key_pair": {
        "publicKey": {"fold": "lines", "doc": "PEM"},
        "privateKey": {"fold": "lines", "secret": True, "doc": "PEM"},
    },
    "ipsec_connection": {
        "local_addrs": {"type": "list"},
        "remote_addrs": {"type": "list"},
        "pools": {"reference": "opnsense.ipsec_pool", "literal": ("radius",), "doc": "pools, or radius"},
    },
    "ipsec_local": _WHO,
    "ipsec_remote": {
        **_WHO,
        "cacerts": {"reference": "opnsense.trust_ca", "key": "refid"},
        "groups": {"reference": "opnsense.group", "key": "gid"},
    },
    "ipsec_child": _OF_CONNECTION,
    "ipsec_manual_spd": {
        "connection_child": {
            "reference": "opnsense.ipsec_child",
            "doc": "a child; either this or reqid",
        }
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
