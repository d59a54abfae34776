"""auth, trust: users and their keys, privileges, certificates."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.access import GROUP_ITEMS, USER_ITEMS, make_api_key, read_privileges
from fazai.lab.box import ActionCall, Handler, posted_only
from fazai.lab.engine.search import make_rows, recordset_answer
from fazai.lab.engine.verbs import FAILED, del_item, get_item
from fazai.lab.models.trust import AUTHORITIES, CERTIFICATES, pem_text


def get_user(call: ActionCall) -> Any:
    """Show a user, neither the hash nor the keys."""
    body = get_item(call, call.model(USER_ITEMS))
    if body:
        body["user"] |= {"password": "", "apikeys": "", "otp_uri": ""}
        for name in ("%password", "%apikeys"):
            body["user"].pop(name, None)
    return body


def add_key(call: ActionCall) -> Any:
    users = call.box.items(USER_ITEMS)
    uuid = next((uuid for uuid, user in users.items() if user["name"] == call.param(0)), None)
    if not call.posted or uuid is None:
        return FAILED
    user = users[uuid]
    key, secret, line = make_api_key()
    lines = [part for part in user["apikeys"].split("\n") if part]
    call.put(USER_ITEMS, uuid, {**user, "apikeys": "\n".join([*lines, line])})
    return {"result": "ok", "hostname": "OPNsense.internal", "key": key, "secret": secret}


@posted_only(otherwise=FAILED)
def delete_key(call: ActionCall) -> Any:
    for uuid, user in call.box.items(USER_ITEMS).items():
        lines = user["apikeys"].split("\n")
        kept = [line for line in lines if line.partition("|")[0] != call.param(0)]
        if len(kept) != len(lines):
            call.put(USER_ITEMS, uuid, {**user, "apikeys": "\n".join(kept)})
            return {"result": "deleted"}
    return {"result": "not found"}


def search_keys(call: ActionCall) -> Any:
    rows = [
        {"username": user["name"], "key": line.partition("|")[0], "id": line.partition("|")[0]}
        for user in call.box.items(USER_ITEMS).values()
        for line in user["apikeys"].split("\n")
        if line
    ]
    return recordset_answer(call, make_rows(rows))


def search_privileges(call: ActionCall) -> Any:
    rows = [
        {
            "id": name,
            "name": row["name"],
            "match": row["match"],
            "users": [u["name"] for u in call.box.items(USER_ITEMS).values() if name in u["priv"].split(",")],
            "groups": [
                g["name"] for g in call.box.items(GROUP_ITEMS).values() if name in g["priv"].split(",")
            ],
        }
        for name, row in read_privileges(call.box).items()
    ]
    return recordset_answer(call, make_rows(rows))


def make_otp_seed(call: ActionCall) -> Any:
    return {
        "seed": secrets.token_hex(16).upper(),
        "otp_uri_template": "otpauth://totp/|USER|@OPNsense?secret=",
    }


# trust


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
    "auth/user/get": get_user,
    "auth/user/addApiKey": add_key,
    "auth/user/delApiKey": delete_key,
    "auth/user/searchApiKey": search_keys,
    "auth/user/newOtpSeed": make_otp_seed,
    "auth/priv/search": search_privileges,
    "trust/ca/caList": list_authorities,
    "trust/cert/caList": list_authorities,
    "trust/ca/generateFile": generate_file(AUTHORITIES),
    "trust/cert/generateFile": generate_file(CERTIFICATES),
    "trust/cert/del": delete_certificate,
}
