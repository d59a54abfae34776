"""A connection that writes, and the sync of its log: together what SQLite calls synchronous=FULL.

With NORMAL, SQLite syncs the log before each checkpoint, and the file after it. What FULL adds is a sync of
the log with each commit; that one is `sync`, which a thread of its own may do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from fazai.store.schema import BUSY_S, connect

__all__ = ["DurableFile"]

_HARMLESS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)  # after a ROLLBACK the connection is as good as before
_LOG_BYTES = 16 << 20  # between two checkpoints
_PAGE_BYTES = 4096


class DurableFile:
    """Used by one thread at a time; only `sync` may run beside others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._patient = True
        self._log = -1
        self._log_bytes = 0  # about how much the log has grown since the last checkpoint
        self._doubt = False  # a sync failed: nobody knows what of the log is on disk

    def connected(self) -> sqlite3.Connection:
        """Raises sqlite3.Error."""
        if self._connection is None:
            connection = connect(self._path)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # it is done apart: see `checkpoint`
            connection.execute(f"PRAGMA journal_size_limit={2 * _LOG_BYTES}")
            self._connection, self._patient = connection, True
        return self._connection

    def begin(self, *, patient: bool) -> sqlite3.Connection:
        """A transaction that may write; without patience SQLITE_BUSY at once where another process has one.
        Raises sqlite3.Error."""
        connection = self.connected()
        if patient is not self._patient:
            connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000) if patient else 0}")
            self._patient = patient
        connection.execute("BEGIN IMMEDIATE")
        return connection

    def wrote(self, size_bytes: int) -> None:
        """About so much came into the log."""
        self._log_bytes += size_bytes

    def sync(self) -> None:
        """All that was committed is on disk when it returns. Raises OSError, sqlite3.Error.

        After a sync that failed the kernel takes the log for written, whether it is or not: then nothing
        counts as durable until a checkpoint has copied all of it, and has been synced itself.
        """
        try:
            if self._doubt:
                (busy, _, _) = self.connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if busy:
                    raise OSError("the log cannot be copied while it is being read")
            if self._log < 0:
                self._open_log()
            os.fdatasync(self._log)
        except (OSError, sqlite3.Error):
            self._doubt = True
            raise
        self._doubt = False

    def _open_log(self) -> None:
        """The log is there as long as the connection is. (SQLite's locks are not on it, but on the others:
        to close one of those would give them up.)"""
        self._log = os.open(self._path.with_name(self._path.name + "-wal"), os.O_RDWR | os.O_CLOEXEC)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # it may be new
        finally:
            os.close(folder)

    @property
    def long(self) -> bool:
        """Whether the log wants a checkpoint."""
        return self._log_bytes >= _LOG_BYTES

    def checkpoint(self) -> None:
        """Copy the log into the file, as far as no reader needs it. Raises sqlite3.Error."""
        _, pages, copied = self.connected().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        left = (pages - copied) * _PAGE_BYTES
        self._log_bytes = min(left, _LOG_BYTES // 2)  # a reader that stays is asked again later

    def roll_back(self, error: Exception) -> None:
        """The connection is made anew: what it remembers of the file is in doubt after an error."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.drop()
        else:
            if int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF not in _HARMLESS:
                self.drop()

    def drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
