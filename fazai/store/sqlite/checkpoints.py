"""Checkpoints of the write-ahead log, in a thread and on a connection of their own.

What is committed stands in the log, and is copied into the file when the log has grown. SQLite would do that
in the commit that made the log long enough, which then takes as long as hundreds of pages and two waits for
the disk. Here writers only look how large the log is; who copies it blocks neither them nor readers.

The log begins anew, over its own beginning, with the first commit that finds all of it copied and no reader
in it. Writers that never pause, or short readers that overlap, could put that off for ever: from
`most_pages` on a writer does what is left itself, between two commits, and waits a moment for readers. A
reader that stays, such as a backup, is not waited for: while it reads, the log grows by what is written.

SQLite before 3.51.3 (but 3.50.7 and 3.44.6) can take a log that begins anew at the very moment at which a
checkpoint begins for the one before, and then marks as copied what is not (sqlite.org/wal.html#walresetbug).
Hence each checkpoint is made while a reader of ours holds the log: see `hold_log`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fazai.store.sqlite.schema import BUSY_S, FILE_NAME, connect, open_reader

PAGE_BYTES = 4096
_FRAME_BYTES = PAGE_BYTES + 24  # a page in the log
_ROUNDS = 3  # to reach the end of a log to which is written meanwhile
_ROUNDS_AGAIN = 2  # the same, each `again_s`
_AT_ANY_COST = 4  # times `most_pages`, from which on a writer copies however much that is
_ATTEMPTS, _PAUSE_S = 5, 0.01  # that a writer makes until no reader needs what the log has replaced
_READERS_MS = 50  # that it then waits for readers to leave the log


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Pages of the log: those that its file keeps when it begins anew, since to write over them costs less
    than to grow; those that it grows by between two checkpoints; and from which on a writer helps. After
    `again_s` a checkpoint that did not find the log at rest is gone on with."""

    kept_pages: int = 3000
    every_pages: int = 1000
    most_pages: int = 16_000
    again_s: float = 1.0


#: Of a process without a checkpoint thread: 20 MB, to which a daemon beside it does not let it come.
ALONE = LogLimits(every_pages=2000)

#: Copies what can be, and returns whether another was at it, the pages of the log as they were when it began,
#: and how many are copied. Where another was at it, both are -1.
CopyLog = Callable[[sqlite3.Connection], tuple[int, int, int]]


def copy_log(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Copy the log as far as no reader needs the file as it was. Raises sqlite3.Error."""
    is_busy, length, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return is_busy, length, copied


@contextlib.contextmanager
def hold_log(path: Path) -> Iterator[None]:
    """Keep the log from beginning anew beneath a checkpoint, whatever process commits meanwhile. No commit
    waits for it. Raises sqlite3.Error.

    A reader does that, in one of two ways. Where something is left to copy it reads from the log, and SQLite
    begins no log anew from which somebody reads. Where all is copied it reads from the file alone; then the
    log may begin anew, but nothing is copied into a file that somebody reads so, nor marked as copied.
    """
    with contextlib.closing(open_reader(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield


def empty_log(path: Path, connection: sqlite3.Connection, mode: str = "RESTART") -> None:
    """Copy the rest of the log, and have the next commit begin it anew, or TRUNCATE it at once. Where a
    reader stays longer, nothing of that happens, and nothing is lost by it. Raises sqlite3.Error."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        with hold_log(path):
            _, length, copied = copy_log(connection)
        if 0 <= length == copied:
            break
    else:
        return
    connection.execute(f"PRAGMA busy_timeout={_READERS_MS}")
    try:
        with hold_log(path):  # by now it reads from the file alone, and is none of those who are waited for
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")


class Checkpointer:
    """The checkpoints of one file, for all writers of a process. Its thread ends with `close`; without it the
    writers copy the log themselves."""

    def __init__(self, folder: Path, limits: LogLimits | None = None, copy: CopyLog = copy_log) -> None:
        self._path = folder / FILE_NAME
        self._log = str(folder / f"{FILE_NAME}-wal")
        self._limits = limits or LogLimits()
        self._copy = copy
        self._lock = threading.Lock()  # of the next three: there may be several writers
        self._size_bytes = 0
        self._due_bytes = self._first_due_bytes
        self._needs_writer = False
        self._is_wanted = threading.Event()
        self._is_closing = False
        #: There may be more to copy, which was written meanwhile or a reader still needs.
        self._is_behind = False
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
        """Have a writer's connection keep what we keep of the log. Raises sqlite3.Error."""
        connection.execute(f"PRAGMA journal_size_limit={self._limits.kept_pages * _FRAME_BYTES}")

    def note_commit(self, connection: sqlite3.Connection) -> None:
        """Have the log copied where it has grown enough. Called by a writer after each commit, outside of a
        transaction. Raises sqlite3.Error."""
        try:
            size_bytes = os.stat(self._log).st_size
        except OSError:  # the last process that had it open has just removed it
            return
        with self._lock:
            if size_bytes < self._size_bytes:  # it began anew, and the file was cut
                self._due_bytes = self._first_due_bytes
            self._size_bytes = size_bytes
            if is_due := size_bytes >= self._due_bytes:
                self._due_bytes = size_bytes + self._limits.every_pages * _FRAME_BYTES
            needs_writer, self._needs_writer = self._needs_writer, False
        if needs_writer:
            empty_log(self._path, connection)
        elif is_due and self._thread.is_alive():
            self._is_wanted.set()
        elif is_due:  # a process without a thread; or better late than a log without end
            self._copy_held(connection)

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
                self._is_behind = False
                self._drop_connection()
        self._drop_connection()

    def _copy_held(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        with hold_log(self._path):
            return self._copy(connection)

    def _copy_all(self, has_grown: bool) -> None:
        """Copy the log until it is found at rest, or as far as readers and writers let us. How much was
        written during a round, the next one sees."""
        if self._connection is None:
            self._connection = connect(self._path)
        copied_before = growth = length = copied = 0
        self._is_behind = True
        for _ in range(_ROUNDS if has_grown else _ROUNDS_AGAIN):
            _, length, copied = self._copy_held(self._connection)
            if length < 0:  # another is at it
                return
            growth = length - copied_before
            began_anew = length < self._limits.kept_pages
            if began_anew or copied_before == copied == length:  # or is at rest
                self._is_behind = False
                break
            if copied == copied_before:  # a reader needs the rest
                break
            copied_before = copied
        if has_grown:  # not again each second: where a reader stays, that is in vain
            most, every = self._limits.most_pages, self._limits.every_pages
            is_short = growth <= every or length >= most * _AT_ANY_COST
            with self._lock:
                self._needs_writer = length >= most and length - copied <= every and is_short

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
