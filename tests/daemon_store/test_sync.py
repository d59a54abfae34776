"""An answer waits for the disk, and for nothing else: what the event loop commits and a thread syncs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fazai.errors import StateError, StoreFull
from fazai.store.daemon import NewEvent, StoredEvent, StoreLimits
from fazai.store.daemon_sqlite import SqliteDaemonStore
from fazai.store.durable import DurableFile
from fazai.store.schema import FILE_NAME
from tests.daemon_store.conftest import sample

FDATASYNC = os.fdatasync


class Disk:
    """Stands between the store and the disk: holds syncs up, or lets them fail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error: OSError | None = None
        self.synced: list[str] = []
        self.asked = threading.Event()

    def __call__(self, handle: int) -> None:
        self.asked.set()
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        FDATASYNC(handle)
        self.synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr("fazai.store.durable.os.fdatasync", found)
    return found


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.001)


def test_no_answer_before_the_log_is_on_disk(store: SqliteDaemonStore, disk: Disk) -> None:
    told: list[StoredEvent] = []
    store.on_published(told.extend)

    async def main() -> None:
        disk.open.clear()
        waits = [
            asyncio.ensure_future(store.ingest([sample("a", 0)])),
            asyncio.ensure_future(store.publish([NewEvent("log", b"{}")])),
        ]
        await until(disk.asked.is_set)
        later = asyncio.ensure_future(store.ingest([sample("a", 0), sample("a", 1)]))
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in (*waits, later))
        assert not told  # nor does anybody hear of an event that could be taken back
        disk.open.set()
        assert await asyncio.gather(*waits) == [[True], [1]]
        assert await later == [False, True]

    asyncio.run(main())
    assert [event.id for event in told] == [1]
    assert set(disk.synced) == {FILE_NAME + "-wal"}
    assert len(disk.synced) == store.counts()["commits"]


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, StateError), (errno.ENOSPC, StoreFull)])
def test_a_sync_that_failed_is_no_answer(
    store: SqliteDaemonStore, disk: Disk, code: int, kind: type[StateError]
) -> None:
    """The kernel reports it once, and the next sync succeeds without having written anything."""
    told: list[StoredEvent] = []
    store.on_published(told.extend)
    assert asyncio.run(store.ingest([sample("a", 0)])) == [True]
    disk.error = OSError(code, os.strerror(code))
    with pytest.raises(StateError) as caught:
        asyncio.run(store.ingest([sample("a", 1)]))
    assert type(caught.value) is kind
    with pytest.raises(StateError):
        asyncio.run(store.publish([NewEvent("log", b"{}")]))
    assert not told
    disk.error = None
    assert asyncio.run(store.ingest([sample("a", 1), sample("a", 2)])) == [False, True]
    log = store.folder / (FILE_NAME + "-wal")
    assert log.stat().st_size < 100_000  # it was copied into the file and began anew
    asyncio.run(store.publish([NewEvent("log", b"{}")]))
    assert [event.id for event in told] == [1, 2]


def test_in_doubt_a_log_that_cannot_be_copied_is_not_durable(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / FILE_NAME
    file = DurableFile(path)
    connection = file.begin(patient=True)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("COMMIT")
    disk.error = OSError(errno.EIO, "the disk")
    with pytest.raises(OSError, match="the disk"):
        file.sync()
    disk.error = None
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    connection = file.begin(patient=False)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("COMMIT")
    with pytest.raises(OSError, match="being read"):
        file.sync()
    reader.close()
    file.sync()
    disk.error = OSError(errno.EIO, "the disk")
    with pytest.raises(OSError, match="the disk"):
        file.sync()
    file.drop()  # with its handle of the log
    disk.error = None
    file.sync()
    file.drop()


def test_a_file_that_another_process_writes_to_does_not_hold_the_loop_up(store: SqliteDaemonStore) -> None:
    async def main(other: sqlite3.Connection) -> None:
        assert await store.ingest([sample("a", 0)]) == [True]
        other.execute("BEGIN IMMEDIATE")
        waits = [asyncio.ensure_future(store.ingest([sample("a", minute)])) for minute in range(1, 4)]
        slowest = 0.0
        for _ in range(50):
            begun = time.perf_counter()
            await asyncio.sleep(0.002)
            slowest = max(slowest, time.perf_counter() - begun)
        assert not any(one.done() for one in waits)
        assert slowest < 1.0  # a writer that waits waits for 30 s
        other.execute("COMMIT")
        assert await asyncio.gather(*waits) == [[True]] * 3

    with contextlib.closing(sqlite3.connect(store.folder / FILE_NAME, isolation_level=None)) as other:
        asyncio.run(main(other))
    assert len(store.records("a")) == 4


def test_the_log_is_bounded_while_it_is_written(tmp_path: Path) -> None:
    """No commit makes a checkpoint any more; the thread does."""
    store = SqliteDaemonStore(tmp_path, StoreLimits(upkeep_s=3600))
    log = tmp_path / (FILE_NAME + "-wal")
    sizes = []

    async def main() -> None:
        for _ in range(80):
            await store.publish([NewEvent("log", os.urandom(1_000_000))])
            sizes.append(log.stat().st_size)

    try:
        asyncio.run(main())
    finally:
        store.close()
    assert max(sizes) < 64 << 20
