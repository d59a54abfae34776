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
    agent.wait_said("the configuration was read again")
    agent.configure(f"wss://localhost:{daemon.port}", more="telemetry: {interval: 60}\n")
    os.kill(agent.process.pid, signal.SIGHUP)
    agent.wait_said("the configuration was read again", times=2)
    agent.kill()
    wait_gone(int(note.read_text()))
    wait_gone(worker)


PROGRAMS = "programs: [{{path: /bin/sh, args: ['-c', {{pattern: '{}'}}]}}]\n"


def test_a_runner_that_dies_is_told_and_made_again(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more=PROGRAMS.format(".*"))
    agent.start()
    peer = daemon.accept()
    peer.hello()
    agent.wait_said("connected to")
    (first,) = _children(agent.process.pid)  # it is there before the first program
    assert peer.exec("a-1", "/bin/sh", "-c", "echo $PPID")["stdout"] == f"{first}\n"
    answer = peer.exec("a-2", "/bin/sh", "-c", "kill -9 $PPID; exec sleep 1000")
    assert (answer["code"], answer["error"]) == (
        "interrupted",
        "its process was ended by signal 9; what became of it is not known",
    )
    assert peer.exec("a-2", "/bin/sh", "-c", "kill -9 $PPID; exec sleep 1000") == answer
    second = peer.exec("a-3", "/bin/sh", "-c", "echo $PPID")["stdout"]
    assert int(second) != first
    assert peer.exec("a-4", "/bin/sh", "-c", "echo $PPID")["stdout"] == second


def test_programs_are_run_by_the_policy_that_was_read_last(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more=PROGRAMS.format("echo one"))
    agent.start()
    peer = daemon.accept()
    peer.hello()
    assert peer.exec("a-1", "/bin/sh", "-c", "echo one")["stdout"] == "one\n"
    agent.configure(f"wss://localhost:{daemon.port}", more=PROGRAMS.format("echo two"))
    os.kill(agent.process.pid, signal.SIGHUP)
    agent.wait_said("the configuration was read again")
    assert peer.exec("a-2", "/bin/sh", "-c", "echo one")["code"] == "not_allowed"
    assert peer.exec("a-3", "/bin/sh", "-c", "echo two")["stdout"] == "two\n"


def _children(number: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


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
