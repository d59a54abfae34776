"""The agent's private key: made, and used for requests and signatures, by the `openssl` program, or by the
library `cryptography` where that is there. The key never leaves the machine or stands on a command line.
"""

from __future__ import annotations

import contextlib
import os

from fazai.agent.link.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROGRAM_S = 30.0


def check_private(path: str) -> None:
    """Check that nobody but its owner may read a key. Raises LinkError."""
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError as error:
        raise LinkError(
            "bad_certificate",
            f"{path}: the key cannot be read: {error.strerror}",
            hint="enrol this agent first: fazai agent enrol",
        ) from None
    if mode & 0o077:
        raise LinkError(
            "bad_certificate", f"{path}: others may read the key (mode {mode:04o})", hint=f"chmod 600 {path}"
        )


def write_private(path: str, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
    """Write a file beside and rename it: whoever reads it sees the old one or the new one, whole."""
    beside = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, mode)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
        file.flush()
        if sync:
            os.fsync(fd)
    os.rename(beside, path)
    if sync:
        sync_folder(path)


def sync_folder(path: str) -> None:
    """Wait until the name of a file is on the disk."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_key() -> bytes:
    """Return a new key for ECDSA on P-256 (PEM). Raises LinkError."""
    if (library := _library()) is None:
        return _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    made = library.ec.generate_private_key(library.ec.SECP256R1())
    serialization = library.serialization
    found: bytes = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return found


def make_request(key: str, name: str) -> str:
    """Return a certificate request (PEM) of a name, signed by the key in a file. Raises LinkError."""
    if (library := _library()) is None:
        return _openssl("req", "-new", "-sha256", "-key", key, "-subj", f"/CN={name}").decode()
    subject = library.x509.Name([library.x509.NameAttribute(library.NameOID.COMMON_NAME, name)])
    private = _load(library, key)
    digest = None if isinstance(private, library.ed25519.Ed25519PrivateKey) else library.hashes.SHA256()
    made = library.x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private, digest)
    text: bytes = made.public_bytes(library.serialization.Encoding.PEM)
    return text.decode()


def sign(key: str, text: bytes) -> bytes:
    """Return the signature of a text by the key in a file: ECDSA with SHA-256, or Ed25519. Raises
    LinkError."""
    if (library := _library()) is None:
        if b"ED25519" in _openssl("pkey", "-in", key, "-noout", "-text_pub").upper():
            return _sign_ed25519(key, text)
        return _openssl("dgst", "-sha256", "-sign", key, input_data=text)
    private = _load(library, key)
    if isinstance(private, library.ed25519.Ed25519PrivateKey):
        signed: bytes = private.sign(text)
    else:
        signed = private.sign(text, library.ec.ECDSA(library.hashes.SHA256()))
    return signed


def _sign_ed25519(key: str, text: bytes) -> bytes:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:  # this sort is signed in one piece, which a pipe is not
        file.write(text)
        file.flush()
        return _openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", file.name)


def _openssl(*arguments: str, input_data: bytes = b"") -> bytes:
    import subprocess

    program = _find_program()
    if program is None:
        raise LinkError(
            "internal", "neither the program openssl nor the library cryptography is here", hint="install one"
        )
    try:
        done = subprocess.run(
            [program, *arguments], input=input_data, capture_output=True, timeout=_PROGRAM_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LinkError("timeout", f"openssl {arguments[0]} did not end") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise LinkError("internal", f"openssl {arguments[0]} failed: {said[0] if said else done.returncode}")
    return done.stdout


def _find_program() -> str | None:
    import shutil  # here, as the others: an agent that is connected has no use for them, and less memory

    return shutil.which("openssl")


class _Library:
    """The part of `cryptography` that is used."""

    def __init__(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.x509.oid import NameOID

        self.x509 = x509
        self.hashes = hashes
        self.serialization = serialization
        self.ec = ec
        self.ed25519 = ed25519
        self.NameOID = NameOID


def _library() -> _Library | None:
    """Return the library where it is there and the program is not: a library takes longer to load."""
    if _find_program() is not None:
        return None
    try:
        return _Library()
    except ImportError:
        return None


def _load(library: _Library, path: str) -> Any:
    with open(path, "rb") as file:
        try:
            return library.serialization.load_pem_private_key(file.read(), None)
        except (ValueError, TypeError) as error:
            raise LinkError("bad_certificate", f"{path}: the key cannot be used: {error}") from None
