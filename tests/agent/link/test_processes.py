"""The agent's children: they end with it, and where none can be made that is said."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon, Peer


@pytest.fixture
def connected(agent: Agent, daemon: Daemon) -> Peer:
    """A daemon's end of a connection that has said hello."""
    agent.configure(f"wss://localhost:{daemon.port}", more="reconcile: {mode: yes}\n")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    return peer


def test_an_agent_that_can_start_no_process_says_so_and_goes_on(connected: Peer, agent: Agent) -> None:
    number = agent.process.pid
    before = resource.prlimit(number, resource.RLIMIT_NOFILE)
    resource.prlimit(number, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{number}/fd")), before[1]))
    observe = {"method": "state.observe", "action_id": "o-1", "session": "s", "resources": []}
    for answer in (connected.ask(**observe, timeout=1000), connected.exec("a-1", "/bin/echo", "x")):
        assert answer["code"] == "unavailable"
        assert answer["error"] == "no process could be made for it: Too many open files"
    resource.prlimit(number, resource.RLIMIT_NOFILE, before)
    assert connected.exec("a-2", "/bin/echo", "again")["stdout"] == "again\n"


def test_a_program_ends_with_its_agent_whatever_was_forked_meanwhile(
    agent: Agent, daemon: Daemon, tmp_path: Path, wait_gone: Callable[[int], None]
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more="reconcile: {mode: yes}\n")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    answer = peer.ask(method="state.observe", action_id="o-1", session="s", timeout=30_000, resources=[])
    worker = int(answer["observation"]["pid"])
    note = tmp_path / "number"
    peer.send(
        {
            "method": "command.exec",
            "action_id": "a-1",
            "command": "/bin/sh",
            "args": ["-c", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 600"],
            "timeout": 600_000,
        }
    )
    while not note.exists():
        time.sleep(0.01)
    # a later child, as one of telemetry or of a name's look-up is, must not take the signal from the others
    os.kill(agent.process.pid, signal.SIGHUP)
    agent.configure(f"wss://localhost:{daemon.port}", more="telemetry: {interval: 60}\n")
    os.kill(agent.process.pid, signal.SIGHUP)
    agent.wait_said("the configuration was read again", times=2)
    agent.kill()
    wait_gone(int(note.read_text()))
    wait_gone(worker)


@pytest.fixture
def wait_gone() -> Callable[[int], None]:
    """Waits until a process is no more."""

    def wait(number: int) -> None:
        limit = time.monotonic() + 30
        while _state(number) not in ("", "Z"):
            assert time.monotonic() < limit, f"process {number} goes on"
            time.sleep(0.05)

    return wait


def _state(number: int) -> str:
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(") ")[2][:1]
