"""Checkpoints of the write-ahead log, in a thread and on a connection of their own.

What is committed stands in the log, and is copied into the file when the log has grown. SQLite would do that
in the commit that made the log long enough, which then takes as long as hundreds of pages and two waits for
the disk. Here writers only look how large the log is; who copies it blocks neither them nor readers.

The log begins anew, over its own beginning, with the first commit that finds all of it copied and no reader
in it. Writers that never pause, or short readers that overlap, could put that off for ever: from
`most_pages` on a writer does what is left itself, between two commits, and waits a moment for readers. A
reader that stays, such as a backup, is not waited for: while it reads, the log grows by what is written.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fazai.store.sqlite.schema import BUSY_S, FILE_NAME, connect

PAGE_BYTES = 4096
_FRAME_BYTES = PAGE_BYTES + 24  # a page in the log
_ATTEMPTS = 3  # to reach the end of a log to which is written meanwhile
_READERS_MS = 100  # that a writer waits for readers to leave the log


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Pages of the log: those that its file keeps when it begins anew, since to write over them costs less
    than to grow; those that it grows by between two checkpoints; and from which on a writer helps. After
    `again_s` a checkpoint that did not reach its end is gone on with."""

    kept_pages: int = 3000
    every_pages: int = 1000
    most_pages: int = 16_000
    again_s: float = 1.0


#: Copies what can be, and returns whether another was at it, the pages of the log, and how many are copied.
CopyLog = Callable[[sqlite3.Connection], tuple[int, int, int]]


def copy_log(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Copy the log as far as no reader needs the file as it was. Raises sqlite3.Error."""
    is_busy, length, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return is_busy, length, copied


class Checkpointer:
    """The checkpoints of one file, for all writers of a process. Its thread ends with `close`."""

    def __init__(self, folder: Path, limits: LogLimits | None = None, copy: CopyLog = copy_log) -> None:
        self._path = folder / FILE_NAME
        self._log = str(folder / f"{FILE_NAME}-wal")
        self._limits = limits or LogLimits()
        self._copy = copy
        self._size_bytes = 0
        self._due_bytes = self._first_due_bytes
        self._is_wanted = threading.Event()
        self._is_closing = False
        self._needs_writer = False
        self._is_behind = False  # there is more to copy, which was written meanwhile or a reader still needs
        self._connection: sqlite3.Connection | None = None
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="fazai-store-checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the checkpoint that goes on. The last connection of the file makes another
        when it is closed, whosever it is."""
        self._is_closing = True
        self._is_wanted.set()
        if self._thread.ident is not None:
            self._thread.join()

    def set_up(self, connection: sqlite3.Connection) -> None:
        """Have a writer's connection leave checkpoints to us. Raises sqlite3.Error."""
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute(f"PRAGMA journal_size_limit={self._limits.kept_pages * _FRAME_BYTES}")

    def note_commit(self, connection: sqlite3.Connection) -> None:
        """Have the log copied where it has grown enough. Called by a writer after each commit, outside of a
        transaction. Raises sqlite3.Error."""
        try:
            size_bytes = os.stat(self._log).st_size
        except OSError:  # the last process that had it open has just removed it
            return
        if size_bytes < self._size_bytes:  # it began anew, and the file was cut
            self._due_bytes = self._first_due_bytes
        self._size_bytes = size_bytes
        if size_bytes >= self._due_bytes:
            self._due_bytes = size_bytes + self._limits.every_pages * _FRAME_BYTES
            if self._thread.is_alive():
                self._is_wanted.set()
            else:  # better late than a log without end
                self._copy(connection)
        if self._needs_writer:
            self._needs_writer = False
            _restart_log(connection)

    @property
    def _first_due_bytes(self) -> int:
        return (self._limits.kept_pages + self._limits.every_pages) * _FRAME_BYTES

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            has_grown = self._is_wanted.wait(self._limits.again_s if self._is_behind else None)
            self._is_wanted.clear()
            if self._is_closing:
                break
            try:
                self._copy_all(has_grown)
            except sqlite3.Error:  # such as a full disk: again when the log has grown more
                self.failures += 1
                self._drop_connection()
        self._drop_connection()

    def _copy_all(self, has_grown: bool) -> None:
        """Copy the log to its end, or as far as readers let us; what is written meanwhile is copied next."""
        if self._connection is None:
            self._connection = connect(self._path)
        before = length = copied = -1
        self._is_behind = False
        for _ in range(_ATTEMPTS):
            _, length, copied = self._copy(self._connection)
            if copied in (length, before):
                break
            before = copied
        self._is_behind, limits = copied < length, self._limits
        if has_grown:  # not again each second: where a reader stays, that is in vain
            near_end = length - copied <= limits.every_pages
            self._needs_writer = near_end and length >= limits.most_pages

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _restart_log(connection: sqlite3.Connection) -> None:
    """Copy the rest of the log, and have the next commit begin it anew. Where a reader stays longer, nothing
    of that happens, and nothing is lost by it. Raises sqlite3.Error."""
    connection.execute(f"PRAGMA busy_timeout={_READERS_MS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
