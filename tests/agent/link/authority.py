"""A small certificate authority for tests: what `fazai pki` makes, and what it never would."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86_400


@dataclass
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "fazai test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self._made = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._made.public_bytes(serialization.Encoding.PEM))

    @property
    def mark(self) -> str:
        """The part of a token behind the dot."""
        return self._made.fingerprint(hashes.SHA256()).hex()[:16]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of its certificate."""
        return self._made.fingerprint(hashes.SHA256()).hex()

    def endorse(
        self,
        fingerprint: str,
        *,
        ends_s: float = 30 * DAY,
        name: str = "fazai trust",
        more: Sequence[x509.GeneralName] = (),
    ) -> str:
        """Issue an endorsement of another authority: a certificate and its key (PEM). `more`: other names of
        the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        uri: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"fazai:trust:{fingerprint}")]
        use = ExtendedKeyUsageOID.CLIENT_AUTH
        text = self._sign(name, key.public_key(), use, [*uri, *more], -300, ends_s)
        pair = self._keep(f"endorsement-{fingerprint[:8]}", text, key)
        return text.decode() + pair.key.read_text()

    def agent(self, name: str, *, begins_s: float = -300, ends_s: float = 30 * DAY) -> Pair:
        """Issue an agent's certificate; times are seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        text = self.sign(name, key.public_key(), begins_s=begins_s, ends_s=ends_s)
        return self._keep(f"agent-{name}", text, key)

    def sign(
        self, name: str, key: ec.EllipticCurvePublicKey, *, begins_s: float = -300, ends_s: float = 30 * DAY
    ) -> bytes:
        """Return an agent's certificate (PEM)."""
        use = ExtendedKeyUsageOID.CLIENT_AUTH
        alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"fazai:agent:{name}")]
        return self._sign(name, key, use, alternative, begins_s, ends_s)

    def listener(self, *, begins_s: float = -300, ends_s: float = 30 * DAY, host: str = "localhost") -> Pair:
        """Issue the daemon's certificate, for `host` and 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        use = ExtendedKeyUsageOID.SERVER_AUTH
        text = self._sign(host, key.public_key(), use, names, begins_s, ends_s)
        return self._keep(f"listener-{host}", text + self.file.read_bytes(), key)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        use: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
        begins_s: float,
        ends_s: float,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(seconds=begins_s))
            .not_valid_after(now + datetime.timedelta(seconds=ends_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def _keep(self, name: str, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> Pair:
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.certificate.write_bytes(certificate)
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair
