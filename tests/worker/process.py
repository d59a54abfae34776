"""`fazai worker` as a process of its own, for the tests of what only a process has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fazai.providers.gemma.client import GemmaClient
from fazai.wire.worker import Status, StatusAnswer

ROOT = Path(__file__).parents[2]

#: The worker of this package with an engine that has no model; argv: seconds to load, then the command line.
WITHOUT_MODEL = """
import sys, time
from fazai.cli import main
from fazai.worker import main as worker
from tests.worker.fake import FakeEngine

class Slow(FakeEngine):
    def __init__(self, path, options):
        time.sleep(float(sys.argv[1]))
        super().__init__(options, step_s=0.002)

worker.NativeEngine = Slow
sys.exit(main(sys.argv[2:]))
"""


def without_model(load_s: float = 0.0) -> list[str]:
    return [sys.executable, "-c", WITHOUT_MODEL, str(load_s)]


def with_model() -> list[str]:
    """The command of this installation."""
    return [str(Path(sys.executable).with_name("fazai"))]


async def worker_metrics(client: GemmaClient) -> str:
    """The worker's metrics as Prometheus text."""
    return (await client.ask(Status(metrics=True), StatusAnswer)).metrics or ""


class Process:
    """One worker, its socket, its log and what it tells systemd. `with` ends it."""

    def __init__(
        self,
        command: Sequence[str],
        model: Path,
        folder: Path,
        *more: str,
        environ: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.socket = folder / "gemma.sock"
        self.log = folder / "worker.log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self.notify.bind(str(address))
        address.chmod(0o666)
        self.notify.settimeout(60)
        words = ("worker", "--model", str(model), "--socket", str(self.socket), "--context", "4096")
        self.child = subprocess.Popen(
            [*wrapper, *command, *words, "--log-file", str(self.log), *more],
            env={**os.environ, "NOTIFY_SOCKET": str(address), **(environ or {})},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate(timeout=60)
        self.notify.close()

    def told(self, wanted: str) -> None:
        """Waits until systemd is told so."""
        while wanted not in self.notify.recv(4096).decode():
            assert self.child.poll() is None

    def ended(self, timeout_s: float = 60) -> tuple[int, str]:
        """Its exit code, and what it said on stderr."""
        _, said = self.child.communicate(timeout=timeout_s)
        return self.child.returncode, said

    def messages(self) -> list[str]:
        return [str(json.loads(line)["message"]) for line in self.log.read_text().splitlines()]


def until(condition: object, timeout_s: float = 60.0) -> None:
    """Of another process, so there is nothing to wait on."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
