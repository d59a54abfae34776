"""Group commit: whatever waited meanwhile is committed together, and answered once it is on disk.

The event loop itself writes a group into SQLite's log, which is work for memory; a thread waits for the disk
and answers. For two threads that both run Python take the interpreter from each other. What would hold the
loop up is left to the thread as a whole: large groups, a file that another process is writing to, what comes
while upkeep runs.
"""

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

from fazai.errors import StateError
from fazai.store.durable import DurableFile
from fazai.store.schema import FILE_NAME, failure

__all__ = ["Part", "Statements", "Waiter", "Writer"]

#: Errors of a payload, not of the file.
_OF_ONE = (
    ValueError,
    TypeError,
    OverflowError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
)
_GROUP_BYTES = 8 << 20
_GROUP_JOBS = 4096
_LOOP_BYTES = 1 << 20  # of a group that the loop writes itself: some milliseconds
_REST_S = 0.002  # about what a sync takes
_COMMIT_BYTES = 16 << 10  # in the log, of a commit's pages besides its payloads
_PAYLOAD_PART = 2  # of a payload about half comes into the log, as telemetry is compressed
_STEP_BYTES = 1 << 20  # about what a step of upkeep writes
_PATIENCE_S = 0.05  # of the thread with jobs that a loop has promised to write


class Part(Protocol):
    """One kind of writes. Calls come from the writer's thread or an event loop, never from two at once."""

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[Any]) -> Sequence[Any]:
        """Write all payloads of a group, within its transaction; one result for each."""
        ...

    def committed(self) -> None:
        """What `apply` did last is in the file: memory may follow."""
        ...

    def durable(self) -> None:
        """All that was committed is on disk: others may be told. Always in the writer's thread."""
        ...

    def abandoned(self) -> None:
        """What `apply` did last was rolled back."""
        ...


class Statements:
    """Plain writes: a payload is pairs of SQL and parameters; the result is how many rows changed."""

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[Any]) -> list[int]:
        return [sum(max(0, connection.execute(*job).rowcount) for job in jobs) for jobs in payloads]

    def committed(self) -> None:
        pass

    def durable(self) -> None:
        pass

    def abandoned(self) -> None:
        pass


#: Who is told of a result, or of a StateError: on the event loop that the write came from.
Waiter = Callable[[Any], object]


class _Job(NamedTuple):
    part: Part
    payload: Any
    size_bytes: int
    waiter: Waiter | None
    loop: asyncio.AbstractEventLoop | None


class _Flight(NamedTuple):
    """A group that is committed and not on disk yet."""

    answers: list[tuple[_Job, Any]]
    parts: Sequence[Part]


