"""Install over SSH, enrol, hello; a second run that changes nothing; removal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts.conftest import Result
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet, Keeper


@pytest.mark.slow
def test_from_install_to_removal(fleet: Fleet, keeper: Callable[[Path], Keeper]) -> None:
    root = fleet.host()
    done = fleet.fazai("apply")
    assert (done.code, "RESULT 1 changed" in done.out) == (0, True), done.out + done.err
    assert (root / "etc/fazai/agent.yml").stat().st_mode & 0o777 == 0o600
    assert (root / "etc/fazai/agent/key.pem").stat().st_mode & 0o777 == 0o600
    agent = keeper(root)
    until(lambda: agent.status().get("state") == "connected")
    assert fleet.hub.hellos == [("edge-1", "1.0.0")]
    again = fleet.fazai("apply")
    assert (again.code, "RESULT 0 changed" in again.out) == (0, True), again.out
    gone = fleet.fazai("apply", "--yes", state="absent")
    assert gone.code == 0, gone.out + gone.err
    assert agent.process.wait(10) == 0
    assert [str(path) for path in root.rglob("*") if path.is_file()] == []
    again = fleet.fazai("apply", "--yes", state="absent")
    assert "RESULT 0 changed" in again.out


@pytest.mark.slow
def test_both_agents_live_on_one_machine(fleet: Fleet, keeper: Callable[[Path], Keeper]) -> None:
    """Neither's files, state or removal touch the other's."""
    root = fleet.host()
    assert fleet.fazai("apply").code == 0
    agent = keeper(root)
    until(lambda: agent.status().get("state") == "connected")
    mine = contents(root)

    def telemetry(state: str = "present") -> Result:
        fields = (
            {"server": "https://fazai.example", "init": "none"} if state == "present" else {"state": state}
        )
        return fleet.world.fazai("apply", "--yes", resources=[{"host.telemetry_agent": fields}])

    done = telemetry()
    assert done.code == 0, done.out + done.err
    both = fleet.fazai("agents", "status", "--output", "json")
    assert both.code == 0, both.out
    assert telemetry("absent").code == 0
    assert contents(root) == mine
    assert telemetry().code == 0
    assert fleet.fazai("apply", "--yes", state="absent").code == 0
    assert "RESULT 0 changed" in telemetry().out
    left = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    assert left == {"opt", "etc"}
    assert not [path for path in root.rglob("*") if "fazai-agent" in path.name and path.is_file()]


def contents(root: Path) -> dict[str, bytes]:
    """What is in the agents' folders, but for what changes by itself."""
    paths = (path for path in root.rglob("*") if path.is_file() and "log" not in path.parts)
    return {str(path): path.read_bytes() for path in paths}
