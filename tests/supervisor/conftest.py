"""A folder as a host in which the agent really runs, kept alive as an init would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.hosts.conftest import world

__all__ = ["Init", "until", "world"]


def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Looks until it is so."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not become so"
        time.sleep(0.02)


class Restarter:
    """Starts the program that was installed in a folder, again whenever it ends, as an init would."""

    LOOP: str

    def __init__(self, root: Path, *words: Path | str, state: Path, log: str, **environment: str) -> None:
        self.root, self.state, self.log = root, state, root / "var/log" / log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", self.LOOP, "init", *words, self.log],
            cwd=root,
            env={"PATH": os.environ["PATH"], **environment},
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


R = TypeVar("R", bound=Restarter)


@contextlib.contextmanager
def restarters(kind: Callable[..., R]) -> Iterator[Callable[..., R]]:
    """Start one for each folder, and stop them all in the end."""
    started: list[R] = []

    def start(root: Path, *more: str) -> R:
        started.append(kind(root, *more))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Init(Restarter):
    """Keeps the telemetry agent of a folder running."""

    LOOP = 'while [ -x "$1" ]; do "$1" --config "$2" 2>>"$3" & wait $!; done'

    def __init__(self, root: Path) -> None:
        state = root / "var/lib/fazai-agent"
        words = root / "opt/fazai/agent/telemetry.sh", root / "etc/fazai/telemetry.env"
        log, place = "fazai-telemetry.log", {"FAZAI_AGENT_STATE_DIR": str(state)}
        super().__init__(root, *words, state=state, log=log, **place)


@pytest.fixture
def init() -> Iterator[Callable[[Path], Init]]:
    with restarters(Init) as start:
        yield start
