"""Certificates of the lab's firewalls: made, and read back from their PEM text.

`cryptography` is heavy: this module is imported only when a certificate is touched.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

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
CLIENT: Final = ("1.3.6.1.5.5.7.3.2", "id-kp-clientAuth")
SERVER: Final = ("1.3.6.1.5.5.7.3.1", "id-kp-serverAuth")
# type of a certificate -> what it may be used for
PURPOSES: Final = {
    "combined_server_client": (SERVER, CLIENT),
    "server_cert": (SERVER,),
    "usr_cert": (CLIENT,),
}
CURVES: Final[Mapping[str, ec.EllipticCurve]] = {
    "prime256v1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
}
DIGESTS: Final = {
    digest.name: digest for digest in (hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}


def make_key(kind: str) -> PrivateKey:
    """Make a key of one of the product's types: bits of an RSA key (at least 1024), or a curve."""
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind])
    return rsa.generate_private_key(65537, max(int(kind), 1024))


def load_certificate(encoded: str) -> x509.Certificate:
    """Return the certificate in base64 of PEM text. Raises ValueError when it is none."""
    return x509.load_pem_x509_certificate(base64.b64decode(encoded))


def key_of(encoded: str) -> PrivateKey:
    """Return the private key in base64 of PEM text. Raises ValueError when it is none."""
    try:
        key = serialization.load_pem_private_key(base64.b64decode(encoded), None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("no usable private key") from error
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise ValueError("neither an RSA nor an elliptic curve key")
    return key


def pem_bytes(thing: x509.Certificate | PrivateKey) -> bytes:
    """Return the PEM text of a certificate or a key."""
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem_of(thing: x509.Certificate | PrivateKey) -> str:
    """Return base64 of the PEM text, as the configuration keeps it."""
    return base64.b64encode(pem_bytes(thing)).decode()


def begin_certificate(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    """Return a certificate to be completed and signed."""
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(end)


def _subject_name(wanted: Mapping[str, str]) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.ObjectIdentifier(oid), wanted[name])
            for name, (_, oid) in SUBJECT.items()
            if wanted.get(name)
        ]
    )


def _nonblank_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _alternative_names(wanted: Mapping[str, str]) -> list[x509.GeneralName]:
    """Return the alternative names. Raises ValueError for an address that is none."""
    names: list[x509.GeneralName] = [
        x509.DNSName(line) for line in _nonblank_lines(wanted.get("altnames_dns", ""))
    ]
    addresses = map(ipaddress.ip_address, _nonblank_lines(wanted.get("altnames_ip", "")))
    names += [x509.IPAddress(address) for address in addresses]
    names += [
        x509.UniformResourceIdentifier(line) for line in _nonblank_lines(wanted.get("altnames_uri", ""))
    ]
    names += [x509.RFC822Name(line) for line in _nonblank_lines(wanted.get("altnames_email", ""))]
    return names


def sign_certificate(
    wanted: Mapping[str, str], key: PrivateKey, issuer: tuple[x509.Certificate, PrivateKey] | None
) -> x509.Certificate:
    """Make a certificate for a key from the fields of an item; without an issuer it signs itself.

    Raises ValueError when a field does not fit into a certificate.
    """
    now = datetime.datetime.now(datetime.UTC)
    subject = _subject_name(wanted)
    kind = wanted.get("cert_type", "v3_ca")
    end = now + datetime.timedelta(days=int(wanted["lifetime"]))
    builder = begin_certificate(subject, subject if issuer is None else issuer[0].subject, key, now, end)
    constraints = x509.BasicConstraints(ca=kind == "v3_ca", path_length=None)
    builder = builder.add_extension(constraints, critical=True)
    oids = [x509.ObjectIdentifier(oid) for oid, _ in PURPOSES.get(kind, ())]
    if oids:
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
    names = _alternative_names(wanted)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if wanted["digest"] not in DIGESTS:
        raise ValueError(f"the lab makes no {wanted['digest'].upper()} signatures")
    return builder.sign(key if issuer is None else issuer[1], DIGESTS[wanted["digest"]])


def _key_type(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return str(key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "prime256v1"}.get(key.curve.name, key.curve.name)
    return ""


def _read_extensions(certificate: x509.Certificate) -> dict[str, str]:
    """Return the type of the certificate and its other names."""
    found: dict[str, str] = {}
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage):
            used = {usage.dotted_string for usage in value}
            for kind, purposes in PURPOSES.items():
                if used == {oid for oid, _ in purposes}:
                    found["cert_type"] = kind
            names = [name for oid, name in (SERVER, CLIENT) if oid in used]
            found["rfc3280_purpose"] = ", ".join(names)
        elif isinstance(value, x509.BasicConstraints) and value.ca:
            found["cert_type"] = "v3_ca"
        elif isinstance(value, x509.SubjectAlternativeName):
            addresses = value.get_values_for_type(x509.IPAddress)
            found["altnames_dns"] = "\n".join(value.get_values_for_type(x509.DNSName))
            found["altnames_ip"] = "\n".join(map(str, addresses))
            found["altnames_uri"] = "\n".join(value.get_values_for_type(x509.UniformResourceIdentifier))
            found["altnames_email"] = "\n".join(value.get_values_for_type(x509.RFC822Name))
    return found


def certificate_facts(certificate: x509.Certificate) -> dict[str, str]:
    """Return the facts of a certificate, in the names of the fields."""
    subject = {attribute.oid.dotted_string: str(attribute.value) for attribute in certificate.subject}
    facts = {name: subject.get(oid, "") for name, (_, oid) in SUBJECT.items()}
    facts["name"] = "".join(f"/{short}={facts[name]}" for name, (short, _) in SUBJECT.items() if facts[name])
    digest = certificate.signature_hash_algorithm
    facts |= {
        "key_type": _key_type(certificate),
        "digest": "" if digest is None else digest.name,
        "valid_from": f"{certificate.not_valid_before_utc.timestamp():.0f}",
        "valid_to": f"{certificate.not_valid_after_utc.timestamp():.0f}",
        "crt_payload": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }
    return facts | _read_extensions(certificate)
