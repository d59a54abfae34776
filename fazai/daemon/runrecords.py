"""What the daemon remembers of the runs that it started: one small file each in `<state>/runs`, beside the
plan that a check left. The ledger has the rest; this is who asked, what was shown, and who approved it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fazai.daemon.jobs import Job, Mode
from fazai.errors import StateError

__all__ = ["PlanState", "Record", "Records", "Trigger"]

Trigger = Literal["api", "webhook", "schedule", "approval"]
PlanState = Literal["pending", "approved", "stale"]

_KEEP = 500
_NEVER_BEGAN = "the daemon ended before it began"


class Record(msgspec.Struct, kw_only=True):
    """One run. Times are seconds since the epoch. `plan_hash` is of the plan that it made; `applies` names
    the run whose plan it applies."""

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

    def same(self, other: Record) -> bool:
        """Whether one run would do for both."""
        return (self.job, self.mode, self.limit, self.applies) == (
            other.job,
            other.mode,
            other.limit,
            other.applies,
        )


class Records:
    """`folder` is made when the first one is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: dict[str, Record] = {}
        for record in sorted(_read_all(folder), key=lambda one: one.run_id):
            self._all[record.run_id] = record

    def end_what_never_began(self) -> None:
        """After a restart. What had begun has a row in the ledger, and may still go on."""
        for record in self._all.values():
            if record.started is None and record.finished is None:
                record.finished, record.exit_code, record.error = record.asked, 130, _NEVER_BEGAN

    def get(self, run_id: str) -> Record | None:
        return self._all.get(run_id)

    def __iter__(self) -> Iterator[Record]:
        """The latest first."""
        return reversed(self._all.values())

    def plan_path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.plan"

    def save(self, record: Record) -> None:
        """Durable when it returns. Raises StateError."""
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
        while len(self._all) > _KEEP:
            oldest = next((one for one in self._all.values() if one.finished is not None), None)
            if oldest is None:
                return
            del self._all[oldest.run_id]
            for suffix in (".json", ".plan"):
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / f"{oldest.run_id}{suffix}").unlink()

    # -- plans

    def plan_state(self, record: Record, jobs: Mapping[str, Job], now: float) -> tuple[PlanState, str | None]:
        """Of a record with a plan; why, where it is stale."""
        job, made = jobs.get(record.job), record.finished or record.asked
        latest: Record | None = None
        for other in self:
            if other.job != record.job or other.limit != record.limit:
                continue
            if other.plan_hash == record.plan_hash and other.approved is not None and other.approved >= made:
                return "approved", None
            if latest is None and other.mode == "check" and other.exit_code in (0, 2):
                latest = other
        if job is None:
            return "stale", f"{record.job} is no longer configured"
        if now - made > job.plan_ttl_s:
            return "stale", f"it is older than {job.plan_ttl_s:.0f} s"
        if latest is not None and latest.plan_hash != record.plan_hash and latest.run_id > record.run_id:
            return "stale", f"run {latest.run_id} looked again and found something else"
        return "pending", None


def _read_all(folder: Path) -> Iterator[Record]:
    decoder = msgspec.json.Decoder(Record)
    for path in folder.glob("*.json"):
        try:
            yield decoder.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StateError(
                f"{path} cannot be read: {error}", hint="move it away: the plan in it is lost"
            ) from None
