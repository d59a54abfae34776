"""Asks for the runs that are due, and looks after the run queue until the daemon stops."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.queue import RunQueue
from fazai.daemon.runs.schedule import Timetable
from fazai.errors import StateError
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore
from fazai.timestamps import timestamp

_LOOK_AGAIN_S = 15.0  # at windows and at a wall clock that jumped
_LOGGER = "fazai.daemon.schedule"


class Scheduler:
    """Starts jobs by their schedule. The store remembers when each last began, so that a restart neither
    repeats nor forgets one."""

    def __init__(
        self,
        run_queue: RunQueue,
        store: DaemonStore,
        log: Log,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._run_queue, self._store, self._log = run_queue, store, log
        self._monotonic, self._now = monotonic, now
        self._table = Timetable(chance)

    async def load(self) -> None:
        """Read from the store when each job last began; nothing is due before that. Raises StateError."""
        jobs = self._run_queue.jobs.values()
        rhythms = {job.name: job.schedule.rhythm for job in jobs if job.schedule is not None}
        began = await self._store.began()
        self._table.add_jobs(rhythms, self._monotonic(), timestamp(self._now()), began)

    def next_at(self, job: str) -> datetime | None:
        """Return when a job begins next; None where it is not scheduled."""
        return self._table.next_at(job, self._monotonic(), timestamp(self._now()))

    async def start_due(self) -> list[str]:
        """Ask for the runs that are due, and return their jobs. A job that waits or goes on stays due."""
        due = self._table.take_due(self._monotonic(), timestamp(self._now()), self._run_queue.busy_jobs())
        for name in due:
            job = self._run_queue.jobs[name]
            assert job.schedule is not None
            try:
                await self._run_queue.enqueue(job, job.schedule.mode, "schedule", "schedule")
                await self._store.put_began(name, self._now())
            except (Refusal, StateError) as error:
                self._log.say("error", f"{name} does not begin: {error}", logger=_LOGGER)
        return due

    def wait_s(self) -> float:
        """Return how long nothing can become due, in seconds."""
        return self._table.wait_s(self._monotonic(), _LOOK_AGAIN_S)


async def run_schedule(scheduler: Scheduler, runs: RunQueue, stop_s: float) -> None:
    """Keep the schedule until the daemon stops; then give the runs `stop_s` seconds to stop."""
    try:
        await runs.recover()
        while True:
            await scheduler.start_due()
            await asyncio.sleep(scheduler.wait_s())
    finally:
        await runs.close(stop_s)
