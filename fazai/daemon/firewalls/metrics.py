"""The firewalls' figures of /metrics (docs/metrics.md): those of the last round, and what runs left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fazai.daemon.firewalls.registry import Firewall
from fazai.providers.opnsense.api.vitals import Vitals
from fazai.service.prometheus import Family, Metric

#: Further labels of a figure, by what it is read from: the round, what the firewall said in it, one of its
#: interfaces, what runs left.
_LABELS: Mapping[str, tuple[str, ...]] = {
    "round": (),
    "vitals": (),
    "release": ("version",),
    "interface": ("interface", "device"),
    "runs": (),
}
#: Name, what it is read from, the attribute there (None: always 1), help.
_FIGURES: tuple[tuple[str, str, str | None, str], ...] = (
    ("up", "round", "up", "1 while the firewall answers, 0 since two rounds failed."),
    ("info", "release", None, "Always 1; the release is a label."),
    ("last_seen_timestamp_seconds", "round", "seen", "When it last answered."),
    ("poll_seconds", "round", "took_s", "How long the last round of reads took."),
    ("uptime_seconds", "vitals", "uptime_s", "Since the firewall started."),
    ("load1", "vitals", "load1", "Load average over 1 minute."),
    ("cpu_busy_ratio", "vitals", "cpu_ratio", "Busy share of all CPUs over 1 second, 0 to 1."),
    ("memory_total_bytes", "vitals", "memory_total_bytes", "Memory that is there."),
    ("memory_used_bytes", "vitals", "memory_used_bytes", "Memory in use, as the firewall counts it."),
    ("states", "vitals", "states", "Entries of the state table of pf."),
    (
        *("config_changed_timestamp_seconds", "vitals", "config_changed"),
        "When its configuration last changed, by its own clock.",
    ),
    ("interface_up", "interface", "status", "1 while the interface is up."),
    ("interface_receive_bytes_total", "interface", "received_bytes", "Received."),
    ("interface_transmit_bytes_total", "interface", "sent_bytes", "Sent."),
    ("interface_receive_packets_total", "interface", "received_packets", "Received."),
    ("interface_transmit_packets_total", "interface", "sent_packets", "Sent."),
    ("interface_receive_errors_total", "interface", "receive_errors", "Errors while receiving."),
    ("interface_transmit_errors_total", "interface", "send_errors", "Errors while sending."),
    ("pending_changes", "runs", "pending", "Changes that the last run found and did not make."),
    ("last_apply_timestamp_seconds", "runs", "at", "When an apply last ended here."),
    ("last_apply_success", "runs", "good", "1 when that apply left it as declared, else 0."),
)


def _metric(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"fazai_opnsense_{name}", "counter" if name.endswith("_total") else "gauge", text, labels)


OPN_METRICS: Mapping[str, Metric] = {
    **{name: _metric(name, text, "firewall", "id", *_LABELS[of]) for name, of, _, text in _FIGURES},
    "polls_total": _metric("polls_total", "Rounds of reads, by result.", "result"),
}


@dataclass(slots=True)
class _LastApply:
    """The pending changes of a target, and the end of the last run that applied."""

    pending: int | None = None
    at: float | None = None
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class PollRound:
    """The result of one round of reads of a firewall; `seen`: when it last answered, since the epoch."""

    firewall: Firewall
    up: bool | None
    vitals: Vitals | None
    seen: float | None
    took_s: float


@dataclass(slots=True)
class FirewallFigures:
    """The last round of each firewall, by id; what runs left on each target, by name."""

    _rounds: dict[str, PollRound] = field(default_factory=dict)
    _applied: dict[str, _LastApply] = field(default_factory=dict)

    def put(self, one: PollRound) -> None:
        """Replace a firewall's figures after a round. Without vitals they go: old ones would look like new
        ones."""
        self._rounds[one.firewall.id] = one

    def note_run(self, name: str, *, check: bool, status: str, pending: int, at: float) -> None:
        """Take over how a run ended on a target; `at` is in seconds since the epoch."""
        one = self._applied.setdefault(name, _LastApply())
        if not check and one.at is not None and at < one.at:
            return
        if status in ("converged", "changed"):
            one.pending = 0
        elif status == "pending":
            one.pending = pending
        if not check:
            one.at, one.good = at, status in ("converged", "changed")

    def has_run(self, name: str) -> bool:
        """Return whether a run on this target was noted."""
        return name in self._applied

    def keep_only(self, ids: set[str]) -> None:
        """Forget all firewalls but these."""
        self._rounds = {id_: one for id_, one in self._rounds.items() if id_ in ids}

    def families(self, polls: Mapping[str, int]) -> Iterable[Family]:
        """Return each metric that any firewall has; `polls` counts rounds by result."""
        samples: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name in OPN_METRICS}
        samples["polls_total"] = [((result,), count) for result, count in polls.items()]
        for id_, one in self._rounds.items():
            sources = self._sources(one)
            for name, of, attribute, _ in _FIGURES:
                for labels, source in sources[of]:
                    value = 1 if attribute is None else _as_number(getattr(source, attribute))
                    if value is not None:
                        samples[name].append(((one.firewall.name, id_, *labels), value))
        for name, found in samples.items():
            if found:
                yield OPN_METRICS[name].family(found)

    def _sources(self, one: PollRound) -> Mapping[str, list[tuple[tuple[str, ...], Any]]]:
        """Return what the figures of a firewall are read from, with the values of further labels."""
        vitals = one.vitals
        return {
            "round": [((), one)],
            "runs": [((), self._applied.get(one.firewall.name, _LastApply()))],
            "vitals": [((), vitals)] if vitals is not None else [],
            "release": [((vitals.version or "",), vitals)] if vitals is not None else [],
            "interface": [((i.name, i.device), i) for i in (vitals.interfaces if vitals is not None else ())],
        }


def _as_number(value: float | str | None) -> float | None:
    """Return a figure as a number; the status of an interface is 1 while it is up."""
    return value == "up" if isinstance(value, str) else value
