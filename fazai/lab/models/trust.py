"""Certificates and authorities: really made, really checked, and read back from what was stored.

What a certificate is made of is sent in fields that are never stored. They are validated like the others;
then the certificate is made and takes their place.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from fazai.lab.box import Box, Call, UserError
from fazai.lab.engine.config import Edit, Item, as_text
from fazai.lab.engine.fieldtypes import validate
from fazai.lab.engine.hooktypes import Extra, Hooks
from fazai.lab.engine.schema import ItemModel

if TYPE_CHECKING:
    from cryptography import x509

    from fazai.lab.server.x509 import PrivateKey

__all__ = ["AUTHORITIES", "CERTIFICATES", "HOOKS", "text_of"]

AUTHORITIES: Final = "Trust.CA.ca"
CERTIFICATES: Final = "Trust.Cert.cert"
DESTINATIONS: Final = "Syslog.destinations.destination"

TITLE: Final = "Certificate error"
INVALID: Final = "Invalid X509 certificate provided"
PLAIN: Final = ("Option", "Integer", "Url")  # the types of fields whose value can be wrong


def text_of(encoded: str) -> str:
    """The PEM text of a stored certificate or key."""
    return base64.b64decode(encoded).decode() if encoded else ""


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode() if text else ""


def _fill_in(call: Call, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """The fields that are not stored: what was sent, else what the stored certificate says."""
    known = _computed(call.box, model, uuid if old["crt"] else "", old)
    sent = call.body.get(model.root, {})
    for field in model.fields:
        if field.volatile:
            new[field.name] = str(known.get(field.name, field.default))
            if isinstance(sent, Mapping) and field.name in sent:
                new[field.name] = as_text(sent[field.name])


def _check(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    for field in model.fields:
        if field.volatile and (field.type in PLAIN or field.options is not None):
            for message in validate(box, field, item.get(field.name, ""), item):
                yield field.name, message


def _issuer(box: Box, caref: str) -> tuple[x509.Certificate, PrivateKey] | None:
    """The authority that signs; None for a certificate that signs itself."""
    from fazai.lab.server.x509 import key_of, load_certificate

    if not caref:
        return None
    for item in box.items(AUTHORITIES).values():
        if item["refid"] == caref and item["prv"]:
            return load_certificate(item["crt"]), key_of(item["prv"])
    raise UserError("The certificate authority has no private key", TITLE)


def _internal(call: Call, new: dict[str, str]) -> None:
    from fazai.lab.server.x509 import make_key, pem_of, sign

    if new.get("private_key_location") == "local":
        raise UserError("the lab keeps the key of every certificate that it makes", "lab")
    key = make_key(new["key_type"])
    new |= {"crt": pem_of(sign(new, key, _issuer(call.box, new["caref"]))), "prv": pem_of(key)}


def _imported(call: Call, new: dict[str, str]) -> None:
    from fazai.lab.server.x509 import key_of, keys_match, load_certificate

    crt, prv = _encoded(new["crt_payload"]), _encoded(new["prv_payload"].strip() and new["prv_payload"])
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
        if "csr" in new and not keys_match(certificate, key):
            text = "Invalid private key provided: private key does not match certificate data"
            raise UserError(text, TITLE)
    new |= {"crt": crt, "prv": prv}


def _reissued(call: Call, new: dict[str, str]) -> None:
    """The same key and names, a new period."""
    from fazai.lab.server.x509 import key_of, pem_of, sign

    new["crt"] = pem_of(sign(new, key_of(new["prv"]), _issuer(call.box, new["caref"])))


def _manual(call: Call, new: dict[str, str]) -> None:
    new["crt"] = _encoded(new["crt_payload"]) or new["crt"]


MADE: Final[Mapping[str, Callable[[Call, dict[str, str]], None]]] = {
    "internal": _internal,
    "existing": _imported,
    "import": _imported,
    "reissue": _reissued,
    "manual": _manual,
}


def _make(call: Call, edit: Edit, uuid: str, old: Item, stored: Item) -> None:
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
    for model in (call.box.catalogue.items[path] for path in (AUTHORITIES, CERTIFICATES)):
        for field in model.fields:
            if field.volatile:
                new.pop(field.name, None)


def _computed(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """The fields that are not stored, read from the certificate; the defaults for a new one."""
    from fazai.lab.server.x509 import facts_of, load_certificate

    names = {field.name: field.default for field in model.fields if field.volatile}
    values: dict[str, Any] = dict(names)
    if not uuid:
        return values
    values["action"] = "existing" if model.path == AUTHORITIES else "reissue"
    values["prv_payload"] = text_of(item["prv"])
    if item["crt"]:
        values |= {
            name: fact for name, fact in facts_of(load_certificate(item["crt"])).items() if name in names
        }
    if model.path == AUTHORITIES:
        certificates = [*box.items(CERTIFICATES).values(), *box.items(AUTHORITIES).values()]
        values["refcount"] = str(sum(row["caref"] == item["refid"] for row in certificates))
    else:
        values["in_use"] = "1" if _users(box, item["refid"]) else "0"
    return values


def _users(box: Box, refid: str) -> list[str]:
    """Who uses a certificate, as an error names them: log destinations, in this lab."""
    destinations = box.items(DESTINATIONS).items()
    return [
        f"syslog - {item['description']} {{syslog.destinations.destination.{key}}}\n"
        for key, item in destinations
        if item["certificate"] == refid
    ]


def _unused(box: Box, model: ItemModel, uuid: str, item: Item) -> None:
    users = _users(box, item["refid"])
    if users:
        raise UserError("".join(users), "Item in use by")


HOOKS: Final = Hooks(
    checks={"certificate": _check},
    guards={"certificate_unused": _unused},
    computed={AUTHORITIES: _computed, CERTIFICATES: _computed},
    extra={
        AUTHORITIES: Extra(paths=(CERTIFICATES, AUTHORITIES), before=(_fill_in,), after=(_make,)),
        CERTIFICATES: Extra(paths=(AUTHORITIES, DESTINATIONS), before=(_fill_in,), after=(_make,)),
    },
)
