"""An update is proven by an accepted hello; otherwise what was there before comes back by itself (A17)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fazai.store.factory import open_certificates
from tests.hosts.conftest import Result
from tests.supervisor.conftest import until
from tests.supervisor.remote.conftest import Fleet, Keeper, kill_trees, process_parents
from tests.supervisor.remote.hub import build_agent

PROGRAM = "opt/fazai/agent/fazai-agent.pyz"


@pytest.fixture
def agent(fleet: Fleet, keeper: Callable[[Path], Keeper]) -> Keeper:
    """Version 1.0.0, connected."""
    root = fleet.host()
    done = fleet.fazai("apply")
    assert done.code == 0, done.out + done.err
    found = keeper(root)
    until(lambda: fleet.hub.hellos)
    until(lambda: found.status().get("state") == "connected")
    return found


def runs(fleet: Fleet, agent: Keeper, version: str) -> bool:
    """Whether this version is connected, in the registry's and in its own words."""
    row = fleet.hub.rows["edge-1"]
    status = agent.status()
    connected = (row["state"], status.get("state")) == ("observation", "connected")
    return connected and row["version"] == status["version"] == version


def test_an_update_is_proven_by_the_hello_of_the_new_version(fleet: Fleet, agent: Keeper) -> None:
    fleet.version("1.1.0")
    done = fleet.fazai("apply", "--output", "json")
    assert done.code == 0, done.out + done.err
    (target,) = done.document["targets"]
    before, after = target["changes"][0]["before"], target["changes"][0]["after"]
    assert (before["version"], after["version"]) == ("1.0.0", "1.1.0")
    assert len(after["sha256"]) == 64
    assert fleet.hub.hellos == [("edge-1", "1.0.0"), ("edge-1", "1.1.0")]
    assert runs(fleet, agent, "1.1.0")
    assert not (agent.root / "var/lib/fazai-remote/trial").exists()
    assert "RESULT 0 changed" in fleet.fazai("apply").out


@pytest.mark.slow
@pytest.mark.in_turn("build")
@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("refused", "was not accepted in time: version 1.1.0 is not wanted here"),
        ("ends", "ended with code 1"),
        ("hangs", "was not accepted in time"),
    ],
)
def test_a_build_that_is_not_accepted_gives_way_to_the_one_before(
    build: str, said: str, fleet: Fleet, agent: Keeper
) -> None:
    old = (agent.root / PROGRAM).read_bytes()
    fleet.hub.refuses = {"1.1.0"}
    fleet.version("1.1.0", "good" if build == "refused" else build)
    done = fleet.fazai("apply")
    assert done.code == 1, done.out
    assert said in done.out
    assert "the new agent did not come up" in done.out
    assert "nothing started it again" not in done.out
    assert "what was there before is put back" in done.out
    until(lambda: runs(fleet, agent, "1.0.0"))
    assert (agent.root / PROGRAM).read_bytes() == old
    assert list(agent.root.rglob(".fazai-*")) == []
    fleet.version("1.0.0")
    assert "RESULT 0 changed" in fleet.fazai("apply").out  # nothing is left of it
    fleet.hub.refuses = set()
    fleet.version("1.1.0")
    assert fleet.fazai("apply").code == 0
    assert runs(fleet, agent, "1.1.0")


@pytest.mark.slow
def test_a_build_that_refuses_the_policy_is_not_even_started(fleet: Fleet, agent: Keeper) -> None:
    pid = agent.status()["pid"]
    fleet.version("1.1.0", "picky")
    done = fleet.fazai("apply")
    assert done.code == 1
    assert "the agent refuses its policy, what was there stays:" in done.out
    assert "agent.yml:9: it is not understood" in done.out
    assert agent.status()["pid"] == pid
    assert list(agent.root.rglob(".fazai-*")) == []


@pytest.mark.slow
@pytest.mark.in_turn("build")
@pytest.mark.parametrize("build", ["refused", "hangs"])
def test_the_old_one_returns_without_the_controller(build: str, fleet: Fleet, agent: Keeper) -> None:
    """The controller and all of its session are gone with SIGKILL as soon as the trial has begun."""
    fleet.hub.refuses = {"1.1.0"}
    fleet.version("1.1.0", "good" if build == "refused" else build)
    mark = agent.root / "var/lib/fazai-remote/trial"
    path = fleet.inventory()
    command = [sys.executable, "-m", "fazai", "apply", str(path)]
    before = starter(agent)
    controller = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)
    try:
        until(lambda: mark.exists() and starter(agent) != before)
        fleet.kill_sessions()
    finally:
        controller.kill()
        controller.communicate()
    until(lambda: runs(fleet, agent, "1.0.0") and mark.read_text().startswith("failed"))
    assert ("edge-1", "1.1.0") not in fleet.hub.hellos
    drift = fleet.fazai("drift")
    assert drift.code == 2
    assert "1.0.0, as it " in drift.out, drift.out
    fleet.version("1.2.0")
    done = fleet.fazai("apply")
    assert done.code == 0, done.out + done.err
    assert runs(fleet, agent, "1.2.0")
    assert "RESULT 0 changed" in fleet.fazai("apply").out


def starter(agent: Keeper) -> int:
    """The number of the process that was started last."""
    return int((agent.root / "var/lib/fazai-remote/pid").read_text().removeprefix("pid="))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.1.0", "1.0.0"])
