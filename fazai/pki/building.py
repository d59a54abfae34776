"""Builds certificates: of the CA itself, of agents, of the listener."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fazai.pki.errors import PkiError
from fazai.pki.files import PrivateKey
from fazai.pki.reading import AGENT_URI, TRUST_URI, PublicKey, fingerprint_of, show_text

KeyType = Literal["p256", "ed25519"]

#: Certificates begin so long ago: for machines whose clocks are a little slow.
BACKDATE_S: Final = 300.0
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?)+", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Period:
    """The time in which a certificate is valid. Seconds since the epoch."""

    not_before: float
    not_after: float


def make_key(kind: KeyType) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """Make a private key."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def key_type_of(key: object) -> str:
    """Return what a key is, for people: p256, ed25519, rsa 2048."""
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return "ed25519"
    curve = getattr(key, "curve", None)
    if curve is not None:
        return str(curve.name).replace("secp256r1", "p256").replace("secp384r1", "p384")
    return f"rsa {getattr(key, 'key_size', '')}"


def build_request(key: PrivateKey, name: str) -> str:
    """Return a request (CSR, PEM) for a certificate of this name and key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, signature_hash(key))
    return request.public_bytes(serialization.Encoding.PEM).decode()


def build_ca(key: PrivateKey, name: str, period: Period) -> x509.Certificate:
    """Build the certificate of a CA, signed by itself. It signs agents and listeners, no other CA."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _begin(subject, subject, key.public_key(), period)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, signature_hash(key))
    )


def build_agent(
    issuer: x509.Certificate, issuer_key: PrivateKey, name: str, key: PublicKey, period: Period
) -> x509.Certificate:
    """Build the certificate of an agent: a client's, of one name."""
    uri = x509.UniformResourceIdentifier(AGENT_URI + name)
    names = x509.SubjectAlternativeName([uri])
    return _build_leaf(issuer, issuer_key, name, key, period, names, ExtendedKeyUsageOID.CLIENT_AUTH)


def build_listener(
    issuer: x509.Certificate, issuer_key: PrivateKey, names: Sequence[str], key: PublicKey, period: Period
) -> x509.Certificate:
    """Build the certificate of the daemon's listener: a server's, of these host names and addresses. Raises
    PkiError(bad_request)."""
    general = [read_host_name(name) for name in names]
    first = names[0] if len(names[0]) <= 64 else "fazai"
    alternative = x509.SubjectAlternativeName(general)
    return _build_leaf(issuer, issuer_key, first, key, period, alternative, ExtendedKeyUsageOID.SERVER_AUTH)


def build_endorsement(issuer: x509.Certificate, issuer_key: PrivateKey, endorsed: x509.Certificate) -> str:
    """Build what proves to an agent that the issuer stands behind another CA: a certificate that names the
    other's fingerprint, and its key (PEM). The key is no secret: with it an agent has the certificate proven
    by a handshake with itself, which is all that the standard library offers."""
    key = make_key("p256")
    uri = x509.UniformResourceIdentifier(TRUST_URI + fingerprint_of(endorsed))
    begin, end = issuer.not_valid_before_utc.timestamp(), issuer.not_valid_after_utc.timestamp()
    made = _build_leaf(
        issuer,
        issuer_key,
        "fazai trust",  # no name that an agent can have
        key.public_key(),
        Period(begin, end),
        x509.SubjectAlternativeName([uri]),
        ExtendedKeyUsageOID.CLIENT_AUTH,
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem_of(made) + key.private_bytes(*form).decode()


def read_host_name(name: str) -> x509.GeneralName:
    """Read a host name or an address. Raises PkiError(bad_request)."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name) or re.fullmatch(r"[0-9.]+", name):
        text = f"{show_text(name)!r} is neither a host name nor an address"
        raise PkiError("bad_request", text, hint="as agents call the daemon: fazai.example.net, 192.0.2.1")
    return x509.DNSName(name.rstrip("."))


def host_names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the host names and addresses of a listener's certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def pem_of(certificate: x509.Certificate) -> str:
    """Return the PEM text of a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def signature_hash(key: PrivateKey) -> hashes.SHA256 | None:
    """Return the hash that signatures of this key are made with; Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _begin(subject: x509.Name, issuer: x509.Name, key: PublicKey, period: Period) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(period.not_before))
        .not_valid_after(_moment(period.not_after))
    )


def _build_leaf(
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    name: str,
    key: PublicKey,
    period: Period,
    names: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        _begin(subject, issuer.subject, key, period)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_key_identifier_of(issuer), critical=False)
        .sign(issuer_key, signature_hash(issuer_key))
    )


def _key_identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how a certificate names the key of its issuer."""
    try:
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
