"""A daemon as a process of its own, for the tests of what only a process has: memory, signals, a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from .live import PATIENCE_S

RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"

_CODE = """
import json, sys, time
from pathlib import Path
from fazai.daemon import process
from fazai.daemon.events.broadcaster import Broadcaster
from fazai.daemon.settings import DaemonSettings, ServerLimits
from fazai.store.sqlite.daemon import SqliteDaemonStore
folder, limits = Path(sys.argv[1]), ServerLimits(**json.loads(sys.argv[2]))
settings = DaemonSettings(state=folder / "state", secrets=folder / "secrets", port=0, limits=limits,
    socket=folder / "d.sock", log_file=folder / "daemon.log", gemma_socket=folder / "no-worker.sock")
stalled = folder / "stalled"

class Patient(Broadcaster):  # nobody stalls until the test says so, however busy the machine is
    def __init__(self, *given):
        super().__init__(*given)
        self.monotonic = lambda: time.monotonic() * 1000 if stalled.exists() else 0.0

process.Broadcaster = Patient
process.serve(settings, SqliteDaemonStore)
"""


class Child:
    """`with` ends it; `port` is known once it is ready."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.folder = folder
        self.sequence = 0
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.bind(str(folder / f"notify-{time.monotonic_ns()}"))
        ear.settimeout(PATIENCE_S)
        env = {**os.environ, "NOTIFY_SOCKET": ear.getsockname()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(folder), json.dumps(limits)], env=env
        )
        with ear:
            told = ear.recv(4096).decode()
        assert "READY=1" in told
        found = re.search(r"http://127\.0\.0\.1:(\d+)", told)
        assert found is not None
        self.port = int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False, verify=False
        )

    def publish(self, client: httpx.Client, count: int, text: str) -> None:
        """`count` events of a run, as a reconciler reports them."""
        events = [
            {
                "sequence": self.sequence + n + 1,
                "event": {"type": "log", "level": "info", "message": f"{self.sequence + n} {text}"},
            }
            for n in range(count)
        ]
        self.sequence += count
        answer = client.post("/events", json={**BODY, "events": events})
        assert answer.json()["accepted"] == count, answer.text

    def gauge(self, client: httpx.Client, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.M)
        assert found is not None, name
        return float(found[1])

    def memory_bytes(self) -> int:
        """What is its own."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024

    def stop(self) -> float:
        """SIGTERM; how long it took to end."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        return time.monotonic() - begun

    def let_stall(self) -> None:
        """Readers that take nothing have taken nothing for long enough."""
        (self.folder / "stalled").touch()

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()


BODY: dict[str, Any] = {
    "run_id": RUN,
    "command": "apply",
    "host": "h",
    "user": "u",
    "started": "2026-11-22T03:04:00Z",
}
