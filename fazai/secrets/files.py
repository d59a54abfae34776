"""Files that only we may read."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fazai.errors import SecretError, StateError, spelling_hint
from fazai.files import replace_file

SIZE_MAX_BYTES: Final = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: Path, *, uid: int, folder: bool = True) -> bytes:
    """Read a file that nobody else can read or write; with `folder`, in a folder like that.

    `uid` is the user we are; files may belong to it or to root. Raises SecretError, with what to do about it.
    """
    try:
        real = path.resolve(strict=True)
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _unreadable_error(path, error) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path} is not a file")
        _check_private(path, status, uid, "600")
        if folder:
            for each in dict.fromkeys((real.parent, path.parent)):
                _check_private(each, os.stat(each), uid, "700")
        if status.st_size > SIZE_MAX_BYTES:
            raise SecretError(f"{path} is larger than {SIZE_MAX_BYTES} bytes", hint="a secret is shorter")
        return os.read(handle, SIZE_MAX_BYTES)
    except OSError as error:
        raise _unreadable_error(path, error) from None
    finally:
        os.close(handle)


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, replaced as a whole and synced to the disk. Its folder is made, 0700.

    Raises StateError.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        hint = "df -h; ls -ld its folder"
        raise StateError(f"{path} cannot be written: {error.strerror}", hint=hint) from None


def write_keys(folder: Path, host: str, keys: Sequence[str]) -> None:
    """Write `<folder>/HOST.key`, one key a line. Raises StateError."""
    write_private(folder / f"{host}.key", "".join(f"{key}\n" for key in keys).encode())


def _check_private(path: Path, status: os.stat_result, uid: int, mode: str) -> None:
    what = "the folder" if stat.S_ISDIR(status.st_mode) else "the file"
    quoted = shlex.quote(str(path))
    if status.st_uid not in (uid, 0):
        hint = f"make it ours: chown {uid} {quoted}"
        raise SecretError(f"{what} {path} belongs to another user", hint=hint)
    if status.st_mode & _OTHERS:
        text = f"{what} {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
        raise SecretError(text, hint=f"chmod {mode} {quoted}")


def _unreadable_error(path: Path, error: OSError | RuntimeError) -> SecretError:
    if isinstance(error, FileNotFoundError):
        return SecretError(f"there is no file {path}", hint=_missing_secret_hint(path))
    reason = error.strerror if isinstance(error, OSError) else "its links go in a circle"
    return SecretError(f"{path} cannot be read: {reason}")


def _missing_secret_hint(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        folder = path.parent
        return "its folder cannot be read" if folder.is_dir() else f"there is no folder {folder}"
    return spelling_hint(path.name, names) or "a path is relative to the file that names it"
