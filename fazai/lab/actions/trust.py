"""trust/*: the actions beyond the generic verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.box import ActionCall, Handler
from fazai.lab.engine.verbs import del_item
from fazai.lab.models.trust import AUTHORITIES, CERTIFICATES, pem_text


def list_authorities(call: ActionCall) -> Any:
    rows = [{"caref": item["refid"], "descr": item["descr"]} for item in call.box.items(AUTHORITIES).values()]
    return {"rows": rows, "count": len(rows)}


def delete_certificate(call: ActionCall) -> Any:
    return del_item(call, call.model(CERTIFICATES)) if call.posted else {"status": "failed"}


def generate_file(path: str) -> Handler:
    """Return the handler that sends the certificate or the key as PEM text."""

    def handler(call: ActionCall) -> Any:
        item = call.box.items(path).get(call.param(0) or "")
        if not call.posted or call.param(0) is None:
            return {"status": "failed"}
        if item is None or not item["crt"]:
            descr = "" if item is None else item["descr"]
            return {"status": "failed", "descr": descr, "error": "Missing certificate"}
        kind = call.param(1) or "crt"
        if kind not in ("crt", "prv"):
            return {"status": "failed", "descr": item["descr"]}
        return {"status": "ok", "descr": item["descr"], "payload": pem_text(item[kind])}

    return handler


ACTIONS: Final[Mapping[str, Handler]] = {
    "trust/ca/caList": list_authorities,
    "trust/cert/caList": list_authorities,
    "trust/ca/generateFile": generate_file(AUTHORITIES),
    "trust/cert/generateFile": generate_file(CERTIFICATES),
    "trust/cert/del": delete_certificate,
}
