"""A CA with a clock that tests set, requests as openssl and as cryptography make them, and TLS over
loopback."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fazai.pki import Authority, Enrolments, IssuedCertificate, PeerChecker, PkiCode, PkiError, PkiNotice
from fazai.pki.administration import Maker
from fazai.pki.building import KeyType
from fazai.store.certificates import CertificateStore
from fazai.store.factory import open_certificates

HOUR_S = 3600.0
DAY_S = 86_400.0
#: A moment of this decade, with a part of a second.
BEGIN = 1_796_000_000.25
#: Options of `openssl genpkey` for each sort of key that agents may have.
KEYS = {
    "p256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "ed25519": ("-algorithm", "ED25519"),
    "rsa2048": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
}
#: And of some that are refused.
WEAK_KEYS = {
    "rsa1024": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "p224": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp224r1"),
    "secp256k1": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
    "ed448": ("-algorithm", "ED448"),
}


def openssl(*words: str, data: bytes | None = None) -> bytes:
    """Run the real program."""
    done = subprocess.run(["openssl", *words], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass
class Clock:
    """Says what a test set."""

    now: float = BEGIN

    def __call__(self) -> float:
        return self.now


@dataclass
class Machine:
    """A machine that is to become an agent: its key, in a file that openssl made."""

    folder: Path
    name: str
    sort: str = "p256"

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def make_key(self) -> Machine:
        options = (KEYS | WEAK_KEYS)[self.sort]
        self.folder.mkdir(mode=0o700, exist_ok=True)
        openssl("genpkey", *options, "-out", str(self.key))
        self.key.chmod(0o600)
        return self

    def request(self, subject: str | None = None) -> str:
        """A request as `openssl req` makes it."""
        words = ("-new", "-key", str(self.key), "-subj", subject or f"/CN={self.name}")
        return openssl("req", *words).decode()

    def keep(self, issued: IssuedCertificate) -> None:
        self.certificate.write_text(issued.pem)

    def sign(self, csr: str, timestamp: str) -> str:
        """The proof for a return, as a shell script would make it."""
        text = f"fazai return\n{timestamp}\n{hashlib.sha256(csr.encode()).hexdigest()}".encode()
        if self.sort == "ed25519":
            file = self.folder / "text"
            file.write_bytes(text)
            words = ("pkeyutl", "-sign", "-rawin", "-inkey", str(self.key), "-in", str(file))
            return base64.b64encode(openssl(*words)).decode()
        signed = openssl("dgst", "-sha256", "-sign", str(self.key), data=text)
        return base64.b64encode(signed).decode()


@dataclass
class World:
    """The daemon's side."""

    root: Path
    clock: Clock = field(default_factory=Clock)
    notices: list[PkiNotice] = field(default_factory=list)
    key_type: KeyType | None = None

    def __post_init__(self) -> None:
        self.authority = self.maker().make_ca(self.key_type)[0]
        self.store: CertificateStore = open_certificates(self.root / "state")
        self.enrolments = self.make_enrolments()
        self.peers = PeerChecker(self.authority, self.store)

    @property
    def folder(self) -> Path:
        return self.root / "secrets/pki"

    def maker(self) -> Maker:
        return Maker(self.folder, self.clock)

    def make_enrolments(self) -> Enrolments:
        return Enrolments(self.authority, self.store, self.notices.append, self.clock)

    def load(self) -> None:
        """Read the CA and its settings again."""
        self.authority = Authority.load(self.folder, self.clock)
        self.enrolments = self.make_enrolments()
        self.peers = PeerChecker(self.authority, self.store)

    def machine(self, name: str = "edge-7", sort: str = "p256", folder: str = "machines") -> Machine:
        return Machine(self.root / folder, name, sort).make_key()

    def enrol(self, machine: Machine) -> IssuedCertificate:
        token = self.enrolments.create(machine.name).token
        issued = self.enrolments.redeem(token, machine.request())
        machine.keep(issued)
        return issued

    def settings(self, text: str) -> None:
        (self.folder / "pki.yml").write_text(text)
        self.load()


