"""The daemon and its peers as child processes on free ports of loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

__all__ = ["Server", "daemon", "influxdb", "pushgateway"]

_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    port: int


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], port: int, path: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        until = time.monotonic() + _WAIT_S
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                    break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} does not answer") from None
                time.sleep(0.1)
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def daemon(folder: Path, python: str | None = None) -> Iterator[Server]:
    """The daemon of this checkout, or of the one that `python` has installed."""
    port = free_port()
    env = {
        **os.environ,
        "FAZAI_STATE_DIR": str(folder / "state"),
        "FAZAI_SECRETS": str(folder / "secrets"),
        "FAZAI_SOCKET": str(folder / "socket"),
    }
    command = [
        python or sys.executable,
        "-P",  # not the package of the folder in which this runs
        "-m",
        "fazai",
        "daemon",
        "--port",
        str(port),
        "--log-file",
        str(folder / "log"),
    ]
    with _running(command, port, "/ready", env) as server:
        yield server


@contextlib.contextmanager
def influxdb(folder: Path) -> Iterator[Server | None]:
    """InfluxDB 1.x with its defaults, among them an fsync a write; None where it is not installed."""
    path = shutil.which("influxd")
    if path is None:
        yield None
        return
    port, other = free_port(), free_port()
    config = folder / "influxdb.conf"
    config.write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{other}"\n'
        f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n'
        '[logging]\nlevel = "error"\n'
    )
    with _running([path, "-config", str(config)], port, "/ping") as server:
        with urlopen(f"http://127.0.0.1:{port}/query", data=b"q=CREATE DATABASE bench"):
            pass
        yield server


@contextlib.contextmanager
def pushgateway(folder: Path) -> Iterator[Server | None]:
    """None where it is not installed. It does not write at each push, only every five minutes. Without its
    check of consistency, which looks at all groups at each push: seconds, with thousands of them."""
    path = shutil.which("prometheus-pushgateway")
    if path is None:
        yield None
        return
    port = free_port()
    command = [path, f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={folder}/push"]
    command.append("--push.disable-consistency-check")
    with _running(command, port, "/-/ready") as server:
        yield server