def test_an_update_that_was_placed_and_not_started_is_drift(
    version: str, fleet: Fleet, agent: Keeper
) -> None:
    """The installation was killed before it started what it had placed; the old program still runs."""
    fleet.version(version, "good " if version == "1.0.0" else "good")  # the same version, in another file
    for name in (PROGRAM, "etc/fazai/agent.yml"):
        path = agent.root / name
        path.with_name(f"{path.name}.old").write_bytes(path.read_bytes())
    (agent.root / "var/lib/fazai-remote/trial").write_text("open 3\n")
    fresh = agent.root / f"{PROGRAM}.new"
    fresh.write_bytes((fleet.world.folder / "agent.pyz").read_bytes())
    fresh.chmod(0o755)
    fresh.rename(agent.root / PROGRAM)
    change = fleet.fazai("drift", "--output", "json").document["targets"][0]["changes"][0]
    assert change["before"]["installation"] == "cut"
    assert change["before"].get("version", "1.0.0") == "1.0.0"
    done = fleet.fazai("apply")
    assert done.code == 0, done.out
    assert len(fleet.hub.hellos) == 2
    assert runs(fleet, agent, version)
    assert "RESULT 0 changed" in fleet.fazai("apply").out


def guards(agent: Keeper) -> bool:
    """Whether the process that was started last runs the agent as its child."""
    return dict(process_parents()).get(int(agent.status()["pid"])) == starter(agent)


def kill_guard(agent: Keeper) -> None:
    """Kill what was started last, with all below it, and wait until it is started anew."""
    before = starter(agent)
    kill_trees({before})
    until(lambda: starter(agent) != before)


def tell_to_end(agent: Keeper) -> None:
    """Tell what was started last to end, and wait until it is started anew."""
    before = starter(agent)
    os.kill(before, signal.SIGTERM)
    until(lambda: starter(agent) != before)


@pytest.mark.slow
def test_a_guard_that_is_killed_goes_on_where_it_was(fleet: Fleet, agent: Keeper) -> None:
    """As when the machine loses its power in the middle of the trial: the mark is on its disk."""
    fleet.hub.refuses = {"1.1.0"}
    (agent.root / f"{PROGRAM}.old").write_bytes((agent.root / PROGRAM).read_bytes())
    policy = agent.root / "etc/fazai/agent.yml"
    policy.with_name("agent.yml.old").write_bytes(policy.read_bytes())
    (agent.root / PROGRAM).write_bytes(build_agent("1.1.0"))
    mark = agent.root / "var/lib/fazai-remote/trial"
    mark.write_text("open 200\n")
    os.kill(int(agent.status()["pid"]), signal.SIGKILL)
    for _ in range(2):  # the power goes; told to end it does, and judges nothing
        until(lambda: guards(agent) and agent.status()["version"] == "1.1.0")
        kill_guard(agent)
        until(lambda: guards(agent))
        assert mark.read_text() == "open 200\n"
        tell_to_end(agent)
        assert mark.read_text() == "open 200\n"
    until(lambda: guards(agent))  # it has read the mark
    mark.write_text("open 2\n")
    os.kill(starter(agent), signal.SIGTERM)
    until(lambda: runs(fleet, agent, "1.0.0"))
    assert mark.read_text().startswith("failed: it was not accepted in time: version 1.1.0")


def with_a_late_failure(fleet: Fleet) -> Result:
    """A run whose next step fails, so that it is taken back."""
    late = {"host.command": {"argv": ["false"], "creates": "/nothing"}}
    return fleet.world.fazai("apply", resources=[{"host.agent": fleet.fields}, late])


@pytest.mark.slow
def test_an_update_is_taken_back_with_the_run(fleet: Fleet, agent: Keeper) -> None:
    old = (agent.root / PROGRAM).read_bytes()
    fleet.version("1.1.0")
    failed = with_a_late_failure(fleet)
    assert (failed.code, "1 undone" in failed.out) == (1, True), failed.out
    assert ("edge-1", "1.1.0") in fleet.hub.hellos
    until(lambda: runs(fleet, agent, "1.0.0"))
    assert (agent.root / PROGRAM).read_bytes() == old
    fleet.version("1.0.0")
    assert "RESULT 0 changed" in fleet.fazai("apply").out


@pytest.mark.slow
def test_a_first_install_is_taken_back_with_the_run(fleet: Fleet, tmp_path: Path) -> None:
    root = fleet.host()
    failed = with_a_late_failure(fleet)
    assert (failed.code, "1 undone" in failed.out) == (1, True), failed.out
    assert [str(path) for path in root.rglob("*") if path.is_file()] == []
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        assert [one.name for one in store.certificates() if one.revoked is None] == []


@pytest.mark.slow
def test_an_update_that_the_daemon_was_not_asked_about_is_no_success(
    fleet: Fleet, agent: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.version("1.1.0")
    monkeypatch.setenv("FAZAI_URL", "http://127.0.0.1:1")
    done = fleet.fazai("apply")
    assert done.code == 1, done.out
    assert "the daemon cannot be asked whether it is connected: the daemon does not answer" in done.out
    monkeypatch.setenv("FAZAI_URL", fleet.hub.url)
    assert runs(fleet, agent, "1.1.0")  # it was let in, and stays
    assert "RESULT 0 changed" in fleet.fazai("apply").out


@pytest.mark.slow
def test_an_agent_that_nobody_starts_again_is_told(fleet: Fleet, agent: Keeper) -> None:
    agent.process.kill()  # the keeper alone: the agent goes on
    agent.process.wait()
    fleet.version("1.1.0")
    done = fleet.fazai("apply")
    assert done.code == 1, done.out
    assert "nothing started it again after it was ended" in done.out
    assert "the new agent did not come up" in done.out
