"""file.list: what may be fetched of a folder that the policy lets be read."""

from __future__ import annotations

import errno
import os
import stat

from fazai.agent.errors import Refused
from fazai.agent.files.opening import forbid_writes, make_read_check, open_below, open_target, refuse_path
from fazai.agent.files.reading import MAX_READ_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.config.settings import AgentConfig

#: Entries that are looked at, left out or not, and bytes of the paths that are named.
MAX_ENTRIES = 10_000
MAX_PATHS_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 64
_PATH_BYTES = 4095  # what neither the kernel nor file.read takes beyond
#: What the agent's user may not read, and what became a link or no folder meanwhile.
_LEFT_OUT = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


def list_folder(
    request: dict[str, Any],
    config: AgentConfig,
    *,
    confine: Callable[[int | None], None] = forbid_writes,
) -> dict[str, Any]:
    """Return the folders and plain files below a folder, by their paths from there, and how many others are
    left out: links, devices, names of a file that has several, what the policy or the system does not let be
    read, and what file.read does not take. Raises Refused."""
    path = request["path"].rstrip("/")
    found = _Found(path, config)
    try:
        with open_target(f"{path}/-", config, write=False, read=True) as target:
            confine(None)
            if target.folder < 0:
                raise Refused("not_found", f"{path} is not there")
            found.walk(target.folder, "", 1)
    except OSError as error:
        raise refuse_path(path, error) from None
    return {"folders": found.folders, "files": found.files, "left_out": found.left_out}


class _Found:
    """The entries that were found so far, and how many were left out."""

    def __init__(self, path: str, config: AgentConfig) -> None:
        self.folders: list[str] = []
        self.files: list[str] = []
        self.left_out = 0
        self._path = path
        self._may_read = make_read_check(config)
        self._entries = 0
        self._bytes = 0

    def walk(self, folder: int, prefix: str, depth: int) -> None:
        """Look at an open folder and all below it."""
        if depth > _MAX_DEPTH:
            raise Refused(
                "too_large", f"{self._path} has folders that are nested more than {_MAX_DEPTH} deep"
            )
        for name in sorted(self._read_names(folder)):
            try:
                self._add(folder, name, f"{prefix}{name}", depth)
            except FileNotFoundError:  # it went away meanwhile
                continue
            except OSError as error:
                if error.errno not in _LEFT_OUT:
                    raise
                self.left_out += 1

    def _read_names(self, folder: int) -> list[str]:
        """Return the names in an open folder. Raises Refused where they are too many, with all before."""
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise Refused("too_large", f"{self._path} has more than {MAX_ENTRIES} entries")
                names.append(entry.name)
        return names

    def _add(self, folder: int, name: str, place: str, depth: int) -> None:
        """Look at one entry. Raises OSError where it may not be read."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        path = f"{self._path}/{place}"
        if not _is_good(name, path):
            self.left_out += 1
        elif stat.S_ISDIR(found.st_mode) and self._may_read(f"{path}/-"):
            below = open_below(folder, (name,))
            try:
                self._count(self.folders, place)
                self.walk(below, f"{place}/", depth + 1)
            finally:
                os.close(below)
        elif _is_readable(found) and self._may_read(path):
            _try_reading(folder, name)
            self._count(self.files, place)
        else:
            self.left_out += 1

    def _count(self, kept: list[str], place: str) -> None:
        kept.append(place)
        self._bytes += len(os.fsencode(place))
        if self._bytes > MAX_PATHS_BYTES:
            text = f"the paths below {self._path} have more than {MAX_PATHS_BYTES} bytes"
            raise Refused("too_large", text)


def _is_good(name: str, path: str) -> bool:
    """Return whether a name can be asked for: without the control characters beyond ASCII that the policy's
    check does not know, and not too far down."""
    has_control = any("\x80" <= letter < "\xa0" for letter in name)
    return not has_control and len(os.fsencode(path)) <= _PATH_BYTES


def _is_readable(found: os.stat_result) -> bool:
    """Return whether file.read takes a file of this sort and size."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= MAX_READ_BYTES


def _try_reading(folder: int, name: str) -> None:
    """Open a file as file.read will: only the system itself knows of ACLs and the like. Raises OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(name, flags, dir_fd=folder))
