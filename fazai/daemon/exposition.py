"""`GET /metrics`: lines of hosts are rendered when a record arrives, and only joined when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

from fazai.store.daemon import GAUGES

__all__ = ["CONTENT_TYPE", "HOST_METRICS", "STORE_METRICS", "Exposition", "HostLines", "Metric", "escape"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """`name` without labels; `kind` as Prometheus knows it."""

    name: str
    kind: str
    help: str

    def head(self) -> bytes:
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n".encode()


_HELP: Mapping[str, str] = {
    "load1": "Load average over 1 minute, of the newest record.",
    "load5": "Load average over 5 minutes.",
    "load15": "Load average over 15 minutes.",
    "cpu_busy_ratio": "Busy share of all CPUs, 0 to 1.",
    "memory_total_bytes": "Memory that is there.",
    "memory_free_bytes": "Memory that nothing uses.",
    "memory_available_bytes": "Memory that a process could have.",
    "disk_total_bytes": "Size of the file system of /, or of the first mount reported.",
    "disk_free_bytes": "Room on that file system.",
    "network_receive_bytes_total": "Received by all interfaces but lo.",
    "network_transmit_bytes_total": "Sent by all interfaces but lo.",
    "uptime_seconds": "Since the host started.",
}

#: What is shown of a host as long as it reports; in the order of the lines.
HOST_METRICS = (
    *(
        Metric(f"fazai_host_{name}", "counter" if name.endswith("_total") else "gauge", _HELP[name])
        for name in GAUGES
    ),
    Metric(
        "fazai_host_last_seen_timestamp_seconds", "gauge", "Time of the newest record, by the host's clock."
    ),
    Metric("fazai_host_report_interval_seconds", "gauge", "Time between two records; absent while unknown."),
)
_UP = Metric("fazai_host_up", "gauge", "1 while the host reports, 0 since it stopped.")
_HOSTS = Metric("fazai_hosts", "gauge", "Hosts that were heard of, by state.")

#: The store's own figures: key of `DaemonStore.counts()` -> metric.
STORE_METRICS: Mapping[str, Metric] = {
    "commits": Metric("fazai_store_commits_total", "counter", "Transactions that reached the disk."),
    "writes": Metric("fazai_store_writes_total", "counter", "Writes that those transactions carried."),
    "failures": Metric(
        "fazai_store_failures_total", "counter", "Transactions that failed, such as for a full disk."
    ),
    "lost": Metric("fazai_store_lost_writes_total", "counter", "Failed writes that nobody waited for."),
    "queue": Metric("fazai_store_queue_length", "gauge", "Writes that wait."),
    "telemetry_bytes": Metric("fazai_store_telemetry_bytes", "gauge", "Stored records, compressed."),
    "tail_records": Metric(
        "fazai_store_tail_records", "gauge", "Records that are not in the index of history yet."
    ),
    "events_bytes": Metric("fazai_store_event_bytes", "gauge", "The event log."),
    "events_published": Metric("fazai_store_events_total", "counter", "Events published since the start."),
    "file_bytes": Metric("fazai_store_file_bytes", "gauge", "The store's file and its write-ahead log."),
}


class HostLines:
    """The hosts' lines. One row a host, one place in it for each metric."""

    def __init__(self) -> None:
        self._rows: dict[str, Sequence[bytes]] = {}
        self._up: dict[str, bytes] = {}
        self._prefixes: dict[str, tuple[tuple[str, ...], bytes]] = {}
        self._heads = [metric.head() for metric in HOST_METRICS]

    def push(self, host: str, gauges: Sequence[float], time_us: int, interval_s: float) -> None:
        """The newest record of a host. About 5 us."""
        found = self._prefixes.get(host)
        if found is None:
            label = '{host="' + escape(host) + '"} '
            names = tuple(metric.name + label for metric in HOST_METRICS)
            found = self._prefixes[host] = names, f"{_UP.name}{label}1\n".encode()
        prefixes, up = found
        values = (*gauges, time_us / 1e6, interval_s or _UNKNOWN)
        self._rows[host] = [
            b"" if value != value else f"{prefix}{_text(value)}\n".encode()
            for prefix, value in zip(prefixes, values, strict=True)
        ]
        self._up[host] = up

    def silence(self, host: str) -> None:
        """It stopped reporting: its figures stay until they expire."""
        self._up[host] = f'{_UP.name}{{host="{escape(host)}"}} 0\n'.encode()

    def expire(self, host: str) -> None:
        self._rows.pop(host, None)
        self._prefixes.pop(host, None)

    def forget(self, host: str) -> None:
        self.expire(host)
        self._up.pop(host, None)

    def render(self) -> list[bytes]:
        """All lines, metric by metric. 5,000 hosts: about 2 ms."""
        parts: list[bytes] = []
        if self._up:
            parts += [_UP.head(), *self._up.values()]
        if self._rows:
            for head, column in zip(self._heads, zip(*self._rows.values(), strict=True), strict=True):
                parts.append(head)
                parts += column
        return parts


_UNKNOWN = float("nan")


def _text(value: float) -> str:
    """As Prometheus reads it; whole numbers without a point, as most are bytes."""
    if isfinite(value):
        whole = int(value)
        return str(whole) if whole == value and abs(whole) < 1 << 53 else repr(value)
    return "+Inf" if value == inf else "-Inf"


def escape(text: str) -> str:
    """The value of a label."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Exposition:
    """The page. `lines` are sources of further text, one line each (the stream's, the reconciler's, …)."""

    def __init__(
        self,
        store_counts: Callable[[], Mapping[str, float]],
        host_counts: Callable[[], tuple[int, int]],
        lines: Sequence[Callable[[], Iterable[str]]] = (),
    ) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self.hosts = HostLines()
        self._store_counts = store_counts
        self._host_counts = host_counts
        self._lines = tuple(lines)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def add(self, lines: Callable[[], Iterable[str]]) -> None:
        """A further source."""
        self._lines = (*self._lines, lines)

    def render(self) -> bytes:
        """The whole page."""
        from prometheus_client import generate_latest

        own = [line.encode() + b"\n" for source in self._lines for line in source()]
        return b"".join([*self._own(), *own, *self.hosts.render(), generate_latest(self.registry)])

    def _own(self) -> Iterable[bytes]:
        yield _HOSTS.head()
        for state, count in zip(("reporting", "silent"), self._host_counts(), strict=True):
            yield f'{_HOSTS.name}{{state="{state}"}} {count}\n'.encode()
        for key, value in self._store_counts().items():
            metric = STORE_METRICS[key]
            yield metric.head() + f"{metric.name} {_text(value)}\n".encode()
