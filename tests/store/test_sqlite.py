"""The embedded store: durable, refuses clearly, survives kill -9 of its process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import LockHeld, StateError
from fazai.model import Change, Verb
from fazai.store.base import Action, Run
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.schema import FILE_NAME


def run(number: int = 1) -> Run:
    return Run(f"{number:026d}", "apply", ("a.yml",), "ana", "ops", 42, 100.0 + number)


def action(name: str, number: int = 1) -> Action:
    return Action(
        f"{name}{number}", run(number).run_id, Change("t", "k.item", name, Verb.CREATE, {}, {"a": "1"}, "")
    )


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
            await old.check()  # nobody has taken the target yet
            async with store.lease("t", run(2)) as new:
                assert new.token > old.token
                await store.action_begin(replace(action("b", 2), token=new.token), [])
                late = store.action_begin(replace(action("c"), token=old.token), ["s"])
                other = store.action_begin(replace(action("d"), box="u", token=1), [])
                said, fine = await asyncio.gather(late, other, return_exceptions=True)
                assert isinstance(said, LockHeld)
                assert f"the lease of t was lost: run {run(2).run_id}" in str(said)
                assert fine is None  # what another one writes at the same time is not lost with it

    store = SqliteStore(tmp_path)
    asyncio.run(main())
    assert [one.change.identity for one in asyncio.run(store.memory("t")).unfinished] == ["a", "b"]
    assert asyncio.run(store.memory("t")).pending == {}
    assert len(asyncio.run(store.memory("u")).unfinished) == 1
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


async def _drain(store: SqliteStore) -> None:
    """Wait until the writer's thread has seen what was queued before."""
    with contextlib.suppress(StateError):
        await store._writer.write(store._statements, [("SELECT 1", ())])


def test_an_action_with_an_older_token_than_the_last_write_is_refused(tmp_path: Path) -> None:
    """Also where the file of its lease cannot say so, as of another copy of the state folder."""

    async def main() -> None:
        await store.action_begin(replace(action("a"), token=3), [])
        await store.action_begin(action("b"), [])  # of no lease: as the daemon records what it heard
        with pytest.raises(LockHeld, match="another run holds the target by now, and has written to it"):
            await store.action_begin(replace(action("c"), token=2), ["s"])
        async with store.lease("t", run()) as lease:
            assert lease.token == 4

    store = SqliteStore(tmp_path)
    asyncio.run(main())
    assert [one.change.identity for one in asyncio.run(store.memory("t")).unfinished] == ["a", "b"]
    store.close()


def test_a_lease_that_was_lost_during_the_commit_begins_nothing(tmp_path: Path) -> None:
    """As of a process that was stopped just then: it has looked at its lease before."""

    async def main() -> None:
        async with store.lease("t", run(), lease_s=60) as lease:
            blocker.execute("BEGIN IMMEDIATE")
            begun = asyncio.create_task(store.action_begin(replace(action("a"), token=lease.token), ["s"]))
            await asyncio.sleep(0)
            times.append(2000.0)
            async with other.lease("t", run(2)):
                blocker.execute("ROLLBACK")
                with pytest.raises(LockHeld, match=f"lease of t was lost: run {run(2).run_id}"):
                    await begun

    times = [1000.0]
    store, other = (SqliteStore(tmp_path, clock=lambda: times[-1]) for _ in range(2))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as blocker:
        asyncio.run(main())
    store.close()
    (found,) = asyncio.run(other.actions(run().run_id))
    assert (found.status, found.error.startswith("the lease of t was lost")) == ("failed", True)
    other.close()


def test_a_lease_is_newer_than_what_a_restored_database_knows(tmp_path: Path) -> None:
    """Its lock file may be an older one than the database: of a machine that stood by, or before a power
    cut."""

    async def main() -> None:
        async with store.lease("t", run()) as lease:
            assert lease.token == 1
        await store.action_begin(replace(action("a"), token=7), [])
        async with store.lease("t", run(2)) as lease:
            assert lease.token == 8
            await store.action_begin(replace(action("b", 2), token=lease.token), [])

    store = SqliteStore(tmp_path)
    asyncio.run(main())
    store.close()


def test_a_process_that_keeps_the_lock_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take() -> int:
        async with store.lease("t", run()) as lease:
            return lease.token

    store = SqliteStore(tmp_path)
    handle = os.open(tmp_path / "locks", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    monkeypatch.setattr("fazai.store.sqlite.leases._FOLDER_TRIES", 2)
    with pytest.raises(StateError, match=r"a process keeps the locks in .*/locks to itself \(see: fuser -v"):
        asyncio.run(take())
    monkeypatch.setattr("fazai.store.sqlite.leases._FOLDER_TRIES", 1000)

    async def let_go() -> int:
        asyncio.get_running_loop().call_soon(os.close, handle)
        return await take()

    assert asyncio.run(let_go()) == 1
    store.close()


def test_a_holder_of_release_0_1_0_is_not_outlived(tmp_path: Path) -> None:
    """Its lock file has no expiry, and it renews nothing."""

    async def main() -> None:
        async with store.lease("t", run()):
            (path,) = (tmp_path / "locks").iterdir()
            holder = {"run": "R1", "pid": 7, "host": "ops", "user": "ana", "since": 5.0, "target": "t"}
            path.write_text(json.dumps(holder))
            with pytest.raises(LockHeld, match=r"run R1 \(pid 7 of ana on ops\) holds t since .*05Z \(wait"):
                async with store.lease("t", run(2)):
                    pass

    store = SqliteStore(tmp_path, clock=lambda: 1e9)
    asyncio.run(main())
    store.close()


def test_a_write_that_nobody_waited_for_and_failed_is_said_at_the_next_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)

    async def fill() -> None:
        await store.run_begin(run())
        store.event("r", 1.0, "log", "t", {})
        store._write_soon(("INSERT INTO nowhere VALUES (1)", ()))
        await _drain(store)
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
    store._write_soon(("INSERT INTO nowhere VALUES (1)", ()))
    asyncio.run(_drain(store))
    with pytest.raises(StateError, match="no such table: nowhere"):  # what was lost is said once
        asyncio.run(store.run_end(run().run_id, 0, {}))
    asyncio.run(store.run_end(run().run_id, 0, {}))
    assert asyncio.run(store.history(1))[0].exit_code == 0
    store.close()
