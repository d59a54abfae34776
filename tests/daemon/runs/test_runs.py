"""Runs that the daemon starts: real child processes against a firewall of the lab."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fazai.daemon.runs.child import Child, ChildResult, StopTimeouts, child_environment, wait_for_pid
from fazai.daemon.runs.config import Job
from fazai.lab import Fault
from fazai.store.daemon import RunRecord
from fazai.store.sqlite.daemon import SqliteDaemonStore
from tests.daemon.live import PATIENCE_S, settings, stream, token, until
from tests.daemon.runs_world import RESOURCES, keep_records, kept_record, world


def test_a_plan_is_shown_approved_and_applied(tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        checked = edge.ended(edge.started(edge.run(reason="a look")))
        assert checked["exit_code"] == 2
        assert (checked["playbook"], checked["trigger"], checked["reason"]) == ("edge", "api", "a look")
        assert checked["plan_state"] == "pending"
        assert checked["totals"]
        assert "blocklist" not in edge.aliases()

        plan = edge.plan(checked["run_id"])
        assert [change["identity"] for change in plan["changes"]] == ["blocklist"]
        where = f"/runs/{checked['run_id']}/approve"
        wrong = edge.client.post(where, json={"plan_hash": "0" * 64})
        assert (wrong.status_code, wrong.json()["code"]) == (409, "plan_mismatch")

        taken = edge.client.post(where, json={"plan_hash": plan["plan_hash"]})
        applied = edge.ended(edge.started(taken))
        assert applied["exit_code"] == 0, applied
        assert (applied["command"], applied["trigger"]) == ("apply", "approval")
        assert applied["plan_hash"] == plan["plan_hash"]
        assert "blocklist" in edge.aliases()

        again = edge.client.post(where, json={"plan_hash": plan["plan_hash"]})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        after = edge.plan(checked["run_id"])
        assert (after["state"], after["apply_run_id"]) == ("approved", applied["run_id"])
        assert edge.runs() == [applied["run_id"], checked["run_id"]]  # its look is a part of it
        lines = [json.loads(line) for line in edge.daemon.log().splitlines()]
    audit = [(line["message"], line.get("run_id")) for line in lines if line["logger"] == "fazai.audit"]
    hash_, one, two = plan["plan_hash"], checked["run_id"], applied["run_id"]
    assert audit == [
        ("check of edge asked for by anonymous: a look", one),
        ("check of edge begins, for anonymous", one),
        (f"refused: POST {where} from 127.0.0.1: plan_mismatch: the hash is not that of the plan", None),
        ("apply of edge asked for by anonymous", two),
        (f"plan {hash_[:12]} of edge approved by anonymous", one),
        ("apply of edge begins, for anonymous", two),
    ]


def test_a_runs_events_reach_the_log(tmp_path: Path) -> None:
    with world(tmp_path) as edge, stream(edge.client, "?types=run,change,log") as events:
        run_id = edge.started(edge.run(mode="apply"))
        seen: list[str] = []
        while not (seen and seen[-1] == "run finished"):
            event = events.next().event
            if event.run_id == run_id:  # type: ignore[union-attr]
                kind = event.__struct_config__.tag
                seen.append(f"run {event.state}" if kind == "run" else str(kind))  # type: ignore[union-attr]
        assert seen[:3] == ["log", "log", "run started"]  # asked for, begun by the daemon
        assert "change" in seen
        assert edge.ended(run_id)["exit_code"] == 0
        found = edge.client.get(f"/runs/{run_id}").json()
        assert [target["status"] for target in found["targets"]] == ["changed"]
        assert [action["status"] for action in found["actions"]] == ["done"]


def test_a_plan_is_stale_when_the_firewall_moved_on(tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        checked = edge.ended(edge.started(edge.run()))
        body = {"name": "blocklist", "type": "host", "content": "203.0.113.9", "enabled": "1"}
        edge.firewall.call("POST", "/api/firewall/alias/addItem", {"alias": body})
        where = f"/runs/{checked['run_id']}/approve"
        taken = edge.client.post(where, json={"plan_hash": checked["plan_hash"]})
        applied = edge.ended(edge.started(taken))
        assert applied["exit_code"] == 6
        found = edge.client.get(f"/runs/{applied['run_id']}").json()
        assert [target["status"] for target in found["targets"]] == ["stale"]
        assert "the plan is stale" in found["targets"][0]["errors"][0]
        assert edge.runs() == [applied["run_id"], checked["run_id"]]  # no third one for its look
        rows = edge.firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        assert [row["content"] for row in rows if row["name"] == "blocklist"] == ["203.0.113.9"]


@pytest.mark.slow
def test_a_later_look_makes_a_plan_stale(tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        first = edge.ended(edge.started(edge.run()))
        other = [{"opnsense.alias": {"name": "other", "type": "host", "content": ["192.0.2.8"]}}]
        edge.inventory([*RESOURCES, *other])
        second = edge.ended(edge.started(edge.run()))
        assert second["plan_hash"] != first["plan_hash"]
        refused = edge.client.post(f"/runs/{first['run_id']}/approve", json={"plan_hash": first["plan_hash"]})
        assert refused.status_code == 409
        assert second["run_id"] in refused.json()["error"]
        assert edge.row(first["run_id"])["plan_state"] == "stale"
        assert edge.client.get("/runs/schedule").json()["jobs"][0]["pending_plan"] == second["run_id"]


def test_one_run_at_a_time_and_a_stop_between_two_actions(tmp_path: Path) -> None:
    two = [{"opnsense.alias": {"name": name, "type": "host", "content": ["192.0.2.7"]}} for name in "ab"]
    with world(tmp_path) as edge:
        edge.inventory(two)
        edge.firewall.inject(Fault(kind="delay", path="firewall/alias/setItem/*", delay_s=5.0, times=1))
        run_id = edge.started(edge.run(mode="apply"))
        refused = edge.run()
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert run_id in refused.json()["error"]
        began = edge.daemon.services.store.ledger
        until(lambda: asyncio.run(began.actions(run_id)))
        firewall = edge.firewall
    # the daemon was told to stop in the middle of the first write
    record = edge.daemon.services.run_queue.records.get(run_id)
    assert record is not None
    assert record.exit_code == 130
    written = [path for _, path, _ in firewall.requests if "setItem" in path]
    assert len(written) == 1


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    said = tmp_path / "runs" / "said"
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(2, b'x')"

    async def work(code: str, timeout_s: float, patience: StopTimeouts, first: str = "") -> ChildResult:
        child = Child([sys.executable, "-c", code], {}, said)
        until(lambda: said.read_text().startswith(first))  # it is as far as that
        return await child.wait(timeout_s, patience)

    brief, long = StopTimeouts(0.1, 0.1), StopTimeouts(PATIENCE_S, PATIENCE_S)
    stubborn = work(f"{deaf}; time.sleep(600)", 0.2, brief, "x")
    assert asyncio.run(stubborn) == ChildResult(137, "x", timed_out=True)
    polite = work("import time; time.sleep(600)", 0.2, long)
    assert asyncio.run(polite) == ChildResult(143, "", timed_out=True)
    ended = asyncio.run(work("import sys; sys.exit('x' * 20000 + 'the end')", PATIENCE_S, long))
    assert (ended.exit_code, ended.stderr_tail[-7:], len(ended.stderr_tail)) == (1, "the end", 8191)
    assert not said.exists()


def test_a_run_of_another_daemon_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    said = tmp_path / "runs" / "said"
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(2, b'x')"

    async def work(code: str, timeout_s: float, patience: StopTimeouts, first: str = "") -> tuple[bool, int]:
        child = Child([sys.executable, "-c", code], {}, said)
        child.leave()
        until(lambda: said.read_text().startswith(first))  # it is as far as that
        timed_out = await wait_for_pid(child.pid, timeout_s, patience)
        status = os.waitpid(child.pid, 0)[1]  # noqa: ASYNC222 - it has ended
        return timed_out, os.waitstatus_to_exitcode(status)

    brief, long = StopTimeouts(0.1, 0.1), StopTimeouts(PATIENCE_S, PATIENCE_S)
    assert asyncio.run(work(f"{deaf}; time.sleep(600)", 0.2, brief, "x")) == (True, -9)
    assert asyncio.run(work("import time; time.sleep(600)", 0.2, long)) == (True, -15)
    assert asyncio.run(work("", PATIENCE_S, long)) == (False, 0)
    assert not asyncio.run(wait_for_pid(2**22 + 1, PATIENCE_S, long))  # it ended before anybody looked


def test_a_run_that_outlives_sigkill_is_given_up_and_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that hangs in the kernel, on a dead file server."""
    said = tmp_path / "runs" / "said"
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(2, b'x')"
    real = os.killpg
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    brief = StopTimeouts(0.1, 0.1, 0.1)

    async def work() -> tuple[ChildResult, bool]:
        child = Child([sys.executable, "-c", f"{deaf}; time.sleep(600)"], {}, said)
        until(lambda: said.read_text() == "x")
        ended, followed = await child.wait(0.1, brief), await wait_for_pid(child.pid, 0.1, brief)
        assert not child.ended
        real(child.pid, signal.SIGKILL)
        assert await child.wait(PATIENCE_S, brief) == ChildResult(137, "x")
        with pytest.raises(ChildProcessError):
            os.waitpid(child.pid, os.WNOHANG)  # noqa: ASYNC222 - it waits for nothing
        return ended, followed

    ended, followed = asyncio.run(work())
    assert ended == ChildResult(137, "it was killed, and has not ended", timed_out=True)
    assert followed


