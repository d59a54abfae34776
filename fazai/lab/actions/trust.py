"""trust/* and wireguard/*: what is not the generic verbs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.actions.common import reconfigure
from fazai.lab.box import Call, Handler
from fazai.lab.models.trust import AUTHORITIES

__all__ = ["ACTIONS"]


def authorities(call: Call) -> Any:
    rows = [{"caref": item["refid"], "descr": item["descr"]} for item in call.box.items(AUTHORITIES).values()]
    return {"rows": rows, "count": len(rows)}


def key_pair(call: Call) -> Any:
    """A WireGuard key pair."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return {
        "privkey": base64.b64encode(private).decode(),
        "pubkey": base64.b64encode(public).decode(),
        "status": "ok",
    }


def wireguard_reconfigure(call: Call) -> Any:
    if not call.posted:
        return {"result": "failed"}
    call.box.apply("wireguard")
    call.box.running.services["wireguard"] = "running"
    return {"result": "ok"}


def list_servers(call: Call) -> Any:
    rows = [
        {"uuid": uuid, "name": item["name"]}
        for uuid, item in call.box.items("Wireguard.Server.servers.server").items()
    ]
    return {"status": "ok", "rows": rows}


ACTIONS: Final[Mapping[str, Handler]] = {
    "trust/ca/caList": authorities,
    "trust/cert/caList": authorities,
    "trust/settings/reconfigure": reconfigure("trust"),
    "wireguard/server/keyPair": key_pair,
    "wireguard/service/reconfigure": wireguard_reconfigure,
    "wireguard/client/listServers": list_servers,
}
