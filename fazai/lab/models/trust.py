"""Certificates and authorities: really made, really checked, and read back from what was stored.

What a certificate is made of is sent in fields that are never stored. They are validated like the others;
then the certificate is made and takes their place.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from fazai.lab.box import ActionCall, Box, UserError
from fazai.lab.engine.config import ConfigEdit, Item, stored_text
from fazai.lab.engine.fieldtypes import validate_field
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import ItemModel

if TYPE_CHECKING:
    from cryptography import x509

    from fazai.lab.server.x509 import PrivateKey

AUTHORITIES: Final = "Trust.CA.ca"
CERTIFICATES: Final = "Trust.Cert.cert"
INSTANCES: Final = "OpenVPN.Instances.Instance"
DESTINATIONS: Final = "Syslog.destinations.destination"

TITLE: Final = "Certificate error"
INVALID: Final = "Invalid X509 certificate provided"
PLAIN: Final = ("Option", "Integer", "Url")  # the types of fields whose value can be wrong


def pem_text(encoded: str) -> str:
    """Return the PEM text of a stored certificate or key."""
    return base64.b64decode(encoded).decode() if encoded else ""


def _encode_pem(text: str) -> str:
    return base64.b64encode(text.encode()).decode() if text else ""


def _fill_in(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Fill in the fields that are not stored: what was sent, else what the certificate says."""
    known = _read_certificate(call.box, model, uuid if old["crt"] else "", old)
    sent = call.body.get(model.root, {})
    for field in model.fields:
        if field.volatile:
            new[field.name] = str(known.get(field.name, field.default))
            if isinstance(sent, Mapping) and field.name in sent:
                new[field.name] = stored_text(sent[field.name])


def _check_certificate(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for field in model.fields:
        if field.volatile and (field.type in PLAIN or field.options is not None):
            for message in validate_field(box, field, item.get(field.name, ""), item):
                yield field.name, message


def _find_issuer(box: Box, caref: str) -> tuple[x509.Certificate, PrivateKey] | None:
    """Return the authority that signs; None for a certificate that signs itself."""
    from fazai.lab.server.x509 import key_of, load_certificate

    if not caref:
        return None
    for item in box.items(AUTHORITIES).values():
        if item["refid"] == caref and item["prv"]:
            return load_certificate(item["crt"]), key_of(item["prv"])
    raise UserError("The certificate authority has no private key", TITLE)


def _issue_certificate(call: ActionCall, new: dict[str, str]) -> None:
    from fazai.lab.server.x509 import make_key, pem_of, sign_certificate

    if new.get("private_key_location") == "local":
        raise UserError("the lab keeps the key of every certificate that it makes", "lab")
    key = make_key(new["key_type"])
    new |= {
        "crt": pem_of(sign_certificate(new, key, _find_issuer(call.box, new["caref"]))),
        "prv": pem_of(key),
    }


def _import_certificate(call: ActionCall, new: dict[str, str]) -> None:
    from fazai.lab.server.x509 import key_of, load_certificate

    crt, prv = _encode_pem(new["crt_payload"]), _encode_pem(new["prv_payload"].strip() and new["prv_payload"])
    try:
        certificate = load_certificate(crt)
    except ValueError as error:
        raise UserError(INVALID, TITLE) from error
    if prv:
        try:
            key = key_of(prv)
        except ValueError as error:
            text = "Invalid private key provided"
            text += ": cannot parse private key data" if "csr" in new else ""
            raise UserError(text, TITLE) from error
        if "csr" in new and certificate.public_key() != key.public_key():
            text = "Invalid private key provided: private key does not match certificate data"
            raise UserError(text, TITLE)
    new |= {"crt": crt, "prv": prv}


def _reissue_certificate(call: ActionCall, new: dict[str, str]) -> None:
    """Sign the same key and names for a new period."""
    from fazai.lab.server.x509 import key_of, pem_of, sign_certificate

    new["crt"] = pem_of(sign_certificate(new, key_of(new["prv"]), _find_issuer(call.box, new["caref"])))


def _keep_payload(call: ActionCall, new: dict[str, str]) -> None:
    new["crt"] = _encode_pem(new["crt_payload"]) or new["crt"]


MADE: Final[Mapping[str, Callable[[ActionCall, dict[str, str]], None]]] = {
    "internal": _issue_certificate,
    "existing": _import_certificate,
    "import": _import_certificate,
    "reissue": _reissue_certificate,
    "manual": _keep_payload,
}


def _make_certificate(call: ActionCall, edit: ConfigEdit, uuid: str, old: Item, stored: Item) -> None:
    """Make what was asked for, and forget the fields that are not stored."""
    new = cast("dict[str, str]", stored)  # the item that is being saved: it is still ours to change
    new["refid"] = new["refid"] or secrets.token_hex(7)[:13]
    make = MADE.get(new["action"])
    if make is None:
        raise UserError(f"the lab does not model certificates by {new['action']}", "lab")
    try:
        make(call, new)
    except ValueError as error:
        raise UserError(str(error), TITLE) from error
    for model in (call.model(path) for path in (AUTHORITIES, CERTIFICATES)):
        for field in model.fields:
            if field.volatile:
                new.pop(field.name, None)


def _read_certificate(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """Return the fields that are not stored, read from the certificate; the defaults for a new one."""
    from fazai.lab.server.x509 import certificate_facts, load_certificate

    names = {field.name: field.default for field in model.fields if field.volatile}
    values: dict[str, Any] = dict(names)
    if not uuid:
        return values
    values["action"] = "existing" if model.path == AUTHORITIES else "reissue"
    values["prv_payload"] = pem_text(item["prv"])
    if item["crt"]:
        values |= {
            name: fact
            for name, fact in certificate_facts(load_certificate(item["crt"])).items()
            if name in names
        }
    if model.path == AUTHORITIES:
        certificates = [*box.items(CERTIFICATES).values(), *box.items(AUTHORITIES).values()]
        values["refcount"] = str(sum(row["caref"] == item["refid"] for row in certificates))
    else:
        values["in_use"] = "1" if _find_certificate_users(box, item["refid"]) else "0"
    return values


def _find_certificate_users(box: Box, refid: str) -> list[str]:
    """Return the users of a certificate, as an error names them: OpenVPN and log destinations here."""
    return [
        f"{who} - {item['description']} {{{path}.{key}}}\n"
        for who, path, collection, name in (
            ("OpenVPN", INSTANCES, INSTANCES, "cert"),
            ("syslog", "syslog.destinations.destination", DESTINATIONS, "certificate"),
        )
        for key, item in box.items(collection).items()
        if item[name] == refid
    ]


def _refuse_used_certificate(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    users = _find_certificate_users(box, item["refid"])
    if users:
        raise UserError("".join(users), "Item in use by")


HOOKS: Final = ModelHooks(
    checks={"certificate": _check_certificate},
    guards={"certificate_unused": _refuse_used_certificate},
    collections={
        path: CollectionHooks(
            computed=_read_certificate,
            paths=(AUTHORITIES, INSTANCES, other),
            before=(_fill_in,),
            after=(_make_certificate,),
        )
        for path, other in ((AUTHORITIES, CERTIFICATES), (CERTIFICATES, DESTINATIONS))
    },
)
