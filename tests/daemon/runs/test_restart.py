"""Runs over a restart of the daemon: what waits is still there, what goes on is waited for, and what may no
longer begin says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.settings import ServerLimits
from fazai.lab import Fault, LabFirewall, LabSettings, LabThread
from fazai.store.base import Run
from fazai.store.daemon import RunRecord
from fazai.store.sqlite.ledger import SqliteStore
from tests.daemon.live import PATIENCE_S, stream, until
from tests.daemon.runs_world import World, beside, keep_records, kept_record, write_inventory


@pytest.fixture
def firewall(tmp_path: Path) -> Iterator[LabFirewall]:
    with LabThread() as lab:
        found = lab.start("fw-01", LabSettings(auth_delay_s=0.0))
        write_inventory(tmp_path, found)
        yield found


def held(firewall: LabFirewall, path: str) -> None:
    """The next such call is answered when the faults are cleared."""
    firewall.inject(Fault(kind="delay", path=path, delay_s=PATIENCE_S, times=1))


def goes_on_at_the_stop(edge: World) -> None:
    """Once the daemon was told to stop, the firewall answers what it holds up."""

    def release() -> None:
        until(lambda: edge.daemon.services.run_queue._stopping)
        edge.firewall.clear_faults()

    threading.Thread(target=release).start()


def said(edge: World, run_id: str) -> list[str]:
    """The words of the log about a run."""
    with stream(edge.client, f"?run={run_id}&types=log&since=0&follow=false") as events:
        return [frame.event.message for frame in events.rest()]  # type: ignore[union-attr]


def approve(edge: World, checked: dict[str, Any]) -> str:
    where = f"/runs/{checked['run_id']}/approve"
    return edge.started(edge.client.post(where, json={"plan_hash": checked["plan_hash"]}))


def queued_approval(edge: World) -> tuple[dict[str, Any], str]:
    """A plan, and the run of its approval, which waits for another one."""
    checked = edge.ended(edge.started(edge.run()))
    assert checked["exit_code"] == 2
    held(edge.firewall, "firewall/alias/*")
    edge.started(edge.run())
    run_id = approve(edge, checked)
    assert edge.row(run_id)["state"] == "queued"
    goes_on_at_the_stop(edge)
    return checked, run_id


def test_an_approval_that_waits_is_carried_out_after_a_restart(tmp_path: Path, firewall: LabFirewall) -> None:
    with beside(tmp_path, firewall) as edge:
        checked, run_id = queued_approval(edge)
    record = kept_record(tmp_path / "state", run_id)
    assert record is not None
    assert (record.started, record.finished) == (None, None)
    assert "blocklist" not in edge.aliases()
    with beside(tmp_path, firewall) as edge:
        applied = edge.ended(run_id)
        assert (applied["exit_code"], applied["trigger"], applied["by"]) == (0, "approval", "anonymous")
        assert "blocklist" in edge.aliases()
        plan = edge.plan(checked["run_id"])
        assert (plan["state"], plan["apply_run_id"]) == ("approved", run_id)
        words = said(edge, run_id)
        assert any("waits until the daemon starts again" in one for one in words)
        assert any("asked for by anonymous, waited for the daemon to start" in one for one in words)


def test_an_approval_is_marked_where_the_daemon_was_killed_in_between(
    tmp_path: Path, firewall: LabFirewall
) -> None:
    with beside(tmp_path, firewall) as edge:
        checked = edge.ended(edge.started(edge.run()))
        now = edge.daemon.services.run_queue.records.get(checked["run_id"])
        assert now is not None
        assert now.finished is not None
        asked = now.finished + 1  # the look may have taken longer than that
    lost = RunRecord(
        run_id="7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        job="edge",
        mode="apply",
        trigger="approval",
        by="token:ann",
        asked=asked,
        applies=checked["run_id"],
    )
    keep_records(tmp_path / "state", lost)
    with beside(tmp_path, firewall) as edge:
        assert edge.ended(lost.run_id)["exit_code"] == 0
        plan = edge.plan(checked["run_id"])
        assert (plan["state"], plan["approved_by"]) == ("approved", "token:ann")


@pytest.mark.slow
def test_an_approval_that_is_no_longer_good_says_so_and_can_be_given_again(
    tmp_path: Path, firewall: LabFirewall
) -> None:
    with beside(tmp_path, firewall) as edge:
        checked, run_id = queued_approval(edge)
    with beside(tmp_path, firewall, job={"modes": ["check"]}) as edge:
        refused = edge.ended(run_id)
        assert (refused["exit_code"], refused["state"]) == (130, "finished")
        assert "no longer lets anybody approve" in refused["error"]
        until(lambda: "does not begin" in said(edge, run_id)[-1])  # an event is told once it is stored
        assert "blocklist" not in edge.aliases()
        assert edge.plan(checked["run_id"])["state"] == "pending"
    with beside(tmp_path, firewall) as edge:
        assert edge.row(run_id)["exit_code"] == 130  # once refused, for good
        assert "no longer lets anybody approve" in edge.row(run_id)["error"]
        assert edge.ended(approve(edge, checked))["exit_code"] == 0
        assert "blocklist" in edge.aliases()


def test_a_run_that_goes_on_alone_is_waited_for(tmp_path: Path, firewall: LabFirewall) -> None:
    with beside(tmp_path, firewall, daemon={"limits": ServerLimits(runs_stop_s=0.1)}) as edge:
        checked = edge.ended(edge.started(edge.run()))
        held(firewall, "firewall/alias/setItem/*")
        alone = edge.started(edge.run(mode="apply"))
        until(lambda: asyncio.run(edge.daemon.services.store.ledger.actions(alone)))  # it writes
        waits = approve(edge, checked)
    with beside(tmp_path, firewall) as edge:
        until(lambda: edge.client.get("/runs/schedule").json()["jobs"][0].get("running") == alone)
        refused = edge.run()
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert alone in refused.json()["error"]
        assert edge.row(waits)["state"] == "queued"
        firewall.clear_faults()
        applied = edge.ended(waits)
        assert applied["exit_code"] in (0, 6)  # the other one may have done it before
        assert applied["started_at"] >= edge.row(alone)["finished_at"]
        assert "blocklist" in edge.aliases()


def test_a_run_that_goes_on_alone_has_the_timeout_of_its_job(tmp_path: Path, firewall: LabFirewall) -> None:
    run_id, begun = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", time.time() - 7200
    left = RunRecord(
        run_id=run_id, job="edge", mode="apply", trigger="api", by="token:ann", asked=begun, started=begun
    )
    keep_records(tmp_path / "state", left)
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={"FAZAI_RUN_ID": run_id},
        start_new_session=True,
    ) as silent:
        try:
            with contextlib.closing(SqliteStore(tmp_path / "state")) as store:
                run = Run(run_id, "apply", (), "ann", os.uname().nodename, silent.pid, begun)
                asyncio.run(store.run_begin(run))
            with beside(tmp_path, firewall, job={"timeout": "1h"}) as edge:
                ended = edge.ended(run_id)
                assert (ended["exit_code"], ended["error"]) == (137, "it took too long and was ended")
                assert silent.wait() == -15
        finally:
            silent.kill()
