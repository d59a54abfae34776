"""Writer thread: it commits together whatever waited meanwhile, and answers after the commit."""

from __future__ import annotations

import asyncio
import contextlib
import enum
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
from fazai.store.sqlite.checkpoints import ALONE, Checkpointer
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
_CLOSED = "the store is closed"
_PATIENCE_S = 0.003  # that a patient write waits for others


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


class Pace(enum.Enum):
    """The haste of a write. An urgent one depends on no other, nor another on it: it goes ahead of the
    others, and where it is the only urgent one, in a commit of its own. A patient one waits a moment for
    others, to share a commit with them and to leave the way to urgent ones."""

    URGENT = enum.auto()
    PLAIN = enum.auto()
    PATIENT = enum.auto()


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
    pace: Pace = Pace.PLAIN


class GroupWriter:
    """Writer that owns the only connection of its store that writes.

    `upkeep(connection, closing)` runs between groups at least every `upkeep_s`; it does one bounded piece of
    work in its own transaction and returns whether there is more. `rest_s`: how long the thread leaves the
    interpreter to the event loop after a group of several; 0: it does not, each write wakes it at once, and
    all have one pace. `hint`: the next step, should the thread end. Without a `checkpointer` it copies the
    log itself.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        upkeep: Callable[[sqlite3.Connection, bool], bool] | None = None,
        upkeep_s: float = 3600.0,
        rest_s: float = 0.0,
        hint: str = "",
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self._folder = folder
        self._checkpointer = checkpointer or Checkpointer(folder, ALONE)
        self._upkeep, self._upkeep_s = upkeep, upkeep_s
        self._rest_s, self._hint = rest_s, hint
        self._jobs: deque[_Job | None] = deque()  # None: the end
        self._urgent: deque[_Job] = deque()
        self._went_ahead = False  # the group before was an urgent write alone
        self._asleep = False  # the thread waits for `_wake`: it is only told when nobody has told it yet
        self._pressing = False  # a write waits that is not patient, or was for long enough
        self._rouser: asyncio.AbstractEventLoop | None = None  # which has promised to wake it
        self._timekeeper: asyncio.AbstractEventLoop | None = None  # which has promised to end the patience
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._died: StateError | None = None
        self._ended: StateError | None = None  # why nobody answers any more: it died, or was closed
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
            self._jobs.append(None)
            self._press()
            self._thread.join()

    def check_alive(self) -> None:
        """Raise StateError when the thread has ended that should write."""
        if self._died is not None:
            raise self._died

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs) + len(self._urgent)

    async def write(
        self,
        part: WriteHandler,
        payload: Any,
        size_bytes: int = 0,
        beside: Statement | None = None,
        *,
        pace: Pace = Pace.PLAIN,
    ) -> Any:
        """Write, and return the handler's result for this payload once it is on disk, with the statement
        `beside` it. Raises StateError."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        told = functools.partial(resolve_waiter, waiter)
        self.write_then(part, payload, size_bytes, told, loop, beside, pace=pace)
        return await waiter

    def write_then(
        self,
        part: WriteHandler,
        payload: Any,
        size_bytes: int,
        told: Waiter,
        loop: asyncio.AbstractEventLoop,
        beside: Statement | None = None,
        *,
        pace: Pace = Pace.PLAIN,
    ) -> None:
        """Write, and call `told` on the loop with the result or an error; it must raise nothing."""
        if self._closed:
            raise StateError(_CLOSED)
        self.check_alive()
        job = _Job(part, payload, size_bytes, told, loop, beside, pace)
        (self._urgent if pace is Pace.URGENT else self._jobs).append(job)
        if self._ended is not None:  # between the two lines: nobody else answers it
            self._refuse_queued(self._ended)
            return
        if not self._rest_s:
            self._press()
        elif pace is Pace.PATIENT:
            self._press_later(loop)
        else:
            if pace is Pace.PLAIN:
                self._pressing = True
            if self._asleep and self._rouser is not loop:
                self._rouser = loop
                loop.call_soon(self._rouse)  # after all that the loop has read by now: they share a commit

    def write_soon(self, part: WriteHandler, payload: Any) -> None:
        """Write with the next commit; not waited for, and patient."""
        if self._closed or self._died is not None:
            self.lost += 1
            return
        self._jobs.append(_Job(part, payload, 0, None, None, pace=Pace.PATIENT))
        if self._ended is not None:  # between the two lines
            self._refuse_queued(self._ended)
            return
        try:
            loop = asyncio.get_running_loop() if self._rest_s else None
        except RuntimeError:  # another thread, in which no loop could keep the time
            loop = None
        if loop is None:
            self._press()
        else:
            self._press_later(loop)

    def _press_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._pressing and self._timekeeper is not loop:
            self._timekeeper = loop
            loop.call_later(_PATIENCE_S, self._end_patience)

    def _end_patience(self) -> None:
        self._timekeeper = None
        if self._jobs:
            self._press()

    def _press(self) -> None:
        self._pressing = True
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
            self._ended = StateError(_CLOSED)
            self._refuse_queued(self._ended)  # what was queued behind the end
        except BaseException as error:  # noqa: BLE001 - the border of the thread: nobody may wait for it any more
            self._die(error)

    def _die(self, error: BaseException) -> None:
        """Refuse what waits and what comes: a thread that has ended answers nobody."""
        why = f"the thread that writes to {self._folder / FILE_NAME} has ended: {error!r:.300}"
        self._died = self._ended = self.failed = StateError(why, hint=self._hint)
        self.failures += 1
        self._refuse_queued(self._died)
        self._drop_connection()

    def _refuse_queued(self, why: StateError) -> None:
        left, self._in_hand = [*self._in_hand], []
        for jobs in (self._urgent, self._jobs):
            with contextlib.suppress(IndexError):
                while True:
                    job = jobs.popleft()
                    if job is not None:
                        left.append(job)
        self.lost += sum(job.waiter is None for job in left)
        self._answer([(job, why) for job in left])

    def _work(self) -> None:
        due = time.monotonic() + self._upkeep_s
        ended = False
        while not ended:
            jobs, ended = self._group(max(0.0, due - time.monotonic()))
            if jobs:
                self._in_hand = jobs
                self._commit(jobs)
                self._in_hand = []
                self._note_commit()
                # under load the loop first answers these and reads what comes for them: one commit for all,
                # and no fight over the interpreter
                if self._rest_s and len(self._jobs) < _count_pressing(jobs) > 1 and not ended:
                    time.sleep(self._rest_s)
            if time.monotonic() >= due and not ended:
                more = self._keep_up(closing=False)
                due = time.monotonic() + (0.0 if more else self._upkeep_s)
        while self._keep_up(closing=True):
            pass
        self._drop_connection()

    def _group(self, wait_s: float) -> tuple[list[_Job], bool]:
        """Take what waits once that presses, or after `wait_s`; return it and whether the end was reached."""
        waiting, urgent = self._jobs, self._urgent
        if not self._pressing and not urgent and wait_s:
            self._asleep = True
            if (
                not self._pressing and not urgent
            ):  # else it came between the two lines, and perhaps nobody tells
                with contextlib.suppress(queue.Empty):
                    self._wake.get(timeout=wait_s)
                    if not self._pressing and not urgent:  # that was for what the group before had taken
                        self._asleep = False
                        return [], False
            self._asleep = False
        self._went_ahead = len(urgent) == 1 and not self._went_ahead
        if self._went_ahead:
            return [urgent.popleft()], False
        self._pressing = False  # before it is taken: who comes later presses again
        jobs = [urgent.popleft() for _ in range(len(urgent))]
        size = 0
        while waiting and size < _GROUP_BYTES and len(jobs) < _GROUP_JOBS:
            job = waiting.popleft()
            if job is None:
                return jobs, True
            jobs.append(job)
            size += job.size_bytes
        if waiting:  # more than a group takes, or what came this moment
            self._pressing = True
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

    def _note_commit(self) -> None:
        if self._connection is None:
            return
        try:
            self._checkpointer.note_commit(self._connection)
        except sqlite3.Error as error:
            self._roll_back(error)
            self.failures += 1

    def _keep_up(self, *, closing: bool) -> bool:
        if self._upkeep is None:
            return False
        try:
            more = self._upkeep(self._connected(), closing)
        except sqlite3.Error as error:
            self._roll_back(error)
            self.failures += 1
            return False
        self._note_commit()
        return more

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = connect(self._folder / FILE_NAME)
            self._checkpointer.set_up(connection)
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


def _count_pressing(jobs: list[_Job]) -> int:
    return sum(job.pace is not Pace.PATIENT for job in jobs)


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
