"""kill -9 between an approval and its end, wherever it comes: one effect at most, whose outcome is known."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.lab import LabFirewall, LabSettings, LabThread
from tests.campaign import campaign_size
from tests.daemon.live import PATIENCE_S, until
from tests.daemon.loop.scripted import DONE, scripted
from tests.daemon.runs_world import write_config, write_inventory

APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}


@contextlib.contextmanager
def daemon_process(folder: Path, model_url: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`fazai daemon` as its users have it, and a client of its local socket."""
    path = folder / "d.sock"
    environ = {
        **os.environ,
        "FAZAI_STATE_DIR": str(folder / "state"),
        "FAZAI_SECRETS": str(folder / "secrets"),
        "FAZAI_GEMMA_SOCK": str(folder / "no-worker.sock"),
    }
    line = [sys.executable, "-m", "fazai", "daemon", "--config", str(folder / "daemon.yml")]
    line += ["--port", "0", "--socket", str(path), "--log-file", str(folder / "daemon.log")]
    line += ["--fallback-url", model_url]
    process = subprocess.Popen(line, env=environ)
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(base_url="http://fazai", transport=transport, timeout=PATIENCE_S) as client:
        try:
            until(lambda: _listens(path))
            yield process, client
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(path)) == 0


def _propose(client: httpx.Client) -> tuple[str, dict[str, Any]]:
    session = str(client.post("/agent/sessions", json={}).json()["session_id"])
    body = {"session_id": session, "objective": "bring it back"}
    with client.stream("POST", "/agent/generate", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(lines) > 1, lines
    (shown,) = (one for one in (json.loads(line[6:]) for line in lines) if one["type"] == "action")
    return session, shown


def _row(client: httpx.Client, session: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/agent/sessions/{session}").json()["session"]
    return found


def _creations(firewall: LabFirewall) -> int:
    return sum("alias/addItem" in target or "alias/setItem" in target for _, target, _ in firewall.requests)


def _kill_after_approval(folder: Path, firewall: LabFirewall, model_url: str, delay_s: float) -> None:
    before = _creations(firewall)
    with daemon_process(folder, model_url) as (process, client):
        session, shown = _propose(client)
        body = {"session_id": session, "action_id": shown["action_id"], "plan_hash": shown["plan_hash"]}
        assert client.post("/agent/approve", json=body).status_code == 200
        time.sleep(delay_s)  # where it is killed is left to chance, on purpose
        process.send_signal(signal.SIGKILL)
    with daemon_process(folder, model_url) as (_, client):
        if _row(client, session)["status"] == "paused":
            assert client.post("/agent/resume", json={"session_id": session}).status_code == 200
        until(lambda: _row(client, session)["status"] == "ended")
        until(lambda: not _busy(client))
        journal = client.get(f"/agent/sessions/{session}/journal").json()["entries"]
    assert sum(one["entry"] == "began" for one in journal) <= 1
    assert sum(one["entry"] == "observed" and one["action_id"] == shown["action_id"] for one in journal) == 1
    names = [row["name"] for row in firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]]
    assert _creations(firewall) - before == (1 if "blocklist" in names else 0)


def _busy(client: httpx.Client) -> bool:
    (job,) = client.get("/runs/schedule").json()["jobs"]
    return "running" in job or bool(job.get("queued"))


@pytest.mark.slow
def test_a_daemon_that_is_killed_makes_an_effect_once_at_most(tmp_path: Path) -> None:
    """Two hundred kills in full, ten in CI."""
    chance = random.Random(14)
    with LabThread() as lab, scripted(APPLY, DONE) as model:
        for number in range(campaign_size(200)):
            folder = tmp_path / str(number)
            folder.mkdir()
            firewall = lab.start(f"fw-{number}", LabSettings(auth_delay_s=0.0))
            write_inventory(folder, firewall)
            write_config(folder)
            model.answers[:] = [APPLY, DONE]
            _kill_after_approval(folder, firewall, model.url, chance.uniform(0.0, 1.5))
