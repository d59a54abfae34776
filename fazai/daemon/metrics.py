"""`GET /metrics`: families of prometheus-client, and the hosts' lines, which are rendered in the background.

There may be 5,000 hosts: their lines alone are made here, and only joined when the page is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

from prometheus_client import ProcessCollector

from fazai.service.prometheus import Family, Metric, escape_label, render_metrics
from fazai.store.daemon import GAUGES

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
#: How a known value is written: bytes are whole numbers.
_FORMS = tuple("%.0f" if "bytes" in metric.name else "%r" for metric in HOST_METRICS)
_UP = Metric("fazai_host_up", "gauge", "1 while the host reports, 0 since it stopped.")
_HOSTS = Metric("fazai_hosts", "gauge", "Hosts that were heard of, by state.", ("state",))

#: The store's own figures: key of `DaemonStore.counts()` -> metric.
STORE_METRICS: Mapping[str, Metric] = {
    key: Metric(f"fazai_store_{name}", "counter" if name.endswith("_total") else "gauge", text)
    for key, name, text in (
        ("commits", "commits_total", "Transactions that reached the disk."),
        ("writes", "writes_total", "Writes that those transactions carried."),
        ("failures", "failures_total", "Transactions and checkpoints that failed, such as for a full disk."),
        ("lost", "lost_writes_total", "Failed writes that nobody waited for."),
        ("queue", "queue_length", "Writes that wait."),
        ("telemetry_bytes", "telemetry_bytes", "Stored records, compressed."),
        ("tail_records", "tail_records", "Records that are not in the index of history yet."),
        ("events_bytes", "event_bytes", "The event log."),
        ("events_published", "events_total", "Events published since the start."),
        ("file_bytes", "file_bytes", "The store's file and its write-ahead log."),
    )
}


@dataclass(slots=True, eq=False)
class _Shard:
    """Hosts whose lines are joined together, metric by metric, when one of them has changed."""

    rows: dict[str, Sequence[bytes]] = field(default_factory=dict)
    columns: Sequence[bytes] = ()
    stale: bool = False

    def join(self) -> None:
        rows = self.rows.values()
        self.columns = [b"".join(column) for column in zip(*rows, strict=True)] if rows else ()
        self.stale = False


class _HostLine:
    """The parts of a host's lines: `form` takes all values at once, `prefixes` one each."""

    __slots__ = ("form", "prefixes", "shard", "up")

    def __init__(self, host: str, shard: _Shard) -> None:
        label = '{host="' + escape_label(host) + '"} '
        self.prefixes = [metric.name + label for metric in HOST_METRICS]
        literal = label.replace("%", "%%")
        self.form = _ROW_END.join(
            [f"{metric.name}{literal}{form}\n" for metric, form in zip(HOST_METRICS, _FORMS, strict=True)]
        )
        self.up = f"{_UP.name}{label}1\n".encode()
        self.shard = shard


