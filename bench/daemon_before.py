"""The daemon of this checkout beside the one of another, asked in turn: what a change costs or saves.

FAZAI_BENCH_BEFORE is the folder of the other checkout, with its own `.venv` (`git worktree add`, then
`make .venv/.dev` there). Both daemons run at once, so that whatever else the machine does meets both; CPU is
what the kernel charged to each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.daemon import fill_log, read_log
from bench.daemon_load import request, send_all
from bench.daemon_samples import records
from bench.daemon_servers import Server, daemon
from fazai.wire.signature import sign

__all__ = ["main"]

ROUNDS = 9
REQUESTS = 600
BATCHES, BATCH = 12, 50
HOSTS = 100
CONNECTIONS = 32
EVENTS = 20_000
SETTLE_S = 0.5
_KEY = b"a key of the measurement alone, 0123456789"
_SIGNED_FROM = 100_000  # records of times that the unsigned ones do not have


def main() -> Iterator[str]:
    other = os.environ.get("FAZAI_BENCH_BEFORE")
    if not other:
        yield "FAZAI_BENCH_BEFORE names the folder of the other checkout."
        return
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, python in (("before", str(Path(other) / ".venv/bin/python")), ("now", None)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fazai-bench-")))
            _write_keys(folder / "secrets" / "hosts")
            servers[name] = stack.enter_context(daemon(folder, python))
            fill_log(servers[name], EVENTS)
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(ROUNDS + 1):  # the first one warms up
            for title, measure in _MEASURES.items():
                names = list(servers) if number % 2 else list(reversed(servers))
                for name in names:
                    cost = measure(servers[name], number)
                    print(f"round {number}, {name}: {title}: {cost * 1e6:.1f}", file=sys.stderr, flush=True)
                    if number:
                        found.setdefault(title, {}).setdefault(name, []).append(cost * 1e6)
    yield f"CPU in µs, median of {ROUNDS} interleaved rounds (least to most).\n"
    yield "| | before | now | before / now |\n|---|---|---|---|"
    for title, costs in found.items():
        ratio = statistics.median(costs["before"]) / statistics.median(costs["now"])
        yield f"| {title} | {_cell(costs['before'])} | {_cell(costs['now'])} | {ratio:.2f} |"


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def _write_keys(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700)
    folder.mkdir(mode=0o700)
    for number in range(HOSTS):
        path = folder / f"host-{number:04d}.key"
        path.touch(0o600)
        path.write_bytes(_KEY)


def _cpu_s(server: Server) -> float:
    """CPU of all threads of the process, to the nanosecond."""
    threads = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def _post(server: Server, asked: list[bytes]) -> float:
    """CPU of the server for these requests, and for what it does in the background right afterwards."""
    before = _cpu_s(server)
    asyncio.run(send_all(server.port, asked, CONNECTIONS))
    time.sleep(SETTLE_S)
    return _cpu_s(server) - before


def _unsigned(server: Server, number: int) -> float:
    bodies = [one.as_json() for one in records(REQUESTS, HOSTS, number * 2 * REQUESTS)]
    asked = [request("POST", "/ingest", body, server.port) for body in bodies]
    return _post(server, asked) / REQUESTS


def _batched(server: Server, number: int) -> float:
    bodies = [one.as_json() for one in records(BATCHES * BATCH, HOSTS, (number * 2 + 1) * REQUESTS)]
    joined = [b"\n".join(bodies[n : n + BATCH]) for n in range(0, len(bodies), BATCH)]
    asked = [request("POST", "/ingest", body, server.port) for body in joined]
    return _post(server, asked) / len(bodies)


def _signed(server: Server, number: int) -> float:
    at, asked = str(int(time.time())), []
    for one in records(REQUESTS, HOSTS, _SIGNED_FROM + number * REQUESTS):
        body, nonce = one.as_json(), secrets.token_hex(16)
        signature = sign(_KEY, timestamp=at, nonce=nonce, method="POST", path="/ingest", body=body)
        head = (
            f"POST /ingest HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            f"X-Fazai-Agent: {one.host}\r\nX-Fazai-Timestamp: {at}\r\nX-Fazai-Nonce: {nonce}\r\n"
            f"X-Fazai-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        asked.append(head.encode() + body)
    return _post(server, asked) / REQUESTS


def _replay(server: Server, number: int) -> float:
    before = _cpu_s(server)
    read_log(server, 4, EVENTS)
    return (_cpu_s(server) - before) / (4 * EVENTS)


_MEASURES: dict[str, Callable[[Server, int], float]] = {
    "one sample a request": _unsigned,
    "one signed sample a request": _signed,
    f"a sample, {BATCH} a request": _batched,
    f"an event of 1 KB, replay of {EVENTS:,} to four readers": _replay,
}
