"""The log is copied into the file in a thread of its own: no commit waits for that, the log does not grow
without end, and a kill in the midst of it loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.store.base import Run
from fazai.store.daemon import NewEvent
from fazai.store.sqlite.checkpoints import Checkpointer, CopyLog, LogLimits, copy_log, hold_log
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.schema import FILE_NAME, connect, open_reader
from fazai.store.sqlite.writer import GroupWriter, StatementHandler
from tests.daemon_store.conftest import QUIET

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
#: As in a daemon, a hundred times smaller.
SMALL = LogLimits(kept_pages=30, every_pages=10, most_pages=160, again_s=0.01)
KEPT_BYTES = 30 * 4120
EVENT = NewEvent(
    "log", b'{"timestamp":"2026-01-01T00:00:00+00:00","type":"log","message":"%s"}' % (b"x" * 3000)
)


def open_store(folder: Path, copy: CopyLog = copy_log) -> SqliteDaemonStore:
    return SqliteDaemonStore(folder, QUIET, checkpointer=Checkpointer(folder, SMALL, copy))


def log_bytes(folder: Path) -> int:
    log = folder / f"{FILE_NAME}-wal"
    return log.stat().st_size if log.exists() else 0


async def publish_until_cut(store: SqliteDaemonStore, kept_bytes: float = KEPT_BYTES) -> int:
    """Publish one event after the other until the log has begun anew, and return how many."""
    count, before = 0, log_bytes(store.folder)
    async with asyncio.timeout(PATIENCE_S):
        while (size := log_bytes(store.folder)) >= before:
            before = size
            await store.publish([EVENT])
            count += 1
    assert size <= kept_bytes
    return count


def test_no_commit_waits_for_a_checkpoint(tmp_path: Path) -> None:
    began, may_end = threading.Event(), threading.Event()

    def copy_slowly(connection: sqlite3.Connection) -> tuple[int, int, int]:
        began.set()
        assert may_end.wait(PATIENCE_S)
        return copy_log(connection)

    async def check(store: SqliteDaemonStore) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not began.is_set():
                await store.publish([EVENT])
            for _ in range(50):  # all while the checkpoint goes on
                await store.publish([EVENT])
        may_end.set()
        await publish_until_cut(store)

    store = open_store(tmp_path, copy_slowly)
    try:
        asyncio.run(check(store))
    finally:
        may_end.set()
        store.close()


def test_the_ledger_of_a_daemon_has_the_log_copied_too(tmp_path: Path) -> None:
    copied = threading.Event()

    def copy(connection: sqlite3.Connection) -> tuple[int, int, int]:
        copied.set()
        return copy_log(connection)

    async def check(store: SqliteDaemonStore) -> None:
        async with asyncio.timeout(PATIENCE_S):
            number = 0
            while not copied.is_set():
                number += 1
                await store.ledger.run_begin(
                    Run(f"R{number}", "apply", ("x" * 3000,), "me", "here", 1, time.time())
                )

    store = open_store(tmp_path, copy)
    try:
        asyncio.run(check(store))
    finally:
        store.close()


class Meanwhile:
    """A copy of the log, at the end of which another connection has written `pages` more, as ever."""

    def __init__(self, folder: Path, pages: int, times: int = 1_000_000) -> None:
        self._folder, self._pages, self._times = folder, pages, times
        self.found: list[tuple[int, int]] = []
        self.at_rest = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        found = copy_log(connection)
        self.found.append(found[1:])
        if len(self.found) <= self._times:
            write_pages(self._folder, self._pages)
        elif found[1] == found[2]:
            self.at_rest.set()
        return found


def write_pages(folder: Path, pages: int) -> None:
    with contextlib.closing(connect(folder / FILE_NAME)) as other:
        other.execute(f"PRAGMA journal_size_limit={KEPT_BYTES}")
        other.execute("CREATE TABLE IF NOT EXISTS other (page BLOB)")
        other.execute("INSERT INTO other VALUES (zeroblob(?))", (pages * 4096,))


def test_what_was_written_during_a_checkpoint_is_copied_by_the_next_though_nobody_writes(
    tmp_path: Path,
) -> None:
    copy = Meanwhile(tmp_path, 3, times=1)

    async def check(store: SqliteDaemonStore) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not copy.found:
                await store.publish([EVENT])
        assert await asyncio.to_thread(copy.at_rest.wait, PATIENCE_S)

    limits = replace(SMALL, every_pages=200)  # nobody comes to that once more
    store = SqliteDaemonStore(tmp_path, QUIET, checkpointer=Checkpointer(tmp_path, limits, copy))
    try:
        asyncio.run(check(store))
    finally:
        store.close()
    first, second = copy.found[:2]
    assert first[0] == first[1]  # SQLite tells of what there was when it began
    assert second[0] == second[1] > first[0]


@pytest.mark.parametrize(("pages", "least"), [(1, SMALL.most_pages), (15, SMALL.most_pages * 4)])
def test_a_log_whose_end_is_never_reached_begins_anew_by_a_writer(
    tmp_path: Path, pages: int, least: int
) -> None:
    copy = Meanwhile(tmp_path, pages)
    store = open_store(tmp_path, copy)
    try:
        asyncio.run(publish_until_cut(store, math.inf))  # more may have been written since, by `copy`
        assert max(length for length, _ in copy.found) >= least
        assert store.counts()["failures"] == 0
    finally:
        store.close()


def log_head(folder: Path) -> bytes:
    """Return what is new with each beginning of the log: its number, and two random ones."""
    return (folder / f"{FILE_NAME}-wal").read_bytes()[12:24]


def test_a_held_log_is_copied_or_begins_anew_but_never_both(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with contextlib.closing(connect(path)) as connection:
        connection.execute("CREATE TABLE t (text TEXT)")
        write_pages(tmp_path, 20)
        head = log_head(tmp_path)
        with hold_log(path):  # there is more to copy
            _, length, copied = copy_log(connection)
            assert length == copied > 20
            write_pages(tmp_path, 1)
            assert log_head(tmp_path) == head
            assert copy_log(connection)[1:] > (length, copied)
            assert copy_log(connection)[2] == copied
        _, length, copied = copy_log(connection)
        assert length == copied
        with hold_log(path):  # all is copied
            write_pages(tmp_path, 1)
            assert log_head(tmp_path) != head
            _, length, copied = copy_log(connection)
            assert length > 0
            assert copied == 0
        assert copy_log(connection) == (0, length, length)


@pytest.mark.parametrize("has_thread", [True, False])
def test_no_log_begins_anew_beneath_a_checkpoint(tmp_path: Path, has_thread: bool) -> None:
    """SQLite before 3.51.3 could mark as copied what is not."""
    heads: list[bytes] = []
    began, may_copy = threading.Event(), threading.Event()
    if not has_thread:  # it is the writer that copies
        may_copy.set()

    def copy(connection: sqlite3.Connection) -> tuple[int, int, int]:
        began.set()
        assert may_copy.wait(PATIENCE_S)
        found = copy_log(connection)
        if not heads:
            before = log_head(tmp_path)
            write_pages(tmp_path, 1)
            heads.extend([before, log_head(tmp_path)])
        return found

    async def write(writer: GroupWriter) -> None:
        part = StatementHandler()
        async with asyncio.timeout(PATIENCE_S):
            while not began.is_set():
                await writer.write(part, [("INSERT INTO t VALUES (?)", ("x" * 3000,))])
        may_copy.set()

    with contextlib.closing(connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE t (text TEXT)")
        checkpointer = Checkpointer(tmp_path, SMALL, copy)
        if has_thread:
            checkpointer.start()
        writer = GroupWriter(tmp_path, "a-writer", checkpointer=checkpointer)
        writer.start()
        asyncio.run(write(writer))
        writer.close()
        checkpointer.close()
    assert heads[0] == heads[1]


@pytest.mark.parametrize("open_other", [connect, open_reader])
def test_no_connection_copies_the_log_of_its_own_accord(
    tmp_path: Path, open_other: Callable[[Path], sqlite3.Connection]
) -> None:
    with contextlib.closing(connect(tmp_path / FILE_NAME)) as first:
        first.execute("CREATE TABLE t (text TEXT)")
        with contextlib.closing(open_other(tmp_path / FILE_NAME)) as other:
            (pages,) = other.execute("PRAGMA wal_autocheckpoint").fetchone()
            (may_not_write,) = other.execute("PRAGMA query_only").fetchone()
            assert may_not_write or not pages


def test_a_reader_that_stays_keeps_nobody_waiting_and_the_log_shrinks_after_it(tmp_path: Path) -> None:
    async def check(store: SqliteDaemonStore) -> None:
        with contextlib.closing(open_reader(tmp_path / FILE_NAME)) as reader:
            reader.execute("BEGIN")
            ((before,),) = reader.execute("SELECT count(*) FROM stream").fetchall()
            for _ in range(100):
                await store.publish([EVENT])
            assert log_bytes(tmp_path) > SMALL.most_pages * 4120  # all of it is needed
            assert reader.execute("SELECT count(*) FROM stream").fetchall() == [(before,)]
        await publish_until_cut(store)
        for _ in range(3):  # and from then on as ever
            await publish_until_cut(store)

    store = open_store(tmp_path)
    try:
        asyncio.run(check(store))
    finally:
        store.close()


def test_what_a_reader_kept_from_the_file_is_copied_after_it_though_nobody_writes(tmp_path: Path) -> None:
    behind, reached_end = threading.Event(), threading.Event()

    def copy(connection: sqlite3.Connection) -> tuple[int, int, int]:
        found = copy_log(connection)
        (behind if found[2] < found[1] else reached_end).set()
        return found

    async def check(store: SqliteDaemonStore) -> None:
        with contextlib.closing(open_reader(tmp_path / FILE_NAME)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM stream").fetchall()
            async with asyncio.timeout(PATIENCE_S):
                while not behind.is_set():
                    await store.publish([EVENT])
        assert await asyncio.to_thread(reached_end.wait, PATIENCE_S)

    store = open_store(tmp_path, copy)
    try:
        asyncio.run(check(store))
    finally:
        store.close()


def test_a_checkpoint_that_fails_is_counted_and_made_again(tmp_path: Path) -> None:
    failed: list[bool] = []

    def copy(connection: sqlite3.Connection) -> tuple[int, int, int]:
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        return copy_log(connection)

    store = open_store(tmp_path, copy)
    try:
        asyncio.run(publish_until_cut(store))
        assert store.counts()["failures"] == 1
        assert store.counts()["lost"] == 0
    finally:
        store.close()


def test_without_the_thread_a_writer_copies_the_log(tmp_path: Path) -> None:
    copies: list[str] = []

    def copy(connection: sqlite3.Connection) -> tuple[int, int, int]:
        copies.append(threading.current_thread().name)
        return copy_log(connection)

    async def write(writer: GroupWriter, part: StatementHandler) -> None:
        for _ in range(100):
            await writer.write(part, [("INSERT INTO t VALUES (?)", ("x" * 3000,))])

    with contextlib.closing(connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE t (text TEXT)")
        writer = GroupWriter(tmp_path, "a-writer", checkpointer=Checkpointer(tmp_path, SMALL, copy))
        writer.start()
        asyncio.run(write(writer, StatementHandler()))
        writer.close()
        assert set(copies) == {"a-writer"}
        assert log_bytes(tmp_path) <= KEPT_BYTES + 20 * 4120


#: A process whose file may grow by eight pages more from the moment on at which a checkpoint begins: the
#: kernel kills it in the midst of that.
KILLED = """
import asyncio, os, resource, signal, sys, threading
from pathlib import Path
from fazai.store.sqlite.checkpoints import copy_log
from tests.daemon_store.test_checkpoints import EVENT, open_store

folder, parked = Path(sys.argv[1]), threading.Event()
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def copy(connection):
    parked.wait()  # nobody writes but the checkpoint
    limit = (folder / "fazai.sqlite3").stat().st_size + 8 * 4096
    print(limit, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return copy_log(connection)

async def main():
    store = open_store(folder, copy)
    for number in range(200):
        print(*await store.publish([EVENT]), flush=True)

asyncio.run(main())
parked.set()
threading.Event().wait(60)
"""


def test_a_kill_in_the_midst_of_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGXFSZ
    *acknowledged, limit = map(int, killed.stdout.split())
    assert len(acknowledged) == 200
    assert (tmp_path / FILE_NAME).stat().st_size == limit  # some pages were copied, and not the others
    store = open_store(tmp_path)
    try:
        events = asyncio.run(store.events_after(0))
        assert [(event.id, event.data) for event in events if event.type == "log"] == [
            (number, EVENT.data) for number in acknowledged
        ]
        asyncio.run(publish_until_cut(store))
    finally:
        store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