def test_a_run_inherits_no_secrets(tmp_path: Path) -> None:
    job = Job(name="edge", inventory=("i.yml",), environment=("EDGE_KEY",))
    record = RunRecord(run_id="R", job="edge", mode="check", trigger="api", by="x", asked=0.0)
    here = {
        "PATH": "/bin",
        "PYTHONPATH": "lib::.",
        "ANSIBLE_VAULT_PASSWORD_FILE": "edge@vault",
        "LC_ALL": "C",
        "EDGE_KEY": "k",
        "NOTIFY_SOCKET": "n",
        "FAZAI_TOKEN_FILE": "t",
        "X": "y",
    }
    found = child_environment(job, record.run_id, settings(tmp_path, socket=tmp_path / "s"), here)
    assert found.pop("PYTHONPATH") == f"{Path.cwd() / 'lib'}:{Path.cwd()}"
    assert found.pop("ANSIBLE_VAULT_PASSWORD_FILE") == f"edge@{Path.cwd() / 'vault'}"
    assert set(found) == {
        "PATH",
        "LC_ALL",
        "EDGE_KEY",
        "FAZAI_STATE_DIR",
        "FAZAI_SECRETS",
        "FAZAI_RUN_ID",
        "FAZAI_REPORT_S",
        "FAZAI_KEEP_RUNS",
        "FAZAI_KEEP_TARGETS_DAYS",
        "FAZAI_URL",
    }
    assert (found["FAZAI_KEEP_RUNS"], found["FAZAI_KEEP_TARGETS_DAYS"]) == ("5000", "90")
    assert found["FAZAI_URL"] == f"unix:{tmp_path / 's'}"


