"""Records of the runs that the daemon was asked for: who asked, what was shown, and who approved it. The
ledger has the rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from fazai.daemon.runs.config import Job
from fazai.errors import StateError
from fazai.store.daemon import DaemonStore, RunRecord

PlanState = Literal["pending", "approved", "stale"]


class RunRecords:
    """The records of all runs, of which the latest `keep` stay; they last in the store. A run and the daemon
    hand each other its plan as a file in `folder`, which is made for the first one: a process reads and
    writes files, and may outlive the daemon that started it. Empty before `load`."""

    def __init__(self, store: DaemonStore, folder: Path, keep: int = 500) -> None:
        self._store = store
        self._keep = keep
        self._folder = folder
        self._all: dict[str, RunRecord] = {}

    async def load(self) -> None:
        """Read what the store has. Raises StateError."""
        self._all = {record.run_id: record for record in await self._store.run_records()}

    def waiting_runs(self) -> list[RunRecord]:
        """Return the runs that have not begun, the first that was asked for first."""
        return [one for one in self._all.values() if one.started is None and one.finished is None]

    def get(self, run_id: str) -> RunRecord | None:
        """Return the record of a run."""
        return self._all.get(run_id)

    def __iter__(self) -> Iterator[RunRecord]:
        """Iterate over the records, the latest first."""
        return reversed(self._all.values())

    async def save(self, *records: RunRecord) -> None:
        """Write records, all or none; they are durable when this returns. Raises StateError."""
        self._all.update((record.run_id, record) for record in records)
        await self._store.put_run_records(records)
        while len(self._all) > self._keep:
            oldest = next((one for one in self._all.values() if one.finished is not None), None)
            if oldest is None:
                return
            del self._all[oldest.run_id]
            self.drop_plan_file(oldest.run_id)
            await self._store.delete_run_record(oldest.run_id)

    # -- plans

    def plan_path(self, run_id: str) -> Path:
        """Return the file in which a run and the daemon hand each other a plan."""
        return self._folder / f"{run_id}.plan"

    async def has_plan(self, run_id: str) -> bool:
        """Return whether the plan that a run made is still there. Raises StateError."""
        return await self._store.plan(run_id) is not None

    async def keep_plan(self, run_id: str) -> None:
        """Read the plan that a run left in its file into the store. Raises StateError."""
        try:
            plan = await asyncio.to_thread(self.plan_path(run_id).read_bytes)
        except OSError as error:
            raise StateError(f"{self.plan_path(run_id)} cannot be read: {error.strerror}") from None
        await self._store.put_plan(run_id, plan)

    async def write_plan_file(self, run_id: str, planned: str) -> None:
        """Write the file from which the run applies the plan that the run `planned` made, where that is still
        there. Raises StateError."""
        plan = await self._store.plan(planned)
        if plan is not None:
            await asyncio.to_thread(self._write_file, self.plan_path(run_id), plan)

    def _write_file(self, path: Path, plan: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(plan)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None

    def drop_plan_file(self, run_id: str) -> None:
        with contextlib.suppress(OSError):
            self.plan_path(run_id).unlink()

    def plan_state(
        self, record: RunRecord, jobs: Mapping[str, Job], now: float
    ) -> tuple[PlanState, str | None]:
        """Return the state of a record's plan and, where it is stale, the reason."""
        made = record.finished or record.asked
        for other in self:
            if not _has_same_targets(other, record) or other.plan_hash != record.plan_hash:
                continue
            if other.approved is not None and other.approved >= made:
                return "approved", None
        why = self.stale_reason(record, jobs, now)
        return ("stale", why) if why else ("pending", None)

    def stale_reason(self, record: RunRecord, jobs: Mapping[str, Job], now: float) -> str | None:
        """Return why a plan should not be applied, approved or not; None: it may be."""
        job = jobs.get(record.job)
        if job is None:
            return f"{record.job} is no longer configured"
        if now - (record.finished or record.asked) > job.plan_ttl_s:
            return f"it is older than {job.plan_ttl_s:.0f} s"
        looks = (
            one
            for one in self
            if _has_same_targets(one, record) and one.mode == "check" and one.exit_code in (0, 2)
        )
        latest = next(looks, None)
        if latest is not None and latest.plan_hash != record.plan_hash and latest.run_id > record.run_id:
            return f"run {latest.run_id} looked again and found something else"
        return None


def _has_same_targets(one: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs are about the same targets."""
    return (one.job, one.limit) == (other.job, other.limit)