class Existing:
    """A CA of the openssl program, as a company may have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "index").touch()
        extensions = "basicConstraints = critical,CA:true\nkeyUsage = keyCertSign,cRLSign\n"
        (folder / "conf").write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {folder}/index\ndefault_md = sha256\n"
            f"default_crl_days = 7\ncrlnumber = {folder}/number\n"
            f"certificate = {folder}/ca.pem\nprivate_key = {folder}/ca.key\n"
            f"[req]\ndistinguished_name = dn\n[dn]\n[v3]\n{extensions}subjectKeyIdentifier = hash\n"
        )
        (folder / "number").write_text("01\n")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes")
        files = ("-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"))
        more = ("-subj", "/O=Example/CN=Example Machines CA", "-days", "3650", "-extensions", "v3")
        openssl("req", "-x509", "-config", str(folder / "conf"), *key, *files, *more)

    def issue(self, csr: str, extensions: str = "", days: int = 365) -> bytes:
        """Sign a request, and return the certificate's DER form."""
        (self.folder / "csr").write_text(csr)
        (self.folder / "ext").write_text(extensions)
        ca = ("-CA", str(self.folder / "ca.pem"), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial")
        files = ("-in", str(self.folder / "csr"), "-extfile", str(self.folder / "ext"))
        return openssl("x509", "-req", *files, *ca, "-days", str(days), "-outform", "DER")

    def revoke(self, certificate: bytes, *more: str) -> Path:
        """Revoke a certificate, and write the list anew."""
        (self.folder / "bad.pem").write_bytes(openssl("x509", "-inform", "DER", data=certificate))
        config = ("-config", str(self.folder / "conf"))
        openssl("ca", *config, "-revoke", str(self.folder / "bad.pem"))
        return self.write_crl(*more)

    def write_crl(self, *more: str) -> Path:
        fresh = self.folder / "crl.new"
        openssl("ca", "-config", str(self.folder / "conf"), "-gencrl", "-out", str(fresh), *more)
        return fresh.replace(self.folder / "crl.pem")


@contextlib.contextmanager
def refused(code: PkiCode, match: str) -> Iterator[pytest.ExceptionInfo[PkiError]]:
    """Expect a refusal, with its code and its sentence."""
    with pytest.raises(PkiError, match=match) as failed:
        yield failed
    assert failed.value.code == code


def der_of(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass
class Server:
    """A TLS server that says one byte to each client, and keeps what it saw of it."""

    context: ssl.SSLContext
    port: int = 0
    #: The certificate (DER) or the error of each handshake, and whether its session was resumed.
    seen: list[tuple[bytes | str | None, bool | None]] = field(default_factory=list)


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[Server]:
    """Serve in a thread until the block ends."""
    server = Server(context)
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]

    def serve() -> None:
        while True:
            raw, _ = listener.accept()
            raw.settimeout(20)
            if raw.recv(1, socket.MSG_PEEK) == b"":  # the end of the test
                raw.close()
                return
            try:
                with context.wrap_socket(raw, server_side=True) as peer:
                    peer.sendall(b"x")
                    peer.recv(1)
                    server.seen.append((peer.getpeercert(binary_form=True), peer.session_reused))
            except (ssl.SSLError, OSError) as error:
                server.seen.append((str(error), None))
            finally:
                raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        socket.create_connection(("127.0.0.1", server.port)).close()
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def connect(
    server: Server,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None = None,
    name: str = "127.0.0.1",
) -> ssl.SSLSession | None:
    """Connect, take the byte and give one; raises ssl.SSLError where a side refuses. Returns the session."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=name, session=session) as peer,
    ):
        if peer.recv(1) != b"x":
            raise ssl.SSLError("the server said nothing")
        peer.sendall(b"y")
        return peer.session
