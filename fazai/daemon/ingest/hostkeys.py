"""The keys of signed HTTP (SPEC.md, 3.3): `<secrets>/hosts/NAME.key`, one a line, two while they rotate."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fazai.errors import SecretError
from fazai.secrets.files import read_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST = 2
_SHORTEST = 16


def host_name_ok(name: str) -> bool:
    """Return whether a host of this name can have a key: it is a file's name, too."""
    return _NAME.fullmatch(name) is not None


def hosts_with_keys(folder: Path) -> dict[str, float]:
    """Return the hosts that have a key, and since when. Blocks."""
    found = {}
    for path in folder.glob("*.key"):
        with contextlib.suppress(OSError):
            if host_name_ok(path.stem):
                found[path.stem] = path.stat().st_mtime
    return found


class HostKeys:
    """Reads the keys of hosts; a file that changed is read again, so that a rotation needs no restart."""

    def __init__(self, folder: Path, *, uid: int) -> None:
        self._folder = str(folder)
        self._uid = uid
        self._known: dict[str, tuple[tuple[int, int, int], tuple[bytes, ...]]] = {}

    def keys_of(self, agent: str) -> Sequence[bytes]:
        """Return the valid keys of a host, none where it has no file. Raises SecretError for a file that must
        not be used."""
        if not _NAME.fullmatch(agent):
            return ()
        path = f"{self._folder}/{agent}.key"  # a Path costs as much as the look at the file
        try:
            status = os.stat(path)
        except FileNotFoundError:
            self._known.pop(agent, None)
            return ()
        except OSError as error:
            raise SecretError(f"{path} cannot be read: {error.strerror}") from None
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        known = self._known.get(agent)
        if known is None or known[0] != stamp:
            keys = _keys(Path(path), read_private(Path(path), uid=self._uid))
            known = self._known[agent] = (stamp, keys)
        return known[1]


def _keys(path: Path, text: bytes) -> tuple[bytes, ...]:
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(keys) <= _MOST:
        raise SecretError(f"{path} holds {len(keys)} keys", hint="one key a line, two while they rotate")
    if min(map(len, keys)) < _SHORTEST:
        raise SecretError(f"{path}: a key has at least {_SHORTEST} characters", hint="openssl rand -hex 32")
    return keys
