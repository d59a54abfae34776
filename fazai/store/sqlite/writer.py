"""Writer thread: it commits together whatever waited meanwhile, and answers after the commit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fazai.errors import FazaiError, StateError
from fazai.store.sqlite.leases import fence_failure
from fazai.store.sqlite.schema import FILE_NAME, connect, escape_text, state_error

#: Errors of a payload, not of the file.
_OF_ONE = (
    ValueError,
    TypeError,
    OverflowError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)
_HARMLESS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)  # after a ROLLBACK the connection is as good as before
_GROUP_BYTES = 8 << 20
_GROUP_JOBS = 4096
_WAL_PAGES = 4000  # 16 MB between two checkpoints


class WriteHandler(Protocol):
    """Handler of one kind of writes. All calls come from the writer's thread."""

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[Any]) -> Sequence[Any]:
        """Write all payloads of a group, within its transaction; one result for each."""
        ...

    def committed(self) -> None:
        """Note that what `apply` did last is on disk: memory may follow."""
        return

    def abandoned(self) -> None:
        """Note that what `apply` did last was rolled back."""
        return


class StatementHandler(WriteHandler):
    """Handler of plain writes: a payload is pairs of SQL and parameters; the result is how many rows
    changed."""

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[Sequence[Statement]]) -> list[int]:
        changed = []
        for jobs in payloads:
            count = 0
            for sql, params in jobs:
                try:
                    rows = connection.execute(sql, params).rowcount
                except UnicodeEncodeError:
                    rows = connection.execute(sql, tuple(map(escape_text, params))).rowcount
                count += rows if rows > 0 else 0
            changed.append(count)
        return changed


#: Who is told of a result, or of an error: on the event loop that the write came from.
Waiter = Callable[[Any], object]


#: SQL and its parameters.
Statement = tuple[str, tuple[Any, ...]]


class _Job(NamedTuple):
    part: WriteHandler
    payload: Any
    size_bytes: int
    waiter: Waiter | None
    loop: asyncio.AbstractEventLoop | None
    beside: Statement | None = None  # stored with the payload, or neither


