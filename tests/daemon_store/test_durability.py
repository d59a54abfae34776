"""What was acknowledged is there: after kill -9, a full disk, a damaged file, beside another writer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.errors import LockHeld, StateError, StoreFull
from fazai.model import Change, Verb
from fazai.store.base import Action, Run
from fazai.store.daemon import NewEvent, Nonce, StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.schema import FILE_NAME, MIGRATIONS, state_error
from tests.daemon_store.conftest import MINUTE_US, QUIET, START_US, sample

ROOT = Path(__file__).parents[2]
#: A process that stores samples in batches, as fast as it can, and says each number once it is acknowledged.
LOADER = """
import asyncio, os, sys
from pathlib import Path
from fazai.store.daemon import Nonce, StoreLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore
from tests.daemon_store.conftest import sample

folder, begin, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
limits = StoreLimits(upkeep_s=0.05, index_records=2000)  # merging and indexing all the time

async def client(store, host, out):
    minute = begin
    while True:
        samples = [sample(host, minute + n, size=120) for n in range(batch)]
        verdicts = await store.ingest_signed(samples, Nonce(host, str(minute), 1 << 62, 0))
        assert verdicts and all(verdicts), (host, minute)
        minute += batch
        out.write(b"%s %d\\n" % (host.encode(), minute - 1))
        out.flush()

async def main():
    store = SqliteDaemonStore(folder, limits)
    with open(1, "wb", buffering=0) as out:
        await asyncio.gather(*(client(store, f"h{n}", out) for n in range(8)))

asyncio.run(main())
"""


def signed(host: str, minute: int) -> Nonce:
    """The nonce of a host's batch that begins with the minute."""
    return Nonce(host, str(minute), 1 << 62, 0)


