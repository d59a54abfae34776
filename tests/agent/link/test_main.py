"""The agent as it is run: with its command line, policy, journal and handlers, by this Python and others."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon, Peer

ROOT = Path(__file__).parents[3]
OLD_PYTHON = ROOT / ".venv/python39/python3"
SYSTEM_PYTHON = Path("/usr/bin/python3")
#: What an idle agent that is connected may hold for itself alone.
LIMIT_KB = 12 * 1024

POLICY = """
programs:
  - path: /bin/echo
    args: [{pattern: '[a-z ]*', rest: true, optional: true}]
  - path: /bin/sleep
    args: [{pattern: '[0-9]+'}]
files:
  - root: ROOT/files
    write: true
"""


def _start(agent: Agent, python: str, daemon: Daemon) -> Peer:
    (agent.folder / "files").mkdir(exist_ok=True)
    agent.configure(f"wss://localhost:{daemon.port}", more=POLICY.replace("ROOT", str(agent.folder)))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fazai.agent.main import main; sys.exit(main())"
    )
    with agent.log.open("ab") as log:
        agent._process = subprocess.Popen(
            [python, "-I", "-c", code, "run", "--config", str(agent.config)],
            stdin=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        )
    peer = daemon.accept()
    peer.hello()
    return peer


@pytest.mark.parametrize(
    "python",
    [
        sys.executable,
        pytest.param(
            str(OLD_PYTHON),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not OLD_PYTHON.exists(), reason="tools/python39 brings the oldest Python"),
            ],
        ),
    ],
    ids=["this", "3.9"],
)
def test_everything_works_together(agent: Agent, daemon: Daemon, python: str) -> None:
    peer = _start(agent, python, daemon)
    answer = peer.exec("a-1", "/bin/echo", "hello there")
    assert (answer["exit_code"], answer["stdout"]) == (0, "hello there\n")
    refused = peer.exec("a-2", "/bin/echo", "HELLO")
    assert refused["code"] == "not_allowed"
    assert peer.exec("a-2", "/bin/echo", "HELLO") == refused

    path = agent.folder / "files/motd"
    path.write_text("Hello.\n")
    diff = peer.ask(method="file.diff", action_id="d-1", path=str(path), want="Welcome.\n")
    assert diff["ok"], diff
    assert "-Hello.\n+Welcome.\n" in diff["patch"]
    assert diff["base_sha256"] == hashlib.sha256(b"Hello.\n").hexdigest()
    applied = peer.ask(method="file.apply", action_id="p-1", path=str(path), patch=diff["patch"])
    assert applied == {"ok": True, "action_id": "p-1", "applied": True}
    assert path.read_text() == "Welcome.\n"

    sleep = {"method": "command.exec", "command": "/bin/sleep", "args": ["60"]}
    peer.send({**sleep, "action_id": "a-3", "timeout": 90_000})
    agent.wait_said("command.exec began", times=3)
    peer.send({"method": "cancel", "action_id": "a-3"})
    assert peer.receive()["code"] == "cancelled"
    assert peer.ask(**sleep, action_id="a-4", timeout=100)["code"] == "timeout"
    assert agent.stop() == 0
    assert peer.wait_closed() == (1001, "the agent ends")


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel tells no such numbers")
@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="the goal is for the system's Python")
def test_an_idle_agent_is_small(agent: Agent, daemon: Daemon) -> None:
    peer = _start(agent, str(SYSTEM_PYTHON), daemon)  # the first one compiles what it imports
    peer.ask(method="cancel", action_id="none")
    agent.kill()
    peer = _start(agent, str(SYSTEM_PYTHON), daemon)
    for number in range(20):
        peer.exec(f"a-{number}", "/bin/echo", "x")
    rollup = Path(f"/proc/{agent.process.pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty:"))
    assert own <= LIMIT_KB, rollup


def test_two_agents_do_not_share_a_state_folder(agent: Agent, daemon: Daemon) -> None:
    _start(agent, sys.executable, daemon)
    command = [sys.executable, "-m", "fazai", "agent", "run", "--config", str(agent.config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 5
    assert "journal" in done.stderr


def test_a_wrong_configuration_is_told_and_nothing_begins(agent: Agent, tmp_path: Path) -> None:
    agent.config.write_text("agent_id: edge 7\ncolour: blue\n")
    command = [sys.executable, "-m", "fazai.agent.main", "run", "--config", str(agent.config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 3
    assert 'has no setting "colour"' in done.stderr
    assert done.stderr.count("error:") > 1  # all of them at once


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version"], 0, "0."),
        (["version"], 0, "0."),
        ([], 2, "the following arguments are required: COMMAND"),
        (["fly"], 2, "invalid choice: 'fly'"),
        (["run", "--config", "/no/such/agent.yml"], 3, "/no/such"),
        (["check", "--config", "/no/such/agent.yml"], 3, "/no/such"),
    ],
)
def test_the_command_line(arguments: list[str], code: int, text: str) -> None:
    command = [sys.executable, "-m", "fazai.agent.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == code
    assert text in done.stdout + done.stderr


def test_signals_while_there_is_no_daemon(agent: Agent, start_daemon: Callable[..., Daemon]) -> None:
    agent.configure("wss://127.0.0.1:1")
    agent.start()
    agent.wait_said("is not reached")
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_said("the configuration was read again")
    begun = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - begun < 60
    assert "the agent ended" in agent.said()


def test_a_configuration_that_is_read_again_is_no_trouble(agent: Agent, daemon: Daemon) -> None:
    """It connects anew, at once, and says so once."""
    where = f"wss://localhost:{daemon.port}"
    agent.configure(where)
    agent.start()
    daemon.accept().hello()
    agent.wait_said("connected to")
    agent.configure(where, more="name: Rack 7\n")
    agent.process.send_signal(signal.SIGHUP)
    assert daemon.accept().hello()["name"] == "Rack 7"
    said = agent.wait_said("connected to", times=2)
    assert said.count("the configuration was read again") == 1
    assert "warning" not in said
    agent.configure("wss://127.0.0.1:1")  # and one that waits for its next try waits no longer
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_said("is not reached")
    agent.configure(where)
    agent.process.send_signal(signal.SIGHUP)
    daemon.accept().hello()


def test_reading_is_announced_where_a_root_allows_it(agent: Agent, daemon: Daemon) -> None:
    peer = _start(agent, sys.executable, daemon)
    (agent.folder / "files/log").write_text("x\n")
    asked = {"method": "file.read", "path": str(agent.folder / "files/log")}
    refused = peer.ask(action_id="f-1", **asked)
    said = "this agent does not serve file.read (`read: true` of `files` in agent.yml)"
    assert (refused["code"], refused["error"]) == ("not_allowed", said)
    with agent.config.open("a") as file:
        file.write(f"  - root: {agent.folder}/other\n    read: true\n")
    agent.process.send_signal(signal.SIGHUP)
    peer = daemon.accept()
    assert "file.read" in peer.hello()["capabilities"]
    closed = peer.ask(action_id="f-2", **asked)
    assert (closed["code"], "are not handed out" in closed["error"]) == ("not_allowed", True)
    agent.config.write_text(agent.config.read_text().replace("write: true", "read: true"))
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_said("the configuration was read again", times=2)
    answer = peer.ask(action_id="f-3", **asked)
    assert (answer["ok"], answer["content_base64"], answer["size"]) == (True, "eAo=", 2)
