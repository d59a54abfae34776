"""The firewalls' lines of /metrics: rendered when a round ends, only joined when asked for
(docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fazai.daemon.firewalls.registry import Firewall
from fazai.daemon.metrics import Metric, escape
from fazai.providers.opnsense.api.vitals import Interface, Vitals

__all__ = ["OPN_METRICS", "Known", "lines"]

OPN_METRICS: Mapping[str, Metric] = {
    name: Metric(f"fazai_opnsense_{name}", kind, text)
    for name, kind, text in (
        ("up", "gauge", "1 while the firewall answers, 0 since two rounds failed."),
        ("info", "gauge", "Always 1; the release is a label."),
        ("last_seen_timestamp_seconds", "gauge", "When it last answered."),
        ("poll_seconds", "gauge", "How long the last round of reads took."),
        ("uptime_seconds", "gauge", "Since the firewall started."),
        ("load1", "gauge", "Load average over 1 minute."),
        ("cpu_busy_ratio", "gauge", "Busy share of all CPUs over 1 second, 0 to 1."),
        ("memory_total_bytes", "gauge", "Memory that is there."),
        ("memory_used_bytes", "gauge", "Memory in use, as the firewall counts it."),
        ("states", "gauge", "Entries of the state table of pf."),
        (
            "config_changed_timestamp_seconds",
            "gauge",
            "When its configuration last changed, by its own clock.",
        ),
        ("interface_up", "gauge", "1 while the interface is up."),
        ("interface_receive_bytes_total", "counter", "Received."),
        ("interface_transmit_bytes_total", "counter", "Sent."),
        ("interface_receive_packets_total", "counter", "Received."),
        ("interface_transmit_packets_total", "counter", "Sent."),
        ("interface_receive_errors_total", "counter", "Errors while receiving."),
        ("interface_transmit_errors_total", "counter", "Errors while sending."),
        ("pending_changes", "gauge", "Changes that the last run found and did not make."),
        ("last_apply_timestamp_seconds", "gauge", "When an apply last ended here."),
        ("last_apply_success", "gauge", "1 when that apply left it as declared, else 0."),
        ("polls_total", "counter", "Rounds of reads, by result."),
    )
}
_INTERFACE = {
    "interface_receive_bytes_total": "received_bytes",
    "interface_transmit_bytes_total": "sent_bytes",
    "interface_receive_packets_total": "received_packets",
    "interface_transmit_packets_total": "sent_packets",
    "interface_receive_errors_total": "receive_errors",
    "interface_transmit_errors_total": "send_errors",
}


@dataclass(slots=True)
class _Applied:
    pending: int | None = None
    at: float | None = None
    good: bool = False


@dataclass(slots=True)
class Known:
    """Firewall's id -> its lines, metric by metric; name -> what runs left there."""

    _rows: dict[str, dict[str, str]] = field(default_factory=dict)
    _labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    _applied: dict[str, _Applied] = field(default_factory=dict)

    def put(
        self, firewall: Firewall, up: bool | None, vitals: Vitals | None, seen: float | None, took_s: float
    ) -> None:
        """After a round. Without vitals the figures go: old ones would look like new ones."""
        label = f'firewall="{escape(firewall.name)}",id="{firewall.id}"'
        self._labels[firewall.id] = firewall.name, label
        found: dict[str, float | None] = {
            "up": None if up is None else float(up),
            "last_seen_timestamp_seconds": seen,
            "poll_seconds": took_s,
        }
        rows: dict[str, str] = {}
        if vitals is not None:
            found |= _figures(vitals)
            rows["info"] = f'fazai_opnsense_info{{{label},version="{escape(vitals.version or "")}"}} 1'
            rows |= _interfaces(vitals.interfaces, label)
        for name, value in found.items():
            if value is not None:
                rows[name] = f"fazai_opnsense_{name}{{{label}}} {_text(value)}"
        self._rows[firewall.id] = rows

    def ran(self, name: str, *, check: bool, status: str, pending: int, at: float) -> None:
        """How a run ended on a target."""
        one = self._applied.setdefault(name, _Applied())
        if not check and one.at is not None and at < one.at:
            return
        if status in ("converged", "changed"):
            one.pending = 0
        elif status == "pending":
            one.pending = pending
        if not check:
            one.at, one.good = at, status in ("converged", "changed")

    def has_run(self, name: str) -> bool:
        return name in self._applied

    def keep(self, ids: set[str]) -> None:
        for id_ in [one for one in self._rows if one not in ids]:
            del self._rows[id_]
            del self._labels[id_]

    def column(self, metric: str) -> list[str]:
        if metric in ("pending_changes", "last_apply_timestamp_seconds", "last_apply_success"):
            return list(self._runs(metric))
        return [rows[metric] for rows in self._rows.values() if metric in rows]

    def _runs(self, metric: str) -> Iterable[str]:
        for name, label in self._labels.values():
            one = self._applied.get(name)
            if one is None:
                continue
            good = float(one.good) if one.at is not None else None
            value = {"pending_changes": one.pending, "last_apply_timestamp_seconds": one.at}.get(metric, good)
            if value is not None:
                yield f"fazai_opnsense_{metric}{{{label}}} {_text(value)}"


def _figures(vitals: Vitals) -> dict[str, float | None]:
    return {
        "uptime_seconds": vitals.uptime_s,
        "load1": vitals.load1,
        "cpu_busy_ratio": vitals.cpu_ratio,
        "memory_total_bytes": vitals.memory_total_bytes,
        "memory_used_bytes": vitals.memory_used_bytes,
        "states": vitals.states,
        "config_changed_timestamp_seconds": vitals.config_changed,
    }


def _interfaces(found: Iterable[Interface], label: str) -> dict[str, str]:
    rows: dict[str, list[str]] = {}
    for one in found:
        full = f'{label},interface="{escape(one.name)}",device="{escape(one.device)}"'
        values: dict[str, int | None] = {"interface_up": int(one.status == "up")}
        values |= {metric: getattr(one, name) for metric, name in _INTERFACE.items()}
        for metric, value in values.items():
            if value is not None:
                rows.setdefault(metric, []).append(f"fazai_opnsense_{metric}{{{full}}} {value}")
    return {metric: "\n".join(each) for metric, each in rows.items()}


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))


def lines(known: Known, rounds: Mapping[str, int]) -> Iterable[str]:
    """One text for each metric that anybody has."""
    for name, metric in OPN_METRICS.items():
        if name == "polls_total":
            column = [f'{metric.name}{{result="{result}"}} {count}' for result, count in rounds.items()]
        else:
            column = known.column(name)
        if column:
            yield metric.head().decode() + "\n".join(column)
