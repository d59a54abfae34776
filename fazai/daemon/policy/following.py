"""Notices that a file changed, by what the file system says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


class FollowedFile:
    """A file that may change at any time, come and go. It is looked at `every_s` seconds at most."""

    def __init__(
        self, path: Path, every_s: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._every_s, self._monotonic = path, every_s, monotonic
        self._next_s = float("-inf")
        self._seen: tuple[int, ...] | None = None
        self.looked = False

    def has_changed(self) -> bool:
        """Return whether it changed since the last look; True at the first one."""
        if self._every_s:
            now_s = self._monotonic()
            if now_s < self._next_s:
                return False
            self._next_s = now_s + self._every_s
        seen = self._look()
        changed = not self.looked or seen != self._seen
        self._seen, self.looked = seen, True
        return changed

    @property
    def is_there(self) -> bool:
        """Whether there was a file at the last look."""
        return self._seen is not None

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return (error.errno or 0,)
        times = (found.st_mtime_ns, found.st_ctime_ns)
        return (found.st_ino, found.st_size, *times, found.st_mode, found.st_uid)