def load_and_kill(folder: Path, begin: int, batch: int, wanted: int) -> dict[str, int]:
    """Run the loader until so many records were acknowledged, then kill it; host -> last acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(folder), str(begin), str(batch)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    known: dict[str, int] = {}
    for count, line in enumerate(process.stdout, 1):
        host, _, minute = line.decode().partition(" ")
        known[host] = int(minute)
        if count * batch >= wanted:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()  # acknowledged before the end, too
    for line in rest.splitlines(keepends=True):
        if line.endswith(b"\n"):
            host, _, minute = line.decode().partition(" ")
            known[host] = int(minute)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return known


def check_all(folder: Path, acknowledged: dict[str, int], begin: int = 0) -> int:
    """Every acknowledged record from the minute `begin` on is there, once, and is what was sent. How many
    there are."""
    store = SqliteDaemonStore(folder, QUIET)
    total = 0
    try:
        for host, last in acknowledged.items():
            times = [
                t for t, _ in asyncio.run(store.history(host, START_US + begin * MINUTE_US, limit=10**9))
            ]
            assert len(times) == len(set(times))
            assert set(times) >= {START_US + minute * MINUTE_US for minute in range(begin, last + 1)}
            total += len(times)
            for time_us, body in asyncio.run(store.records(host, limit=20)):
                assert body == sample(host, (time_us - START_US) // MINUTE_US, size=120).body
        assert asyncio.run(store.ingest([sample(host, 0, size=120) for host in acknowledged])) == [
            False
        ] * len(acknowledged)
    finally:
        store.close()
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return total


def check_nonces(store: SqliteDaemonStore, first: int, batch: int) -> None:
    """A batch of the round from the minute `first` on is there with its nonce, or neither is; a replay of one
    that is there is refused."""
    with contextlib.closing(sqlite3.connect(store.folder / FILE_NAME)) as connection:
        used = {(agent, int(text)) for agent, text in connection.execute("SELECT agent, nonce FROM nonces")}
    stored = set()
    for record in store.hosts():
        last = (record.time_us - START_US) // MINUTE_US
        stored |= {(record.host, minute) for minute in range(first, last + 1, batch)}
        if last >= first:
            assert (last + 1 - first) % batch == 0  # whole batches alone
            replayed = store.ingest_signed(
                [sample(record.host, last + 1)], signed(record.host, last + 1 - batch)
            )
            assert asyncio.run(replayed) is None
    assert {(agent, minute) for agent, minute in used if minute >= first} == stored


def kill_rounds(folder: Path, rounds: int, each: int, batch: int) -> int:
    acknowledged: dict[str, int] = {}
    begin = 0
    for _ in range(rounds):
        first = begin
        found = load_and_kill(folder, begin, batch, each)
        acknowledged = {host: max(found.get(host, begin - 1), begin - 1) for host in acknowledged | found}
        store = SqliteDaemonStore(folder, QUIET)
        begin = max((record.time_us - START_US) // MINUTE_US for record in store.hosts()) + 1
        hosts = {record.host for record in store.hosts()}
        check_nonces(store, first, batch)
        missing = [
            sample(host, minute, size=120)
            for host in hosts
            for minute in range(acknowledged.get(host, -1) + 1, begin)
        ]
        asyncio.run(store.ingest(missing))  # what was not acknowledged is sent again, as agents do
        acknowledged = dict.fromkeys(hosts, begin - 1)
        store.close()
        check_all(folder, acknowledged, first)
    return check_all(folder, acknowledged)  # what was there before a later kill is there after it


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    assert kill_rounds(tmp_path, rounds=3, each=1500, batch=5) >= 4500


@pytest.mark.slow
def test_nothing_of_a_million_is_lost_by_kill_9(tmp_path: Path) -> None:
    assert kill_rounds(tmp_path, rounds=10, each=100_000, batch=50) >= 1_000_000


# -- disk full


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Whatever a test sets is undone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_room_mends_it(store: SqliteDaemonStore, file_limit: None) -> None:
    """The kernel's own limit of a file's size: writes fail in the middle, as they do on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert asyncio.run(store.ingest([sample("a", 0)])) == [True]
    used = (store.folder / (FILE_NAME + "-wal")).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 65_536, hard))
    stored = 1
    full: StoreFull | None = None
    while full is None and stored < 500:
        try:
            asyncio.run(store.ingest([sample("a", stored), sample(f"new{stored}", 0)]))
            stored += 1
        except StoreFull as error:
            full = error
    assert full is not None
    assert "takes no more data" in full.message
    with pytest.raises(StoreFull, match="takes no more data"):
        asyncio.run(store.publish([NewEvent("log", b"x" * 100_000)]))
    assert len(asyncio.run(store.history("a"))) == stored  # what was refused left no trace
    assert store.host(f"new{stored}") is None
    last = store.event_range()[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert asyncio.run(store.ingest([sample("a", stored), sample("a", 0)])) == [True, False]
    assert asyncio.run(store.publish([NewEvent("log", b"{}")])) == [last + 1]
    assert len(asyncio.run(store.records("a", limit=1000))) == stored + 1


def test_a_nonce_that_cannot_be_stored_is_not_used_up(store: SqliteDaemonStore, file_limit: None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert asyncio.run(store.use_nonce(Nonce("a", "first", 2_000, 1_000)))
    used = (store.folder / (FILE_NAME + "-wal")).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 65_536, hard))
    with pytest.raises(StoreFull, match="takes no more data"):
        asyncio.run(store.use_nonce(Nonce("a", "n" * 100_000, 2_000, 1_000)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert asyncio.run(store.use_nonce(Nonce("a", "n" * 100_000, 2_000, 1_000))) is True
    assert asyncio.run(store.use_nonce(Nonce("a", "n" * 100_000, 2_000, 1_000))) is False


def test_a_nonce_of_a_request_that_was_given_up_and_not_stored_is_not_used_up(
    store: SqliteDaemonStore, file_limit: None
) -> None:
    async def main() -> bool:
        given_up = asyncio.create_task(store.use_nonce(nonce))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        with pytest.raises(StoreFull, match="takes no more data"):
            await store.publish([NewEvent("log", b"x" * 100_000)])  # answered after what came before it
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        return await store.use_nonce(nonce)

    nonce = Nonce("a", "n" * 100_000, 2_000, 1_000)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert asyncio.run(store.use_nonce(Nonce("a", "first", 2_000, 1_000)))
    used = (store.folder / (FILE_NAME + "-wal")).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 65_536, hard))
    assert asyncio.run(main()) is True
    assert asyncio.run(store.use_nonce(nonce)) is False


