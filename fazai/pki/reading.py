"""Reads certificates and requests of others; what they hold is checked before it is used."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fazai.pki.errors import PkiError

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

#: An agent's id stands in the certificate as its common name and as this URI.
AGENT_URI: Final = "fazai:agent:"
#: A certificate with this URI and a SHA-256 says that its issuer endorses the CA of that fingerprint.
TRUST_URI: Final = "fazai:trust:"
REQUEST_MAX_BYTES: Final = 16 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
#: An agent's id, or a host's name in a common name, also one with `*`: one word.
_AGENT_OR_HOST: Final = re.compile(r"[A-Za-z0-9._*:-]+", re.ASCII)
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
#: What cryptography raises for what is none, as soon as it is looked at.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_PRINTABLE: Final = frozenset(string.printable) - frozenset("\t\n\r\x0b\x0c")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """The parts that are taken of a request (CSR): whom it names, and the key. Nothing else in it has a
    say."""

    name: str
    key: PublicKey


def is_agent_name(name: str) -> bool:
    """Return whether our CA issues certificates for this name: it is also a part of paths and URIs."""
    return _NAME.fullmatch(name) is not None


def check_agent_name(name: str) -> None:
    """Raise PkiError(bad_request) for a name that our CA issues no certificates for."""
    if not is_agent_name(name):
        text = f"{show_text(name)!r} is no name for an agent"
        raise PkiError("bad_request", text, hint="letters, digits, . _ -; at most 64, the first no sign")


def read_request(pem: str | bytes) -> CertificateRequest:
    """Read a request (PEM) that is signed by its own key. Raises PkiError(bad_request)."""
    data = pem.encode("utf-8", "surrogateescape") if isinstance(pem, str) else pem
    if len(data) > REQUEST_MAX_BYTES:
        raise PkiError("bad_request", f"the request is larger than {REQUEST_MAX_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(data)
        fits = request.is_signature_valid
        names = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = request.public_key()
    except _UNREADABLE:
        hint = "one PEM block, as of: openssl req -new -key KEY -subj /CN=NAME"
        raise PkiError("bad_request", "this is no certificate request (CSR)", hint=hint) from None
    if not fits:
        raise PkiError("bad_request", "the request is not signed by its own key")
    if len(names) != 1:
        text = f"the request names {'several' if names else 'nobody'}"
        raise PkiError("bad_request", text, hint="one CN: the agent's id")
    return CertificateRequest(names[0], check_public_key(key))


def check_public_key(key: object) -> PublicKey:
    """Return a key that is strong enough. Raises PkiError(bad_request)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    hint = "EC P-256, P-384, P-521, Ed25519, or RSA of 2048 to 8192 bits"
    raise PkiError("bad_request", "the key of the request is of no sort that is taken", hint=hint)


def read_certificate(data: bytes | str) -> x509.Certificate:
    """Read a certificate, DER or PEM. Raises PkiError(bad_request)."""
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    try:
        if raw.lstrip().startswith(b"-----BEGIN"):
            found = x509.load_pem_x509_certificate(raw)
        else:
            found = x509.load_der_x509_certificate(raw)
        # each of them is read only when it is asked for, and may be damaged
        _ = (found.subject, found.issuer, found.not_valid_before_utc, found.not_valid_after_utc)
    except _UNREADABLE:
        raise PkiError("bad_request", "this is no certificate") from None
    return found


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the certificate's DER form, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def common_name(name: x509.Name) -> str:
    """Return the common name of a subject or issuer; an empty text where there is none."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """Return the certificate's other names; None without any, also where its extensions cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return None


def agent_names(certificate: x509.Certificate) -> frozenset[str]:
    """Return the agents that a certificate may name: common name, DNS names, our URIs."""
    names = {common_name(certificate.subject)}
    other = alternative_names(certificate)
    if other is not None:
        names.update(other.get_values_for_type(x509.DNSName))
        uris = other.get_values_for_type(x509.UniformResourceIdentifier)
        names.update(uri.removeprefix(AGENT_URI) for uri in uris if uri.startswith(AGENT_URI))
    return frozenset(names - {""})


def issued_agent_name(certificate: x509.Certificate) -> str | None:
    """Return the agent that our CA issued a certificate for; None for one of a listener."""
    other = alternative_names(certificate)
    uris = other.get_values_for_type(x509.UniformResourceIdentifier) if other is not None else []
    name = common_name(certificate.subject)
    return name if name and uris == [AGENT_URI + name] else None


def endorsed_ca(certificate: x509.Certificate) -> str:
    """Return the fingerprint of the CA that a certificate endorses; an empty text for one of another sort."""
    other = alternative_names(certificate)
    uris = other.get_values_for_type(x509.UniformResourceIdentifier) if other is not None else []
    found = [uri.removeprefix(TRUST_URI) for uri in uris if uri.startswith(TRUST_URI)]
    return found[0] if len(found) == 1 else ""


def names_somebody(certificate: x509.Certificate) -> str:
    """Return the name of an agent or a host that a certificate can stand for; an empty text: of none."""
    names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    found = [one for one in names if _AGENT_OR_HOST.fullmatch(one)]
    other = alternative_names(certificate)
    if other is not None:
        uris = other.get_values_for_type(x509.UniformResourceIdentifier)
        found += other.get_values_for_type(x509.DNSName)
        found += map(str, other.get_values_for_type(x509.IPAddress))
        found += [uri for uri in uris if uri.startswith(AGENT_URI)]
    return show_text(found[0]) if found else ""


def may_be_client(certificate: x509.Certificate) -> bool:
    """Return whether a certificate may be used by a client, as OpenSSL sees it too: where it does not say
    what for, it may."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except _UNREADABLE:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether the certificate's name of its issuer and its signature are those of the issuer."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except _UNREADABLE:
        return False
    return True


def verify_signature(key: object, signature: bytes, data: bytes) -> bool:
    """Return whether the signature of the data is by this key: ECDSA and RSA (PKCS #1 v1.5) with SHA-256, as
    of `openssl dgst -sha256 -sign`, or Ed25519."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def same_key(one: PublicKey, other: object) -> bool:
    """Return whether two public keys are the same."""
    if not isinstance(other, PublicKey):
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return one.public_bytes(*form) == other.public_bytes(*form)


def show_text(text: str) -> str:
    """Return a text of somebody else for a message: one short line of printable ASCII."""
    return "".join(char if char in _PRINTABLE else "?" for char in text[:64])
