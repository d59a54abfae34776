"""Import of the files that release 0.1.0 kept beside the database: they are read into it once, and go."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fazai.errors import StateError
from fazai.store.daemon import RunRecord

_KEEP = "INSERT INTO daemon_runs (run_id, value) VALUES (?, ?) ON CONFLICT (run_id) DO"


def keep_record(record: RunRecord, *, replace: bool = True) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores a record beside the plan that is there, and its parameters."""
    end = "UPDATE SET value = excluded.value" if replace else "NOTHING"
    return f"{_KEEP} {end}", (record.run_id, msgspec.json.encode(record).decode())


def import_state_files(connection: sqlite3.Connection, folder: Path) -> None:
    """Read `runs/*.json`, the plans that belong to them, and `schedule.json`. A daemon that is killed in
    between reads them again at its next start, which changes nothing. Raises sqlite3.Error, OSError,
    StateError."""
    schedule = folder / "schedule.json"
    files = sorted((folder / "runs").glob("*.json"))
    if not files and not schedule.exists():
        return
    read: list[Path] = [schedule, *files]
    connection.execute("BEGIN IMMEDIATE")  # what fails from here on is rolled back when the connection closes
    for job, began in _read_schedule(schedule).items():
        connection.execute("INSERT OR IGNORE INTO schedule VALUES (?, ?)", (job, began))
    for record in _read_records(files):
        connection.execute(*keep_record(record, replace=False))
        plan = folder / "runs" / f"{record.run_id}.plan"
        if record.plan_hash is not None and plan.is_file():
            read.append(plan)
            connection.execute(
                "UPDATE daemon_runs SET plan = ? WHERE run_id = ? AND plan IS NULL",
                (plan.read_bytes(), record.run_id),
            )
    connection.execute("COMMIT")
    for path in read:
        with contextlib.suppress(OSError):
            path.unlink()


def _read_schedule(path: Path) -> dict[str, float]:
    """Return when each job last began. Without it every job is due soon: that is all that a damaged one
    costs."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    return {}


def _read_records(files: list[Path]) -> Iterator[RunRecord]:
    decoder = msgspec.json.Decoder(RunRecord)
    for path in files:
        try:
            yield decoder.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            raise StateError(
                f"{path} cannot be read: {error}", hint="move it away: the plan in it is lost"
            ) from None
