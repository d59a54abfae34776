"""The folder of the CA: `secrets/pki`, 0700, keys 0600; whatever is open to others is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import re
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fazai.errors import InputError, LockHeld, SecretError, StateError, missing_file
from fazai.files import replace_file
from fazai.secrets.files import SIZE_MAX_BYTES, read_private

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

CA_KEY: Final = "ca.key"
CA_CERTIFICATE: Final = "ca.pem"
#: While the CA is replaced: the key of the next one, and after it took its place that of the one before.
NEXT_KEY: Final = "ca.next.key"
OLD_KEY: Final = "ca.old.key"
#: What the CA says of the next one, for agents that know it alone.
ENDORSEMENTS: Final = "endorsements.pem"
LISTENER_KEY: Final = "listener.key"
LISTENER_CERTIFICATE: Final = "listener.pem"
SETTINGS: Final = "pki.yml"
ISSUED: Final = "issued"

_PAUSE_S = 0.05
_LEFTOVER: Final = re.compile(r"\..+\.[0-9]+\.[0-9a-f]{8}")  # as files.replace_file names them
_OTHER_USER = "run it as the daemon's user, or name another place with FAZAI_SECRETS"


def make_folder(folder: Path) -> None:
    """Make a folder that only we can enter, and the one around it. Raises StateError, SecretError."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        text = f"the folder {folder} cannot be made: {error.strerror}"
        raise StateError(
            text, hint=f"make it as root: install -d -m 0700 -o USER {shlex.quote(str(folder))}"
        ) from None
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Raise SecretError for a folder that others can enter, or that is not ours or root's."""
    quoted = shlex.quote(str(folder))
    try:
        found = folder.stat()
    except FileNotFoundError:
        raise SecretError(f"there is no folder {folder}", hint="make the CA with: fazai pki init") from None
    except OSError as error:
        text = f"the folder {folder} cannot be looked at: {error.strerror}"
        raise SecretError(text, hint=_OTHER_USER) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SecretError(f"{folder} is no folder")
    if found.st_uid not in (os.geteuid(), 0):
        hint = f"run it as that user: {as_user(found.st_uid)}" if os.geteuid() == 0 else None
        raise SecretError(
            f"the folder {folder} belongs to another user", hint=hint or f"chown {os.geteuid()} {quoted}"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise SecretError(
            f"the folder {folder} is open to others (mode {mode:04o})", hint=f"chmod 700 {quoted}"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise SecretError(f"the folder {folder} may not be entered", hint=_OTHER_USER)


def as_user(uid: int) -> str:
    """Return how to run a command as a user of this machine."""
    try:
        return f"sudo -u {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"sudo -u '#{uid}'"


@contextlib.contextmanager
def hold_folder(folder: Path, wait_s: float = 10.0) -> Iterator[None]:
    """Keep other processes from changing the folder meanwhile. Raises LockHeld, StateError."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"the folder {folder} cannot be opened: {error.strerror}") from None
    try:
        until_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise StateError(f"the folder {folder} cannot be locked: {error.strerror}") from None
                if time.monotonic() > until_s:
                    raise LockHeld(f"another process changes the folder {folder}") from None
            time.sleep(_PAUSE_S)
        _remove_leftovers(folder)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a writer that was killed left: parts of keys have no business there."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def read_key(path: Path) -> PrivateKey:
    """Read a private key, PEM without a password. Raises SecretError; the text never has a part of it."""
    data = read_private(path, uid=os.geteuid())
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise SecretError(f"the key {path} has a password", hint="write it without one, mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        hint = "bring it back from a backup"
        raise SecretError(f"{path} is damaged: it is no private key in PEM", hint=hint) from None
    if not isinstance(key, PrivateKey):
        raise SecretError(f"the key {path} is of no sort that is taken", hint="EC, Ed25519 or RSA")
    return key


def write_key(path: Path, key: PrivateKey) -> None:
    """Write a private key, mode 0600. Raises StateError."""
    write_file(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def write_file(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, as a whole, on the disk when this returns; its name too. Raises
    StateError."""
    try:
        replace_file(path, data)
        _sync_folder(path.parent)
    except OSError as error:
        hint = "df -h; ls -ld its folder"
        raise StateError(f"{path} cannot be written: {error.strerror}", hint=hint) from None


def rename_file(path: Path, name: str) -> None:
    """Give a file another name in its folder, on the disk when this returns. Raises StateError."""
    try:
        path.rename(path.with_name(name))
        _sync_folder(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be renamed: {error.strerror}") from None


def remove_file(path: Path) -> None:
    """Remove a file where it is there, on the disk when this returns. Raises StateError."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be removed: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_public(path: Path, what: str, limit_bytes: int = SIZE_MAX_BYTES) -> bytes:
    """Read a file that is no secret. Raises InputError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        raise missing_file(InputError, what, path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit_bytes:
        raise InputError(f"{path} is larger than {limit_bytes} bytes, and a {what} is shorter")
    return data