@pytest.mark.parametrize(
    ("code", "limit", "kind", "hint"),
    [
        (sqlite3.SQLITE_FULL, None, StoreFull, "free space"),
        (sqlite3.SQLITE_IOERR_WRITE, 4096, StoreFull, "free space"),  # EFBIG
        (sqlite3.SQLITE_IOERR_WRITE, None, StateError, "dmesg"),
        (sqlite3.SQLITE_IOERR_FSYNC, None, StateError, "dmesg"),
    ],
    ids=["full", "file size", "write", "fsync"],
)
def test_a_disk_that_fails_is_not_a_full_one(
    tmp_path: Path, file_limit: None, code: int, limit: int | None, kind: type[StateError], hint: str
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"x" * 8192)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    found = state_error(tmp_path, error)
    assert type(found) is kind
    assert hint in str(found.hint)
    assert type(state_error(tmp_path, OSError(errno.ENOSPC, "No space left on device"))) is StoreFull
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_full_file_system(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "fazai-test", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        store = SqliteDaemonStore(folder, QUIET)
        filler = folder / "filler"
        filler.write_bytes(b"x" * (os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - 65_536))
        with contextlib.suppress(StoreFull):
            for minute in range(500):
                asyncio.run(store.ingest([sample("a", minute, size=6000)]))
        with pytest.raises(StoreFull, match="takes no more data: database or disk is full"):
            asyncio.run(store.publish([NewEvent("log", b"x" * 200_000)]))
        kept = len(asyncio.run(store.history("a")))
        filler.unlink()
        assert asyncio.run(store.ingest([sample("a", kept)])) == [True]
        assert len(asyncio.run(store.records("a", limit=10_000))) == kept + 1
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# -- damage


def filled(folder: Path) -> None:
    store = SqliteDaemonStore(folder, QUIET)
    asyncio.run(store.ingest([sample(f"h{n}", minute, size=2000) for n in range(20) for minute in range(20)]))
    asyncio.run(store.publish([NewEvent("log", b'{"type":"log"}')] * 500))
    store.close()


@pytest.mark.parametrize("how", ["header", "page", "cut", "text"])
def test_a_damaged_file_is_refused_with_the_way_back(tmp_path: Path, how: str) -> None:
    filled(tmp_path)
    path = tmp_path / FILE_NAME
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'stream'").fetchone()
    data = bytearray(path.read_bytes())
    if how == "header":
        data[:100] = b"\0" * 100
    elif how == "page":
        data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    elif how == "cut":
        del data[len(data) // 2 :]
    else:
        data[:] = b"this is no database, but long enough to be one" * 200
    path.write_bytes(data)
    with pytest.raises(StateError) as caught:
        SqliteDaemonStore(tmp_path, QUIET)
    assert "damaged" in caught.value.message
    assert "fazai store restore" in str(caught.value.hint)
    with pytest.raises(StateError, match="is damaged"):  # and the folder is free again
        SqliteDaemonStore(tmp_path, QUIET)


# -- others at the same file


def test_apply_writes_its_ledger_while_the_daemon_stores(store: SqliteDaemonStore) -> None:
    ledger = SqliteStore(store.folder)
    run = Run("01RUN", "apply", ("i.yml",), "me", "here", 1, time.time())
    failures: deque[StateError] = deque()

    async def reconcile() -> None:
        await ledger.run_begin(run)
        for number in range(60):
            change = Change("fw-01", "opnsense.alias", "x", Verb.CREATE, {}, {"n": number}, "")
            action = Action(f"a{number}", "01RUN", change)
            await ledger.action_begin(action, ["alias"])
            await ledger.action_end(action.action_id, "done")
        await ledger.run_end("01RUN", 0, {"changed": 60})

    def other() -> None:
        try:
            asyncio.run(reconcile())
        except StateError as error:
            failures.append(error)

    async def telemetry(done: threading.Thread) -> int:
        minute = 0
        while done.is_alive() or minute < 50:
            assert await store.ingest([sample("a", minute)]) == [True]
            minute += 1
        return minute

    thread = threading.Thread(target=other)
    thread.start()
    minutes = asyncio.run(telemetry(thread))
    thread.join()
    ledger.close()
    assert not failures
    assert len(asyncio.run(store.history("a"))) == minutes
    assert [action.status for action in asyncio.run(store.ledger.actions("01RUN"))] == ["done"] * 60
    assert asyncio.run(store.ledger.history(1))[0].exit_code == 0


def test_a_file_of_release_0_1_0_is_brought_forward(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as connection:
        for statement in MIGRATIONS[0].split(";"):
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO runs VALUES ('R', 'apply', '[]', 'me', 'here', 1, 1.0, 2.0, 0, '{}')")
        connection.execute("INSERT INTO adopted VALUES ('fw', 'u', 'opnsense.alias', 'x', 'R', 1.0)")
    store = SqliteDaemonStore(tmp_path, QUIET)
    assert [run.run_id for run in asyncio.run(store.ledger.history(5))] == ["R"]
    assert asyncio.run(store.ledger.memory("fw")).adopted == {"u"}
    assert asyncio.run(store.ingest([sample("a", 0)])) == [True]
    store.close()


def test_the_schema_of_0_1_0_is_the_released_one() -> None:
    """A released migration is never edited: this is its digest."""
    text = " ".join(MIGRATIONS[0].split())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3c92a769722ac4bb"


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in MIGRATIONS[0].split(";"):
            connection.execute(statement)
        connection.execute("CREATE TABLE tokens (surprise)")  # in the middle of the second migration
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StateError, match="table tokens already exists"):
        SqliteDaemonStore(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert "hosts" not in names


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    SqliteDaemonStore(tmp_path, QUIET).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="newer fazai"):
        SqliteDaemonStore(tmp_path)


def test_a_file_copied_while_it_is_written_is_not_shared(store: SqliteDaemonStore, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "other")
    with pytest.raises(LockHeld, match="another daemon uses the state folder"):
        SqliteDaemonStore(store.folder, StoreLimits())
    SqliteDaemonStore(tmp_path / "other", QUIET).close()
