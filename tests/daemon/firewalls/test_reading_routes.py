"""/opn/{id}/rules, states, activity, log, vpn, firmware, services, backup: against the lab over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.firewalls import reading_routes
from fazai.daemon.firewalls.asking import ask_firewall
from fazai.daemon.runs.config import DaemonConfig, Polling
from fazai.lab import Fault, LabFirewall, LabSettings, LabThread
from fazai.wire import opn
from tests.contract import decode_opn_answer
from tests.daemon.live import Live, live, token, until

SLOW = DaemonConfig(polling=Polling(every_s=3600.0, timeout_s=20.0))
ANSWERS: dict[str, type[opn.OpnAnswer]] = {
    "rules": opn.OpnRulesAnswer,
    "states": opn.OpnStatesAnswer,
    "activity": opn.OpnActivityAnswer,
    "log": opn.OpnLogAnswer,
    "vpn": opn.OpnVpnAnswer,
    "firmware": opn.OpnFirmwareAnswer,
    "services": opn.OpnServicesAnswer,
}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as found:
        yield found


@pytest.fixture
def firewall(lab: LabThread, request: pytest.FixtureRequest) -> LabFirewall:
    found = lab.start(request.node.name[:60], LabSettings(auth_delay_s=0.0, traffic=7))
    rule = {"interface": "lan", "description": "logged", "log": "1", "sequence": "1", "source_not": "1"}
    rule |= {"source_net": "192.0.2.0/24", "protocol": "TCP", "destination_port": "443"}
    found.call("POST", "/api/firewall/filter/addRule", {"rule": rule})
    found.call("POST", "/api/firewall/filter/apply")
    return found


@contextlib.contextmanager
def watched(folder: Path, firewall: LabFirewall, **more: Any) -> Iterator[tuple[Live, httpx.Client, str]]:
    """A daemon that watches this firewall; a client of an admin, and the beginning of its addresses."""
    with live(folder, config=SLOW, **more) as daemon, daemon.client() as client:
        keys = {"api_key": firewall.api_key, "api_secret": firewall.api_secret}
        added = client.post("/opn/add", json={"name": "fw-01", "base_url": firewall.base_url, **keys}).json()
        assert added["tested"] is True
        yield daemon, client, f"/opn/{added['id']}"


def test_each_topic_is_answered_as_the_contract_has_it(tmp_path: Path, firewall: LabFirewall) -> None:
    writes = firewall.counters["writes"]
    with watched(tmp_path, firewall) as (_, client, one):
        for topic, of in ANSWERS.items():
            answer = client.get(f"{one}/{topic}")
            assert answer.status_code == 200, answer.text
            assert isinstance(decode_opn_answer(answer.content, of), of), topic
    assert firewall.counters["writes"] == writes


def test_rules(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (_, client, one):
        every = client.get(f"{one}/rules").json()
        assert every["total"] == len(every["data"]) == 30
        assert sum("automatic" in rule for rule in every["data"]) == 27
        own = client.get(f"{one}/rules?automatic=false").json()["data"]
        assert [rule["description"] for rule in own] == [
            *("Default allow LAN to any rule", "logged", "Default allow LAN IPv6 to any rule"),
        ]
        logged = own[1]
        assert logged["evaluations"] == 101
        assert {name: logged[name] for name in ("source", "port", "protocol", "log", "sequence")} == {
            "source": "!192.0.2.0/24",
            "port": "443",
            "protocol": "TCP",
            "log": True,
            "sequence": 1,
        }
        assert "destination" not in logged
        found = client.get(f"{one}/rules?automatic=false&search=logged").json()
        assert (found["total"], found["data"][0]["description"]) == (1, "logged")
        cut = client.get(f"{one}/rules?limit=2").json()
        assert (len(cut["data"]), cut["total"]) == (2, 30)
        assert client.get(f"{one}/rules?interface=opt1&automatic=false").json()["data"] == []


def test_states_and_log_and_their_filters(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (_, client, one):
        states = client.get(f"{one}/states?limit=5").json()
        assert (len(states["data"]), states["total"] > 20) == (5, True)
        source = states["data"][0]["source"]
        narrow = client.get(f"{one}/states", params={"search": source}).json()["data"]
        assert {state["source"] for state in narrow if "nat" not in state} == {source}
        assert {state["nat"].partition(":")[0] for state in narrow if "nat" in state} == {source}
        assert {state["interface"] for state in narrow} == {"LAN", "WAN"}

        log = client.get(f"{one}/log?scan=300&limit=50").json()
        assert (len(log["data"]), log["total"], log["scanned"]) == (50, 300, 300)
        times = [entry["time"] for entry in log["data"]]
        assert times == sorted(times, reverse=True)
        blocked = client.get(f"{one}/log?interface=WAN&action=block&src=203.0.113.0/24").json()["data"]
        assert blocked
        assert {(e["interface"], e["action"], e["source"][:10]) for e in blocked} == {
            ("wan", "block", "203.0.113.")
        }
        passed = client.get(f"{one}/log?interface=vtnet1").json()["data"]
        assert {(e["interface"], e["action"], e["rule"]) for e in passed} == {("lan", "pass", "logged")}
        port = blocked[0]["port"]
        assert {e["port"] for e in client.get(f"{one}/log?action=block&port={port}").json()["data"]} == {port}
        since = times[9]
        late = client.get(f"{one}/log", params={"since": since, "scan": 300}).json()
        assert 10 <= late["total"] < 50
        assert min(entry["time"] for entry in late["data"]) == since


def test_activity_services_vpn_and_firmware(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (_, client, one):
        activity = client.get(f"{one}/activity?limit=3").json()
        busy = [process["cpu_percent"] for process in activity["data"]]
        assert busy == sorted(busy, reverse=True)
        assert len(busy) == 3 < activity["total"]
        assert not any("idle" in process["command"] for process in activity["data"])
        assert activity["headers"][0].startswith("last pid: ")

        firewall.call("POST", "/api/unbound/service/stop")
        services = {row["name"]: row for row in client.get(f"{one}/services").json()["data"]}
        assert (services["unbound"]["running"], services["pf"]["locked"]) == (False, True)

        vpn = client.get(f"{one}/vpn").json()
        assert vpn["missing"] == []
        assert [(row["kind"], row["role"], row["name"], row["status"]) for row in vpn["data"]] == [
            ("openvpn", "session", "alice", "connected"),
            ("openvpn", "session", "bob", "connected"),
            ("ipsec", "connection", "to the branch", "connected"),
            ("ipsec", "child", "LAN to branch", "INSTALLED"),
        ]
        assert vpn["data"][3]["addresses"] == "192.168.1.0/24 - 10.50.0.0/16"

        firmware = client.get(f"{one}/firmware").json()["data"]
        assert (firmware["version"], firmware["status"], firmware["updates"]) == ("26.7.2", "error", [])
        asked = [(method, path) for method, path, _ in firewall.requests if "firmware" in path]
        assert asked == [("GET", "/api/core/firmware/status")]  # a POST would start a check


def test_updates_that_wait(tmp_path: Path, firewall: LabFirewall) -> None:
    package = {
        "reason": "upgrade",
        "old": "1.23.0",
        "new": "1.23.1",
        "name": "unbound",
        "repository": "OPNsense",
    }
    new = {"reason": "new", "old": "N/A", "new": "2.0", "name": "lib", "repository": "OPNsense"}
    body: dict[str, Any] = {
        "product_version": "26.7.2",
        "status": "update",
        "needs_reboot": "1",
        "all_sets": [],
    }
    body["all_packages"] = {"unbound": package, "lib": new}
    firewall.inject(Fault(kind="status", path="core/firmware/status", status=200, body=json.dumps(body)))
    with watched(tmp_path, firewall) as (_, client, one):
        found = client.get(f"{one}/firmware").json()["data"]
    assert found == {
        "updates": [
            {"name": "unbound", "old": "1.23.0", "new": "1.23.1", "reason": "upgrade"},
            {"name": "lib", "new": "2.0", "reason": "new"},
        ],
        "total": 2,
        "version": "26.7.2",
        "status": "update",
        "needs_reboot": True,
    }


def test_what_is_absent_or_refused_is_named(tmp_path: Path, firewall: LabFirewall) -> None:
    firewall.inject(Fault(kind="not_found", path="ipsec/*"))
    firewall.inject(Fault(kind="status", path="wireguard/*", status=403, body='{"status":403}'))
    with watched(tmp_path, firewall) as (_, client, one):
        vpn = client.get(f"{one}/vpn").json()
        assert {row["kind"] for row in vpn["data"]} == {"openvpn"}
        assert vpn["missing"] == [
            "wireguard: the API key's user lacks the privilege for the page api/wireguard/service/*",
            "ipsec: ipsec/sessions/searchPhase1 is not on this firewall",
        ]
        firewall.inject(Fault(kind="not_found", path="openvpn/*"))
        none = client.get(f"{one}/vpn")
        assert (none.status_code, none.json()["code"]) == (502, "device_error")
        assert "openvpn/service/searchSessions is not on this firewall" in none.json()["error"]
        firewall.clear_faults()
        firewall.inject(Fault(kind="unauthorized", path="*"))
        wrong = client.get(f"{one}/vpn").json()
        assert wrong["error"].startswith("the firewall does not know this API key or its secret")


def test_a_log_without_a_clock_has_local_times(tmp_path: Path, firewall: LabFirewall) -> None:
    firewall.inject(Fault(kind="not_found", path="diagnostics/system/systemTime"))
    firewall.inject(Fault(kind="not_found", path="interfaces/overview/*"))
    with watched(tmp_path, firewall) as (_, client, one):
        (entry, *_) = client.get(f"{one}/log?action=block").json()["data"]
        assert ("time" in entry, "local_time" in entry, entry["interface"]) == (False, True, "vtnet0")
        refused = client.get(f"{one}/log?since=2026-11-30T00:00:00Z")
        assert refused.status_code == 502
        assert "does not tell its clock" in refused.json()["error"]


def test_queries_have_bounds(tmp_path: Path, firewall: LabFirewall) -> None:
    cases = [
        *(("rules?limit=0", "limit"), ("rules?limit=5001", "limit"), ("states?limit=1001", "limit")),
        *(("log?scan=5001", "scan"), ("log?port=65536", "port"), ("log?since=yesterday", "since")),
        *(("activity?search=x", "search"), ("services?limit=1", "limit"), ("backup?id=1", "id")),
        (f"states?search={'x' * 257}", "search"),
    ]
    with watched(tmp_path, firewall) as (_, client, one):
        for query, text in cases:
            refused = client.get(f"{one}/{query}")
            assert (refused.status_code, refused.json()["code"]) == (400, "bad_query"), query
            assert text in refused.json()["error"]


def test_a_backup_is_an_admins_and_is_audited(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (daemon, client, one):
        answer = client.get(f"{one}/backup")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/xml")
        key = (firewall.api_key, firewall.api_secret)
        theirs = httpx.get(f"{firewall.base_url}/api/core/backup/download/this", auth=key)
        assert answer.content == theirs.content
        assert answer.content.startswith(b'<?xml version="1.0"?>\n<opnsense>')
        disposition = answer.headers["content-disposition"]
        assert disposition.startswith('attachment; filename="config-fw-01-2')
        assert answer.headers["cache-control"] == "no-store"
        assert daemon.services.bodies.total_bytes == 0

        viewer, operator = token(tmp_path, "eve", "viewer"), token(tmp_path, "op", "operator")
        until(lambda: client.get("/opn/list").status_code == 401)
        for bearer in (viewer, operator):
            with daemon.client(bearer) as other:
                refused = other.get(f"{one}/backup")
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
                assert "opnsense" not in refused.text
                for topic in ANSWERS:
                    assert other.get(f"{one}/{topic}").status_code == 200, topic
        for topic in (*ANSWERS, "backup"):
            assert client.get(f"{one}/{topic}").status_code == 401, topic
        lines = [json.loads(line) for line in daemon.log().splitlines()]
    audit = [line for line in lines if line["logger"] == "fazai.audit"]
    taken = [line for line in audit if "was downloaded" in line["message"]]
    assert [(line["message"], line["target"]) for line in taken] == [
        ("the configuration of firewall fw-01, with its secrets, was downloaded by anonymous", "fw-01")
    ]
    assert sum("forbidden" in line["message"] for line in audit) == 2


def test_half_a_backup_is_none(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (daemon, client, one):
        for body in ("", "<opnsense>", '{"status":"ok"}', "<html><opnsense></opnsense>"):
            firewall.clear_faults()
            firewall.inject(Fault(kind="status", path="core/backup/*", status=200, body=body))
            refused = client.get(f"{one}/backup")
            assert (refused.status_code, refused.json()["code"]) == (502, "device_error"), body
            assert "answered core/backup/download/this with" in refused.json()["error"]
        assert "was downloaded" not in daemon.log()


def test_one_firewall_is_asked_few_things_at_once(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (daemon, client, one):
        firewalls = daemon.services.firewalls
        (seen,) = firewalls.all()
        gate = asyncio.Event()

        async def begin() -> list[asyncio.Task[bool]]:
            return [
                asyncio.create_task(ask_firewall(firewalls, seen, lambda _: gate.wait())) for _ in range(8)
            ]

        async def finish(tasks: list[asyncio.Task[bool]]) -> list[bool]:
            gate.set()
            return await asyncio.gather(*tasks)

        tasks = daemon.call(begin)
        until(lambda: seen.asked == 8)
        refused = client.get(f"{one}/firmware")
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert refused.json()["error"] == "fw-01 is asked 8 things already (ask again in 2 s)"
        assert refused.headers["retry-after"] == "2"
        assert daemon.call(lambda: finish(tasks)) == [True] * 8
        assert seen.asked == 0
        assert client.get(f"{one}/firmware").status_code == 200


def test_every_route_here_only_reads() -> None:
    assert {route.method for route in reading_routes.ROUTES} == {"GET"}
    roles = {route.path.rpartition("/")[2]: route.role for route in reading_routes.ROUTES}
    assert roles == {**dict.fromkeys(ANSWERS, "viewer"), "backup": "admin"}


def test_null_is_no_value_of_a_query(tmp_path: Path, firewall: LabFirewall) -> None:
    with watched(tmp_path, firewall) as (_, client, one):
        answer = client.get(f"{one}/log?port=null")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")
    assert "`port`: null is no value; leave it out" in answer.json()["error"]
