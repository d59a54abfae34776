"""The SHA-256 of the model's file, which says in a journal which model it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def identify_model(path: Path) -> tuple[int, ...] | None:
    """Return which file stands there, and whether it was written to: a later one has another identity. None:
    there is none, and who loads it says so."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class ModelDigest:
    """Computes the digest in a thread of its own, behind all else that wants the processor; `done` is called
    there. A file that is not the one that was loaded has none."""

    def __init__(self, path: Path, loaded: tuple[int, ...], done: Callable[[str], None]) -> None:
        self._path = path
        self._loaded = loaded
        self._done = done
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Compute no further, and wait for the thread: it looks after each chunk."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # of this thread alone; a sandbox may not allow it
            os.nice(19)
        with contextlib.suppress(OSError):
            found = hashlib.sha256()
            with self._path.open("rb", buffering=0) as file:
                chunk = memoryview(bytearray(_CHUNK_BYTES))
                while (size := file.readinto(chunk)) and not self._stopped.is_set():
                    found.update(chunk[:size])
            if not self._stopped.is_set() and identify_model(self._path) == self._loaded:
                self._done(found.hexdigest())
