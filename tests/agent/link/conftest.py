"""An agent as a process of its own, with certificates and a daemon that the test speaks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.link.authority import Authority, Pair
from tests.agent.link.daemon import WAIT_S, Daemon

ROOT = Path(__file__).parents[3]


class Agent:
    """One agent's folder, and its process where it runs."""

    def __init__(self, folder: Path, authority: Authority, name: str = "edge-7") -> None:
        self.folder = folder
        self.authority = authority
        self.name = name
        self.pair: Pair = authority.agent(name)
        self.config = folder / "agent.yml"
        self.state = folder / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, *daemons: str, more: str = "") -> None:
        """Write agent.yml."""
        self.config.write_text(
            f"agent_id: {self.name}\ndaemon: [{', '.join(daemons)}]\nca: {self.authority.file}\n"
            f"certificate: {self.pair.certificate}\nkey: {self.pair.key}\nstate: {self.state}\n{more}"
        )

    def start(self, *, fault: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start the process; its log goes on in the same file."""
        command = [sys.executable, "-m", "tests.agent.link.small_agent", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command + ([fault] if fault else []),
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **environment},
            )
        return self._process

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def said(self) -> str:
        """Return the log."""
        return self.log.read_text()

    def wait_said(self, text: str, *, times: int = 1) -> str:
        """Wait until the log holds a text; returns the log."""
        limit = time.monotonic() + WAIT_S
        while self.said().count(text) < times:
            assert time.monotonic() < limit, self.said()
            assert self.process.poll() is None or self.said().count(text) >= times, self.said()
            time.sleep(0.02)
        return self.said()

    def stop(self) -> int:
        """End the process with SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def start_daemon(authority: Authority) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons; all end with the test."""
    started: list[Daemon] = []

    def start(**options: Any) -> Daemon:
        started.append(Daemon(options.pop("authority", authority), **options))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    return start_daemon()


@pytest.fixture
def agent(tmp_path: Path, authority: Authority) -> Iterator[Agent]:
    made = Agent(tmp_path, authority)
    yield made
    made.kill()
