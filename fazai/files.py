"""Replacing a file: readers see the old content or the new one, never a part, also after a loss of power."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


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
