"""What a sample, a scrape and a replay cost the daemon, beside InfluxDB 1.6 and the Pushgateway of Debian.

All contenders run at once and are asked in turn; CPU is what the kernel charged to each process, background
work for two seconds after each run included. Where a peer is not installed its column is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

from bench.daemon_load import Load, cpu_s, post_all, request
from bench.daemon_samples import Record, records
from bench.daemon_servers import Server, daemon, influxdb, pushgateway

__all__ = ["main"]

ROUNDS = 5
SINGLE = 3000  # requests a round
BATCHES, BATCH = 60, 50
HOSTS = 1000
CONNECTIONS = 32
SCRAPE_HOSTS, SCRAPES = 5000, 5


def main() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="fazai-bench-"))
    try:
        for name in ("fazai", "influx", "push"):
            (folder / name).mkdir()
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(daemon(folder / "fazai"))
            influx = stack.enter_context(influxdb(folder / "influx"))
            push = stack.enter_context(pushgateway(folder / "push"))
            yield from _ingest(ours, influx, push)
            yield from _scrape(ours, push)
        yield from _inside(folder / "inside")
    finally:
        shutil.rmtree(folder)


class _Source:
    """Records that no round has sent before."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[Record]:
        self._next += count
        return list(records(count, HOSTS, self._next - count))


def _ingest(ours: Server, influx: Server | None, push: Server | None) -> Iterator[str]:
    source = _Source()
    singles: dict[str, list[float]] = {}
    batched: dict[str, list[float]] = {}
    sizes: list[float] = []
    for number in range(ROUNDS + 1):  # the first one warms up
        found, many = source.take(SINGLE), source.take(BATCHES * BATCH)
        sizes.append(statistics.mean(len(one.as_json()) for one in found))
        for name, run in _contenders(ours, influx, push):
            load = run(found, 1)
            if number:
                singles.setdefault(name, []).append(load.cpu_s / SINGLE)
            if name == "Pushgateway":  # it takes one group a request
                continue
            load = run(many, BATCH)
            if number:
                batched.setdefault(name, []).append(load.cpu_s / (BATCHES * BATCH))
    size = statistics.mean(sizes)
    yield f"CPU a sample of {size:.0f} bytes, median of {ROUNDS} rounds (least to most), µs.\n"
    yield "| | fazai daemon | InfluxDB 1.6 | Pushgateway |\n|---|---|---|---|"
    yield _row("one a request", singles)
    yield _row(f"{BATCH} a request", batched)
    yield _ratios("one a request, times fazai's", singles)
    yield _ratios(f"{BATCH} a request, times fazai's", batched)
    yield ""


Run = Callable[[Sequence[Record], int], Load]


def _contenders(ours: Server, influx: Server | None, push: Server | None) -> Iterator[tuple[str, Run]]:
    def to_ours(found: Sequence[Record], batch: int) -> Load:
        bodies = [
            b"\n".join(one.as_json() for one in found[n : n + batch]) for n in range(0, len(found), batch)
        ]
        return post_all(
            ours.pid, ours.port, [request("POST", "/ingest", b, ours.port) for b in bodies], CONNECTIONS, 2.0
        )

    def to_influx(found: Sequence[Record], batch: int) -> Load:
        assert influx is not None
        bodies = [
            b"".join(one.as_influx() for one in found[n : n + batch]) for n in range(0, len(found), batch)
        ]
        asked = [request("POST", "/write?db=bench", b, influx.port, "text/plain") for b in bodies]
        return post_all(influx.pid, influx.port, asked, CONNECTIONS, 2.0)

    def to_push(found: Sequence[Record], batch: int) -> Load:
        assert push is not None
        asked = [
            request(
                "PUT",
                f"/metrics/job/telemetry/instance/{one.host}",
                one.as_exposition(),
                push.port,
                "text/plain",
            )
            for one in found
        ]
        return post_all(push.pid, push.port, asked, CONNECTIONS, 2.0)

    yield "fazai", to_ours
    if influx is not None:
        yield "InfluxDB", to_influx
    if push is not None:
        yield "Pushgateway", to_push


def _row(title: str, found: dict[str, list[float]]) -> str:
    cells = []
    for name in ("fazai", "InfluxDB", "Pushgateway"):
        values = [value * 1e6 for value in found.get(name, [])]
        cells.append(
            f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})" if values else "-"
        )
    return f"| {title} | " + " | ".join(cells) + " |"


