"""`fazai agents` on remote agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import START, Fleet, Keeper


@pytest.mark.slow
def connected(fleet: Fleet, names: list[str], keeper: Callable[[Path], Keeper]) -> dict[str, Keeper]:
    """These hosts, with version 1.0.0 of the agent connected."""
    roots = {name: fleet.host(name) for name in names}
    done = fleet.fazai("apply")
    assert done.code == 0, done.out + done.err
    found = {name: keeper(root) for name, root in roots.items()}
    until(lambda: all(one.status().get("state") == "connected" for one in found.values()))
    return found


@pytest.mark.slow
def test_status_restart_logs_remove(fleet: Fleet, keeper: Callable[[Path], Keeper]) -> None:
    root = fleet.host()
    missing = fleet.fazai("agents", "status")
    assert (missing.code, "not installed" in missing.out) == (2, True), missing.out
    refused = fleet.fazai("agents", "restart")
    assert refused.code == 1
    assert "edge-1: no remote agent is installed; install it with: fazai apply" in refused.err
    agent = connected(fleet, ["edge-1"], keeper)["edge-1"]

    shown = fleet.fazai("agents", "status", "--output", "json")
    assert shown.code == 0, shown.out
    row = json.loads(shown.out)["edge-1"]["remote"]
    assert row["certificate_days"] in (29, 30)
    wanted = {"well": True, "installed": True, "version": "1.0.0", "running": True, "connected": True}
    assert {name: row[name] for name in wanted} == wanted
    assert (row["state"], row["latency_ms"], row["trouble"]) == ("observation", 1.5, None)
    text = fleet.fazai("agents", "status").out
    assert text.splitlines()[0].split()[:3] == ["remote", "agent", "of"]
    assert text.splitlines()[1].split()[:6] == ["edge-1", "1.0.0", "yes", "observation", "1.5", "ms"]

    before = agent.status()["pid"]
    assert fleet.fazai("agents", "restart").code == 0
    until(lambda: agent.status().get("state") == "connected" and agent.status()["pid"] != before)
    log = fleet.fazai("agents", "logs", "-n", "1")
    assert (log.code, log.out) == (0, "edge-1  small agent 1.0.0 starts\n")

    asked = fleet.fazai("agents", "remove")
    assert asked.code == 3, asked.out + asked.err  # nobody is there who could say yes
    assert agent.status()["state"] == "connected"
    gone = fleet.fazai("agents", "remove", "--yes")
    assert gone.code == 0, gone.out + gone.err
    assert [str(path) for path in root.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_an_update_stops_at_the_first_wave_that_does_not_come_back(
    fleet: Fleet, keeper: Callable[[Path], Keeper]
) -> None:
    agents = connected(fleet, ["edge-1", "edge-2", "edge-3"], keeper)
    fleet.hub.refuses = {"1.1.0"}
    fleet.version("1.1.0")
    stopped = fleet.fazai("agents", "update", "--waves", "1,2")
    assert stopped.code == 1, stopped.out
    assert "version 1.1.0 is not wanted here" in stopped.out
    assert stopped.out.count("skipped") >= 2
    until(lambda: agents["edge-1"].status().get("state") == "connected")
    assert {one.status()["version"] for one in agents.values()} == {"1.0.0"}
    fleet.hub.refuses = set()
    done = fleet.fazai("agents", "update", "--waves", "1,2")
    assert done.code == 0, done.out + done.err
    assert {row["version"] for row in fleet.hub.rows.values()} == {"1.1.0"}
    again = fleet.fazai("agents", "update", "--waves", "1,2")
    assert (again.code, "RESULT 0 changed, 3 unchanged" in again.out) == (0, True), again.out
    wrong = fleet.fazai("agents", "update", "--waves", "0")
    assert (wrong.code, "is no list of sizes" in wrong.err) == (3, True)


@pytest.mark.slow
def test_an_agent_that_is_started_by_another_path_is_known_to_run(
    fleet: Fleet, keeper: Callable[..., Keeper]
) -> None:
    root = fleet.host()
    assert fleet.fazai("apply").code == 0
    agent = keeper(root, f"./{START}")
    until(lambda: agent.status().get("state") == "connected")
    fleet.version("1.1.0")
    done = fleet.fazai("apply")
    assert done.code == 0, done.out + done.err
    shown = fleet.fazai(
        "agents", "status", "--output", "json"
    )  # the process is the one that guarded the update
    row = json.loads(shown.out)["edge-1"]["remote"]
    assert (shown.code, row["version"], row["running"]) == (0, "1.1.0", True), row
