"""Carries out the timetable, and looks after the runs for as long as the daemon lives."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.queue import RunDesk
from fazai.daemon.runs.schedule import Timetable
from fazai.errors import StateError
from fazai.files import replace_file
from fazai.service.log import Log
from fazai.timestamps import timestamp

__all__ = ["Scheduler", "keep"]

_LOOK_AGAIN_S = 15.0  # at windows and at a wall clock that jumped
_LOGGER = "fazai.daemon.schedule"


class Scheduler:
    """`file` remembers when each job last began, so that a restart neither repeats nor forgets one."""

    def __init__(
        self,
        desk: RunDesk,
        file: Path,
        log: Log,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._desk, self._file, self._log = desk, file, log
        self._monotonic, self._now = monotonic, now
        self._last = _read(file)
        self._table = Timetable(chance)
        rhythms = {job.name: job.schedule.rhythm for job in desk.jobs.values() if job.schedule is not None}
        self._table.begin(rhythms, monotonic(), timestamp(self._now()), self._last)

    def next_at(self, job: str) -> datetime | None:
        return self._table.next_at(job, self._monotonic(), timestamp(self._now()))

    def step(self) -> list[str]:
        """Ask for the runs that are due; the jobs. A job that waits or goes on stays due."""
        due = self._table.due(self._monotonic(), timestamp(self._now()), self._desk.busy_jobs())
        for name in due:
            job = self._desk.jobs[name]
            assert job.schedule is not None
            try:
                self._desk.ask(job, job.schedule.mode, "schedule", "schedule")
                self._last[name] = self._now()
                self._remember()
            except (Refusal, StateError) as error:
                self._log.say("error", f"{name} does not begin: {error}", logger=_LOGGER)
        return due

    def wait_s(self) -> float:
        return self._table.wait_s(self._monotonic(), _LOOK_AGAIN_S)

    def _remember(self) -> None:
        try:
            replace_file(self._file, msgspec.json.encode(self._last))
        except OSError as error:
            raise StateError(f"{self._file} cannot be written: {error.strerror}") from None


def _read(file: Path) -> dict[str, float]:
    """Without it every job is due soon: that is all that a damaged one costs."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(file.read_bytes(), type=dict[str, float])
    return {}


async def keep(scheduler: Scheduler, runs: RunDesk, stop_s: float) -> None:
    """Keep the schedule until the daemon stops; then give the runs `stop_s` seconds to stop."""
    try:
        await runs.settle()
        while True:
            scheduler.step()
            await asyncio.sleep(scheduler.wait_s())
    finally:
        await runs.close(stop_s)