class GroupWriter:
    """Writer that owns the only connection of its store that writes.

    `upkeep(connection, closing)` runs between groups at least every `upkeep_s`; it does one bounded piece of
    work in its own transaction and returns whether there is more. `rest_s`: how long the thread leaves the
    interpreter to the event loop after a group of several; 0: it does not, and each write wakes it at once.
    `hint`: the next step, should the thread end.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        upkeep: Callable[[sqlite3.Connection, bool], bool] | None = None,
        upkeep_s: float = 3600.0,
        rest_s: float = 0.0,
        hint: str = "",
    ) -> None:
        self._folder = folder
        self._upkeep, self._upkeep_s = upkeep, upkeep_s
        self._rest_s, self._hint = rest_s, hint
        self._jobs: deque[_Job | None] = deque()  # None: the end
        self._asleep = False  # the thread waits for `_wake`: it is only told when nobody has told it yet
        self._rouser: asyncio.AbstractEventLoop | None = None  # which has promised to wake it
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._died: StateError | None = None
        self.failed: FazaiError | None = None  # why the latest of those that are `lost` was
        self._in_hand: list[_Job] = []  # what is being committed
        self.commits = 0
        self.failures = 0
        self.lost = 0  # writes that nobody waited for and that failed
        self.jobs = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is queued, and refuse what comes later."""
        if not self._closed:
            self._closed = True
            self._put(None)
            self._thread.join()

    def check_alive(self) -> None:
        """Raise StateError when the thread has ended that should write."""
        if self._died is not None:
            raise self._died

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    async def write(
        self, part: WriteHandler, payload: Any, size_bytes: int = 0, beside: Statement | None = None
    ) -> Any:
        """Write, and return the handler's result for this payload once it is on disk, with the statement
        `beside` it. Raises StateError."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        told = functools.partial(resolve_waiter, waiter)
        self.write_then(part, payload, size_bytes, told, loop, beside)
        return await waiter

    def write_then(
        self,
        part: WriteHandler,
        payload: Any,
        size_bytes: int,
        told: Waiter,
        loop: asyncio.AbstractEventLoop,
        beside: Statement | None = None,
    ) -> None:
        """Write, and call `told` on the loop with the result or an error; it must raise nothing."""
        if self._closed:
            raise StateError("the store is closed")
        self.check_alive()
        job = _Job(part, payload, size_bytes, told, loop, beside)
        self._jobs.append(job)
        if self._died is not None:  # between the two lines: nobody else answers it
            self._refuse_queued()
            return
        if not self._rest_s:
            self._rouse()
        elif self._asleep and self._rouser is not loop:
            self._rouser = loop
            loop.call_soon(self._rouse)  # after all that the loop has read by now: they share a commit

    def write_soon(self, part: WriteHandler, payload: Any) -> None:
        """Write with the next commit; not waited for."""
        if self._closed or self._died is not None:
            self.lost += 1
        else:
            self._put(_Job(part, payload, 0, None, None))

    def _put(self, job: _Job | None) -> None:
        self._jobs.append(job)
        self._rouse()

    def _rouse(self) -> None:
        self._rouser = None
        if self._asleep:
            self._asleep = False
            self._wake.put(None)

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - the border of the thread: nobody may wait for it any more
            self._die(error)

    def _die(self, error: BaseException) -> None:
        """Refuse what waits and what comes: a thread that has ended answers nobody."""
        why = f"the thread that writes to {self._folder / FILE_NAME} has ended: {error!r:.300}"
        self._died = self.failed = StateError(why, hint=self._hint)
        self._refuse_queued()
        self._drop_connection()

    def _refuse_queued(self) -> None:
        left, self._in_hand = [*self._in_hand], []
        with contextlib.suppress(IndexError):
            while True:
                job = self._jobs.popleft()
                if job is not None:
                    left.append(job)
        self.failures += 1
        self.lost += sum(job.waiter is None for job in left)
        self._answer([(job, self._died) for job in left])

    def _work(self) -> None:
        due = time.monotonic() + self._upkeep_s
        ended = False
        while not ended:
            jobs, ended = self._group(max(0.0, due - time.monotonic()))
            if jobs:
                self._in_hand = jobs
                self._commit(jobs)
                self._in_hand = []
                # under load the loop first answers these and reads what comes for them: one commit for all,
                # and no fight over the interpreter
                if self._rest_s and len(self._jobs) < len(jobs) > 1 and not ended:
                    time.sleep(self._rest_s)
            if time.monotonic() >= due and not ended:
                more = self._keep_up(closing=False)
                due = time.monotonic() + (0.0 if more else self._upkeep_s)
        while self._keep_up(closing=True):
            pass
        self._drop_connection()

    def _group(self, wait_s: float) -> tuple[list[_Job], bool]:
        """Take what waits now, at least one within `wait_s`; return it and whether the end was reached."""
        waiting = self._jobs
        if not waiting and wait_s:
            self._asleep = True
            if not waiting:  # else it came between the two lines, and perhaps nobody tells
                with contextlib.suppress(queue.Empty):
                    self._wake.get(timeout=wait_s)
            self._asleep = False
        jobs: list[_Job] = []
        size = 0
        while waiting and size < _GROUP_BYTES and len(jobs) < _GROUP_JOBS:
            job = waiting.popleft()
            if job is None:
                return jobs, True
            jobs.append(job)
            size += job.size_bytes
        return jobs, False

    def _commit(self, jobs: list[_Job]) -> None:
        parts: dict[int, tuple[WriteHandler, list[_Job]]] = {}
        for job in jobs:
            parts.setdefault(id(job.part), (job.part, []))[1].append(job)
        answers: list[tuple[list[_Job], Sequence[Any]]] = []
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                if job.beside is not None:
                    connection.execute(*job.beside)
            for part, own in parts.values():
                answers.append((own, part.apply(connection, [job.payload for job in own])))
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            self._fail(error, jobs, [part for part, _ in parts.values()])
            return
        for part, _ in parts.values():
            part.committed()
        self.commits += 1
        self.jobs += len(jobs)
        self._answer([pair for own, results in answers for pair in zip(own, results, strict=True)])

    def _fail(self, error: Exception, jobs: list[_Job], parts: Sequence[WriteHandler]) -> None:
        self._roll_back(error)
        for part in parts:
            part.abandoned()
        if len(jobs) > 1 and isinstance(error, _OF_ONE):  # it must not take the others with it
            for job in jobs:
                self._commit([job])
            return
        self.failures += 1
        self.lost += sum(job.waiter is None for job in jobs)
        refusal = fence_failure(error) or state_error(self._folder, error)
        if any(job.waiter is None for job in jobs):
            self.failed = refusal
        self._answer([(job, refusal) for job in jobs])

    def _answer(self, answers: Sequence[tuple[_Job, Any]]) -> None:
        """Answer with one call into each event loop, however many wait there."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any]]] = {}
        for job, result in answers:
            if job.waiter is not None and job.loop is not None:
                loops.setdefault(job.loop, []).append((job.waiter, result))
        for loop, pairs in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
                loop.call_soon_threadsafe(_tell_waiters, pairs)

    def _keep_up(self, *, closing: bool) -> bool:
        if self._upkeep is None:
            return False
        try:
            return self._upkeep(self._connected(), closing)
        except sqlite3.Error as error:
            self._roll_back(error)
            self.failures += 1
            return False

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = connect(self._folder / FILE_NAME)
            connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_PAGES * 4096 * 2}")
            self._connection = connection
        return self._connection

    def _roll_back(self, error: Exception) -> None:
        """Roll back, and have the connection made anew: what it remembers of the file is in doubt after an
        error."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection()
        else:
            if int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF not in _HARMLESS:
                self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _tell_waiters(pairs: Sequence[tuple[Waiter, Any]]) -> None:
    rest = iter(pairs)
    try:
        for told, result in rest:
            told(result)
    finally:  # a defect in one must not leave the others without their answer
        left = list(rest)
        if left:
            asyncio.get_running_loop().call_soon(_tell_waiters, left)


def resolve_waiter(waiter: asyncio.Future[Any], result: Any) -> None:
    """Give a result, or raise an error, where somebody still waits for it."""
    if waiter.done():  # its task was cancelled
        return
    if isinstance(result, FazaiError):
        waiter.set_exception(result)
    else:
        waiter.set_result(result)
