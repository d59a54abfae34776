"""wireguard: keys, and the names of instances."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler
from fazai.lab.models.wireguard import SERVERS


def make_key_pair(call: ActionCall) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return {
        "privkey": base64.b64encode(private).decode(),
        "pubkey": base64.b64encode(public).decode(),
        "status": "ok",
    }


def make_shared_key(call: ActionCall) -> Any:
    return {"psk": base64.b64encode(secrets.token_bytes(32)).decode(), "status": "ok"}


def list_servers(call: ActionCall) -> Any:
    if call.posted:
        return {"status": "failed"}
    rows = [{"uuid": uuid, "name": item["name"]} for uuid, item in call.box.items(SERVERS).items()]
    return {"rows": rows, "status": "ok"}


ACTIONS: Final[Mapping[str, Handler]] = {
    "wireguard/server/keyPair": make_key_pair,
    "wireguard/client/psk": make_shared_key,
    "wireguard/client/listServers": list_servers,
}
