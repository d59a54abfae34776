"""The embedded store: one SQLite file with one writer thread that groups commits, and a lock file per box
(`leases`).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from fazai.errors import LockHeld, StateError
from fazai.model import Change, Verb
from fazai.store.base import LEASE_S, Action, Lease, Run, TargetMemory, TargetState
from fazai.store.sqlite.checkpoints import Checkpointer
from fazai.store.sqlite.leases import FileLease, LockFolder
from fazai.store.sqlite.schema import FILE_NAME, connect, migrate, state_error
from fazai.store.sqlite.writer import GroupWriter, Statement, StatementHandler

T = TypeVar("T")

KEEP_RUNS = 5_000


class SqliteStore:
    """`folder` is created 0700 when it is not there. Raises StateError when it cannot be used. A write that
    nobody waited for and that failed is the end of a run; a daemon `forgives` it once it was said. `clock`
    tells seconds since the epoch: by it leases expire and what is old goes."""

    def __init__(
        self,
        folder: Path,
        *,
        forgives: bool = False,
        keep_runs: int = KEEP_RUNS,
        targets_age_s: float = 90 * 86400.0,
        clock: Callable[[], float] = time.time,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._keep_runs, self._targets_age_s = keep_runs, targets_age_s
        self._forgives = forgives
        self._path = folder / FILE_NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "locks").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise state_error(folder, error) from error
        self._locks = LockFolder(folder / "locks", clock, self._read_token)
        self._statements = StatementHandler()
        self._writer = GroupWriter(folder, "fazai-store", checkpointer=checkpointer)
        try:
            self._reader = connect(self._path)
            migrate(self._reader)
        except sqlite3.Error as error:
            raise state_error(folder, error) from error
        self._writer.start()

    def close(self) -> None:
        """Write what is queued, then close. Raises StateError when a write that nobody waited for failed."""
        self._writer.close()
        self._reader.close()
        self._locks.close()
        if self._writer.failed is not None:
            raise self._writer.failed

    def check_alive(self) -> None:
        """Raise StateError when the thread has ended that should write."""
        self._writer.check_alive()

    async def _write(self, *jobs: Statement) -> None:
        if (failed := self._writer.failed) is not None:  # a write that nobody waited for was lost: say so now
            if self._forgives:
                self._writer.failed = None
            raise failed
        await self._writer.write(self._statements, jobs)

    def _write_soon(self, *jobs: Statement) -> None:
        self._writer.write_soon(self._statements, jobs)

    # -- runs -------------------------------------------------------------------------------------------

    async def run_begin(self, run: Run) -> None:
        """Record a run. What a daemon heard of it (pid 0) gives way to what its own process says, whichever
        is first."""
        heard = run.pid == 0
        await self._write(
            *([] if heard else [("DELETE FROM runs WHERE run_id = ? AND pid = 0", (run.run_id,))]),
            (
                f"INSERT {'OR IGNORE ' if heard else ''}INTO runs"  # noqa: S608 - our words
                " (run_id, command, sources, user, host, pid, started) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run.run_id, run.command, json.dumps(run.sources), run.user, run.host, run.pid, run.started),
            ),
        )

    async def run_end(self, run_id: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        oldest = "(SELECT run_id FROM runs ORDER BY run_id DESC LIMIT 1 OFFSET ?)"
        await self._write(
            (
                "UPDATE runs SET finished = ?, exit_code = ?, summary = ? WHERE run_id = ?",
                (self._clock(), exit_code, json.dumps(summary), run_id),
            ),
            (f"DELETE FROM events WHERE run_id <= {oldest}", (self._keep_runs,)),  # noqa: S608 - a constant
            (
                f"DELETE FROM actions WHERE run_id <= {oldest} AND (finished NOTNULL OR settled)",  # noqa: S608
                (self._keep_runs,),
            ),
            (f"DELETE FROM runs WHERE run_id <= {oldest}", (self._keep_runs,)),  # noqa: S608
            ("DELETE FROM targets WHERE time < ?", (self._clock() - self._targets_age_s,)),
            ("DELETE FROM names WHERE time < ?", (self._clock() - self._targets_age_s,)),
        )

    async def history(self, limit: int) -> list[Run]:
        return await asyncio.to_thread(
            self._read_as,
            _run_from_row,
            f"SELECT {_RUN} FROM runs ORDER BY run_id DESC LIMIT ?",  # noqa: S608 - our words
            (limit,),
        )

    async def find_run(self, prefix: str) -> Run | None:
        """The newest run whose id begins (or ends) with the given text; raises StateError when several do."""
        text = prefix.upper().rstrip("…")
        if not text.isalnum():
            return None
        rows = self._read(
            f"SELECT {_RUN} FROM runs WHERE run_id LIKE ? OR run_id LIKE ?"  # noqa: S608 - our words
            " ORDER BY run_id DESC LIMIT 2",
            (text + "%", "%" + text),
        )
        if len(rows) > 1:
            raise StateError(f"several runs match {prefix!r}", hint="give more letters, see: fazai history")
        return _run_from_row(rows[0]) if rows else None

    # -- targets ----------------------------------------------------------------------------------------

    async def memory(self, box: str, name: str = "") -> TargetMemory:
        keys = (box, name or box)
        ((generation, adopts, waits, begun),) = self._read(_LEFT_OVER, keys)  # of most there is nothing
        adopted = self._read("SELECT ref FROM adopted WHERE box IN (?, ?)", keys) if adopts else ()
        pending = self._read("SELECT service, run_id FROM pending WHERE box IN (?, ?)", keys) if waits else ()
        opened = self._read(f"SELECT {_ACTION} {_OPENED} ORDER BY started", keys) if begun else ()
        return TargetMemory(
            frozenset(row[0] for row in adopted),
            dict(pending),
            tuple(_action_from_row(row) for row in opened),
            int(generation),
            self._locks.find_holder(box) if pending or opened else None,
        )

    def lease(
        self, box: str, run: Run, name: str = "", lease_s: float = LEASE_S
    ) -> AbstractAsyncContextManager[Lease]:
        return FileLease(self._locks, box, run, name or box, lease_s)

    def _read_token(self, box: str) -> int:
        rows = self._read("SELECT token FROM generations WHERE box = ?", (box,))
        return int(rows[0][0]) if rows else 0

    async def settle(self, box: str, name: str = "") -> None:
        await self._write(
            (
                "UPDATE actions SET settled = 1 WHERE box IN (?, ?) AND finished IS NULL AND settled = 0",
                (box, name or box),
            )
        )

    async def adopt(self, box: str, ref: str, kind: str, identity: str, run_id: str) -> None:
        await self._write(
            (
                "INSERT OR REPLACE INTO adopted VALUES (?, ?, ?, ?, ?, ?)",
                (box, ref, kind, identity, run_id, self._clock()),
            )
        )

    # -- the journal ------------------------------------------------------------------------------------

    async def action_begin(self, action: Action, services: Sequence[str]) -> None:
        await self.actions_begin([(action, services)])

    async def actions_begin(self, begun: Sequence[tuple[Action, Sequence[str]]]) -> None:
        for action, _ in begun:
            await self._check_lease(action)
        now = self._clock()
        await self._write(*(job for action, names in begun for job in _begin_statements(action, names, now)))
        try:
            for action, _ in begun:  # the commit may have taken longer than the lease
                await self._check_lease(action)
        except LockHeld as lost:
            for action, _ in begun:
                await self.action_end(action.action_id, "failed", error=lost.message)
            raise

    async def _check_lease(self, action: Action) -> None:
        """Raise LockHeld where the lease under which an action begins was lost."""
        held = self._locks.held.get((action.box or action.change.target, action.token))
        if held is not None:
            await held.check()

    async def action_end(self, action_id: str, status: str, *, ref: str = "", error: str = "") -> None:
        """Record the end; not waited for: a lost one is seen as unfinished, which it then is to the next
        run."""
        job = (
            "UPDATE actions SET finished = ?, status = ?, ref = CASE ? WHEN '' THEN ref ELSE ? END, error = ?"
            " WHERE action_id = ?",
            (self._clock(), status, ref, ref, error, action_id),
        )
        self._write_soon(job)

    async def activated(self, box: str, service: str, name: str = "") -> None:
        sql = "DELETE FROM pending WHERE box IN (?, ?) AND service = ?"
        await self._write((sql, (box, name or box, service)))

    async def actions(self, run_id: str) -> list[Action]:
        return await asyncio.to_thread(
            self._read_as,
            _action_from_row,
            f"SELECT {_ACTION} FROM actions WHERE run_id = ? ORDER BY started, rowid",  # noqa: S608
            (run_id,),
        )

    # -- events -----------------------------------------------------------------------------------------

    def event(self, run_id: str, time: float, type_: str, target: str, data: Mapping[str, Any]) -> None:
        job = (
            "INSERT INTO events (run_id, time, type, target, data) VALUES (?, ?, ?, ?, ?)",
            (run_id, time, type_, target, json.dumps(data)),
        )
        self._write_soon(job)

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(
            self._read_as,
            _event_from_row,
            "SELECT id, time, type, target, data FROM events WHERE run_id = ? ORDER BY id",
            (run_id,),
        )

    # -- how targets are ------------------------------------------------------------------------------------

    def ended(self, target: str, state: TargetState, known: str = "") -> None:
        badness = _GOOD.index(state.status) if state.status in _GOOD else len(_GOOD)
        jobs: list[Statement] = [(_ENDED, (target, *state, badness))]
        if known:
            jobs.append(("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (known, target, state.time)))
        self._write_soon(*jobs)

    async def names(self, known: str) -> dict[str, float]:
        return dict(self._read("SELECT name, time FROM names WHERE known = ?", (known,)))

    async def owners(self, box: str) -> dict[str, tuple[str, ...]]:
        start = f"{box} "
        query = (
            "SELECT known, name FROM names WHERE known = ? OR substr(known, 1, ?) = ? ORDER BY known, name"
        )
        found: dict[str, tuple[str, ...]] = {}
        for known, name in self._read(query, (box, len(start), start)):
            owner = str(known).removeprefix(box).strip()
            found[owner] = (*found.get(owner, ()), str(name))
        return found

    async def left(self, target: str) -> str:
        rows = self._read("SELECT status FROM targets WHERE target = ?", (target,))
        return str(rows[0][0]) if rows else ""

    async def targets(self) -> dict[str, TargetState]:
        return dict(
            await asyncio.to_thread(
                self._read_as,
                lambda row: (row[0], TargetState(*row[1:])),
                "SELECT target, status, pending, run_id, time FROM targets ORDER BY target",
                (),
            )
        )

    def _read_as(self, make: Callable[[Any], T], sql: str, params: tuple[Any, ...]) -> list[T]:
        return [make(row) for row in self._read(sql, params)]

    def _read(self, sql: str, params: tuple[Any, ...]) -> list[Any]:
        """Read a few rows: what may be many is read in a thread. Raises StateError."""
        try:
            return self._reader.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise state_error(self.folder, error) from error


def _begin_statements(action: Action, services: Sequence[str], now: float) -> list[Statement]:
    """Return the statements that are written before an action is carried out. The first fails where the
    action's token is older than the last one that wrote to the box (`leases.fence_failure`)."""
    change, box = action.change, action.box or action.change.target
    jobs: list[Statement] = [
        (_COUNT, (box, action.token)),
        (
            "INSERT OR REPLACE INTO actions"
            " (action_id, run_id, target, kind, identity, verb, before, after, ref, started, box, status)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'begun')",
            (
                action.action_id,
                action.run_id,
                change.target,
                change.kind,
                change.identity,
                str(change.verb),
                json.dumps(change.before),
                json.dumps(change.after),
                change.ref,
                now,
                box,
            ),
        ),
    ]
    jobs += [
        ("INSERT OR IGNORE INTO pending VALUES (?, ?, ?, ?)", (box, name, action.run_id, now))
        for name in services
    ]
    return jobs


