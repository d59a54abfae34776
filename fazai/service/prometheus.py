"""Metrics as families of prometheus-client, whose writer is the only one that makes Prometheus' text of
them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client import Metric as Family
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Family", "Histogram", "Metric", "escape_label", "render_metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """The declaration of a counter or gauge. `name` is the full one: that of a counter ends in `_total`."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()

    def family(self, samples: Iterable[tuple[Sequence[str], float]]) -> Family:
        """Return the family with a sample for each pair of label values and number."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        found = make(self.name, self.help, labels=self.labels)
        for labels, value in samples:
            found.add_metric(labels, value)
        return found

    def single(self, value: float) -> Family:
        """Return the family of a metric without labels."""
        return self.family([((), value)])

    def by_label(self, values: Mapping[str, float]) -> Family:
        """Return the family of a metric with one label, whose values are the keys."""
        return self.family([((key,), value) for key, value in values.items()])


class Histogram:
    """A histogram that can count several equal observations at once, which prometheus-client's own cannot."""

    __slots__ = ("_bounds", "_counts", "_help", "_name", "_sum")

    def __init__(self, name: str, help_: str, bounds: tuple[float, ...]) -> None:
        self._name, self._help, self._bounds = name, help_, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` as so many observations; below 1 us."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def family(self) -> Family:
        """Return the family, whose buckets are cumulative."""
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip([*map("{:g}".format, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            buckets.append((bound, below))
        return HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def render_metrics(families: Iterable[Family]) -> bytes:
    """Return families in Prometheus' text format, which takes about 5 us a sample."""
    return generate_latest(_Families(families))


def escape_label(text: str) -> str:
    """Return a label's value as it stands between quotes, for lines that are rendered elsewhere."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