class HostLines:
    """Renders the hosts' lines. A record only leaves its figures here; `freshen` renders those of each host
    that has new ones, however many records came, and `render` joins what changed since the last page."""

    def __init__(self) -> None:
        self._lines: dict[str, _HostLine] = {}
        self._news: dict[str, tuple[Sequence[float], int, float]] = {}
        self._up: dict[str, bytes] = {}
        self._shards: list[_Shard] = []
        self._heads = [_head_of(metric) for metric in HOST_METRICS]

    def push(self, host: str, gauges: Sequence[float], time_us: int, interval_s: float) -> None:
        """Take over the newest record of a host. Below 1 us."""
        self._news[host] = gauges, time_us, interval_s

    def freshen(self) -> None:
        """Render the records that were pushed; about 5 us a host."""
        news, self._news = self._news, {}
        for host, (gauges, time_us, interval_s) in news.items():
            line = self._lines.get(host)
            if line is None:
                line = self._lines[host] = _HostLine(host, self._shard())
            line.shard.rows[host] = _render_row(line, (*gauges, time_us / 1e6, interval_s or _UNKNOWN))
            line.shard.stale = True
            self._up[host] = line.up

    def _shard(self) -> _Shard:
        """Return a shard with room. Hosts that went leave theirs to others."""
        if not self._shards or len(self._shards[-1].rows) >= _SHARD_HOSTS:
            self._shards.sort(key=lambda shard: -len(shard.rows))
            if not self._shards or len(self._shards[-1].rows) >= _SHARD_HOSTS:
                self._shards.append(_Shard())
        return self._shards[-1]

    def silence(self, host: str) -> None:
        """Show that a host stopped reporting; its figures stay until they expire."""
        self.freshen()
        self._up[host] = f'{_UP.name}{{host="{escape_label(host)}"}} 0\n'.encode()

    def expire(self, host: str) -> None:
        """Remove a host's figures."""
        self.freshen()
        line = self._lines.pop(host, None)
        if line is not None:
            line.shard.rows.pop(host, None)
            line.shard.stale = True

    def forget(self, host: str) -> None:
        """Remove a host as a whole."""
        self.expire(host)
        self._up.pop(host, None)

    def render(self) -> list[bytes]:
        """Return all lines, metric by metric. 5,000 hosts: about 1 ms, 2 where all of them changed."""
        self.freshen()
        for shard in self._shards:
            if shard.stale:
                shard.join()
        parts: list[bytes] = []
        if self._up:
            parts += [_head_of(_UP), *self._up.values()]
        columns = [shard.columns for shard in self._shards if shard.columns]
        if columns:
            for head, column in zip(self._heads, zip(*columns, strict=True), strict=True):
                parts.append(head)
                parts += column
        return parts


def _render_row(line: _HostLine, values: tuple[float, ...]) -> Sequence[bytes]:
    """Return the line of each metric; an empty one where the value is not known."""
    if isfinite(sum(values)):
        return (line.form % values).encode().split(_ROW_END.encode())
    return [
        b"" if value != value else f"{prefix}{_format_number(value)}\n".encode()
        for prefix, value in zip(line.prefixes, values, strict=True)
    ]


_SHARD_HOSTS = 64
_ROW_END = "\0"
_UNKNOWN = float("nan")


def _format_number(value: float) -> str:
    """Return a number as Prometheus reads it; whole numbers without a point, as most are bytes."""
    if isfinite(value):
        whole = int(value)
        return str(whole) if whole == value and abs(whole) < 1 << 53 else repr(value)
    return "+Inf" if value == inf else "-Inf"


def _head_of(metric: Metric) -> bytes:
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n".encode()


class Exposition:
    """The page of GET /metrics: the hosts' lines, and the families of all sources that are added."""

    def __init__(
        self, store_counts: Callable[[], Mapping[str, float]], host_counts: Callable[[], tuple[int, int]]
    ) -> None:
        """`host_counts` returns how many hosts report and how many are silent."""
        self.hosts = HostLines()
        self._store_counts = store_counts
        self._host_counts = host_counts
        self._sources: list[Callable[[], Iterable[Family]]] = [
            self._own,
            ProcessCollector(registry=None).collect,  # not the global one
        ]

    def add(self, source: Callable[[], Iterable[Family]]) -> None:
        """Show the families of `source`, too; it is called for each page."""
        self._sources.append(source)

    def families(self) -> list[Family]:
        """Return the families of all sources, as of now."""
        return [family for source in self._sources for family in source()]

    def render(self) -> bytes:
        """Return the whole page."""
        return b"".join([render_metrics(self.families()), *self.hosts.render()])

    def _own(self) -> Iterable[Family]:
        reporting, silent = self._host_counts()
        yield _HOSTS.by_label({"reporting": reporting, "silent": silent})
        for key, value in self._store_counts().items():
            yield STORE_METRICS[key].single(value)
