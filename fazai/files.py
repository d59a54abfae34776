"""Replacing a file: readers see the old content or the new one, never a part, also after a loss of power; and
reading one that only its owner may read."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from fazai.errors import SecretError, missing_file

_TOKEN_BYTES = 64 * 1024


def mark_folder(path: Path) -> str | None:
    """Return a mark of a folder, the same for all processes of this machine that see it; None where it is not
    there."""
    import hashlib

    try:
        found = path.stat()
    except OSError:
        return None
    return hashlib.sha256(f"{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `data` beside `path` and give it that name once it is on the disk.

    The file has exactly `mode`, whatever the umask and the file before had. Raises OSError; `path` is then
    as it was and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it is there only when something failed
            temporary.unlink()


def read_token_file(
    file: Path, what: str = "file", hint: str | None = "one line, from: fazai token create"
) -> str:
    """Read the one line of a file that only its owner may read; `what` and `hint` say what it is where it is
    not there. Raises SecretError."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for
        with os.fdopen(handle, "rb") as opened:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise SecretError("it is no file", where=str(file))
            if status.st_mode & 0o077:
                raise SecretError("others may read it", where=str(file), hint=f"chmod 600 {file}")
            text = opened.read(_TOKEN_BYTES).decode().strip()
    except FileNotFoundError:
        raise missing_file(SecretError, what, file, hint) from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise SecretError(f"it cannot be read: {why}", where=str(file)) from None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SecretError("it holds no token", where=str(file), hint=hint or "one line")
    return text