def test_deletes_need_a_word_in_the_configuration(tmp_path: Path) -> None:
    for deletes, code in ((False, 3), (True, 0)):
        folder = tmp_path / str(deletes)
        folder.mkdir()
        with world(folder, job={"delete": deletes}) as edge:
            body = {"name": "old", "type": "host", "content": "192.0.2.9", "enabled": "1"}
            edge.firewall.call("POST", "/api/firewall/alias/addItem", {"alias": body})
            absent = {"opnsense.alias": {"name": "old", "type": "host"}, "state": "absent"}
            edge.inventory([absent], adopt=True)
            row = edge.ended(edge.started(edge.run(mode="apply")))
            assert row["exit_code"] == code, row.get("error")
            assert ("--yes" in row.get("error", "")) is not deletes
            assert ("old" in edge.aliases()) is not deletes


def test_what_the_configuration_does_not_allow(tmp_path: Path) -> None:
    with world(tmp_path, job={"modes": ["check"]}) as edge:
        for body, status, code, said in (
            ({"mode": "apply"}, 403, "not_allowed", "does not allow apply for edge"),
            ({"playbook": "edgee"}, 404, "not_found", 'did you mean "edge"?'),
            ({"playbook": "/etc/passwd"}, 404, "not_found", "the configuration has no '/etc/passwd'"),
            ({"limit": ["fw-01:!x"]}, 422, "bad_request", "'fw-01:!x' is no name of a host or group"),
            ({"mode": "apply", "plan_hash": "abc"}, 409, "plan_mismatch", "edge has no such plan"),
            ({"inventory": "x.yml"}, 422, "bad_request", "`inventory`"),
        ):
            answer = edge.run(**body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (body, answer.text)
            assert said in answer.json()["error"]
        viewer = token(tmp_path, "eye", "viewer")
        until(lambda: edge.client.get("/runs").status_code == 401)  # the token is known
        with edge.daemon.client(viewer) as client:
            assert client.post("/runs", json={"playbook": "edge", "mode": "check"}).status_code == 403
            assert client.get("/runs/schedule").status_code == 200


def test_a_run_that_cannot_begin_has_an_end_and_says_why(tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        edge.inventory([{"opnsense.alias": {"name": "x", "tipe": "host"}}])
        row = edge.ended(edge.started(edge.run()))
        assert row["exit_code"] == 3
        assert "tipe" in row["error"]
        assert row["state"] == "finished"
        assert edge.firewall.api_secret not in row["error"]
        other = edge.ended(edge.started(edge.run(limit=["fw-99"])))
        assert other["exit_code"] == 3
        assert 'the pattern "fw-99" matches no group and no host' in other["error"]
        assert 'did you mean "fw-01"?' in other["error"]


def test_a_run_that_a_daemon_left_is_settled_by_the_next(tmp_path: Path) -> None:
    with world(tmp_path) as edge:
        good = edge.ended(edge.started(edge.run()))
    left = kept_record(tmp_path / "state", good["run_id"])
    assert left is not None
    left.finished = left.exit_code = left.plan_hash = None  # as after kill -9 of the daemon
    with closing(SqliteDaemonStore(tmp_path / "state")) as store:
        plan = asyncio.run(store.plan(left.run_id))
    assert plan is not None
    (tmp_path / "state" / "runs" / f"{left.run_id}.plan").write_bytes(plan)
    lost = RunRecord(
        run_id="01KANHC0E8M5T3W9Q7Z2R4V6XB", job="edge", mode="apply", trigger="api", by="x", asked=1.0
    )
    lost.started = 2.0
    never = RunRecord(
        run_id="01KANHC0E8M5T3W9Q7Z2R4V6XC", job="edge", mode="apply", trigger="api", by="x", asked=1.0
    )
    keep_records(tmp_path / "state", left, lost, never)
    with world(tmp_path) as edge:
        until(lambda: edge.row(good["run_id"]).get("plan_hash"))
        until(lambda: all("exit_code" in edge.row(one.run_id) for one in (lost, never)))
        found = edge.row(good["run_id"])
        assert (found["exit_code"], found["plan_hash"]) == (2, good["plan_hash"])
        assert (edge.row(lost.run_id)["exit_code"], edge.row(lost.run_id)["state"]) == (137, "finished")
        assert (edge.row(never.run_id)["exit_code"], edge.row(never.run_id)["state"]) == (130, "finished")
