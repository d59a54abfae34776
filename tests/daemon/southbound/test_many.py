"""A thousand agents: memory, a restart without a storm, the way of a command (A1, A8 of the requirements)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon.live import own_port, until
from tests.daemon.southbound import client
from tests.daemon.southbound.client import execute
from tests.daemon.southbound.process import DaemonProcess

COUNT = 1000


class CrowdProcess:
    def __init__(self, daemon: DaemonProcess, folder: Path) -> None:
        given = [str(daemon.port), str(daemon.authority.file), str(folder), str(COUNT)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.southbound.crowd", *given], stdout=subprocess.PIPE
        )
        self.connected = 0
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.connected = json.loads(line)["connected"]


@contextlib.contextmanager
def crowd(daemon: DaemonProcess, folder: Path) -> Iterator[CrowdProcess]:
    made = CrowdProcess(daemon, folder)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        made.reader.join()


def own_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Health:
    """Asks GET /health again and again, which must be answered; how long each answer took."""

    def __init__(self, port: int) -> None:
        self.seconds: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,))
        self._thread.start()

    def _run(self, port: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False) as http:
            while not self._end.is_set():
                begun = time.perf_counter()
                assert http.get("/health").status_code == 200
                self.seconds.append(time.perf_counter() - begun)
                time.sleep(0.02)

    def stop(self) -> list[float]:
        self._end.set()
        self._thread.join()
        return self.seconds


@pytest.mark.slow
def test_a_thousand_agents(tmp_path: Path) -> None:
    with own_port() as port, DaemonProcess(tmp_path, port) as daemon:
        before = own_bytes(daemon.process.pid)
        for number in range(COUNT):
            daemon.authority.issue(f"m-{number}")
        with crowd(daemon, daemon.authority.folder) as agents:
            until(lambda: agents.connected == COUNT, 90)
            each = (own_bytes(daemon.process.pid) - before) / COUNT
            print(f"memory: {each / 1024:.0f} KiB an agent, {own_bytes(daemon.process.pid) >> 20} MiB in all")
            assert own_bytes(daemon.process.pid) <= 150 << 20
            assert each <= 100_000
            daemon.kill()
            daemon.start()
            begun = time.monotonic()
            health = Health(daemon.http_port)
            until(lambda: agents.connected == COUNT, 90)
            took = time.monotonic() - begun
            lags = health.stop()
            worst = percentile(lags, 0.99)
            print(f"all back in {took:.1f} s; /health p99 {worst * 1000:.0f} ms of {len(lags)}")
            with client.local_relay(daemon.socket) as relay:
                ways = []
                for number in range(300):
                    start = time.perf_counter()
                    answer = relay.ask(f"m-{number}", execute(f"a-{number}"))
                    ways.append(time.perf_counter() - start)
                    assert answer["answer"]["ok"] is True
                p50, p99 = percentile(ways, 0.5) * 1000, percentile(ways, 0.99) * 1000
                print(f"command.exec: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
                start = time.perf_counter()
                for number in range(COUNT):
                    relay.begin(f"m-{number}", execute(f"b-{number}"))
                for _ in range(COUNT):
                    assert relay.recv()["answer"]["ok"] is True
                print(f"one command on each: {time.perf_counter() - start:.2f} s")
