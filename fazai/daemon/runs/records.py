"""Records of the runs that the daemon started: one small file each in `<state>/runs`, beside the plan that a
check left. The ledger has the rest; this is who asked, what was shown, and who approved it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fazai.daemon.runs.config import Job, Mode
from fazai.errors import StateError

__all__ = ["PlanState", "RunRecord", "RunRecords", "Trigger"]

Trigger = Literal["api", "webhook", "schedule", "approval"]
PlanState = Literal["pending", "approved", "stale"]


class RunRecord(msgspec.Struct, kw_only=True):
    """The record of one run. Times are seconds since the epoch. `plan_hash` is of the plan that it made;
    `applies` names the run whose plan it applies."""

    run_id: str
    job: str
    mode: Mode
    trigger: Trigger
    by: str
    asked: float
    limit: tuple[str, ...] = ()
    reason: str | None = None
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    error: str | None = None
    plan_hash: str | None = None
    applies: str | None = None
    approved: float | None = None
    approved_by: str | None = None
    approved_run: str | None = None

    def is_same_request(self, other: RunRecord) -> bool:
        """Return whether one run would do for both."""
        return (self.job, self.mode, self.limit, self.applies) == (
            other.job,
            other.mode,
            other.limit,
            other.applies,
        )


class RunRecords:
    """The records of all runs. `folder` is made when the first one is written; the latest `keep` stay."""

    def __init__(self, folder: Path, keep: int = 500) -> None:
        self._keep = keep
        self._folder = folder
        self._all: dict[str, RunRecord] = {}
        for record in sorted(_read_all(folder), key=lambda one: one.run_id):
            self._all[record.run_id] = record

    def waiting_runs(self) -> list[RunRecord]:
        """Return the runs that have not begun, the first that was asked for first."""
        return [one for one in self._all.values() if one.started is None and one.finished is None]

    def get(self, run_id: str) -> RunRecord | None:
        """Return the record of a run."""
        return self._all.get(run_id)

    def __iter__(self) -> Iterator[RunRecord]:
        """Iterate over the records, the latest first."""
        return reversed(self._all.values())

    def plan_path(self, run_id: str) -> Path:
        """Return the file in which the plan of a run lies, whether or not there is one."""
        return self._folder / f"{run_id}.plan"

    def save(self, record: RunRecord) -> None:
        """Write a record; it is durable when this returns. Raises StateError."""
        self._all[record.run_id] = record
        path = self._folder / f"{record.run_id}.json"
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(record))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            self._prune()
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None

    def _prune(self) -> None:
        while len(self._all) > self._keep:
            oldest = next((one for one in self._all.values() if one.finished is not None), None)
            if oldest is None:
                return
            del self._all[oldest.run_id]
            for suffix in (".json", ".plan"):
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / f"{oldest.run_id}{suffix}").unlink()

    # -- plans

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


def _read_all(folder: Path) -> Iterator[RunRecord]:
    decoder = msgspec.json.Decoder(RunRecord)
    for path in folder.glob("*.json"):
        try:
            yield decoder.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StateError(
                f"{path} cannot be read: {error}", hint="move it away: the plan in it is lost"
            ) from None
