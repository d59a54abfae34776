"""The embedded store: durable, refuses clearly, survives kill -9 of its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import LockHeld, StateError
from fazai.model import Change, Verb
from fazai.store.base import Action, Run
from fazai.store.sqlite import SqliteStore


def run(number: int = 1) -> Run:
    return Run(f"{number:026d}", "apply", ("a.yml",), "ana", "ops", 42, 100.0 + number)


def action(name: str, number: int = 1) -> Action:
    return Action(
        f"{name}{number}", run(number).run_id, Change("t", "k.item", name, Verb.CREATE, {}, {"a": "1"}, "")
    )


def test_the_folder_is_private(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "deep" / "state").close()
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700


def test_round_trip(tmp_path: Path) -> None:
    async def use(store: SqliteStore) -> None:
        await store.run_begin(run())
        await store.action_begin(action("a"), ["s1", "s2"])
        await store.action_end("a1", "done", ref="uuid-1")
        await store.action_begin(action("b"), ["s2"])
        await store.activated("t", "s1")
        await store.adopt("t", "uuid-9", "k.item", "x", run().run_id)
        store.event(run().run_id, 5.0, "change", "t", {"n": 1})
        await store.run_end(run().run_id, 2, {"changed": 1})

    store = SqliteStore(tmp_path)
    asyncio.run(use(store))
    store.close()
    store = SqliteStore(tmp_path)
    memory = store.memory("t")
    assert memory.pending == {"s2": run().run_id}
    assert memory.adopted == {"uuid-9"}
    assert [a.change.identity for a in memory.unfinished] == ["b"]
    assert memory.generation == 2
    assert store.memory("other").generation == 0
    (found,) = store.history(5)
    assert (found.exit_code, found.summary, found.sources) == (2, {"changed": 1}, ("a.yml",))
    assert [(a.change.identity, a.status, a.change.ref) for a in store.actions(run().run_id)] == [
        ("a", "done", "uuid-1"),
        ("b", "begun", ""),
    ]
    assert store.events(run().run_id) == [{"id": 1, "time": 5.0, "type": "change", "target": "t", "n": 1}]
    asyncio.run(store.settle("t"))
    assert store.memory("t").unfinished == ()
    store.close()


@pytest.mark.parametrize("first", ["heard", "own"])
def test_a_run_that_was_heard_of_gives_way_to_its_own_process(tmp_path: Path, first: str) -> None:
    heard = replace(run(), pid=0, user="told")
    store = SqliteStore(tmp_path)
    for one in (heard, run(), heard) if first == "heard" else (run(), heard):
        asyncio.run(store.run_begin(one))
    (found,) = store.history(5)
    assert (found.pid, found.user) == (42, "ana")
    store.close()
    again = SqliteStore(tmp_path)
    with pytest.raises(StateError, match=r"UNIQUE.*runs\.run_id"):  # two processes are never one run
        asyncio.run(again.run_begin(run()))
    with contextlib.suppress(StateError):
        again.close()


def test_find_run_by_either_end(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)

    async def fill() -> None:
        for number in (1, 2):
            await store.run_begin(run(number))

    asyncio.run(fill())
    found = store.find_run("2")
    assert found is not None
    assert found.run_id == run(2).run_id
    assert store.find_run("9999") is None
    with pytest.raises(StateError, match="several runs"):
        store.find_run("00000")
    assert store.find_run("%") is None
    store.close()


def test_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with store.lock("fw/../1", run()):
        with pytest.raises(LockHeld, match="pid 42 of ana on ops"), store.lock("fw/../1", run(2)):
            pass
        with store.lock("fw/../2", run(2)):
            pass
    with store.lock("fw/../1", run(2)):
        pass
    assert all(p.parent == tmp_path / "locks" for p in (tmp_path / "locks").iterdir())
    store.close()


_CHILD = """
import asyncio, sys
from pathlib import Path
from fazai.store.sqlite import SqliteStore
from fazai.model import Change, Verb
from fazai.store.base import Action, Run

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    run = Run("0" * 26, "apply", (), "ana", "ops", 42, 1.0)
    await store.run_begin(run)
    with store.lock("t", run):
        change = Change("t", "k.item", "a", Verb.CREATE, {}, {}, "")
        await store.action_begin(Action("x", run.run_id, change), ["s"])
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
    with pytest.raises(LockHeld, match="pid 42 of ana on ops"), store.lock("t", run()):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with store.lock("t", run()):
        memory = store.memory("t")
    assert [a.change.identity for a in memory.unfinished] == ["a"]
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
    assert store.memory("t").unfinished == ()
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
    assert store.history(1)[0].exit_code == 0
    store.close()


def test_text_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    """A login name with a stray byte, a device's text with half a surrogate pair."""
    store = SqliteStore(tmp_path)
    asyncio.run(store.run_begin(replace(run(), user="ana\udcff")))
    store.close()
    again = SqliteStore(tmp_path)
    assert again.history(1)[0].user == "ana\\udcff"
    again.close()
