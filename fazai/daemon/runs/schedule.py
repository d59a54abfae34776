"""Decides when the jobs of the schedule are due. Pure: the caller tells the time.

The interval is measured on a clock that never jumps (monotonic); the wall clock decides about windows
alone. So a clock that is set back or forth neither repeats nor skips a run, and what could not begin (a
closed window, a run that goes on, a daemon that was away) is made up for once, not as often as it was
missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_FIRST_S = 60.0  # a job that never ran begins within this, so that a restart is no stampede
_LONGEST_DAYS = 8  # a window that does not open within a week never does


def _first_instant(day: date, clock: time, zone: tzinfo) -> tuple[datetime, bool]:
    """Return the first moment of a zone that has this time of day; where clocks skip it, the moment at which
    they do, and True."""
    first = datetime.combine(day, clock, zone).astimezone(UTC)
    if first.astimezone(zone).time() == clock:
        return first, False
    low, high = datetime.combine(day, clock, zone).replace(fold=1).astimezone(UTC), first
    while high - low > timedelta(seconds=1):  # clocks are put forward between the two, at a whole second
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0), True


@dataclass(frozen=True, slots=True)
class Window:
    """A time span on these days (0: Monday), over midnight where `end` is not after `begin`; then the day is
    that of the beginning."""

    begin: time
    end: time
    days: frozenset[int] = frozenset(range(7))

    def bounds_on(self, day: date, zone: tzinfo) -> tuple[datetime, datetime]:
        """Return when the window of that day opens and closes, in UTC. Where clocks are put back, it opens
        and closes at the first of two equal times, so that it opens once. Where they are put forward, one
        that begins in the hour that is skipped opens when that is over, and is as long as ever if it lies in
        that hour as a whole."""
        last = day if self.begin < self.end else day + timedelta(days=1)
        opens, moved = _first_instant(day, self.begin, zone)
        closes, end_moved = _first_instant(last, self.end, zone)
        if moved and (end_moved or closes <= opens):
            length = datetime.combine(last, self.end) - datetime.combine(day, self.begin)
            closes = opens + length
        return opens, closes

    def is_open(self, wall: datetime, zone: tzinfo) -> bool:
        """Return whether the window is open."""
        today = wall.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            opens, closes = self.bounds_on(day, zone)
            if day.weekday() in self.days and opens <= wall < closes:
                return True
        return False

    def next_opening(self, wall: datetime, zone: tzinfo) -> datetime | None:
        """Return the next beginning at or after `wall`, in UTC."""
        today = wall.astimezone(zone).date()
        for ahead in range(_LONGEST_DAYS):
            day = today + timedelta(days=ahead)
            moment, _ = self.bounds_on(day, zone)
            if day.weekday() in self.days and moment >= wall:
                return moment
        return None

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else f"{','.join(DAYS[day] for day in sorted(self.days))} "
        return f"{days}{self.begin:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The interval of a job, its jitter, and the windows in which it may begin."""

    every_s: float
    jitter_s: float = 0.0
    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC

    def open_at(self, wall: datetime) -> bool:
        """Return whether a run may begin at this time."""
        return not self.windows or any(window.is_open(wall, self.zone) for window in self.windows)

    def next_open(self, wall: datetime) -> datetime | None:
        """Return when a window is next open: `wall` itself while one is; None: never."""
        if self.open_at(wall):
            return wall
        found = [
            moment for window in self.windows if (moment := window.next_opening(wall, self.zone)) is not None
        ]
        return min(found) if found else None


@dataclass(slots=True)
class _ScheduledJob:
    rhythm: Rhythm
    due_s: float  # monotonic


@dataclass(slots=True)
class Timetable:
    """Tells which jobs are due. `chance` returns a number from 0 to 1."""

    chance: Callable[[], float]
    _jobs: dict[str, _ScheduledJob] = field(default_factory=dict)

    def add_jobs(
        self, rhythms: Mapping[str, Rhythm], now_s: float, wall: datetime, last: Mapping[str, float]
    ) -> None:
        """Take over the jobs. `last`: when each of them last began, by the wall clock of that time; whatever
        it says, a job is due within its interval."""
        for name, rhythm in rhythms.items():
            if name in last:
                wait_s = last[name] + rhythm.every_s - wall.timestamp()
                wait_s = min(max(wait_s, 0.0), rhythm.every_s)
            else:
                wait_s = self.chance() * min(_FIRST_S, rhythm.every_s)
            self._jobs[name] = _ScheduledJob(rhythm, now_s + wait_s)

    def take_due(self, now_s: float, wall: datetime, busy: Iterable[str] = ()) -> list[str]:
        """Return the jobs that are to begin now; each is due again after its interval. `busy` ones stay
        due."""
        held = set(busy)
        found = []
        for name, job in self._jobs.items():
            if now_s < job.due_s or name in held or not job.rhythm.open_at(wall):
                continue
            job.due_s = now_s + job.rhythm.every_s + self.chance() * job.rhythm.jitter_s
            found.append(name)
        return found

    def next_at(self, name: str, now_s: float, wall: datetime) -> datetime | None:
        """Return when a job begins, as far as is known; None for one that is not scheduled, or never can
        begin."""
        job = self._jobs.get(name)
        if job is None:
            return None
        return job.rhythm.next_open(wall + timedelta(seconds=max(0.0, job.due_s - now_s)))

    def wait_s(self, now_s: float, longest_s: float) -> float:
        """Return how long nothing can become due, in seconds. Short enough to see a window open, or the clock
        jump."""
        if not self._jobs:
            return longest_s
        soonest_s = min(job.due_s for job in self._jobs.values()) - now_s
        return min(max(soonest_s, 0.2), longest_s) if soonest_s > 0 else min(1.0, longest_s)
