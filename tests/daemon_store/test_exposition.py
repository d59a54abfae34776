"""The page of /metrics: what Prometheus reads, what docs/metrics.md says of it, what a push costs."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fazai.daemon.events.announcer import Announcer
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.deadman import HostWatch, WatchRules
from fazai.daemon.ingest.pipeline import Ingest, IngestRules
from fazai.daemon.metrics import HOST_METRICS, Exposition, HostLines
from fazai.service.log import Log
from fazai.store.daemon import GAUGES
from fazai.store.sqlite.daemon import SqliteDaemonStore
from tests.daemon_store.conftest import GAUGE_ROW, START_US, Clock

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def exposition(store: SqliteDaemonStore, clock: Clock) -> Exposition:
    watch = HostWatch(WatchRules(), time.monotonic)
    found = Exposition(store.counts, watch.count_hosts)
    admission = Admission(1 << 20, lambda: 0.5)
    announcer = Announcer(store, Log())
    rules = IngestRules()
    Ingest(
        store, found, watch, admission, keys_of=lambda _: (), now_us=clock, rules=rules, announcer=announcer
    )
    return found


def test_prometheus_reads_the_page(exposition: Exposition) -> None:
    exposition.hosts.push('a"b\\c', GAUGE_ROW, START_US, 60.0)
    exposition.hosts.push("x", (math.inf, 1.5, *GAUGE_ROW[2:]), START_US, 0.0)
    text = exposition.render().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE fazai_host_load1 ") == 1
    values = {one.labels["host"]: one.value for one in families["fazai_host_load1"].samples}
    assert values == {'a"b\\c': 0.0, "x": math.inf}
    for number, name in enumerate(GAUGES[1:], 1):
        family = families[f"fazai_host_{name}".removesuffix("_total")]
        assert family.samples[0].value == GAUGE_ROW[number]
        assert family.type == ("counter" if name.endswith("_total") else "gauge")
    assert [one.labels["host"] for one in families["fazai_host_report_interval_seconds"].samples] == [
        'a"b\\c'
    ]
    assert families["fazai_ingest_seconds"].type == "histogram"
    assert "process_cpu_seconds" in families


def test_what_a_host_does_not_report_has_no_line() -> None:
    lines = HostLines()
    lines.push("a", (math.nan,) * len(GAUGES), START_US, 0.0)
    page = b"".join(lines.render()).decode()
    assert [line for line in page.splitlines() if not line.startswith("#")] == [
        'fazai_host_up{host="a"} 1',
        f'fazai_host_last_seen_timestamp_seconds{{host="a"}} {START_US // 10**6}',
    ]


def test_each_metric_is_one_group_of_lines() -> None:
    lines = HostLines()
    for number in range(50):
        lines.push(f"h{number}", GAUGE_ROW, START_US, 60.0)
    names = [line.partition(b"{")[0] for line in b"".join(lines.render()).splitlines() if line[:1] != b"#"]
    groups = [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]
    assert len(groups) == len(set(groups)) == len(HOST_METRICS) + 1


def test_the_page_of_5000_hosts_is_joined_not_rendered() -> None:
    """Generous bounds, for a machine that does other things too; `python -m bench daemon_store` measures."""
    lines = HostLines()
    begun = time.process_time()
    for number in range(5000):
        lines.push(f"host-{number}", GAUGE_ROW, START_US, 60.0)
    pushed = time.process_time() - begun
    begun = time.process_time()
    page = b"".join(lines.render())
    assert time.process_time() - begun < 0.2
    assert pushed / 5000 < 100e-6
    assert page.count(b"\n") == 5000 * (len(HOST_METRICS) + 1) + 2 * (len(HOST_METRICS) + 1)


def test_the_documented_names_are_those_of_the_page(exposition: Exposition) -> None:
    """Each family is a row of docs/metrics.md with its type and labels, and each row is a family."""
    exposition.hosts.push("a", GAUGE_ROW, START_US, 60.0)
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for family in text_string_to_metric_families(exposition.render().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = frozenset(label for one in family.samples for label in one.labels) - {"le"}
        found[name] = (family.type, labels)
    text = PAGE.read_text().partition("<!-- store and ingest -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (\w+) \| ([^|]*) \|", text, re.M)
    documented = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels.partition(":")[0])))
        for name, kind, labels in rows
    }
    assert documented == found


def test_a_page_shows_the_newest_of_many_records() -> None:
    lines = HostLines()
    for number in range(5):
        lines.push("50%s", (float(number), *GAUGE_ROW[1:]), START_US, 60.0)
        lines.push("other", GAUGE_ROW, START_US, 60.0)
        if number == 2:
            lines.freshen()
    page = b"".join(lines.render()).decode().splitlines()
    assert [line for line in page if line.startswith('fazai_host_load1{host="50%s"}')] == [
        'fazai_host_load1{host="50%s"} 4.0'
    ]
    assert 'fazai_host_memory_total_bytes{host="other"} 4' in page


def test_hosts_that_come_and_go_leave_no_trace() -> None:
    """The page is the one of a daemon that only ever knew those who are left."""
    lines, plain = HostLines(), HostLines()
    for number in range(300):
        lines.push(f"h{number}", GAUGE_ROW, START_US, 60.0)
    for number in range(0, 300, 3):
        lines.render()
        lines.forget(f"h{number}")
    for number in range(300, 400):
        lines.push(f"h{number}", GAUGE_ROW, START_US, 60.0)
    for number in range(400):
        if number >= 300 or number % 3:
            plain.push(f"h{number}", GAUGE_ROW, START_US, 60.0)
    found, wanted = (b"".join(one.render()).splitlines() for one in (lines, plain))
    assert sorted(found) == sorted(wanted)
    assert len(lines._shards) == 5  # 300 hosts: those who came took the places of those who went