def _ratios(title: str, found: dict[str, list[float]]) -> str:
    own = statistics.median(found["fazai"])
    cells = ["1"]
    for name in ("InfluxDB", "Pushgateway"):
        values = found.get(name)
        cells.append(f"{statistics.median(values) / own:.1f}" if values else "-")
    return f"| {title} | " + " | ".join(cells) + " |"


def _scrape(ours: Server, push: Server | None) -> Iterator[str]:
    """5,000 hosts with 12 gauges each, then the page several times."""
    found = list(records(SCRAPE_HOSTS, SCRAPE_HOSTS, 100 * SCRAPE_HOSTS))
    bodies = [b"\n".join(one.as_json() for one in found[n : n + 50]) for n in range(0, len(found), 50)]
    post_all(ours.pid, ours.port, [request("POST", "/ingest", b, ours.port) for b in bodies], 4, 3.0)
    costs = {"fazai": _page(ours)}
    if push is not None:
        asked = []
        for one in found:
            lines = [
                f"# TYPE host_{name} gauge\nhost_{name} {value}\n" for name, value in one.gauges().items()
            ]
            path = f"/metrics/job/telemetry/instance/{one.host}"
            asked.append(request("PUT", path, "".join(lines).encode(), push.port, "text/plain"))
        post_all(push.pid, push.port, asked, 16, 3.0)
        costs["Pushgateway"] = _page(push)
    yield "| `/metrics` | CPU a page, ms | bytes |\n|---|---|---|"
    for name, (cost, size) in costs.items():
        yield f"| {name} | {cost * 1e3:.1f} | {size} |"
    if push is not None:
        yield f"\nPushgateway costs {costs['Pushgateway'][0] / costs['fazai'][0]:.0f} times as much.\n"


def _page(server: Server) -> tuple[float, int]:
    """CPU of one page, over enough of them to be seen by a clock of 10 ms."""
    size, asked = 0, 0
    before = cpu_s(server.pid)
    until = time.monotonic() + SCRAPES
    while time.monotonic() < until:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            size = len(answer.read())
        asked += 1
    return (cpu_s(server.pid) - before) / asked, size


def _inside(folder: Path) -> Iterator[str]:
    """In process: what needs no network."""
    from fazai.daemon.ingest.records import read_records
    from fazai.daemon.metrics import HostLines
    from fazai.store.daemon import NewEvent, NewSample, StoreLimits
    from fazai.store.factory import open_daemon_store

    store = open_daemon_store(folder, StoreLimits(upkeep_s=1.0))
    bodies = [one.as_json() for one in records(10_000, 100)]
    begun = time.process_time()
    samples = [read_records(body).samples[0] for body in bodies]
    reading = (time.process_time() - begun) / len(bodies)
    begun = time.process_time()
    for n in range(0, len(samples), 32):
        asyncio.run(store.ingest(samples[n : n + 32]))
    storing = (time.process_time() - begun) / len(samples)
    size = store.counts()["telemetry_bytes"] / sum(map(len, bodies))
    lines = HostLines()
    begun = time.process_time()
    for sample in samples:
        lines.push(sample.host, sample.gauges, sample.time_us, 60.0)
        lines.freshen()
    pushing = (time.process_time() - begun) / len(samples)
    event = NewEvent("log", b'{"type":"log","level":"info","message":"' + b"x" * 960 + b'"}', level="info")
    asyncio.run(store.publish([event] * 100_000))

    async def replayed() -> int:
        last = count = 0
        while found := await store.events_after(last):
            last, count = found[-1].id, count + len(found)
        return count

    begun = time.process_time()
    replay = asyncio.run(replayed()) / (time.process_time() - begun)
    with asyncio.Runner() as runner:
        history = _timed(lambda: runner.run(store.history("host-0001")))
    many = [
        NewSample(f"h{n}", 60_000_000 * minute, b"{}", samples[0].gauges)
        for minute in range(20)
        for n in range(5000)
    ]
    asyncio.run(store.ingest(many))
    latest = _timed(store.hosts)
    store.close()
    yield "| in process | |\n|---|---|"
    yield f"| reading a record, CPU | {reading * 1e6:.1f} µs |"
    yield f"| storing it, in groups of 32, CPU | {storing * 1e6:.1f} µs |"
    yield f"| rendering its lines, CPU | {pushing * 1e6:.1f} µs |"
    yield f"| bytes stored for a byte of JSON | {size:.3f} |"
    yield f"| replay of 100,000 events of 1 KB | {replay:,.0f} events/s |"
    yield f"| gauges of a host, 100 records | {history * 1e3:.2f} ms |"
    yield f"| newest record of 5,000 hosts | {latest * 1e3:.2f} ms |"


def _timed(call: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
