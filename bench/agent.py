"""What the telemetry agent costs its host: CPU and memory of a sample, and a day of spool."""

from __future__ import annotations

import http.server
import os
import resource
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "fazai/agent/telemetry.sh"
KEY = "a key for the measurement only"
DAY_S = 86400
_PATIENCE_S = 60.0


class _Sink(http.server.BaseHTTPRequestHandler):
    """Takes everything, at no cost to the agent's account."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"ok":true,"accepted":1,"duplicates":0}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _agent(env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The agent, which is ended whatever happens."""
    agent = subprocess.Popen([str(SCRIPT)], env=env, stderr=subprocess.DEVNULL)
    try:
        yield agent
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait()


def _env(folder: str, **settings: str) -> dict[str, str]:
    named = {f"FAZAI_AGENT_{name}": value for name, value in settings.items()}
    return {
        "PATH": os.environ["PATH"],
        "FAZAI_AGENT_STATE_DIR": folder,
        "FAZAI_AGENT_LOG_FORMAT": "text",
        **named,
    }


def _cpu_ms(pid: int) -> int:
    """Of the process and of all children that it waited for; the kernel counts in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) * 1000 // os.sysconf("SC_CLK_TCK")


def _memory_kb(pid: int, name: str) -> int:
    for path in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{path}").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def _running(server: str, samples: int) -> tuple[float, int, int, int, int]:
    """CPU a sample (collect, spool, sign, deliver) over many samples, memory at rest, and forks a sample."""
    with tempfile.TemporaryDirectory() as folder:
        # a delivery that fails (a machine that is busy) is tried again soon, not after minutes
        again = {"BACKOFF_MIN_S": "1", "BACKOFF_MAX_S": "1"}
        env = _env(folder, SERVER=server, KEY=KEY, INTERVAL_S="86400", UNITS_EVERY_S="300", **again)
        status = Path(folder, "status")
        with _agent(env) as agent:
            _until(status, "delivered", 1)
            begun, forks = _cpu_ms(agent.pid), _forks()
            for number in range(samples):
                agent.send_signal(signal.SIGUSR1)
                _until(status, "delivered", number + 2)
            cpu_ms, forks = (_cpu_ms(agent.pid) - begun) / samples, (_forks() - forks) // samples
            rss, peak, pss = (_memory_kb(agent.pid, name) for name in ("VmRSS", "VmHWM", "Pss"))
        return cpu_ms, rss, peak, pss, forks


def _said(status: Path) -> Mapping[str, str]:
    """What the agent says of itself; nothing as long as it has not said anything."""
    if not status.exists():
        return {}
    return dict(line.split("=", 1) for line in status.read_text().splitlines())


def _forks() -> int:
    return int(Path("/proc/stat").read_text().split("processes ")[1].split()[0])


def _until(status: Path, name: str, count: int) -> None:
    """Wait until the agent counts so many. Raises RuntimeError with what it says of itself."""
    until = time.monotonic() + _PATIENCE_S
    while int(_said(status).get(name, 0)) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"the agent has no {name}={count} after {_PATIENCE_S:g} s: {_said(status)}")
        time.sleep(0.002)


def _once(server: str, rounds: int, mode: str) -> float:
    """Median CPU of one run from nothing, by wait4's account, in milliseconds."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            env = _env(folder, SERVER=server, KEY=KEY)
            subprocess.run([str(SCRIPT), mode], env=env, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(found) * 1000


def _spool(samples: int) -> tuple[int, int, int]:
    """While no server answers: bytes of spool for `samples`, raw bytes of one record, CPU of one in ms."""
    with tempfile.TemporaryDirectory() as folder:
        env = _env(
            folder,
            SERVER="http://127.0.0.1:9",
            INTERVAL_S="86400",
            BACKOFF_MIN_S="3600",
            BACKOFF_MAX_S="3600",
        )
        status, spool = Path(folder, "status"), Path(folder, "spool")
        begun = 0
        with _agent(env) as agent:
            for number in range(1, samples + 1):
                _until(status, "spool_depth", number)
                begun = begun or _cpu_ms(agent.pid)
                if number < samples:
                    agent.send_signal(signal.SIGUSR1)
            cpu_ms = (_cpu_ms(agent.pid) - begun) // max(1, samples - 1)
        raw = len(subprocess.run([str(SCRIPT), "--print"], env=env, check=True, capture_output=True).stdout)
        return sum(path.stat().st_size for path in spool.iterdir()), raw, cpu_ms


def main(samples: int = 50, spooled: int = 240, rounds: int = 11) -> list[str]:
    with _server() as server:
        cpu_ms, rss, peak, pss, forks = _running(server, samples)
        once_ms, print_ms = _once(server, rounds, "--once"), _once(server, rounds, "--print")
    size, raw, spool_cpu_ms = _spool(spooled)
    processes = sum(path.name.isdigit() for path in Path("/proc").iterdir())
    day = {interval: size / spooled * DAY_S / interval / 1e6 for interval in (60, 10)}
    return [
        f"{processes} processes on the machine, all fields, signed, gzip, delivered to a server on loopback.",
        "",
        "| measure | found | goal |",
        "|---|---|---|",
        f"| CPU a sample, collected, spooled, signed and delivered (mean of {samples}, children included) "
        f"| {cpu_ms:.1f} ms | <= 100 ms |",
        f"| CPU a sample while no server answers | {spool_cpu_ms} ms | |",
        f"| CPU of one `--print` from nothing (start, settings, sample) | {print_ms:.1f} ms | |",
        f"| CPU of one `--once` from nothing, delivered | {once_ms:.1f} ms | |",
        f"| processes started a sample (of the whole machine in that time) | {forks} | |",
        f"| RSS at rest / peak / PSS | {rss / 1024:.1f} / {peak / 1024:.1f} / {pss / 1024:.1f} MB"
        " | <= 10 MB |",
        f"| one record | {raw} bytes, {size / spooled:.0f} in the spool | |",
        f"| 24 h of spool, a sample every 60 s (from {spooled} samples) | {day[60]:.1f} MB | <= 20 MB |",
        f"| the same, every 10 s | {day[10]:.1f} MB | |",
    ]
