"""POST /events, GET /runs, and `fazai apply` that tells the daemon: live, spooled, never in the way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.cli.clients import DaemonAddress
from fazai.cli.environment import new_run
from fazai.cli.main import main
from fazai.cli.reporting import RunReporter
from fazai.outcome import EngineEvent, RunOutcome
from fazai.store.base import Run
from fazai.store.sqlite.ledger import SqliteStore
from fazai.wire.events import OutcomeEvent, RunEvent
from tests.daemon.live import BUSY_S, PATIENCE_S, Live, live, stream, token

FAZAI = str(Path(sys.executable).with_name("fazai"))
RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"


def _body(*events: tuple[int, dict[str, Any]], run: str = RUN) -> dict[str, Any]:
    return {
        "run_id": run,
        "command": "apply",
        "host": "ci-7",
        "user": "deploy",
        "started": "2026-11-22T03:04:00Z",
        "sources": ["inventory.yml"],
        "events": [{"sequence": number, "event": event} for number, event in events],
    }


STARTED = {"type": "run", "run_id": RUN, "state": "started", "command": "apply"}
FAILED = {"type": "outcome", "target": "fw-01", "status": "failed", "errors": ["it broke"]}
CHANGE = {
    "type": "change",
    "target": "fw-01",
    "kind": "opnsense.alias",
    "identity": "b",
    "verb": "update",
    "before": {"a": 1},
    "after": {"a": 2},
    "status": "failed",
    "action_id": "a-1",
    "error": "no",
}
ENDED = {
    "type": "run",
    "state": "finished",
    "exit_code": 1,
    "totals": {"targets": 1, "failed": 1},
    "run_id": RUN,
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("reports")) as found:
        yield found


def test_a_run_elsewhere_is_seen_recorded_and_not_doubled(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        with stream(client, f"?run={RUN}") as events, daemon.client() as other:
            answer = other.post("/events", json=_body((1, STARTED), (2, CHANGE)))
            assert answer.json() == {"ok": True, "accepted": 2, "duplicates": 0}
            again = other.post("/events", json=_body((1, STARTED), (2, CHANGE), (3, FAILED), (4, ENDED)))
            assert again.json() == {"ok": True, "accepted": 2, "duplicates": 2}
            got = events.take(4)
        assert [getattr(frame.event, "sequence", None) for frame in got] == [1, 2, 3, 4]
        assert isinstance(got[0].event, RunEvent)
        assert isinstance(got[2].event, OutcomeEvent)
        row = client.get(f"/runs/{RUN}").json()
        assert row["run"]["state"] == "finished"
        assert row["run"]["totals"] == {"targets": 1, "failed": 1}
        assert row["targets"] == [{"target": "fw-01", "status": "failed", "errors": ["it broke"]}]
        assert row["actions"][0]["error"] == "no"
        lines = [json.loads(line) for line in daemon.log().splitlines()]
        bad = [line for line in lines if line["logger"] == "fazai.daemon.reports"]
        assert [(line["message"], line["run_id"], line["target"]) for line in bad] == [
            ("update of opnsense.alias b on fw-01 is failed: no", RUN, "fw-01"),
            ("fw-01 is failed: it broke", RUN, "fw-01"),
        ]
        assert bad[0]["action_id"] == "a-1"
        assert [run["run_id"] for run in client.get("/runs?limit=1").json()["runs"]] == [RUN]
    with live(tmp_path) as daemon, daemon.client() as client:  # it knows after a restart
        body = _body((3, FAILED), (4, ENDED), (5, {"type": "log", "level": "info", "message": "late"}))
        assert client.post("/events", json=body).json() == {"ok": True, "accepted": 1, "duplicates": 2}


def test_a_run_that_reports_before_it_wrote_that_it_began(tmp_path: Path) -> None:
    """Both write the same ledger: neither fails, and each of its events is there once."""
    with live(tmp_path) as daemon, daemon.client() as client:
        assert client.post("/events", json=_body((1, STARTED))).status_code == 200
        own = SqliteStore(tmp_path / "state")
        run = Run(RUN, "apply", ("inventory.yml",), "deploy", "ci-7", os.getpid(), time.time())
        asyncio.run(own.run_begin(run))
        own.event(RUN, time.time(), "change", "fw-01", {"n": 1})
        answer = client.post("/events", json=_body((1, STARTED), (2, CHANGE), (3, FAILED), (4, ENDED)))
        assert answer.json() == {"ok": True, "accepted": 3, "duplicates": 1}
        asyncio.run(own.run_end(RUN, 1, {"failed": 1}))
        own.close()
        ledger = daemon.services.store.ledger
        assert [event["type"] for event in asyncio.run(ledger.events(RUN))] == ["change"]
        found = asyncio.run(ledger.find_run(RUN))
        assert found is not None
        assert (found.pid, found.exit_code) == (os.getpid(), 1)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another run": (_body((1, {**STARTED, "run_id": "other"})), "events[0].event.run_id"),
    "a token": (_body((1, {"type": "token", "text": "x"})), "nothing that a run reports"),
    "no type": (_body((1, {})), "events[0].event.type"),
    "a field": (_body((1, {**FAILED, "status": "great"})), "events[0].event"),
    "no ULID": (_body((1, STARTED), run="run-1"), "ULID"),
    "sequence 0": (_body((0, STARTED)), "sequence"),
    "unknown field": ({**_body(), "colour": 1}, "colour"),
    "a time before all": (_body((1, {**FAILED, "timestamp": "0001-01-01T00:00:00+14:00"})), "timestamp"),
    "a time after all": (_body((1, {**FAILED, "timestamp": "9999-12-31T23:59:59-14:00"})), "timestamp"),
    "no time": ({**_body((1, STARTED)), "started": "0001-01-01T00:00:00+14:00"}, "started"),
    "a number beyond all": (_body((1, {**ENDED, "exit_code": 2**70})), "events[0].event"),
    "a sum beyond all": (_body((1, {**ENDED, "totals": {"failed": 2**63}})), "events[0].event"),
}


def test_the_largest_numbers_and_times(daemon: Live) -> None:
    run, most = RUN[:-1] + "Z", 2**63 - 1
    moments = ("1971-01-01T00:00:00+14:00", "9998-12-31T23:59:59-14:00")
    events = [{**FAILED, "pending": most, "timestamp": moment} for moment in moments]
    ended = {**ENDED, "run_id": run, "exit_code": most, "totals": {"failed": most}}
    with daemon.client() as client:
        for number, event in enumerate([*events, ended], 1):
            answer = client.post("/events", json=_body((number, event), run=run))
            assert (answer.status_code, answer.json()) == (200, {"ok": True, "accepted": 1, "duplicates": 0})
        assert client.get(f"/runs/{run}").json()["run"]["exit_code"] == most
        for path in ("/fleet", "/runs", "/metrics", f"/events?run={run}&since=0&follow=false"):
            assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("name", WRONG)
def test_wrong_reports_are_refused_whole(daemon: Live, name: str) -> None:
    body, text = WRONG[name]
    before = daemon.services.store.event_range()
    with daemon.client() as client:
        answer = client.post("/events", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert text in answer.json()["error"]
    assert daemon.services.store.event_range() == before


def test_runs_that_are_none(daemon: Live) -> None:
    with daemon.client() as client:
        for wanted in (RUN[:-1] + "C", "x", RUN[:10], "%00"):
            assert client.get(f"/runs/{wanted}").status_code == 404
        for query in ("limit=0", "limit=x", "limit=1001", "page=2"):
            assert client.get(f"/runs?{query}").status_code == 400


# -- the reconciler's side


def _inventory(folder: Path) -> Path:
    """An inventory with a folder as a host, on which a file is wanted."""
    path = folder / "inventory.yml"
    (folder / "root").mkdir(exist_ok=True)
    resources = [{"host.file": {"path": "/a", "content": "x"}}]
    host = {"provider": "local", "mode": "write", "root": str(folder / "root"), "resources": resources}
    path.write_text(json.dumps({"all": {"hosts": {"h1": host}}}))
    return path


def _apply(folder: Path, *words: str, **environ: str) -> tuple[int, str, float]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "HOME": str(folder),
        "FAZAI_STATE_DIR": str(folder / "own-state"),
        "FAZAI_SOCKET": str(folder / "none.sock"),
        "FAZAI_REPORT_S": "60",
        **environ,
    }
    inventory = _inventory(folder)
    begun = time.monotonic()
    child = subprocess.run(
        [FAZAI, *(words or ("apply",)), str(inventory), "--quiet"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return child.returncode, child.stderr, time.monotonic() - begun


def test_apply_is_watched_from_another_machine(tmp_path: Path) -> None:
    with (
        live(tmp_path) as daemon,
        daemon.client() as client,
        stream(client, "?types=run,change,outcome") as events,
    ):
        code, err, _ = _apply(tmp_path, FAZAI_URL=daemon.url)
        assert (code, err) == (0, "")
        first = events.next().event
        assert isinstance(first, RunEvent)
        kinds = []
        while True:
            event = events.next().event
            kinds.append(type(event).__name__)
            if isinstance(event, RunEvent):
                break
        assert "ChangeEvent" in kinds
        assert (event.state, event.exit_code) == ("finished", 0)
        assert event.totals is not None
        assert event.totals["changed"] > 0
        runs = client.get("/runs").json()["runs"]
        assert [(run["run_id"], run["exit_code"]) for run in runs] == [(first.run_id, 0)]
    assert list((tmp_path / "own-state/spool").iterdir()) == []


def test_what_cannot_be_delivered_comes_with_the_next_run(tmp_path: Path) -> None:
    with live(tmp_path) as daemon:
        url = daemon.url
    code, err, _ = _apply(tmp_path, FAZAI_URL=url)  # nobody there
    assert (code, err) == (0, "")
    (kept,) = (tmp_path / "own-state/spool").iterdir()
    with live(tmp_path) as daemon, daemon.client() as client:
        assert _apply(tmp_path, "plan", FAZAI_URL=daemon.url)[0] == 0
        runs = client.get("/runs").json()["runs"]
        assert [run["command"] for run in runs] == ["plan", "apply"]
        assert runs[1]["run_id"] == kept.stem
        assert runs[1]["exit_code"] == 0
    assert list((tmp_path / "own-state/spool").iterdir()) == []


def test_a_run_whose_commands_print_is_reported_whole(tmp_path: Path) -> None:
    """However much and whatever they print, and whatever its items are called."""
    root = tmp_path / "root"
    root.mkdir()
    prints = "head -c 200000 /dev/zero | tr '\\0' '\\1'; echo; printf '\\377\\000 end'; >made1"
    resources = [
        {"host.command": {"shell": prints, "chdir": "/", "creates": "/made1"}},
        {"host.file": {"path": "/two\nlines \t" + "x" * 200, "content": "y" * 70_000}},
        {
            "host.command": {
                "shell": "echo last >&2; >made2;" + " " * 9_000,
                "chdir": "/",
                "creates": "/made2",
            }
        },
    ]
    host = {"provider": "local", "mode": "write", "root": str(root), "resources": resources}
    (tmp_path / "printing.yml").write_text(json.dumps({"all": {"hosts": {"h1": host}}}))
    with live(tmp_path) as daemon, daemon.client() as client:
        found = subprocess.run(
            [FAZAI, "apply", str(tmp_path / "printing.yml")],
            env={
                **os.environ,
                "FAZAI_URL": daemon.url,
                "FAZAI_STATE_DIR": str(tmp_path / "own-state"),
                "FAZAI_REPORT_S": "60",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (found.returncode, found.stderr) == (0, ""), found.stdout
        (row,) = client.get("/runs").json()["runs"]
        assert (row["state"], row["exit_code"], row["totals"]["changed"]) == ("finished", 0, 3)
        text = client.get("/events?since=0&follow=false&types=exec_log").text
    chunks = [json.loads(line[6:])["chunk"] for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(chunks) == "\1" * 200_000 + "\n\ufffd\0 end" + "last\n"
    assert max(map(len, chunks)) <= 16 * 1024
    assert list((tmp_path / "own-state/spool").iterdir()) == []


def test_what_a_daemon_refuses_for_good_holds_up_nothing(tmp_path: Path) -> None:
    """Of a run of another release, say: what comes after it in the spool is delivered, and it goes."""
    spool = tmp_path / "own-state/spool"
    spool.mkdir(parents=True, mode=0o700)
    head = {key: value for key, value in _body().items() if key != "events"}
    for number, event in enumerate(({"type": "of a later release"}, STARTED)):
        run = f"01KANHC0E8M5T3W9Q7Z2R4V6X{number}"
        lines = [{**head, "run_id": run}, {"sequence": 1, "event": {**event, "run_id": run}}]
        (spool / f"{run}.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with live(tmp_path) as daemon, daemon.client() as client:
        assert _apply(tmp_path, "plan", FAZAI_URL=daemon.url)[0] == 2
        found = [run["run_id"] for run in client.get("/runs").json()["runs"]]
    assert "01KANHC0E8M5T3W9Q7Z2R4V6X1" in found
    assert list(spool.iterdir()) == []


def test_a_refused_token_is_told_and_fails_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("fzt_nonsense\n")
    secret.chmod(0o600)
    with live(tmp_path) as daemon:
        code, err, _ = _apply(tmp_path, "plan", FAZAI_URL=daemon.url, FAZAI_TOKEN_FILE=str(secret))
    assert code == 2
    assert "does not take the run's events" in err
    assert "fzt_nonsense" not in err
    secret.chmod(0o644)
    code, err, _ = _apply(tmp_path, "plan", FAZAI_URL="http://127.0.0.1:1", FAZAI_TOKEN_FILE=str(secret))
    assert code == 2
    assert "others may read it" in err


def test_a_wrong_time_to_wait_is_told_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = _inventory(tmp_path)
    monkeypatch.setenv("FAZAI_STATE_DIR", str(tmp_path / "own-state"))
    monkeypatch.setenv("FAZAI_URL", "http://127.0.0.1:1")
    for wrong in ("soon", "-1", "1e999", "601", "9" * 5000):
        monkeypatch.setenv("FAZAI_REPORT_S", wrong)
        assert main(["plan", str(inventory), "--quiet"]) == 2
        assert "FAZAI_REPORT_S" in capsys.readouterr().err


def test_a_daemon_that_hangs_does_not_hold_a_run_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as hole:  # accepts, never answers
        place = DaemonAddress(f"http://127.0.0.1:{hole.getsockname()[1]}")
        reporter = RunReporter(place, tmp_path, new_run("apply", ["i.yml"]), False)
        reporter.start()
        reporter.event(EngineEvent("change", time.time(), "fw-01", dict(CHANGE)))
        begun = time.monotonic()
        reporter.end(RunOutcome("r", "apply", False, 0.0, 0.0, ()))
        assert time.monotonic() - begun < BUSY_S
        (kept,) = (tmp_path / "spool").iterdir()
        assert len(kept.read_text().splitlines()) == 4  # whose run it is, and its three events


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file, no folder")
    with live(tmp_path) as daemon, daemon.client() as client:
        run = new_run("drift", ["i.yml"])
        reporter = RunReporter(DaemonAddress(daemon.url), tmp_path, run, True)
        reporter.start()
        reporter.end(RunOutcome(run.run_id, "drift", True, 0.0, 0.0, ()))
        assert [row["run_id"] for row in client.get("/runs").json()["runs"]] == [run.run_id]
        assert reporter.trouble is None


def test_an_event_larger_than_a_body(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client, stream(client, "?types=change") as events:
        run = new_run("apply", ["i.yml"])
        reporter = RunReporter(DaemonAddress(daemon.url), tmp_path, run, False)
        reporter.start()
        reporter.event(
            EngineEvent("change", time.time(), "fw-01", {**CHANGE, "after": {"content": "x" * 2_000_000}})
        )
        reporter.end(RunOutcome(run.run_id, "apply", False, 0.0, 0.0, ()))
        event = events.next().event
        assert event.identity == "b"  # type: ignore[union-attr]
        assert "too long" in str(event.after)  # type: ignore[union-attr]


def test_a_run_belongs_to_who_reported_it_first(tmp_path: Path) -> None:
    texts = {name: token(tmp_path, name, "operator") for name in ("ana", "bob")}
    with live(tmp_path) as daemon, daemon.client(texts["ana"]) as ana, daemon.client(texts["bob"]) as bob:
        assert ana.post("/events", json=_body((1, STARTED))).status_code == 200
        refused = bob.post("/events", json=_body((2, FAILED)))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert f"run {RUN} is reported by another" in refused.json()["error"]
        forged = {**CHANGE, "reported_by": "token:bob"}
        assert ana.post("/events", json=_body((2, forged))).status_code == 200
    with live(tmp_path) as daemon, daemon.client(texts["ana"]) as ana, daemon.client(texts["bob"]) as bob:
        assert bob.post("/events", json=_body((3, FAILED))).status_code == 403  # nor after a restart
        assert ana.post("/events", json=_body((3, FAILED), (4, ENDED))).status_code == 200
        with stream(ana, f"?since=0&follow=false&run={RUN}") as events:
            by = {getattr(frame.event, "reported_by", None) for frame in events.rest()}
        assert by == {"token:ana"}
        assert [one["status"] for one in ana.get(f"/runs/{RUN}").json()["targets"]] == ["failed"]


def test_a_run_of_this_machine_is_reported_by_its_users(tmp_path: Path) -> None:
    """Nobody with a token elsewhere speaks for a run that was made here."""
    ana = token(tmp_path, "ana", "operator")
    with live(tmp_path, socket=tmp_path / "d.sock") as daemon, daemon.client(ana) as client:
        run = Run(RUN, "apply", ("i.yml",), "root", "h", os.getpid(), time.time())
        daemon.call(lambda: daemon.services.store.ledger.run_begin(run))
        refused = client.post("/events", json=_body((1, STARTED)))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "was made on the daemon's own machine" in refused.json()["error"]
        transport = httpx.HTTPTransport(uds=str(tmp_path / "d.sock"), verify=False)
        with httpx.Client(transport=transport, base_url="http://fazai") as local:
            assert local.post("/events", json=_body((1, STARTED))).status_code == 200
