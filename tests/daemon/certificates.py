"""Certificates made for one test: an authority, servers and clients of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fazai.lab.server.tls import LabAuthority


@dataclass(frozen=True)
class Files:
    cert: Path
    key: Path
    ca: Path


def server(folder: Path, name: str = "server", authority: LabAuthority | None = None) -> Files:
    """Files of a server that is called localhost."""
    signer = authority or LabAuthority.create()
    key, certificate = signer.server("valid")
    return _write(folder, name, signer, key, certificate)


def client(folder: Path, common_name: str, authority: LabAuthority) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _write(folder, common_name, authority, pem, certificate.public_bytes(serialization.Encoding.PEM))


def _write(folder: Path, name: str, authority: LabAuthority, key: bytes, certificate: bytes) -> Files:
    files = Files(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-ca.pem")
    files.cert.write_bytes(certificate)
    files.key.write_bytes(key)
    files.key.chmod(0o600)
    files.ca.write_text(authority.pem)
    return files
