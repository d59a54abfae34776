"""The firewalls' figures of /metrics (docs/metrics.md): those of the last round, and what runs left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fazai.daemon.firewalls.registry import Firewall
from fazai.providers.opnsense.api.vitals import Interface, Vitals
from fazai.service.prometheus import Family, Metric

_FIREWALL = ("firewall", "id")
_INTERFACE = (*_FIREWALL, "interface", "device")

OPN_METRICS: Mapping[str, Metric] = {
    name: Metric(f"fazai_opnsense_{name}", "counter" if name.endswith("_total") else "gauge", text, labels)
    for name, text, labels in (
        ("up", "1 while the firewall answers, 0 since two rounds failed.", _FIREWALL),
        ("info", "Always 1; the release is a label.", (*_FIREWALL, "version")),
        ("last_seen_timestamp_seconds", "When it last answered.", _FIREWALL),
        ("poll_seconds", "How long the last round of reads took.", _FIREWALL),
        ("uptime_seconds", "Since the firewall started.", _FIREWALL),
        ("load1", "Load average over 1 minute.", _FIREWALL),
        ("cpu_busy_ratio", "Busy share of all CPUs over 1 second, 0 to 1.", _FIREWALL),
        ("memory_total_bytes", "Memory that is there.", _FIREWALL),
        ("memory_used_bytes", "Memory in use, as the firewall counts it.", _FIREWALL),
        ("states", "Entries of the state table of pf.", _FIREWALL),
        (
            "config_changed_timestamp_seconds",
            "When its configuration last changed, by its own clock.",
            _FIREWALL,
        ),
        ("interface_up", "1 while the interface is up.", _INTERFACE),
        ("interface_receive_bytes_total", "Received.", _INTERFACE),
        ("interface_transmit_bytes_total", "Sent.", _INTERFACE),
        ("interface_receive_packets_total", "Received.", _INTERFACE),
        ("interface_transmit_packets_total", "Sent.", _INTERFACE),
        ("interface_receive_errors_total", "Errors while receiving.", _INTERFACE),
        ("interface_transmit_errors_total", "Errors while sending.", _INTERFACE),
        ("pending_changes", "Changes that the last run found and did not make.", _FIREWALL),
        ("last_apply_timestamp_seconds", "When an apply last ended here.", _FIREWALL),
        ("last_apply_success", "1 when that apply left it as declared, else 0.", _FIREWALL),
        ("polls_total", "Rounds of reads, by result.", ("result",)),
    )
}

#: Values of further labels, and the number; None where the firewall does not say it.
Figures = list[tuple[tuple[str, ...], float | None]]


@dataclass(slots=True)
class _LastApply:
    """The pending changes of a target, and the end of the last run that applied."""

    pending: int | None = None
    at: float | None = None
    good: bool = False


@dataclass(frozen=True, slots=True)
class _Round:
    """The result of one round of reads of a firewall."""

    firewall: Firewall
    up: bool | None
    vitals: Vitals | None
    seen: float | None
    took_s: float


@dataclass(slots=True)
class FirewallFigures:
    """The last round of each firewall, by id; what runs left on each target, by name."""

    _rounds: dict[str, _Round] = field(default_factory=dict)
    _applied: dict[str, _LastApply] = field(default_factory=dict)

    def put(
        self, firewall: Firewall, up: bool | None, vitals: Vitals | None, seen: float | None, took_s: float
    ) -> None:
        """Replace a firewall's figures after a round. Without vitals they go: old ones would look like new
        ones."""
        self._rounds[firewall.id] = _Round(firewall, up, vitals, seen, took_s)

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
            firewall = (one.firewall.name, id_)
            for name, figures in self._figures(one).items():
                samples[name] += [((*firewall, *more), n) for more, n in figures if n is not None]
        for name, found in samples.items():
            if found:
                yield OPN_METRICS[name].family(found)

    def _figures(self, one: _Round) -> dict[str, Figures]:
        applied = self._applied.get(one.firewall.name, _LastApply())
        plain = {
            "up": one.up,
            "last_seen_timestamp_seconds": one.seen,
            "poll_seconds": one.took_s,
            "pending_changes": applied.pending,
            "last_apply_timestamp_seconds": applied.at,
            "last_apply_success": applied.good if applied.at is not None else None,
        }
        found: dict[str, Figures] = {name: [((), value)] for name, value in plain.items()}
        if one.vitals is not None:
            found |= _of_vitals(one.vitals)
        return found


def _of_vitals(vitals: Vitals) -> dict[str, Figures]:
    plain = {
        "uptime_seconds": vitals.uptime_s,
        "load1": vitals.load1,
        "cpu_busy_ratio": vitals.cpu_ratio,
        "memory_total_bytes": vitals.memory_total_bytes,
        "memory_used_bytes": vitals.memory_used_bytes,
        "states": vitals.states,
        "config_changed_timestamp_seconds": vitals.config_changed,
    }
    found: dict[str, Figures] = {name: [((), value)] for name, value in plain.items()}
    found["info"] = [((vitals.version or "",), 1)]
    for one in vitals.interfaces:
        for name, value in _of_interface(one).items():
            found.setdefault(name, []).append(((one.name, one.device), value))
    return found


def _of_interface(one: Interface) -> dict[str, float | None]:
    return {
        "interface_up": one.status == "up",
        "interface_receive_bytes_total": one.received_bytes,
        "interface_transmit_bytes_total": one.sent_bytes,
        "interface_receive_packets_total": one.received_packets,
        "interface_transmit_packets_total": one.sent_packets,
        "interface_receive_errors_total": one.receive_errors,
        "interface_transmit_errors_total": one.send_errors,
    }
