"""The embedded store: durable, refuses clearly, survives kill -9 of its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import LockHeld, StateError
from fazai.store.base import Action, Run
from fazai.store.sqlite.ledger import SqliteStore


def run(number: int = 1) -> Run:
    return Run(f"{number:026d}", "apply", ("a.yml",), "ana", "ops", 42, 100.0 + number)


def action(name: str, number: int = 1) -> Action:
    return Action(f"{name}{number}", run(number).run_id, "t", "k.item", name, "create", {}, {"a": "1"})


def test_the_folder_is_private(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "deep" / "state").close()
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


def test_a_run_that_is_recorded_twice_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    asyncio.run(store.run_begin(run()))
    with pytest.raises(StateError, match=r"UNIQUE.*runs\.run_id"):
        asyncio.run(store.run_begin(run()))
    with contextlib.suppress(StateError):
        store.close()


def test_lock_files_stay_in_their_folder(tmp_path: Path) -> None:
    async def main() -> None:
        async with store.lease("fw/../1", run()), store.lease("fw/../2", run()):
            pass

    store = SqliteStore(tmp_path)
    asyncio.run(main())
    assert len(list((tmp_path / "locks").iterdir())) == 2
    assert all(p.parent == tmp_path / "locks" for p in (tmp_path / "locks").iterdir())
    store.close()


def test_a_lease_that_was_outlived_writes_nothing(tmp_path: Path) -> None:
    """Somebody deleted the lock file, so that two runs hold the target: the later one is right."""

    async def main() -> None:
        async with store.lease("t", run()) as old:
            await store.action_begin(replace(action("a"), token=old.token), [])
            shutil.rmtree(tmp_path / "locks")
            (tmp_path / "locks").mkdir()
            async with store.lease("t", run(2)) as new:
                assert new.token > old.token
                await store.action_begin(replace(action("b", 2), token=new.token), [])
                late = store.action_begin(replace(action("c"), token=old.token), ["s"])
                other = store.action_begin(replace(action("d"), target="u", token=1), [])
                said, fine = await asyncio.gather(late, other, return_exceptions=True)
                assert isinstance(said, LockHeld)
                assert "another run holds the target by now" in str(said)
                assert fine is None  # what another one writes at the same time is not lost with it

    store = SqliteStore(tmp_path)
    asyncio.run(main())
    assert [one.identity for one in asyncio.run(store.memory("t")).unfinished] == ["a", "b"]
    assert asyncio.run(store.memory("t")).pending == {}
    assert len(asyncio.run(store.memory("u")).unfinished) == 1
    store.close()


_CHILD = """
import asyncio, sys
from pathlib import Path
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.base import Action, Run

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    run = Run("0" * 26, "apply", (), "ana", "ops", 42, 1.0)
    await store.run_begin(run)
    async with store.lease("t", run):
        await store.action_begin(Action("x", run.run_id, "t", "k.item", "a", "create", {}, {}), ["s"])
        print("begun", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_awaited_and_frees_the_lock(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"begun\n"
    store = SqliteStore(tmp_path)

    async def take() -> None:
        async with store.lease("t", run()):
            pass

    with pytest.raises(LockHeld, match="pid 42 of ana on ops"):
        asyncio.run(take())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    asyncio.run(take())
    memory = asyncio.run(store.memory("t"))
    assert [a.identity for a in memory.unfinished] == ["a"]
    assert set(memory.pending) == {"s"}
    store.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be used"):
        SqliteStore(tmp_path / "file" / "state")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "fazai.sqlite3").write_bytes(b"not a database" * 500)
    with pytest.raises(StateError, match="not a database"):
        SqliteStore(tmp_path)


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "fazai.sqlite3")
    connection.execute("PRAGMA user_version = 999")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="newer fazai"):
        SqliteStore(tmp_path)


def test_a_write_that_nobody_waited_for_and_failed_is_said_at_the_next_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)

    async def fill() -> None:
        await store.run_begin(run())
        store.event("r", 1.0, "log", "t", {})
        store._queue.put(((("INSERT INTO nowhere VALUES (1)", ()),), None))
        behind: Future[None] = Future()  # once it is answered, the writer's thread has seen the one before
        store._queue.put(((("SELECT 1", ()),), behind))
        behind.exception(20)
        for name in ("b", "c"):
            with pytest.raises(StateError, match="no such table: nowhere"):
                await store.action_begin(action(name), [])

    asyncio.run(fill())
    assert asyncio.run(store.memory("t")).unfinished == ()
    with pytest.raises(StateError, match="no such table: nowhere"):
        store.close()


def test_a_number_too_large_for_sqlite_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, forgives=True)
    asyncio.run(store.run_begin(run()))
    with pytest.raises(StateError, match="too large"):
        asyncio.run(store.run_end(run().run_id, 2**70, {}))
    store.event(run().run_id, 5.0, "change", "t", {})
    store._queue.put(((("INSERT INTO nowhere VALUES (1)", ()),), None))
    behind: Future[None] = Future()  # once it is answered, the writer's thread has seen the one before
    store._queue.put(((("SELECT 1", ()),), behind))
    behind.exception(60)
    with pytest.raises(StateError, match="no such table: nowhere"):  # what was lost is said once
        asyncio.run(store.run_end(run().run_id, 0, {}))
    asyncio.run(store.run_end(run().run_id, 0, {}))
    assert asyncio.run(store.history(1))[0].exit_code == 0
    store.close()
