"""Accepts, queues, starts and approves runs, asked for by people, git hosts, the schedule and approvals.

Runs of one inventory go one after another, so that nothing is planned or written on a target twice at a
time (the engine's lock per target guards against everybody else). One run of each sort may wait; who asks
for the same meanwhile joins it. What waits is in the store, and waits again after a restart of the daemon.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fazai.daemon.events.announcer import AUDIT, Announcer, log_event, row_of
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.child import (
    Child,
    ChildResult,
    StopTimeouts,
    child_environment,
    command_line,
    entries_path,
    wait_for_pid,
)
from fazai.daemon.runs.config import Job
from fazai.daemon.runs.records import RunRecords
from fazai.daemon.settings import DaemonSettings
from fazai.errors import ExitCode, FazaiError, StateError
from fazai.ids import ulid
from fazai.plan import read_plan
from fazai.service.log import Log
from fazai.service.prometheus import Family, Metric
from fazai.store.base import Run
from fazai.store.daemon import DaemonStore, Mode, RunRecord, Trigger
from fazai.timestamps import utc_now
from fazai.wire.events import Level, RunEvent

_LOGGER = "fazai.daemon.runs"
_RUNS = Metric(
    "fazai_runs_total",
    "counter",
    "Runs that the daemon started and that ended, by exit code.",
    ("playbook", "mode", "exit_code"),
)
_ACTIVE = Metric("fazai_runs_active", "gauge", "Runs of the daemon, by state.", ("state",))


class QueuedRun(NamedTuple):
    """A run that was asked for. `coalesced`: the request joined a run that waits."""

    run_id: str
    coalesced: bool


@dataclass(slots=True)
class _ActiveRun:
    """A run that goes on, its task, and its process where this daemon started it."""

    record: RunRecord
    task: asyncio.Task[None]
    child: Child | None = None


class RunQueue:
    """The runs that wait and that go on; used on the daemon's loop."""

    def __init__(
        self,
        settings: DaemonSettings,
        store: DaemonStore,
        log: Log,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.time,
        timeouts: StopTimeouts | None = None,
    ) -> None:
        self.jobs: Mapping[str, Job] = settings.config.jobs
        self.records = RunRecords(store, settings.state / "runs", settings.config.retention.runs)
        self._settings, self._store, self._log = settings, store, log
        self._announcer = Announcer(store, log)
        self._environ, self._now, self._timeouts = environ, now, timeouts or StopTimeouts()
        self._lanes = _lanes(self.jobs.values())
        self._active: dict[int, _ActiveRun] = {}
        self._queue: list[RunRecord] = []
        self._dropped: list[tuple[RunRecord, str]] = []  # what waited and no longer may; `recover` says so
        self._stopping = False
        self._asking = asyncio.Lock()  # from the look at what waits until it is among it
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._ends: dict[str, list[asyncio.Future[None]]] = {}  # of those who wait for the end of a run

    async def load(self) -> None:
        """Read from the store what runs there were, and which of them wait. Raises StateError."""
        await self.records.load()
        for record in self.records.waiting_runs():
            why = await self._reason_to_drop(record)
            if why is None:
                self._queue.append(record)
            else:
                self._dropped.append((record, why))

    async def recover(self) -> None:
        """Take over what the daemon before left: runs that ended or go on, and those that wait. Raises
        StateError."""
        for record in [one for one in self.records if one.started is not None and one.exit_code is None]:
            if record in (one.record for one in self._active.values()):
                continue  # begun meanwhile
            found = await self._store.ledger.find_run(record.run_id)
            lane = self._lanes.get(record.job)
            if found is None or found.exit_code is not None or not _is_alive(found.pid, record.run_id):
                await self._finish_from_ledger(record)
            elif lane is not None and lane not in self._active:  # it goes on: others of its lane wait
                task = asyncio.get_running_loop().create_task(self._follow_orphan(record, found.pid, lane))
                self._active[lane] = _ActiveRun(record, task)
        for record, why in self._dropped:
            await self._drop(record, why)
        self._dropped.clear()
        for record in self._queue:
            await self._mark_approved(record)
            text = f"{record.mode} of {record.job}, asked for by {record.by}, waited for the daemon to start"
            self._announce("info", record, text)
        self._start_next()

    async def _reason_to_drop(self, record: RunRecord) -> str | None:
        """Return why a run that waited over a restart may not begin; None: it may."""
        job = self.jobs.get(record.job)
        if job is None:
            return f"{record.job} is no longer configured"
        if record.applies is None:
            if record.trigger == "api" and record.mode not in job.modes:
                return f"the configuration no longer allows {record.mode} for {record.job}"
            too_old = self._now() - record.asked > job.plan_ttl_s
            return f"it waited for more than {job.plan_ttl_s:.0f} s" if too_old else None
        planned = self.records.get(record.applies)
        if planned is None or not await self.records.has_plan(record.applies):
            return "its plan is gone"
        if "approve" not in job.modes:
            return f"the configuration no longer lets anybody approve plans of {record.job}"
        why = self.records.stale_reason(planned, self.jobs, self._now())
        return f"its plan is stale: {why}" if why else None

    async def _drop(self, record: RunRecord, why: str) -> None:
        """End a run that may not begin. A plan that was approved for it can be approved again, or made
        anew."""
        error = f"the daemon was stopped before it began, and then: {why}"
        planned = self.records.get(record.applies) if record.applies else None
        if planned is not None and planned.approved_run in (record.run_id, None):
            planned.approved = planned.approved_by = planned.approved_run = None
            await self.records.save(planned)
        self._announce("error", record, f"{record.mode} of {record.job} does not begin: {error}")
        # Last: who sees that it has ended sees the rest as well.
        record.finished, record.exit_code, record.error = self._now(), int(ExitCode.INTERRUPTED), error
        await self.records.save(record)
        self._tell_end(record)

    async def _mark_approved(self, record: RunRecord) -> None:
        """Complete an approval: the daemon may have been killed between its two writes."""
        planned = self.records.get(record.applies) if record.applies else None
        if planned is not None and planned.approved_run is None:
            planned.approved, planned.approved_by = record.asked, record.by
            planned.approved_run = record.run_id
            await self.records.save(planned)

    async def _finish_from_ledger(self, record: RunRecord, *, timed_out: bool = False) -> None:
        """End a run whose process is gone, as the ledger says, if it says anything."""
        found = await self._store.ledger.find_run(record.run_id)
        code = found.exit_code if found is not None else None
        record.error = "it ended without a word" if code is None else None
        await self._finish(record, ChildResult(128 + signal.SIGKILL if code is None else code, "", timed_out))

    async def _follow_orphan(self, record: RunRecord, pid: int, lane: int) -> None:
        """Follow a run that the daemon before began to its end; the timeout of its job holds on."""
        assert record.started is not None
        most_s = self.jobs[record.job].timeout_s
        left_s = min(max(0.0, record.started + most_s - self._now()), most_s)  # the clock may have been set
        try:
            timed_out = await wait_for_pid(pid, left_s, self._timeouts)
            await self._finish_from_ledger(record, timed_out=timed_out)
        except StateError as error:
            self._log.say("error", str(error), logger=_LOGGER, run_id=record.run_id)
        finally:
            del self._active[lane]
            self._start_next()

    # -- asking

    async def enqueue(
        self,
        job: Job,
        mode: Mode,
        trigger: Trigger,
        by: str,
        *,
        limit: tuple[str, ...] = (),
        reason: str | None = None,
    ) -> QueuedRun:
        """Begin a run, or let it wait: it is durable when this returns, and not given up half-way where the
        caller is. Raises Refusal (conflict, unavailable), StateError."""
        record = self._new_record(job, mode, trigger, by)
        record.limit, record.reason = limit, reason
        return await asyncio.shield(self._enqueue_alone(record))

    def _new_record(self, job: Job, mode: Mode, trigger: Trigger, by: str) -> RunRecord:
        now = self._now()
        run_id = ulid(int(now * 1000), os.urandom(10))
        return RunRecord(run_id=run_id, job=job.name, mode=mode, trigger=trigger, by=by, asked=now)

    async def _enqueue_alone(self, record: RunRecord) -> QueuedRun:
        async with self._asking:
            return await self._enqueue(record)

    async def _enqueue(self, record: RunRecord) -> QueuedRun:
        """Begin the run, or let it wait, while nobody else asks for one."""
        if self._stopping:
            raise Refusal("unavailable", "the daemon stops", headers=((b"retry-after", b"10"),))
        waiting = next((one for one in self._queue if one.is_same_request(record)), None)
        if waiting is not None:
            return QueuedRun(waiting.run_id, True)
        busy = self._active.get(self._lanes[record.job])
        if busy is not None and record.trigger == "api":
            raise Refusal(
                "conflict",
                f"run {busy.record.run_id} ({busy.record.job}) goes on",
                hint="ask again when it has ended: GET /runs/schedule",
            )
        await self.records.save(record)
        self._queue.append(record)
        why = f": {record.reason}" if record.reason else ""
        text = f"{record.mode} of {record.job} asked for by {record.by}{why}"
        self._announce("info", record, text, AUDIT)
        self._start_next()
        return QueuedRun(record.run_id, False)

    async def approve(
        self, record: RunRecord, plan_hash: str, by: str, reason: str | None = None
    ) -> QueuedRun:
        """Apply the plan that a check left, as `enqueue` does. Raises Refusal (not_found, not_allowed,
        plan_mismatch, conflict, unavailable), StateError."""
        return await asyncio.shield(self._approve(record, plan_hash, by, reason))

    async def _approve(self, record: RunRecord, plan_hash: str, by: str, reason: str | None) -> QueuedRun:
        async with self._asking:
            self._check_approvable(record, plan_hash)
            apply = self._new_record(self.jobs[record.job], "apply", "approval", by)
            apply.limit, apply.reason, apply.applies = record.limit, reason, record.run_id
            taken = await self._enqueue(apply)
            record.approved, record.approved_by, record.approved_run = self._now(), by, taken.run_id
            await self.records.save(record)
        self._announce("info", record, f"plan {plan_hash[:12]} of {record.job} approved by {by}", AUDIT)
        return taken

    async def find_apply(self, planned: str) -> str | None:
        """Return the run that applies the plan of a run, once nobody is about to ask for one; None: none
        does."""
        async with self._asking:
            return next((one.run_id for one in self.records if one.applies == planned), None)

    def _check_approvable(self, record: RunRecord, plan_hash: str) -> None:
        """Refuse to approve the plan of a run that may not be approved, or is another one. Raises Refusal."""
        if record.plan_hash is None:
            raise Refusal("not_found", f"run {record.run_id} left no plan")
        if record.plan_hash != plan_hash:
            raise Refusal("plan_mismatch", "the hash is not that of the plan", hint="look at it again")
        state, why = self.records.plan_state(record, self.jobs, self._now())
        if state != "pending":
            text = f"the plan is stale: {why}" if state == "stale" else "the plan was approved before"
            raise Refusal("conflict", text, hint="plan again: POST /runs")
        job = self.jobs[record.job]
        if "approve" not in job.modes:
            raise Refusal("not_allowed", f"the configuration lets nobody approve plans of {job.name}")

    def pending_plan(self, job: str) -> RunRecord | None:
        """Return the latest plan of a job that waits for its approval."""
        for record in self.records:
            if record.job == job and record.plan_hash is not None:
                state, _ = self.records.plan_state(record, self.jobs, self._now())
                return record if state == "pending" else None
        return None

    def busy_jobs(self) -> set[str]:
        """Return the jobs that have a run that waits or goes on."""
        active = (one.record.job for one in self._active.values())
        return {*active, *(one.job for one in self._queue)}

    def running_run(self, job: str) -> str | None:
        """Return the id of a job's run that goes on."""
        return next((one.record.run_id for one in self._active.values() if one.record.job == job), None)

    def queued_runs(self, job: str) -> tuple[str, ...]:
        """Return the ids of a job's runs that wait."""
        return tuple(one.run_id for one in self._queue if one.job == job)

    # -- running

    def _start_next(self) -> None:
        """Begin the runs whose lanes are free."""
        if self._stopping:
            return
        for record in list(self._queue):
            lane = self._lanes[record.job]
            if lane in self._active:
                continue
            self._queue.remove(record)
            task = asyncio.get_running_loop().create_task(self._carry_out(record, lane))
            self._active[lane] = _ActiveRun(record, task)

    async def _carry_out(self, record: RunRecord, lane: int) -> None:
        try:
            if record.applies is not None:
                await self.records.write_plan_file(record.run_id, record.applies)
            await self._save_begin(record)  # from here to its process nothing waits, or is cut off
            self._announce("info", record, f"{record.mode} of {record.job} begins, for {record.by}", AUDIT)
            ended = await self._run_child(record, self._active[lane])
            await self._finish(record, ended)
        except StateError as error:
            self._log.say("error", str(error), logger=_LOGGER, run_id=record.run_id)
            record.error = record.error or str(error)
            self._tell_end(record)  # what became of it cannot be written: who waits is told so
        finally:
            record.finished = record.finished or self._now()
            del self._active[lane]
            self._start_next()

    async def _save_begin(self, record: RunRecord) -> None:
        """Record that the run begins. Where the daemon is stopped meanwhile it did not, and waits for the
        next one."""
        record.started = self._now()
        try:
            await self.records.save(record)
        except asyncio.CancelledError:
            record.started = None
            await self.records.save(record)
            raise

    async def _run_child(self, record: RunRecord, active: _ActiveRun) -> ChildResult:
        job = self.jobs[record.job]
        plan = self.records.plan_path(record.run_id)
        planned = self.records.get(record.applies) if record.applies else None
        entries = entries_path(self._settings.state, job.name) if job.entries else None
        words = command_line(job, record, plan, planned.plan_hash if planned is not None else None, entries)
        environ = child_environment(job, record.run_id, self._settings, self._environ)
        try:
            active.child = Child(words, environ, self._settings.state / "runs" / f"{record.run_id}.said")
        except OSError as error:
            return ChildResult(int(ExitCode.FAILED), f"the run cannot be started: {error.strerror}")
        try:
            ended = await active.child.wait(job.timeout_s, self._timeouts)  # deadline: the job's, Child.wait
        except asyncio.CancelledError:
            active.child.leave()
            raise
        return ended  # one that was given up is still watched: it is reaped when it ends

    async def _finish(self, record: RunRecord, ended: ChildResult) -> None:
        self._counts[record.job, record.mode, str(ended.exit_code)] += 1
        if record.mode == "check":
            await self._take_plan(record, ended)  # who sees the run's end sees its plan as well
        if ended.timed_out:
            record.error = "it took too long and was ended"
        elif ended.exit_code not in (ExitCode.OK, ExitCode.PENDING):
            record.error = record.error or ended.stderr_tail or None
        if record.error:  # before the run is seen to have ended, as its plan is
            self._announce("error", record, f"{record.mode} of {record.job}: {record.error}")
        record.finished, record.exit_code = self._now(), ended.exit_code
        await self.records.save(record)
        self.records.drop_plan_file(record.run_id)
        await self._close_ledger(record)
        self._tell_end(record)

    def _tell_end(self, record: RunRecord) -> None:
        for waiter in self._ends.pop(record.run_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait_ended(self, run_id: str) -> RunRecord:
        """Wait for the end of a run, and return its record. Raises Refusal(not_found)."""
        record = self.records.get(run_id)
        if record is None:
            raise Refusal("not_found", f"there is no run {run_id[:64]!r}")
        if record.finished is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._ends.setdefault(run_id, []).append(waiter)
            await waiter  # deadline: the run's own timeout, and the caller's
        return record

    async def _take_plan(self, record: RunRecord, ended: ChildResult) -> None:
        """Keep the plan that a check left in its file, where it found something."""
        if ended.exit_code != ExitCode.PENDING:
            return
        try:
            plan = await asyncio.to_thread(read_plan, self.records.plan_path(record.run_id))
        except FazaiError as error:
            record.error = str(error)
            return
        await self.records.keep_plan(record.run_id)
        record.plan_hash = plan.digest

    async def _close_ledger(self, record: RunRecord) -> None:
        """Write the end of a run that could not begin, or was killed: it has none in the ledger."""
        ledger = self._store.ledger
        found = await ledger.find_run(record.run_id)
        command = "plan" if record.mode == "check" else "apply"
        if found is not None and found.exit_code is not None:
            return
        assert record.exit_code is not None
        assert record.started is not None
        if found is None:
            job = self.jobs.get(record.job)
            sources = job.inventory if job is not None else ()
            await ledger.run_begin(
                Run(record.run_id, command, sources, record.by, os.uname().nodename, 0, record.started)
            )
        await ledger.run_end(record.run_id, record.exit_code, {})
        event = RunEvent(
            timestamp=utc_now(),
            run_id=record.run_id,
            state="finished",
            command=command,
            check=record.mode == "check",
            exit_code=record.exit_code,
        )
        self._store.publish_soon([row_of(event)])

    def _announce(self, level: Level, record: RunRecord, text: str, logger: str = _LOGGER) -> None:
        """Write a text to the log, and publish it as an event of the run."""
        self._announcer.say(level, log_event(level, text, logger, run_id=record.run_id), logger)

    # -- the end

    async def close(self, wait_s: float) -> None:
        """Ask the runs to stop between two actions, and wait for them; one that takes longer goes on alone,
        and tells the daemon that comes next."""
        self._stopping = True
        for record in self._queue:
            text = f"{record.mode} of {record.job} waits until the daemon starts again"
            self._announce("warning", record, text)
        active = [one for one in self._active.values() if one.child is not None]
        others = [one.task for one in self._active.values() if one.child is None]
        for task in others:
            task.cancel()  # not begun, or never ours: the daemon that comes next looks after it
        await asyncio.gather(*others, return_exceptions=True)
        for one in active:
            if one.child is not None:
                one.child.interrupt()
        if active:
            _, left = await asyncio.wait([one.task for one in active], timeout=wait_s)
            for task in left:
                task.cancel()
            for one in active:
                if one.task in left:
                    text = "the run goes on without the daemon"
                    self._log.say("warning", text, logger=_LOGGER, run_id=one.record.run_id)

    def families(self) -> Iterable[Family]:
        """Return the metrics of the daemon's runs."""
        yield _RUNS.family(self._counts.items())
        yield _ACTIVE.by_label({"running": len(self._active), "queued": len(self._queue)})


def _is_alive(pid: int, run_id: str) -> bool:
    """Return whether the process of a run is still there, and not another one of the same number."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"FAZAI_RUN_ID={run_id}".encode() in environ.split(b"\0")


def _lanes(jobs: Iterable[Job]) -> dict[str, int]:
    """Return the lane of each job; jobs that share a source of their inventory share a lane."""
    lanes: dict[str, int] = {}
    owners: dict[str, int] = {}
    for number, job in enumerate(jobs):
        touched = {owners[source] for source in job.inventory if source in owners}
        for source, lane in owners.items():
            if lane in touched:
                owners[source] = number
        for name, lane in lanes.items():
            if lane in touched:
                lanes[name] = number
        owners.update(dict.fromkeys(job.inventory, number))
        lanes[job.name] = number
    return lanes
