"""bench/soak.py for half a minute; ten of them: python -m bench soak, which .ci/run does, too."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.soak import Soak

from .live import PATIENCE_S

_ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_half_a_minute_of_everything(tmp_path: Path) -> None:
    soak = Soak(tmp_path, float(os.environ.get("FAZAI_SOAK_S", "30")))
    soak.run()
    assert len(soak.seen.hosts) == 4
    assert min(soak.seen.reported.values()) > 100
    assert soak.seen.scrapes > 10
    assert soak.seen.reconnects >= 6  # each kill ended a stream


class _LateReport(Soak):
    """Its last reports are on their way when the others end and the streams have all that was before."""

    def send(self, path: str, body: bytes) -> dict[str, int] | None:
        if path == "/events" and len(self.memory) > 1:
            self.over.wait(60)
            self.over_and_quiet.wait(1)
        return super().send(path, body)

    over_and_quiet = threading.Event()  # never set: the time in which a soak that waits for nobody would look


@pytest.mark.slow
def test_streams_are_given_what_was_acknowledged_last(tmp_path: Path) -> None:
    _LateReport(tmp_path, 6).run()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_is_left(number: signal.Signals) -> None:
    soak = subprocess.Popen([sys.executable, "-m", "bench", "soak"], cwd=_ROOT, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{soak.pid}/task/{soak.pid}/children")
    until = time.monotonic() + PATIENCE_S
    while not (found := children.read_text().split()):
        assert time.monotonic() < until, "it started no daemon"
        time.sleep(0.01)
    handle = os.pidfd_open(int(found[0]))
    try:
        soak.send_signal(number)
        assert soak.wait(PATIENCE_S) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        assert select.select([handle], [], [], PATIENCE_S)[0], "its daemon is still there"
    finally:
        os.close(handle)
