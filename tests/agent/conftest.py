"""The agent under test: the real script under the real bash, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.agent.receiver import WAIT_S, Receiver

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "fazai/agent/telemetry.sh"
#: This machine's bash, and those that tools/bashes unpacked (or another folder of NAME/bash): slow tests.
BASHES = {
    "bash": shutil.which("bash") or "/bin/bash",
    **{
        path.parent.name: str(path)
        for path in sorted(Path(os.environ.get("FAZAI_BASHES", ROOT / ".venv/bashes")).glob("*/bash"))
    },
}
#: All that the agent runs. Tests with other tools put a folder of these before PATH.
TOOLS = (
    "awk",
    "curl",
    "mv",
    "rm",
    "mkdir",
    "cat",
    "stat",
    "ln",
    "readlink",
    "wc",
    "gzip",
    "sha256sum",
    "openssl",
)

#: Times in which a test can wait for many rounds.
FAST = {
    "INTERVAL_S": "0.05",
    "BACKOFF_MIN_S": "0.02",
    "BACKOFF_MAX_S": "0.08",
    "STOP_TIMEOUT_S": "5",
    "CHECKS_DIR": "/nonexistent",
    "LOG_FORMAT": "text",
    "UNITS_EVERY_S": "86400",
    "SAMPLE": "cpu,mem,os,uptime",
}


@dataclass(slots=True)
class Agent:
    """One state folder and the processes that were started on it."""

    home: Path
    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    prelude: str = ""
    bash: str = BASHES["bash"]

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def spool(self) -> Path:
        return self.state / "spool"

    def env(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        merged = {"STATE_DIR": str(self.state), **FAST, **self.settings, **(settings or {})}
        named = {f"FAZAI_AGENT_{name}": value for name, value in merged.items()}
        return {"PATH": os.environ["PATH"], **self.environment, **named}

    def command(self, *arguments: str) -> list[str]:
        if self.prelude:
            return [self.bash, "-c", f'{self.prelude}; exec "$@"', "bash", self.bash, str(SCRIPT), *arguments]
        return [self.bash, str(SCRIPT), *arguments]

    def run(
        self, *arguments: str, code: int | None = 0, **settings: str
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            self.command(*arguments), env=self.env(settings), capture_output=True, timeout=WAIT_S
        )
        assert code is None or done.returncode == code, (
            done.returncode,
            done.stderr.decode(errors="replace"),
        )
        return done

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                self.command(), env=self.env(settings), stdout=log, stderr=log, start_new_session=True
            )
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> float:
        """SIGTERM; how long it took to end, in seconds."""
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0, self.log()
        return time.monotonic() - begun

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def status(self) -> dict[str, str]:
        try:
            text = (self.state / "status").read_text()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in text.splitlines())

    def wait_for_log(self, text: str) -> None:
        until = time.monotonic() + WAIT_S
        while text not in self.log():
            assert time.monotonic() < until, f"never logged: {text}\n{self.log()}"
            time.sleep(0.005)  # between two looks; the condition is the log

    def wait_for_status(self, condition: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            status = self.status()
            if status and condition(status):
                return status
            time.sleep(0.005)  # between two looks; the condition is the status
        raise AssertionError(f"never came: {what}\n{self.status()}\n{self.log()}")


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name != "bash" else ()) for name in BASHES]
)
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    found = Agent(tmp_path, {"SERVER": "http://127.0.0.1:9"}, bash=BASHES[request.param])
    yield found
    for process in found.running:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serve() as serving:
        yield serving


@pytest.fixture
def delivering(agent: Agent, receiver: Receiver) -> Agent:
    agent.settings["SERVER"] = receiver.url
    return agent


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: thousands of syncs would wait for a busy disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def tool_folder(
    folder: Path, replaced: Mapping[str, str] | None = None, without: tuple[str, ...] = ()
) -> str:
    """A PATH of nothing but the agent's tools; `replaced` gives shell commands in a tool's place."""
    folder.mkdir()
    for tool in TOOLS:
        real = shutil.which(tool)
        if tool in without or real is None:
            continue
        if replaced and tool in replaced:
            script = folder / tool
            script.write_text(f"#!/bin/sh\n{replaced[tool]}\n")
            script.chmod(0o755)
        else:
            (folder / tool).symlink_to(real)
    return str(folder)
