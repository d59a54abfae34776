"""The command line on hosts with `provider: agent`: plans, outcomes, journal and exit codes as over SSH."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Result, World
from tests.hosts.remote.relay import RelayServer
from tests.hosts.test_apply import RESOURCES


@pytest.fixture
def through_agent(world: World, relay: RelayServer) -> Path:
    """The folder that the agent of the host `web` has for /."""
    world.hosts["web"] = {"provider": "agent", "agent_id": "web"}
    return world.folder / "root"


def methods(relay: RelayServer) -> list[str]:
    return [frame["message"]["method"] for frame in relay.frames]


def test_apply_twice_changes_once_in_few_messages(
    world: World, relay: RelayServer, through_agent: Path
) -> None:
    planned = world.fazai("plan", resources=RESOURCES)
    assert (planned.code, "4 to change" in planned.out) == (2, True), planned
    assert list(through_agent.iterdir()) == []
    first = world.fazai("apply", resources=RESOURCES)
    assert (first.code, "RESULT 4 changed, 0 unchanged" in first.out) == (0, True), first
    assert (through_agent / "etc/app/a.conf").read_text() == "name=web\n"
    assert (through_agent / "etc/app/current").readlink().name == "a.conf"
    relay.frames.clear()
    before = relay.connections
    second = world.fazai("apply", resources=RESOURCES)
    assert (second.code, "RESULT 0 changed, 4 unchanged" in second.out) == (0, True), second
    assert methods(relay) == ["state.observe"]
    assert relay.connections - before == 1
    (through_agent / "etc/app/a.conf").write_text("name=other\n")
    drift = world.fazai("drift", resources=RESOURCES)
    assert (drift.code, "1 to change, 3 unchanged" in drift.out) == (2, True), drift
    assert "other" not in drift.out  # a file that others may not read is not shown


def plain(text: str) -> Any:
    """A document without what differs from run to run, and between two hosts: where they are declared."""
    names = "run_id|action_id|started|duration_s|observed_at|created|ended|mark"
    text = re.sub(rf'"({names})": ("[^"]*"|[\d.]+)', "", text)
    text = re.sub(r"inventory\.yml:\d+:\d+", "inventory.yml", text)
    return re.sub(r"\b(web|box|agent|local|ssh)\b|[0-9A-HJKMNP-TV-Z]{26}|\d+\.\d+ ?s|\d+ ms", "", text)


def through_shell(world: World, provider: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The same folder, reached by a shell of this machine or over SSH."""
    if provider == "ssh":
        world.ssh(request.getfixturevalue("server"), "root")
        return world.hosts.pop("root")
    return {"provider": "local", "root": str(world.folder / "root")}


def both(
    world: World, host: dict[str, Any], command: str, *words: str, resources: Sequence[Any]
) -> list[Result]:
    """The same command through a shell and through the agent, each on the same folder as it was."""
    root, kept = world.folder / "root", world.folder / "kept"
    shutil.copytree(root, kept, symlinks=True)
    found = []
    for each in (host, {"provider": "agent", "agent_id": "web"}):
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(kept, root, symlinks=True, dirs_exist_ok=True)
        world.hosts = {"web": each}
        found.append(world.fazai(command, *words, resources=resources))
    shutil.rmtree(kept)
    return found


CASES: dict[str, list[dict[str, Any]]] = {
    "as it should be": RESOURCES,
    "a folder in the way": [{"host.file": {"path": "/folder", "content": "x"}}, *RESOURCES],
    "undone when the last fails": [
        {"host.file": {"path": "/first", "content": "new\n"}},
        {"host.line": {"path": "/there", "line": "more"}},
        {"host.file": {"path": "/second", "content": "x", "validate": "false %s"}},
    ],
    "depends on what comes before": [
        {"host.link": {"path": "/way", "target": "folder"}},
        {"host.file": {"path": "/way/a", "content": "through the link\n"}},
        {"host.line": {"path": "/folder/a", "line": "and by its own name"}},
    ],
    "a command, and a handler that fails": [
        {
            "host.command": {
                "shell": "echo said; echo also >&2; : >made",
                "creates": "/made",
                "chdir": "/folder",
            },
            "notify": "after",
        },
        {"host.file": {"path": "/new", "content": "x"}, "notify": ["later", "after"]},
        {"name": "after", "host.command": {"argv": ["sh", "-c", "echo handled"]}, "listen": "after"},
        {"host.command": {"argv": ["sh", "-c", "echo it fails; exit 3"]}, "listen": "later"},
    ],
    "no machine": [{"host.service": {"name": "sshd", "state": "started"}}],
}


@pytest.mark.parametrize("provider", ["local", "ssh"])
@pytest.mark.parametrize("resources", CASES.values(), ids=CASES)
def test_plans_and_outcomes_are_those_of_a_shell(
    resources: list[dict[str, Any]],
    provider: str,
    world: World,
    relay: RelayServer,
    through_agent: Path,
    request: pytest.FixtureRequest,
) -> None:
    (through_agent / "folder").mkdir()
    (through_agent / "there").write_text("old\n")
    host = through_shell(world, provider, request)
    saved = []  # hashes of the observed, and of the changes
    for name, each in (("shell", host), ("agent", {"provider": "agent", "agent_id": "web"})):
        world.hosts = {"web": each}
        plan = world.folder / f"{name}.json"
        world.fazai("plan", "-o", plan, resources=resources)
        found = json.loads(plan.read_text())["targets"]["web"] if plan.exists() else {}
        found.pop("wanted", None)  # in which the provider's name stands
        saved.append(found)
    assert saved[1] == saved[0]
    for command in ("plan", "apply"):
        words = ("--output", "json", "--diff")
        shell, agent = both(world, host, command, *words, resources=resources)
        assert agent.code == shell.code
        assert plain(agent.out) == plain(shell.out)
        assert plain(agent.err) == plain(shell.err)
