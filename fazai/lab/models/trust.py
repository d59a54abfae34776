"""Certificates and authorities: really made, and read back from their PEM text."""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fazai.lab.box import Box, Call, UserError
from fazai.lab.config import Item, as_text
from fazai.lab.hooktypes import Extra, Hooks
from fazai.lab.schema import ItemModel

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

__all__ = ["AUTHORITIES", "CERTIFICATES", "HOOKS"]

AUTHORITIES: Final = "Trust.CA.ca"
CERTIFICATES: Final = "Trust.Cert.cert"

# field -> (short name in a subject, dotted oid)
SUBJECT: Final = {
    "country": ("C", "2.5.4.6"),
    "state": ("ST", "2.5.4.8"),
    "city": ("L", "2.5.4.7"),
    "organization": ("O", "2.5.4.10"),
    "organizationalunit": ("OU", "2.5.4.11"),
    "email": ("emailAddress", "1.2.840.113549.1.9.1"),
    "commonname": ("CN", "2.5.4.3"),
}
PURPOSES: Final = {
    "usr_cert": ("1.3.6.1.5.5.7.3.2", "id-kp-clientAuth"),
    "server_cert": ("1.3.6.1.5.5.7.3.1", "id-kp-serverAuth"),
}


def _wanted(call: Call, model: ItemModel) -> dict[str, str]:
    """What was asked for: fields that are not stored, only used to make the certificate."""
    sent = call.body.get(model.root, {})
    wanted = {field.name: field.default for field in model.fields if field.volatile}
    if isinstance(sent, Mapping):
        wanted |= {name: as_text(value) for name, value in sent.items() if name in wanted and value != ""}
    return wanted


def _make_key(kind: str) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    curves: dict[str, ec.EllipticCurve] = {
        "prime256v1": ec.SECP256R1(),
        "secp384r1": ec.SECP384R1(),
        "secp521r1": ec.SECP521R1(),
    }
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    return rsa.generate_private_key(65537, max(int(kind), 1024))


def _subject(wanted: Mapping[str, str]) -> x509.Name:
    from cryptography import x509

    return x509.Name(
        [
            x509.NameAttribute(x509.ObjectIdentifier(oid), wanted[name])
            for name, (_, oid) in SUBJECT.items()
            if wanted.get(name)
        ]
    )


def _certificate(
    wanted: Mapping[str, str],
    key: PrivateKey,
    issuer: tuple[x509.Name, PrivateKey] | None,
    *,
    authority: bool,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.UTC)
    subject = _subject(wanted)
    issuer_name, signer = issuer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=int(wanted["lifetime"])))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        oids = [x509.ObjectIdentifier(PURPOSES[kind][0]) for kind in PURPOSES if kind == wanted["cert_type"]]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False) if oids else builder
        names = [x509.DNSName(name.strip()) for name in wanted["altnames_dns"].splitlines() if name.strip()]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digests: dict[str, hashes.SHA224 | hashes.SHA384 | hashes.SHA512] = {
        "sha224": hashes.SHA224(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    return builder.sign(signer, digests.get(wanted["digest"], hashes.SHA256()))


def _load(crt: str) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificate(base64.b64decode(crt))


def _load_key(prv: str) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(base64.b64decode(prv), None)  # type: ignore[return-value]


def _store_pair(new: dict[str, str], key: PrivateKey, certificate: x509.Certificate) -> None:
    from cryptography.hazmat.primitives import serialization

    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    new["prv"] = base64.b64encode(key_pem).decode()
    new["crt"] = base64.b64encode(certificate.public_bytes(serialization.Encoding.PEM)).decode()


def _issuer(box: Box, caref: str) -> tuple[x509.Name, PrivateKey] | None:
    for item in box.items(AUTHORITIES).values():
        if item["refid"] == caref and item["prv"]:
            return _load(item["crt"]).subject, _load_key(item["prv"])
    return None


def _create(call: Call, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Make what was asked for; what was imported must be a certificate."""
    if not new["descr"] or new["crt"]:
        return
    wanted = _wanted(call, model)
    new["refid"] = new["refid"] or secrets.token_hex(7)[:13]
    if wanted["action"] in ("existing", "import"):
        payload = base64.b64encode(wanted["crt_payload"].encode()).decode()
        try:
            _load(payload)
        except ValueError as error:
            raise UserError("Invalid X509 certificate provided", "Certificate error") from error
        new["crt"] = payload
        new["prv"] = base64.b64encode(wanted["prv_payload"].encode()).decode()
    elif wanted["action"] == "internal":
        key = _make_key(wanted["key_type"])
        issuer = _issuer(call.box, new["caref"])
        _store_pair(new, key, _certificate(wanted, key, issuer, authority=model.path == AUTHORITIES))


def _facts(certificate: x509.Certificate) -> dict[str, str]:
    """What the certificate says of itself, in the names of the fields."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    subject = {attribute.oid.dotted_string: str(attribute.value) for attribute in certificate.subject}
    facts = {name: subject.get(oid, "") for name, (_, oid) in SUBJECT.items()}
    facts["name"] = "".join(f"/{short}={facts[name]}" for name, (short, _) in SUBJECT.items() if facts[name])
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        facts["key_type"] = str(key.key_size)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        facts["key_type"] = {"secp256r1": "prime256v1"}.get(key.curve.name, key.curve.name)
    digest = certificate.signature_hash_algorithm
    facts["digest"] = digest.name if digest is not None else ""
    facts["valid_from"] = f"{certificate.not_valid_before_utc.timestamp():.0f}"
    facts["valid_to"] = f"{certificate.not_valid_after_utc.timestamp():.0f}"
    facts["crt_payload"] = certificate.public_bytes(serialization.Encoding.PEM).decode()
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage):
            for kind, (oid, name) in PURPOSES.items():
                if oid in [usage.dotted_string for usage in value]:
                    facts |= {"cert_type": kind, "rfc3280_purpose": name}
        elif isinstance(value, x509.SubjectAlternativeName):
            facts["altnames_dns"] = "\n".join(value.get_values_for_type(x509.DNSName))
    return facts


def _computed(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    """The fields that are not stored, read from the certificate; the defaults for a new one."""
    values = {field.name: field.default for field in model.fields if field.volatile}
    if not uuid:
        return values
    values["action"] = "existing" if model.path == AUTHORITIES else "reissue"
    if item["prv"]:
        values["prv_payload"] = base64.b64decode(item["prv"]).decode()
    if item["crt"]:
        values |= _facts(_load(item["crt"]))
    if model.path == AUTHORITIES:
        used = [row for row in box.items(CERTIFICATES).values() if row["caref"] == item["refid"]]
        values["refcount"] = str(len(used))
    return {name: value for name, value in values.items() if name in model.by_name()}


HOOKS: Final = Hooks(
    computed={AUTHORITIES: _computed, CERTIFICATES: _computed},
    extra={
        AUTHORITIES: Extra(paths=(CERTIFICATES,), before=(_create,)),
        CERTIFICATES: Extra(paths=(AUTHORITIES,), before=(_create,)),
    },
)
