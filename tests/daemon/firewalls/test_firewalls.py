"""/opn/*: against firewalls of the lab over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.firewalls.metrics import OPN_METRICS
from fazai.daemon.firewalls.poller import backoff_s
from fazai.daemon.runs.config import DaemonConfig, Polling
from fazai.lab import Fault, LabFirewall, LabSettings, LabThread
from fazai.providers.opnsense.api.vitals import _parse_cpu, _parse_system_time
from fazai.wire.opn import OpnListAnswer, OpnMetricsAnswer
from tests.contract import decode_opn_answer
from tests.daemon.live import live, stream, token, until
from tests.daemon.runs_world import world, write_inventory

FAST = DaemonConfig(polling=Polling(every_s=0.3, timeout_s=20.0))


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as found:
        yield found


@pytest.fixture
def firewall(lab: LabThread, request: pytest.FixtureRequest) -> LabFirewall:
    found = lab.start(request.node.name[:60], LabSettings(auth_delay_s=0.0))
    found.clear_faults()
    return found


def body(firewall: LabFirewall, **more: Any) -> dict[str, Any]:
    keys = {"api_key": firewall.api_key, "api_secret": firewall.api_secret}
    return {"name": "fw-01", "base_url": firewall.base_url, "tags": ["edge"], **keys, **more}


def test_add_list_health_interfaces_metrics(tmp_path: Path, firewall: LabFirewall) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall)).json()
        assert (added["success"], added["tested"]) == (True, True)
        assert added["info"] == {"version": "26.7.2", "hostname": "OPNsense.internal"}
        one = f"/opn/{added['id']}"

        listed = client.get("/opn/list")
        decode_opn_answer(listed.content, OpnListAnswer)
        (item,) = listed.json()["items"]
        assert set(item) == {
            *("id", "name", "base_url", "verify_tls", "tags", "created_at", "updated_at"),
            *("last_seen", "last_error", "version"),
        }
        assert (item["id"], item["version"], item["last_error"]) == (added["id"], "26.7.2", None)

        health = client.get(f"{one}/health").json()["info"]
        assert (health["version"], health["status"]) == ("26.7.2", "OK")
        data = client.get(f"{one}/interfaces").json()["data"]
        lan = next(row for row in data if row["name"] == "lan")
        assert (lan["device"], lan["status"], lan["rx_bytes"]) == ("vtnet1", "up", 5000)
        assert lan["addresses"][0] == "192.168.1.1/24"
        assert {row["name"] for row in data} == {"wan", "lan", "opt1", "lo0"}

        answer = client.get(f"{one}/metrics")
        decode_opn_answer(answer.content, OpnMetricsAnswer)
        figures = answer.json()["data"]
        assert (figures["cpu_percent"], figures["mem_percent"], figures["sessions"]) == (6.0, 20.0, 0)
        assert figures["uptime"] >= 0
        assert firewall.counters["writes"] == 0


def test_a_secret_stands_in_its_file_alone(tmp_path: Path, firewall: LabFirewall) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall)).json()
        path = tmp_path / "secrets" / "opnsense" / f"{added['id']}.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert json.loads(path.read_text())["api_secret"] == firewall.api_secret
        said = [client.get(route).text for route in ("/opn/list", f"/opn/{added['id']}/metrics", "/metrics")]
        said += [daemon.log(), client.get("/events?follow=false").text]
        stored = b"".join(file.read_bytes() for file in (tmp_path / "state").glob("fazai.sqlite3*"))
    assert not any(firewall.api_secret in text for text in said)
    assert firewall.api_secret.encode() not in stored
    path.chmod(0o644)
    with live(tmp_path) as daemon, daemon.client() as client:
        (item,) = client.get("/opn/list").json()["items"]
        assert "open to others" in item["last_error"]["message"]
        refused = client.get(f"/opn/{item['id']}/health")
        assert (refused.status_code, refused.json()["success"]) == (502, False)
        path.parent.chmod(0o755)
        again = client.post("/opn/add", json=body(firewall))
        assert again.status_code == 503
        assert "chmod 700" in again.json()["error"] or "open to others" in again.json()["error"]


def test_refusals(tmp_path: Path, firewall: LabFirewall) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        cases: list[tuple[dict[str, Any], int]] = [
            ({"base_url": "http://203.0.113.9"}, 422),  # the key would go unencrypted
            ({"base_url": "https://user:pw@203.0.113.9"}, 422),
            ({"base_url": "file:///etc/passwd"}, 422),
            ({"api_key": "a:b"}, 422),
            ({"name": ""}, 422),
            ({"name": "fw\x1b[31m"}, 422),
            ({"name": "fw\nfw-02"}, 422),
            ({"extra": 1}, 422),
        ]
        for more, status in cases:
            answer = client.post("/opn/add", json=body(firewall, **more))
            assert (answer.status_code, answer.json()["success"]) == (status, False), (more, answer.text)
            assert firewall.api_secret not in answer.text
        assert client.get("/opn/list").json()["items"] == []
        assert client.get("/opn/0000/health").status_code == 404
        client.post("/opn/add", json=body(firewall))
        moved = client.post("/opn/add", json=body(firewall, base_url="https://203.0.113.9"))
        assert moved.status_code == 409
        operator = token(tmp_path, "op", "operator")
        until(lambda: client.get("/opn/list").status_code == 401)
        with daemon.client(operator) as plain:
            assert plain.post("/opn/add", json=body(firewall)).status_code == 403
            assert plain.get("/opn/list").status_code == 200


def test_a_wrong_key_and_its_replacement(tmp_path: Path, firewall: LabFirewall) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall, api_secret="wrong")).json()
        assert (added["success"], added["tested"], added["info"]) == (True, False, None)
        refused = client.get(f"/opn/{added['id']}/metrics")
        assert (refused.status_code, refused.json()["code"]) == (502, "device_error")
        assert "API key" in refused.json()["error"]
        again = client.post("/opn/add", json=body(firewall)).json()
        assert (again["id"], again["tested"]) == (added["id"], True)
        assert client.post(f"/opn/{added['id']}/remove").json()["success"] is True
        assert client.get("/opn/list").json()["items"] == []
        assert list((tmp_path / "secrets" / "opnsense").iterdir()) == []
        lines = [json.loads(line) for line in daemon.log().splitlines()]
    audit = [line for line in lines if line["logger"] == "fazai.audit"]
    assert [line["message"] for line in audit] == [
        *(["firewall fw-01 was registered, with its key, by anonymous"] * 2),  # added twice
        "firewall fw-01 was removed, and its key, by anonymous",
    ]
    assert {(line["agent_id"], line["target"]) for line in audit} == {(added["id"], "fw-01")}


def test_down_and_up_become_events_and_gauges(tmp_path: Path, firewall: LabFirewall) -> None:
    with live(tmp_path, config=FAST) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall)).json()
        up = f'fazai_opnsense_up{{firewall="fw-01",id="{added["id"]}"}}'
        assert f"{up} 1.0\n" in client.get("/metrics").text
        with stream(client, "?types=agent") as events:
            firewall.inject(Fault(kind="cut", path="*"))
            gone = events.next().event
            assert (gone.target, gone.state) == ("fw-01", "closing")  # type: ignore[union-attr]
            until(lambda: f"{up} 0.0\n" in client.get("/metrics").text)
            assert "fazai_opnsense_uptime_seconds{" not in client.get("/metrics").text
            firewall.clear_faults()
            back = events.next().event
            assert (back.target, back.state) == ("fw-01", "observation")  # type: ignore[union-attr]
            assert gone.timestamp < back.timestamp  # type: ignore[operator]
        lines = [json.loads(line) for line in daemon.log().splitlines()]
        said = [line for line in lines if line["logger"] == "fazai.daemon.opn"]
        assert [(line["level"], line["agent_id"], line["target"]) for line in said] == [
            ("warning", added["id"], "fw-01"),
            ("info", added["id"], "fw-01"),
        ]
        assert "it does not answer" in said[0]["message"]
        until(lambda: f"{up} 1.0\n" in client.get("/metrics").text)


def test_one_call_that_is_refused_is_no_outage(tmp_path: Path, firewall: LabFirewall) -> None:
    firewall.inject(Fault(kind="status", path="diagnostics/system/system*esources", status=403, body="{}"))
    firewall.inject(Fault(kind="not_found", path="diagnostics/cpu_usage/stream"))
    with live(tmp_path) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall)).json()
        assert added["tested"] is True
        figures = client.get(f"/opn/{added['id']}/metrics").json()["data"]
        assert (figures["mem_percent"], figures["cpu_percent"], figures["sessions"]) == (None, None, 0)


def test_the_inventorys_firewalls_appear_and_go(tmp_path: Path, firewall: LabFirewall) -> None:
    write_inventory(tmp_path, firewall)
    inventory = (str(tmp_path / "inventory.yml"),)
    with live(tmp_path, inventory=inventory, config=FAST) as daemon, daemon.client() as client:
        until(lambda: client.get("/opn/list").json()["items"])
        (item,) = client.get("/opn/list").json()["items"]
        assert item["name"] == "fw-01"
        taken = client.post("/opn/add", json=body(firewall))
        assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
        assert client.post(f"/opn/{item['id']}/remove").status_code == 409
        (tmp_path / "inventory.yml").write_text("all: {hosts: {fw-01: {provider: opnsense, base_url: 7}}}")
        daemon.call(daemon.services.firewalls.read_inventory)
        assert client.get("/opn/list").json()["items"] == []
        write_inventory(tmp_path, firewall)
        daemon.call(daemon.services.firewalls.read_inventory)
        (again,) = client.get("/opn/list").json()["items"]
        assert again["id"] == item["id"]
        (tmp_path / "inventory.yml").write_text("all: [")
        daemon.call(daemon.services.firewalls.read_inventory)
        assert [row["id"] for row in client.get("/opn/list").json()["items"]] == [item["id"]]
        assert "the inventory is not used" in daemon.log()


def test_what_runs_leave_is_a_gauge(tmp_path: Path) -> None:
    with world(tmp_path, daemon={"inventory": (str(tmp_path / "inventory.yml"),)}) as edge:
        firewalls = edge.daemon.services.firewalls
        until(lambda: firewalls.all() and edge.daemon.call(lambda: firewalls.poll_now(firewalls.all()[0])).up)

        def figure(name: str) -> list[str]:
            text = edge.client.get("/metrics").text
            return re.findall(
                rf'^fazai_opnsense_{name}{{firewall="fw-01",[^}}]*}} (\S+)$', text, re.MULTILINE
            )

        checked = edge.ended(edge.started(edge.run()))
        assert checked["exit_code"] == 2, checked
        until(lambda: figure("pending_changes") == ["1.0"])
        assert figure("last_apply_success") == []
        edge.ended(edge.started(edge.run(mode="apply")))
        until(lambda: figure("pending_changes") == ["0.0"])
        assert figure("last_apply_success") == ["1.0"]
        names = set(
            re.findall(r"^# TYPE (fazai_opnsense_\w+)", edge.client.get("/metrics").text, re.MULTILINE)
        )
        assert names == {metric.name for metric in OPN_METRICS.values()} - {"fazai_opnsense_load1"}


def test_the_breaker_opens_and_its_pauses_are_bounded() -> None:
    assert [backoff_s(60, failures) for failures in range(7)] == [60, 5, 60, 120, 240, 480, 900]
    assert backoff_s(60, 10_000) == 900
    assert backoff_s(1800, 5) == 1800


def test_an_unreachable_one_answers_502(tmp_path: Path, firewall: LabFirewall) -> None:
    free = "http://127.0.0.1:1"
    with live(tmp_path) as daemon, daemon.client() as client:
        added = client.post("/opn/add", json=body(firewall, base_url=free)).json()
        assert added["tested"] is False
        answer: httpx.Response = client.get(f"/opn/{added['id']}/health")
        assert (answer.status_code, answer.json()["code"]) == (502, "device_error")
        lab = client.post("/opn/add", json=body(firewall, name="lab", base_url="lab://fw-77")).json()
        assert "lab up fw-77" in client.get(f"/opn/{lab['id']}/health").json()["error"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("01:00:00", 3600), ("1 day, 00:00:01", 86401), ("12 days, 03:04:05", 1047845), ("soon", None)],
)
def test_uptime_is_read_as_the_firewall_writes_it(text: str, seconds: int | None) -> None:
    assert _parse_system_time({"uptime": text})["uptime_s"] == seconds


def test_the_first_figure_of_the_cpu_is_an_average_since_the_start() -> None:
    assert _parse_cpu([{"total": 90}, {"total": 7}]) == {"cpu_ratio": 0.07}
    assert _parse_cpu([{"total": 90}]) == {"cpu_ratio": None}


def test_every_gauge_is_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    for metric in OPN_METRICS.values():
        (row,) = re.findall(rf"^\| `{metric.name}` \| (\w+) \| .* \| (.*) \|$", page, re.MULTILINE)
        assert row == (metric.kind, metric.help)
