"""GET /fleet, /telemetry, /whoami, /runs/{id}/changes, /ui: the routes behind the operators' page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.fleet import thin_out
from fazai.daemon.http.static import page_files
from fazai.store.daemon import GAUGES, AgentRecord
from fazai.wire.base import decode_body
from fazai.wire.fleet import GAUGE_NAMES, FleetAnswer, RunChangesAnswer, TelemetryAnswer
from tests.daemon.live import Live, live, token
from tests.ui.world import RUN, change, drifting_run, hosts, record, register, report, series

NAN = float("nan")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as found:
        yield found


@pytest.fixture
def client(daemon: Live) -> Iterator[httpx.Client]:
    with daemon.client() as found:
        yield found


def test_the_contract_names_the_figures_of_the_store() -> None:
    assert GAUGE_NAMES == GAUGES


def fleet(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/fleet")
    assert answer.status_code == 200
    decode_body(answer.content, FleetAnswer, limit_bytes=1 << 24)
    rows = answer.json()["rows"]
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    return {row["name"]: row for row in rows}


def test_who_am_i(tmp_path: Path) -> None:
    text = token(tmp_path, "night", "operator")
    with live(tmp_path) as daemon, daemon.client() as nobody, daemon.client(text) as night:
        assert nobody.get("/whoami").json() == {"ok": True, "name": "anonymous"}
        assert night.get("/whoami").json() == {"ok": True, "name": "token:night", "role": "operator"}
        for path in ("/fleet", "/telemetry?host=x", f"/runs/{RUN}/changes"):
            assert nobody.get(path).status_code == 401
        with daemon.client("no token") as stranger:
            assert stranger.get("/whoami").status_code == 401


def test_an_empty_fleet(client: httpx.Client) -> None:
    assert fleet(client) == {}


def test_hosts_firewalls_and_targets(daemon: Live, client: httpx.Client) -> None:
    hosts(client, ["web-1", "web-2"])
    agent = AgentRecord("web-2", "web-2", "http", "observation", time.time(), version="2.0")
    store = daemon.services.store
    daemon.call(lambda: store.put_agent(agent))
    daemon.call(lambda: store.mark_silent({"web-2": True}))
    register(daemon, "fw-01", up=True)
    register(daemon, "fw-03", up=False)
    drifting_run(client)
    rows = fleet(client)
    assert {name: (row["kind"], row.get("up")) for name, row in rows.items()} == {
        "fw-01": ("firewall", True),
        "fw-02": ("target", None),
        "fw-03": ("firewall", False),
        "web-1": ("host", True),
        "web-2": ("host", False),
    }
    assert rows["web-1"]["version"] == "1.4.2"
    assert rows["web-2"]["version"] == "2.0"
    assert 0 < rows["web-1"]["memory"] < 1
    assert rows["web-1"]["interval_s"] == 60
    assert rows["fw-03"]["error"] == "no answer within 10 s"
    assert rows["fw-01"]["id"] == "o-fw-01"
    drift = rows["fw-01"]["drift"]
    assert (drift["status"], drift["pending"], drift["run_id"]) == ("pending", 2, RUN)
    assert rows["fw-02"]["drift"]["status"] == "unreachable"


def test_a_version_survives_a_restart(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        hosts(client, ["web-1"])
        client.post("/ingest", json={"hostname": "old", "timestamp": "2026-01-01T00:00:00Z"})
    with live(tmp_path) as daemon, daemon.client() as client:
        rows = fleet(client)
        assert rows["web-1"]["version"] == "1.4.2"
        assert "version" not in rows["old"]


def test_drift_ends_when_a_later_run_finds_nothing(client: httpx.Client) -> None:
    drifting_run(client)
    later = "01KANHC0E8M5T3W9Q7Z2R4V6XC"
    report(client, later, {"type": "outcome", "target": "fw-01", "status": "converged", "was": "pending"})
    assert fleet(client)["fw-01"]["drift"]["status"] == "converged"
    assert fleet(client)["fw-01"]["drift"]["pending"] == 0


def test_of_several_plays_of_a_run_the_worst_counts(client: httpx.Client) -> None:
    report(
        client,
        RUN,
        {"type": "outcome", "target": "fw-01", "status": "pending", "pending": 2, "play": "a"},
        {"type": "outcome", "target": "fw-01", "status": "converged", "was": "unknown", "play": "b"},
        {"type": "outcome", "target": "fw-01", "status": "pending", "pending": 1, "play": "c"},
    )
    drift = fleet(client)["fw-01"]["drift"]
    assert (drift["status"], drift["pending"]) == ("pending", 3)


def test_what_is_reported_late_changes_nothing(client: httpx.Client) -> None:
    old = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    drifting_run(client)
    late = {"type": "outcome", "target": "fw-01", "status": "failed", "timestamp": old}
    report(client, "01KANHC0E8M5T3W9Q7Z2R4V6XC", late)
    assert fleet(client)["fw-01"]["drift"]["status"] == "pending"


# -- figures


def telemetry(client: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = client.get("/telemetry", params=query)
    assert answer.status_code == 200, answer.text
    decode_body(answer.content, TelemetryAnswer, limit_bytes=1 << 24)
    found: dict[str, Any] = answer.json()
    return found


def test_an_hour_of_figures(client: httpx.Client) -> None:
    series(client, "web-1", minutes=120)
    found = telemetry(client, host="web-1")
    assert 59 <= len(found["times"]) <= 61
    assert set(found["fields"]) == set(GAUGES)
    assert all(len(column) == len(found["times"]) for column in found["fields"].values())
    assert found["interval_s"] == 60
    two = telemetry(client, host="web-1", fields="load1,network_receive_bytes_total", points=10)
    assert list(two["fields"]) == ["load1", "network_receive_bytes_total"]
    assert 10 <= len(two["times"]) <= 11
    received = two["fields"]["network_receive_bytes_total"]
    assert received == sorted(received)


def test_windows_at_the_ends_of_time(client: httpx.Client) -> None:
    hosts(client, ["web-1"])
    for query in ("until=0001-01-01T00:00:00%2B14:00", "since=0001-01-01T00:00:00%2B14:00"):
        assert client.get(f"/telemetry?host=web-1&{query}").status_code == 200, query
    assert client.get("/telemetry?host=web-1&since=9999-12-31T23:59:59-14:00").status_code == 400


def test_a_window_of_figures(client: httpx.Client) -> None:
    begin = 1_795_000_000.0
    client.post("/ingest", json=[record("web-1", begin + 60 * n) for n in range(10)])

    def iso(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat()

    found = telemetry(client, host="web-1", since=iso(begin + 60), until=iso(begin + 180))
    assert found["times"] == [begin + 60, begin + 120, begin + 180]


REFUSED = {
    "host=web-1&fields=loud": (400, "there is no 'loud'"),
    "host=web-1&points=0": (400, "points"),
    "host=web-1&points=many": (400, "points"),
    "host=web-1&since=yesterday": (400, "since"),
    "host=web-1&since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": (400, "not before"),
    "host=web-1&more=1": (400, "more"),
    "points=3": (400, "host"),
    "host=web-9": (404, "no host 'web-9' reported"),
}


@pytest.mark.parametrize("query", REFUSED)
def test_wrong_questions_are_refused(client: httpx.Client, query: str) -> None:
    hosts(client, ["web-1"])
    answer = client.get(f"/telemetry?{query}")
    status, text = REFUSED[query]
    assert (answer.status_code, text in answer.json()["error"]) == (status, True), answer.text


def test_thinning_means_gauges_and_keeps_counters() -> None:
    load, sent = GAUGES.index("load1"), GAUGES.index("network_transmit_bytes_total")

    def row(seconds: int, one: float, two: float) -> tuple[int, tuple[float, ...]]:
        values = [NAN] * len(GAUGES)
        values[load], values[sent] = one, two
        return seconds * 1_000_000, tuple(values)

    rows = [row(1, 1.0, 10), row(5, 3.0, 20), row(12, NAN, 30), row(40, 2.0, NAN), row(41, float("inf"), 5)]
    times, columns = thin_out(rows, [load, sent], 10_000_000)
    assert times == (5.0, 12.0, 41.0)
    assert columns == [(2.0, None, 2.0), (20, 30, 5)]
    assert thin_out([], [load], 10) == ((), [()])


# -- changes of a run


def test_changes_of_a_run(client: httpx.Client) -> None:
    drifting_run(client, change("fw-03", "third"))
    answer = client.get(f"/runs/{RUN}/changes")
    decode_body(answer.content, RunChangesAnswer)
    found = answer.json()
    assert found["total"] == 3
    first = found["changes"][0]
    assert first["before"] == {"content": ["192.0.2.53", "203.0.113.9"], "description": "old"}
    assert first["status"] == "planned"
    assert found["changes"][1]["after"] == {"password": "***"}
    one = client.get(f"/runs/{RUN}/changes?target=fw-01&limit=1").json()
    assert (one["total"], len(one["changes"])) == (2, 1)
    for wrong in ("01KANHC0E8M5T3W9Q7Z2R4V6XD", "x"):
        assert client.get(f"/runs/{wrong}/changes").status_code == 404


# -- the files of the page


def test_files_are_asked_for_again_and_sent_once(client: httpx.Client) -> None:
    first = client.get("/ui")
    assert (first.status_code, first.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/ui", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/ui", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["index.html", "app.js", "style.css", "icon.svg"])
def test_each_file_has_its_type_and_the_policy(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/ui/{name}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith(("text/", "image/svg+xml"))


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpage.py", "%2e%2e", "__init__.py", ".hidden"])
def test_nothing_else_is_a_file(client: httpx.Client, name: str) -> None:
    assert client.get(f"/ui/{name}").status_code == 404


def test_the_page_needs_no_other_machine() -> None:
    """No address of another machine, no style or script within the HTML, no markup made of text."""
    assert {"index.html", "app.js", "api.js", "style.css"} <= set(page_files())
    for name, file in page_files().items():
        text = file.body.decode()
        rest = text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in rest, name
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
        ):
            assert forbidden not in text, name
        if name.endswith(".html"):
            assert "style=" not in text
            assert "<style" not in text
            assert text.count("<script") == text.count('<script type="module" src="ui/')
