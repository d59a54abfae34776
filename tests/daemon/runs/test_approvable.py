"""Which plan may be approved, case by case, without a daemon around it (docs/approvals.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.config import DaemonConfig, Job
from fazai.daemon.runs.queue import RunQueue
from fazai.daemon.settings import DaemonSettings
from fazai.service.log import Log
from fazai.store.daemon import RunRecord
from fazai.store.factory import open_daemon_store
from tests.daemon.runs_world import kept_record, world

NOW, MADE, TTL_S = 1_000_000.0, 999_000.0, 3600.0
HASH, OTHER = "a" * 64, "b" * 64
EDGE = Job(name="edge", inventory=("i.yml",), plan_ttl_s=TTL_S)


def look(run_id: str, plan_hash: str | None = HASH, **more: Any) -> RunRecord:
    """A run in the mode check that left a plan."""
    given = {"job": "edge", "mode": "check", "trigger": "api", "by": "token:ann", "exit_code": 2, **more}
    return RunRecord(run_id=run_id, plan_hash=plan_hash, **{"asked": MADE - 5, "finished": MADE, **given})


@contextlib.contextmanager
def queue(folder: Path, *records: RunRecord, jobs: tuple[Job, ...] = (EDGE,)) -> Iterator[RunQueue]:
    config = DaemonConfig(jobs={job.name: job for job in jobs})
    settings = DaemonSettings(state=folder, secrets=folder, config=config)
    with contextlib.closing(open_daemon_store(folder)) as store:
        found = RunQueue(settings, store, Log(), now=lambda: NOW)
        asyncio.run(found.records.save(*records))
        yield found


HINTS = {"plan_mismatch": "look at it again", "conflict": "plan again: POST /runs"}
GONE = "the plan is stale: edge is no longer configured"
AGED = "the plan is stale: it is older than 3600 s"
AGAIN = "the plan is stale: run 2 looked again and found something else"
BEFORE = "the plan was approved before"


@pytest.mark.parametrize(
    ("others", "changed", "why"),
    [
        ((), {}, None),
        ((), {"finished": NOW - TTL_S}, None),  # as old as it may be
        ((), {"finished": NOW - TTL_S - 1}, AGED),
        ((), {"finished": None, "asked": NOW - TTL_S - 1}, AGED),
        # Later looks: at the same targets, and if they came to an end.
        ((look("2"),), {}, None),
        ((look("2", OTHER),), {}, AGAIN),
        ((look("2", None, exit_code=0),), {}, AGAIN),
        ((look("2", None, exit_code=1),), {}, None),
        ((look("2", OTHER, mode="apply"),), {}, None),
        ((look("2", OTHER, limit=("fw-01",)),), {}, None),
        ((look("2", OTHER, job="core"),), {}, None),
        ((look("0", OTHER),), {}, None),  # an earlier one
        ((look("2", OTHER), look("3")), {}, None),  # the latest look counts
        # Approvals: of the same plan of the same targets, since it was made.
        ((), {"approved": MADE}, BEFORE),
        ((), {"approved": MADE - 1}, None),
        ((look("2", approved=MADE + 1),), {}, BEFORE),
        ((look("2", OTHER),), {"approved": MADE}, BEFORE),  # whatever was found since
        ((look("2", approved=MADE + 1, limit=("fw-01",)),), {}, None),
        ((look("2", approved=MADE + 1, job="core"),), {}, None),
        ((look("0", OTHER, approved=MADE + 1),), {}, None),
        ((look("2", OTHER), look("3", approved=MADE - 1)), {}, None),
        ((), {"approved": MADE, "finished": NOW - TTL_S - 1, "asked": 0.0}, BEFORE),
    ],
)
def test_what_another_run_means_for_a_plan(
    tmp_path: Path, others: tuple[RunRecord, ...], changed: dict[str, Any], why: str | None
) -> None:
    record = look("1", **changed)
    with queue(tmp_path, *sorted([record, *others], key=lambda one: one.run_id)) as runs:
        expected = "pending" if why is None else "approved" if why == BEFORE else "stale"
        assert runs.records.plan_state(record, runs.jobs, NOW)[0] == expected
        if why is None:
            runs._check_approvable(record, HASH)
            return
        with pytest.raises(Refusal) as refused:
            asyncio.run(runs.approve(record, HASH, "token:ann"))
    assert (refused.value.code, refused.value.message) == ("conflict", why)
    assert refused.value.hint == "plan again: POST /runs"


@pytest.mark.parametrize(
    ("record", "jobs", "code", "message"),
    [
        (look("1", None), (EDGE,), "not_found", "run 1 left no plan"),
        (look("1", OTHER), (EDGE,), "plan_mismatch", "the hash is not that of the plan"),
        (look("1"), (), "conflict", GONE),
        (
            look("1"),
            (replace(EDGE, modes=("check", "apply")),),
            "not_allowed",
            "the configuration lets nobody approve plans of edge",
        ),
    ],
)
def test_a_plan_that_nobody_may_approve(
    tmp_path: Path, record: RunRecord, jobs: tuple[Job, ...], code: str, message: str
) -> None:
    with queue(tmp_path, record, jobs=jobs) as runs:
        with pytest.raises(Refusal) as refused:
            asyncio.run(runs.approve(record, HASH, "token:ann"))
        assert (refused.value.code, refused.value.message) == (code, message)
        assert refused.value.hint == HINTS.get(code)
        assert runs.busy_jobs() == set()  # nothing was asked for
        assert record.approved is None


@pytest.mark.parametrize(
    ("records", "pending"),
    [
        ((look("1"),), "1"),
        ((look("1"), look("2", OTHER)), "2"),
        ((look("1"), look("2", None)), None),  # nothing is left to do
        ((look("1"), look("2", None, exit_code=1)), "1"),  # that look failed
        ((look("1"), look("2", approved=MADE)), None),
        ((look("1", job="core"),), None),
    ],
)
def test_the_plan_that_waits_for_its_approval(
    tmp_path: Path, records: tuple[RunRecord, ...], pending: str | None
) -> None:
    with queue(tmp_path, *records) as runs:
        found = runs.pending_plan("edge")
    assert (found and found.run_id) == pending


@pytest.mark.slow
def test_an_approval_lasts(tmp_path: Path) -> None:
    """A daemon that starts anew knows that this plan was approved, by whom, and for which run."""
    with world(tmp_path) as edge:
        checked = edge.ended(edge.started(edge.run()))
        where = f"/runs/{checked['run_id']}/approve"
        applied = edge.started(edge.client.post(where, json={"plan_hash": checked["plan_hash"]}))
        assert edge.ended(applied)["exit_code"] == 0
    record = kept_record(tmp_path / "state", checked["run_id"])
    assert record is not None
    assert record.approved is not None
    assert (record.approved_by, record.approved_run) == ("anonymous", applied)
