"""A folder as a host in which the agent really runs, kept alive as an init would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import world

__all__ = ["Init", "until", "world"]


def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Looks until it is so."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not become so"
        time.sleep(0.02)


class Init:
    """Starts the installed agent of a folder, and starts it again whenever it ends."""

    LOOP = 'while [ -x "$1" ]; do "$1" --config "$2" 2>>"$3" & wait $!; done'

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "var/lib/fazai-agent"
        script, settings = root / "opt/fazai/agent/telemetry.sh", root / "etc/fazai/telemetry.env"
        (root / "var/log").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", self.LOOP, "init", script, settings, root / "var/log/fazai-telemetry.log"],
            env={"PATH": os.environ["PATH"], "FAZAI_AGENT_STATE_DIR": str(self.state)},
            start_new_session=True,
        )

    def status(self) -> dict[str, str]:
        try:
            text = (self.state / "status").read_text()
        except FileNotFoundError:
            return {}
        return dict(line.partition("=")[::2] for line in text.splitlines())

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ends by itself when the agent is removed
            os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture
def init() -> Iterator[Callable[[Path], Init]]:
    started: list[Init] = []

    def start(root: Path) -> Init:
        started.append(Init(root))
        return started[-1]

    yield start
    for one in started:
        one.stop()
