"""A daemon with its port for agents as a process of its own, which dies at an instant that a test names."""

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
from typing import Self

from tests.daemon.live import PATIENCE_S
from tests.daemon.southbound.authority import Authority

_CODE = """
import json, os, signal, sys
from functools import partial
from pathlib import Path
from fazai.daemon import process
from fazai.daemon.runs.config import AgentsConfig, DaemonConfig
from fazai.daemon.settings import DaemonSettings
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.southbound.trust import PkiTrust
from fazai.store.factory import open_certificates
from fazai.store.sqlite.daemon import SqliteDaemonStore
folder, port, more = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
mark = folder / "die-at"

def fault(name):  # kill -9 at the instant that the test named; once
    if mark.exists() and mark.read_text() == name:
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

process.Southbound = partial(Southbound, fault=fault)
agents = AgentsConfig(port=port, configured=True, **more)
settings = DaemonSettings(state=folder / "state", secrets=folder / "secrets", port=0,
    socket=folder / "d.sock", log_file=folder / "daemon.log", gemma_socket=folder / "no-worker.sock",
    config=DaemonConfig(agents=agents))
trust = PkiTrust(folder / "secrets/pki", open_certificates(folder / "state"))
process.serve(settings, SqliteDaemonStore, trust)
"""


class DaemonProcess:
    """`with` ends it; `start` starts it again on the same port."""

    def __init__(self, folder: Path, port: int, **agents: float) -> None:
        self.folder, self.port = folder, port
        self._agents = agents
        if not (folder / "secrets").exists():
            (folder / "secrets").mkdir(mode=0o700)
            self.authority = Authority(folder / "secrets/pki")
        self.socket = folder / "agents.sock"
        self.http_port = 0
        self.start()

    def start(self) -> None:
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.bind(str(self.folder / f"notify-{time.monotonic_ns()}"))
        ear.settimeout(PATIENCE_S)
        env = {**os.environ, "NOTIFY_SOCKET": ear.getsockname()}
        given = [str(self.folder), str(self.port), json.dumps(self._agents)]
        self.process = subprocess.Popen([sys.executable, "-c", _CODE, *given], env=env)
        with ear:
            told = ear.recv(4096).decode()
        found = re.search(r"READY=1\n.*http://127\.0\.0\.1:(\d+)", told)
        assert found is not None, told
        self.http_port = int(found[1])

    def die_at(self, instant: str) -> None:
        mark = self.folder / "die-at.new"
        mark.write_text(instant)
        mark.rename(self.folder / "die-at")

    def wait_killed(self) -> None:
        assert self.process.wait(PATIENCE_S) == -signal.SIGKILL

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
