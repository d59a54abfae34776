"""Open the store that a place names. Nothing outside `store/` knows what kind of store it is.

A place is a state folder, as a Path or as text, or its URL: `sqlite:///var/lib/fazai`. Other kinds of store
add their scheme here. What a store needs is imported when it is opened: most commands open none.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fazai.config import STATE_FILE
from fazai.errors import UsageError

if TYPE_CHECKING:
    from fazai.store.base import Store
    from fazai.store.certificates import CertificateStore
    from fazai.store.daemon import DaemonStore, StoreLimits, TokenStore


_SCHEME = "sqlite://"


def open_store(
    place: Path | str,
    *,
    keep_runs: int = 5_000,
    targets_age_s: float = 90 * 86400.0,
    clock: Callable[[], float] = time.time,
) -> Store:
    """Open the ledger of runs; a folder that is not there is made, readable by its owner alone. The latest
    `keep_runs` stay, and the states of targets that a run met within `targets_age_s`. By the `clock`, in
    seconds since the epoch, leases expire and old states go. Raises UsageError for a place of no known kind,
    StateError where it cannot be used."""
    from fazai.store.sqlite.ledger import SqliteStore

    folder = _folder_of(place)
    return SqliteStore(folder, keep_runs=keep_runs, targets_age_s=targets_age_s, clock=clock)


def open_daemon_store(place: Path | str, limits: StoreLimits | None = None) -> DaemonStore:
    """Open what the daemon keeps; one daemon at a time. Raises UsageError, StateError, LockHeld."""
    from fazai.store.sqlite.daemon import SqliteDaemonStore

    return SqliteDaemonStore(_folder_of(place), limits)


def open_tokens(place: Path | str) -> TokenStore:
    """Open the bearer tokens, also while a daemon uses the same place. Raises UsageError."""
    from fazai.store.sqlite.tokens import TokenFile

    return TokenFile(_folder_of(place))


def open_certificates(place: Path | str) -> CertificateStore:
    """Open the certificates, enrolments and revocations, also while a daemon uses the same place. Raises
    UsageError."""
    from fazai.store.sqlite.certificates import CertificateFile

    return CertificateFile(_folder_of(place))


def describe_openness(folder: Path) -> str | None:
    """Return what to say of a state folder that others can enter, or of files in it that they can read; None
    where it is private."""
    try:
        found = folder.stat()
        files = [path for path in sorted(folder.glob(f"{STATE_FILE}*")) if path.lstat().st_mode & 0o077]
    except OSError:
        return None
    if os.geteuid() not in (0, found.st_uid) and found.st_uid != 0:
        return f"the state folder {folder} belongs to another user (uid {found.st_uid}), who may read it"
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"the state folder {folder} is open to others (mode {mode:04o}): chmod 700 {folder}"
    if files:
        return f"{files[0]} is open to others: chmod 600 {files[0]}"
    return None


def _folder_of(place: Path | str) -> Path:
    """Return the state folder that a place names. Raises UsageError."""
    if isinstance(place, Path):
        return place
    path = place.removeprefix(_SCHEME)
    if not path or "://" in path:
        raise UsageError(
            f"{place.partition('://')[0][:32]!r} is no kind of store",
            hint="name a folder, or its URL: sqlite:///var/lib/fazai",
        )
    return Path(path)
