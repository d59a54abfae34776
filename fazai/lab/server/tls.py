"""Certificates for firewalls of the lab: an authority of its own, and ones that a client must refuse."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fazai.lab.server.x509 import begin_certificate, pem_bytes
from fazai.lab.settings import Tls

DAY = datetime.timedelta(days=1)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True, slots=True)
class LabAuthority:
    """The lab's certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """The certificate that clients trust."""
        return pem_bytes(self.certificate).decode("ascii")

    @classmethod
    def create(cls) -> LabAuthority:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        name = _common_name("lab authority")
        certificate = (
            begin_certificate(name, name, key, now - DAY, now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def kept_in(cls, folder: Path) -> LabAuthority:
        """Return the authority of a folder, made when there is none or it has run out."""
        file = folder / "ca.pem"
        if file.exists():
            data = file.read_bytes()
            key = serialization.load_pem_private_key(data, None)
            certificate = x509.load_pem_x509_certificate(data)
            ends = certificate.not_valid_after_utc
            if (
                isinstance(key, ec.EllipticCurvePrivateKey)
                and ends > datetime.datetime.now(datetime.UTC) + DAY
            ):
                return cls(key, certificate)
        made = cls.create()
        with open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            out.write(pem_bytes(made.key) + made.pem.encode("ascii"))
        return made

    def server(self, variant: str) -> tuple[bytes, bytes]:
        """Make key and certificate of a server: valid, expired, wrong_host or self_signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        self_signed = variant == "self_signed"
        names: list[x509.GeneralName] = [x509.DNSName("elsewhere.example.org")]
        if variant != "wrong_host":
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        start, end = (now - 30 * DAY, now - DAY) if variant == "expired" else (now - DAY, now + 300 * DAY)
        signer = key if self_signed else self.key
        subject = _common_name("OPNsense.internal")
        issuer = subject if self_signed else self.certificate.subject
        certificate = (
            begin_certificate(subject, issuer, key, start, end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
            .sign(signer, hashes.SHA256())
        )
        return pem_bytes(key), pem_bytes(certificate)


def lab_server_context(authority: LabAuthority, tls: Tls) -> ssl.SSLContext:
    """Return the TLS side of a listening port."""
    key, certificate = authority.server(tls.variant)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(prefix="lab-tls-", suffix=".pem") as file:  # mode 0600
        file.write(key + certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context
