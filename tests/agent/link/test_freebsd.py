"""The agent where Python says that the system is FreeBSD, and nothing of Linux is there (as_freebsd.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.link.conftest import ROOT, Agent
from tests.agent.link.daemon import WAIT_S, Daemon, Peer


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def wait_until(check: object) -> None:
    limit = time.monotonic() + WAIT_S
    while not check():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def started(agent: Agent, daemon: Daemon, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Peer]]:
    (tmp_path / "files").mkdir()
    more = (
        f"files: [{{root: {tmp_path}/files, write: true}}]\n"
        "programs:\n"
        "  - {path: /bin/echo, args: [{pattern: '[a-z ]*'}]}\n"
        "  - {path: /bin/sh, args: ['-c', {pattern: '[^\\n]*'}], limits: {memory: 1073741824}}\n"
        "telemetry: {interval: 60}\n"
    )
    agent.configure(f"wss://localhost:{daemon.port}", more=more)
    agent.config.chmod(0o600)
    with agent.log.open("ab") as log:
        command = [sys.executable, "-m", "tests.agent.as_freebsd", str(agent.config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, cwd=ROOT)
    try:
        peer = daemon.accept()
        assert peer.hello()["agent_id"] == "edge-7"
        yield process, peer
    finally:
        process.kill()
        process.wait(WAIT_S)


def test_an_agent_serves_on_freebsd(
    started: tuple[subprocess.Popen[bytes], Peer], agent: Agent, tmp_path: Path
) -> None:
    process, peer = started
    answer = peer.exec("a-1", "/bin/echo", "hello there")
    assert (answer["ok"], answer.get("stdout")) == (True, "hello there\n"), answer
    path = tmp_path / "files/motd"
    path.write_text("Hello.\n")
    diff = peer.ask(method="file.diff", action_id="d-1", path=str(path), want="Welcome.\n")
    assert diff["differs"] is True, diff
    applied = peer.ask(method="file.apply", action_id="p-1", path=str(path), patch=diff["patch"])
    assert applied == {"ok": True, "action_id": "p-1", "applied": True}
    assert path.read_text() == "Welcome.\n"
    path.with_name("link").symlink_to("motd")
    refused = peer.ask(method="file.diff", action_id="d-2", path=f"{path.parent}/link", want="")
    assert (refused["code"], refused["error"]) == (
        "not_allowed",
        f"{path.parent}/link is a link (name the file that it leads to)",
    )
    agent.wait_said("telemetry is taken on Linux alone: the sampler reads its /proc")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert "Traceback" not in agent.said()


def test_all_that_a_program_started_ends_at_its_timeout(
    started: tuple[subprocess.Popen[bytes], Peer], tmp_path: Path
) -> None:
    _, peer = started
    script = f"(setsid sh -c 'trap \"\" TERM; echo $$ >{tmp_path}/own; sleep 600' & ) ; sleep 600"
    answer = peer.exec("a-1", "/bin/sh", "-c", script, timeout=1500)
    assert answer["code"] == "timeout", answer
    assert is_gone(int((tmp_path / "own").read_text()))


def test_a_child_that_is_killed_does_not_take_the_agent_with_it(
    started: tuple[subprocess.Popen[bytes], Peer], tmp_path: Path
) -> None:
    process, peer = started
    request = {"method": "command.exec", "command": "/bin/sh", "timeout": 60_000}
    peer.send({**request, "action_id": "a-1", "args": ["-c", f"echo x >{tmp_path}/begun; sleep 600"]})
    wait_until((tmp_path / "begun").exists)
    for child in children_of(process.pid):
        os.kill(child, signal.SIGKILL)
    assert peer.receive()["code"] in ("internal", "interrupted")
    assert peer.exec("a-2", "/bin/echo", "x")["ok"] is True


def test_what_runs_ends_with_the_agent(started: tuple[subprocess.Popen[bytes], Peer], tmp_path: Path) -> None:
    """By SIGIO, which is all that a pipe can send there."""
    process, peer = started
    request = {"method": "command.exec", "command": "/bin/sh", "timeout": 60_000}
    peer.send(
        {
            **request,
            "action_id": "a-1",
            "args": ["-c", f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/own; sleep 600"],
        }
    )
    wait_until((tmp_path / "own").exists)
    program = int((tmp_path / "own").read_text())
    children = children_of(process.pid)
    process.kill()
    process.wait(WAIT_S)
    wait_until(lambda: all(map(is_gone, [program, *children])))
