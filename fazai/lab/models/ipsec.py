"""IPsec: key pairs that belong together, ends of one address family, and what a connection shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

KEY_PAIRS: Final = "IPsec.keyPairs.keyPair"
CONNECTIONS: Final = "IPsec.Swanctl.Connections.Connection"
CHILDREN: Final = "IPsec.Swanctl.children.child"
_NO_KEY: Final = "Could not load potentially invalid public key: "
_PAIRS: Final = (("local", "remote"), ("tunnel_local", "tunnel_remote"), ("tunnel_local2", "tunnel_remote2"))


def _public_key(text: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(text.encode())


def _public_bytes(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def _check_key_pair(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not item["publicKey"]:
        return
    try:
        public = _public_key(item["publicKey"])
    except ValueError:
        yield "publicKey", f"{_NO_KEY}error:0480006C:PEM routines::no start line"
        return
    if not item["privateKey"]:
        return
    try:
        private = load_pem_private_key(item["privateKey"].encode(), None)
    except ValueError:
        yield "privateKey", "Could not load potentially invalid private key: "
        return
    if _public_bytes(private.public_key()) != _public_bytes(public):
        yield "privateKey", "This private key does not belong to the given public key."


def _describe_key(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Fill in size and fingerprint of a key that can be read."""
    try:
        public = _public_key(new["publicKey"])
    except ValueError:
        return
    sent = call.body.get(model.root, {})
    if not (isinstance(sent, Mapping) and sent.get("keySize")):
        new["keySize"] = str(public.key_size)
    new["keyFingerprint"] = hashlib.sha256(_public_bytes(public)).hexdigest()


def _family(address: str) -> str:
    return "6" if ":" in address else "4" if address else ""


def _check_families(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for first, second in _PAIRS:
        if _family(item[first]) != _family(item[second]):
            yield first, "Protocol families should match"


def _check_policy(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if bool(item["reqid"]) == bool(item["connection_child"]):
        yield "connection_child", "Either reqid or child must be set"


def _check_remote(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["certs"] and item["cacerts"]:
        yield "certs", "Either match on a certificate or an autority, but not both."


def _show_connection(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """Return the networks of a connection's children."""
    children = [child for child in box.items(CHILDREN).values() if uuid and child["connection"] == uuid]
    return {
        name: ",".join(dict.fromkeys(part for child in children for part in child[name].split(",") if part))
        for name in ("local_ts", "remote_ts")
    }


HOOKS: Final = ModelHooks(
    checks={
        "ipsec_key_pair": _check_key_pair,
        "ipsec_families": _check_families,
        "ipsec_policy": _check_policy,
        "ipsec_remote": _check_remote,
    },
    collections={
        CONNECTIONS: CollectionHooks(computed=_show_connection, paths=(CHILDREN,)),
        KEY_PAIRS: CollectionHooks(before=(_describe_key,)),
        "IPsec.Swanctl.VTIs.VTI": CollectionHooks(computed=lambda *of: {"origin": "vti" if of[2] else ""}),
        "IPsec.Swanctl.SPDs.SPD": CollectionHooks(computed=lambda *of: {"origin": "spd" if of[2] else ""}),
    },
)