_OPENED = "FROM actions WHERE box IN (?1, ?2) AND finished IS NULL AND settled = 0"
#: The generation of a box, and whether anything of it is adopted, pending, or open.
_LEFT_OVER = f"""
    SELECT total(generation), EXISTS (SELECT 1 FROM adopted WHERE box IN (?1, ?2)),
        EXISTS (SELECT 1 FROM pending WHERE box IN (?1, ?2)), EXISTS (SELECT 1 {_OPENED})
    FROM generations WHERE box IN (?1, ?2)
"""  # noqa: S608 - our words
#: Counts the writes to a box, and refuses one with a token that is not the newest; 0 is one of no lease.
_COUNT = """
    INSERT INTO generations VALUES (?, 1, ?) ON CONFLICT (box) DO UPDATE SET
        generation = generation + 1,
        token = CASE WHEN excluded.token = 0 THEN token
                     WHEN excluded.token < token THEN NULL
                     ELSE excluded.token END
"""
_ENDED = """
    INSERT INTO targets VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (target) DO UPDATE SET
        status = CASE WHEN run_id = excluded.run_id AND rank > excluded.rank THEN status
                      ELSE excluded.status END,
        pending = excluded.pending + CASE WHEN run_id = excluded.run_id THEN pending ELSE 0 END,
        rank = max(excluded.rank, CASE WHEN run_id = excluded.run_id THEN rank ELSE 0 END),
        run_id = excluded.run_id, time = excluded.time
    WHERE excluded.time >= time
"""
_GOOD = ("converged", "changed", "pending")


_RUN = "run_id, command, sources, user, host, pid, started, finished, exit_code, summary"
_ACTION = (
    "action_id, run_id, target, kind, identity, verb, before, after, ref, started, finished, status, error,"
    " box"
)


def _action_from_row(row: tuple[Any, ...]) -> Action:
    action_id, run_id, target, kind, identity, verb, before, after, ref, *rest = row
    change = Change(target, kind, identity, Verb(verb), json.loads(before), json.loads(after), ref=ref)
    return Action(action_id, run_id, change, *rest)


def _event_from_row(row: tuple[Any, ...]) -> dict[str, Any]:
    id_, time_, type_, target, data = row
    return {"id": id_, "time": time_, "type": type_, "target": target, **json.loads(data)}


def _run_from_row(row: tuple[Any, ...]) -> Run:
    run_id, command, sources, *rest = row
    rest[-1] = json.loads(rest[-1])
    return Run(run_id, command, tuple(json.loads(sources)), *rest)
