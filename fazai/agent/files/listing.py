"""file.list: what may be fetched of a folder that the policy lets be read."""

from __future__ import annotations

import os
import stat

from fazai.agent.errors import Refused
from fazai.agent.files.opening import forbid_writes, may_read, open_below, open_target, refuse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.config.settings import AgentConfig

MAX_ENTRIES = 10_000
_MAX_DEPTH = 64


def list_folder(
    request: dict[str, Any],
    config: AgentConfig,
    *,
    confine: Callable[[int | None], None] = forbid_writes,
) -> dict[str, Any]:
    """Return the folders and plain files below a folder, by their paths from there, and how many others are
    left out: links, devices, names of a file that has several, and what the policy does not let be read.
    Raises Refused."""
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
    """What was found so far."""

    def __init__(self, path: str, config: AgentConfig) -> None:
        self.folders: list[str] = []
        self.files: list[str] = []
        self.left_out = 0
        self._path = path
        self._config = config

    def walk(self, folder: int, prefix: str, depth: int) -> None:
        """Look at an open folder and all below it."""
        if depth > _MAX_DEPTH:
            raise Refused(
                "too_large", f"{self._path} has folders that are nested more than {_MAX_DEPTH} deep"
            )
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            try:
                self._add(folder, name, f"{prefix}{name}", depth)
            except FileNotFoundError:  # it went away meanwhile
                continue

    def _add(self, folder: int, name: str, place: str, depth: int) -> None:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False)
        path = f"{self._path}/{place}"
        if stat.S_ISDIR(mode.st_mode) and may_read(f"{path}/-", self._config):
            self._count(self.folders, place)
            below = open_below(folder, (name,))
            try:
                self.walk(below, f"{place}/", depth + 1)
            finally:
                os.close(below)
        elif stat.S_ISREG(mode.st_mode) and mode.st_nlink == 1 and may_read(path, self._config):
            self._count(self.files, place)
        else:
            self.left_out += 1

    def _count(self, kept: list[str], place: str) -> None:
        kept.append(place)
        if len(self.folders) + len(self.files) > MAX_ENTRIES:
            raise Refused("too_large", f"{self._path} has more than {MAX_ENTRIES} files and folders")