class Writer:
    """Owns the only connection that writes for the daemon.

    `upkeep(connection, closing)` runs between groups at least every `upkeep_s`, in the thread; it does one
    bounded piece of work in its own transaction and returns whether there is more.
    """

    def __init__(
        self, folder: Path, upkeep: Callable[[sqlite3.Connection, bool], bool], upkeep_s: float
    ) -> None:
        self._folder = folder
        self._file = DurableFile(folder / FILE_NAME)
        self._upkeep = upkeep
        self._upkeep_s = upkeep_s
        self._jobs: deque[_Job] = deque()
        self._turn = threading.Lock()  # who has it takes jobs and uses the file
        self._flight: _Flight | None = None  # of a loop; until it has landed no loop begins another
        self._left = False  # there are jobs for the thread
        self._asleep = False  # the thread waits for `_wake`: it is only told when nobody has told it yet
        self._rouser: asyncio.AbstractEventLoop | None = None  # which has promised to write what waits
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self.commits = 0
        self.failures = 0
        self.lost = 0  # writes that nobody waited for and that failed
        self.jobs = 0
        self._thread = threading.Thread(target=self._run, name="fazai-daemon-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is queued; what comes later is refused."""
        if not self._closed:
            self._closed = True
            self._rouse_thread()
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    async def write(self, part: Part, payload: Any, size_bytes: int = 0) -> Any:
        """The part's result for this payload, once it is on disk. Raises StateError."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        self.write_then(part, payload, size_bytes, functools.partial(_resolve, waiter), loop)
        return await waiter

    def write_then(
        self, part: Part, payload: Any, size_bytes: int, told: Waiter, loop: asyncio.AbstractEventLoop
    ) -> None:
        """As `write`: `told` is called on the loop with the result or a StateError, and raises nothing."""
        if self._closed:
            raise StateError("the store is closed")
        self._jobs.append(_Job(part, payload, size_bytes, told, loop))
        if self._rouser is not loop and self._flight is None:
            self._rouser = loop
            loop.call_soon(self._rouse)  # after all that the loop has read by now: they share a commit

    def write_soon(self, part: Part, payload: Any) -> None:
        """As `write`, not waited for."""
        if self._closed:
            self.lost += 1
        else:
            self._jobs.append(_Job(part, payload, 0, None, None))
            self._leave()

    # -- on a loop --------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """Write what waits, if it is little; the thread waits for the disk."""
        self._rouser = None
        if self._flight is not None or not self._jobs:
            return
        if not self._turn.acquire(blocking=False):
            self._leave()
            return
        try:
            much = sum([job.size_bytes for job in list(self._jobs)]) > _LOOP_BYTES
            jobs = [] if much or self._closed else self._group()
            if jobs:
                self._flight = self._commit(jobs, patient=False)
        finally:
            self._turn.release()
        if self._flight is None:
            self._leave()
        else:
            self._rouse_thread()

    def _told(
        self, loop: asyncio.AbstractEventLoop, pairs: Sequence[tuple[Waiter, Any]], rest_s: float
    ) -> None:
        """Under load these are answered first, and what comes for them is read: one commit for all."""
        if rest_s or self._jobs:
            self._rouser = loop
            loop.call_later(rest_s, self._rouse)
        elif self._rouser is loop:
            self._rouser = None
        _tell(pairs)

    def _leave(self) -> None:
        """To the thread."""
        self._left = True
        self._rouse_thread()

    def _rouse_thread(self) -> None:
        if self._asleep:
            self._asleep = False
            self._wake.put(None)

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        due = time.monotonic() + self._upkeep_s
        while not self._closed:
            self._sleep(due - time.monotonic())
            self._land()
            if self._left:
                self._take()
            if self._file.long:
                self._checkpoint()
            if time.monotonic() >= due:
                with self._turn:
                    more = self._keep_up(closing=False)
                due = time.monotonic() + (0.0 if more else self._upkeep_s)
        with self._turn:  # from here on no loop begins a flight
            pass
        self._land()
        while self._jobs:
            self._take()
        while self._keep_up(closing=True):
            pass
        with contextlib.suppress(OSError, sqlite3.Error):
            self._file.sync()
        self._file.drop()

    def _sleep(self, wait_s: float) -> None:
        if self._jobs:  # their loop will write them, unless it ended
            wait_s = min(wait_s, _PATIENCE_S)
        if wait_s <= 0 or self._has_work():
            return
        self._asleep = True
        if not self._has_work():  # else it came between the two lines, and perhaps nobody tells
            try:
                self._wake.get(timeout=wait_s)
            except queue.Empty:
                self._left = bool(self._jobs)
        self._asleep = False

    def _has_work(self) -> bool:
        return self._flight is not None or self._left or self._closed

    def _land(self) -> None:
        """What a loop has committed."""
        flight = self._flight
        if flight is not None:
            self._answer(self._settle(flight), landed=True)

    def _take(self) -> None:
        """Write a group from its beginning to its end."""
        self._left = False
        with self._turn:
            jobs = self._group()
            flight = self._commit(jobs, patient=True) if jobs else None
            answers = self._settle(flight) if flight is not None else []
        if answers:
            self._answer(answers)

    def _checkpoint(self) -> None:
        with self._turn:
            try:
                self._file.checkpoint()
            except sqlite3.Error as error:
                self._file.roll_back(error)
                self.failures += 1

    def _keep_up(self, *, closing: bool) -> bool:
        try:
            self._file.wrote(_STEP_BYTES)
            return self._upkeep(self._file.connected(), closing)
        except sqlite3.Error as error:
            self._file.roll_back(error)
            self.failures += 1
            return False

    # -- a group ----------------------------------------------------------------------------------------

    def _group(self) -> list[_Job]:
        """What waits now, at least one."""
        waiting = self._jobs
        jobs: list[_Job] = []
        size = 0
        while waiting and size < _GROUP_BYTES and len(jobs) < _GROUP_JOBS:
            job = waiting.popleft()
            jobs.append(job)
            size += job.size_bytes
        return jobs

    def _commit(self, jobs: list[_Job], *, patient: bool) -> _Flight | None:
        """None, with the jobs in the queue again, where another process writes and there is no patience."""
        parts: dict[int, tuple[Part, list[_Job]]] = {}
        for job in jobs:
            parts.setdefault(id(job.part), (job.part, []))[1].append(job)
        used = [part for part, _ in parts.values()]
        results: list[tuple[list[_Job], Sequence[Any]]] = []
        try:
            try:
                connection = self._file.begin(patient=patient)
            except sqlite3.OperationalError as error:
                if patient or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                self._jobs.extendleft(reversed(jobs))
                return None
            for part, own in parts.values():
                results.append((own, part.apply(connection, [job.payload for job in own])))
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            return self._fail(error, jobs, used, patient)
        for part in used:
            part.committed()
        self._file.wrote(_COMMIT_BYTES + sum([job.size_bytes for job in jobs]) // _PAYLOAD_PART)
        self.commits += 1
        self.jobs += len(jobs)
        return _Flight([pair for own, found in results for pair in zip(own, found, strict=True)], used)

    def _fail(self, error: Exception, jobs: list[_Job], parts: Sequence[Part], patient: bool) -> _Flight:
        self._file.roll_back(error)
        for part in parts:
            part.abandoned()
        if len(jobs) > 1 and isinstance(error, _OF_ONE):  # it must not take the others with it
            flights = [self._commit([job], patient=patient) for job in jobs]
            answers = [pair for one in flights if one is not None for pair in one.answers]
            return _Flight(answers, parts)
        self.failures += 1
        self.lost += sum(job.waiter is None for job in jobs)
        refusal = failure(self._folder, error)
        return _Flight([(job, refusal) for job in jobs], ())

    def _settle(self, flight: _Flight) -> list[tuple[_Job, Any]]:
        """The answers, once it is on disk."""
        if not flight.parts:
            return flight.answers
        try:
            self._file.sync()
        except (OSError, sqlite3.Error) as error:
            self.failures += 1
            self.lost += sum(job.waiter is None for job, _ in flight.answers)
            refusal = failure(self._folder, error)
            return [(job, refusal) for job, _ in flight.answers]
        for part in flight.parts:
            part.durable()
        return flight.answers

    def _answer(self, answers: Sequence[tuple[_Job, Any]], *, landed: bool = False) -> None:
        """One call into each event loop, however many wait there."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any]]] = {}
        for job, result in answers:
            if job.waiter is not None and job.loop is not None:
                loops.setdefault(job.loop, []).append((job.waiter, result))
        if landed:
            self._rouser = next(iter(loops), None)  # first it is told, then it writes again
            self._flight = None
        if self._jobs and not loops:  # nobody whom the next group could wait for
            self._left = True
        rest_s = _REST_S if len(self._jobs) < len(answers) > 1 else 0.0
        for loop, pairs in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
                loop.call_soon_threadsafe(self._told, loop, pairs, rest_s)


def _tell(pairs: Sequence[tuple[Waiter, Any]]) -> None:
    rest = iter(pairs)
    try:
        for told, result in rest:
            told(result)
    finally:  # a defect in one must not leave the others without their answer
        left = list(rest)
        if left:
            asyncio.get_running_loop().call_soon(_tell, left)


def _resolve(waiter: asyncio.Future[Any], result: Any) -> None:
    if waiter.done():  # its task was cancelled
        return
    if isinstance(result, StateError):
        waiter.set_exception(result)
    else:
        waiter.set_result(result)
