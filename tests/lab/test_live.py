"""What goes on in a firewall of the lab: nothing as recorded, or what a seed makes of what is configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fazai.lab import LabFirewall, LabSettings, LabThread

STATES, LOG = "/api/diagnostics/firewall/queryStates", "/api/diagnostics/firewall/log?limit=200"
RULES = "/api/firewall/filter/searchRule"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as running:
        yield running


@pytest.fixture
def firewall(lab: LabThread, request: pytest.FixtureRequest) -> LabFirewall:
    return lab.start(request.node.name[:60], LabSettings(auth_delay_s=0, traffic=7))


def states(firewall: LabFirewall, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = firewall.call("POST", STATES, {"current": 1, "rowCount": -1, **asked})
    return found


def test_without_a_seed_nothing_goes_through(lab: LabThread) -> None:
    quiet = lab.start("quiet", LabSettings(auth_delay_s=0))
    quiet.call("POST", "/api/firewall/filter/apply")
    assert states(quiet) == {"rows": [], "rowCount": 0, "total": 0, "current": 1}
    assert quiet.call("GET", LOG) == []
    assert quiet.call("POST", "/api/openvpn/service/searchSessions")["rows"] == []
    assert quiet.call("POST", "/api/ipsec/sessions/searchPhase1")["rows"] == []


def test_states_go_through_the_rules_that_run(firewall: LabFirewall) -> None:
    assert states(firewall)["total"] == 0  # no rule runs before the first apply
    firewall.call("POST", "/api/firewall/filter/apply")
    found = states(firewall)
    assert found["total"] == found["rowCount"] > 20
    assert states(firewall) == found
    labels = {row["label"]: row["descr"] for row in found["rows"] if row["direction"] == "in"}
    running = firewall.call("GET", "/api/diagnostics/firewall/listRuleIds")["items"]
    assert labels.items() <= {(row["id"], row["descr"]) for row in running}
    info = firewall.call("GET", "/api/diagnostics/firewall/pfStatistics/info")["info"]
    assert info["state-table"]["current-entries"]["total"] == found["total"]
    source = found["rows"][0]["src_addr"]
    narrow = states(firewall, searchPhrase=source)
    assert 0 < narrow["total"] < found["total"]
    assert {row["nat_addr"] or row["src_addr"] for row in narrow["rows"]} == {source}
    assert states(firewall, searchPhrase="192.168.1.0/24")["total"] == found["total"]
    assert states(firewall, searchPhrase="192.168.1.0/24 10.20.0.0/16")["total"] == 0
    out = [row for row in found["rows"] if row["direction"] == "out"]
    assert {(row["src_addr"], row["iface"]) for row in out} == {("192.0.2.2", "vtnet0")}
    page = states(firewall, rowCount=5)
    assert (page["rowCount"], page["total"]) == (5, found["total"])
    assert firewall.call("GET", STATES) == {"rows": [], "rowCount": 0, "total": 0, "current": 0}


def test_counters_of_rules_are_those_of_their_states(firewall: LabFirewall) -> None:
    firewall.call("POST", "/api/firewall/filter/apply")
    plain = firewall.call("POST", RULES, {})["rows"]
    assert not any("evaluations" in row for row in plain)
    rows = firewall.call("POST", RULES, {"show_all": "1"})["rows"]
    assert sum(row.get("states", 0) for row in rows) == states(firewall)["total"]
    assert {key: value for key, value in rows[-1].items() if key in plain[-1]} == plain[-1]


def test_the_log_has_what_the_rules_log(firewall: LabFirewall) -> None:
    firewall.call("POST", "/api/firewall/filter/apply")
    lines = firewall.call("GET", LOG)
    assert len(lines) == 200
    assert {line["action"] for line in lines} == {"block"}  # the factory's rules log nothing
    assert [line["__timestamp__"] for line in lines] == sorted(
        (line["__timestamp__"] for line in lines), reverse=True
    )
    rule = {"interface": "lan", "description": "logged", "log": "1", "sequence": "1"}
    firewall.call("POST", "/api/firewall/filter/addRule", {"rule": rule})
    firewall.call("POST", "/api/firewall/filter/apply")
    passed = [line for line in firewall.call("GET", LOG) if line["action"] == "pass"]
    assert {line["label"] for line in passed} == {"logged"}
    assert {line["interface"] for line in passed} == {"vtnet1"}
    assert firewall.call("POST", LOG) is None
    assert firewall.call("GET", "/api/diagnostics/firewall/log?limit=many") is None


def test_services_that_are_enabled_are_listed_and_run_after_their_reconfigure(firewall: LabFirewall) -> None:
    def service(name: str) -> dict[str, Any] | None:
        rows = firewall.call("POST", "/api/core/service/search", {})["rows"]
        return next((row for row in rows if row["name"] == name), None)

    def commands() -> str:
        return str(firewall.call("GET", "/api/diagnostics/activity/getActivity")["details"])

    assert service("monit") is None
    firewall.call("POST", "/api/monit/settings/set", {"monit": {"general": {"enabled": "1"}}})
    assert service("monit") == {
        "id": "monit",
        "locked": 0,
        "running": 0,
        "description": "Monit System Monitoring",
        "name": "monit",
    }
    assert "/usr/local/bin/monit" not in commands()
    firewall.call("POST", "/api/monit/service/reconfigure")
    found = service("monit")
    assert found is not None
    assert found["running"] == 1
    assert "/usr/local/bin/monit" in commands()
    firewall.call("POST", "/api/core/service/stop/monit")
    assert "/usr/local/bin/monit" not in commands()


def test_wireguard_shows_what_is_configured_and_runs(firewall: LabFirewall) -> None:
    def shown(**asked: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = firewall.call("POST", "/api/wireguard/service/show", asked)["rows"]
        return rows

    keys = [firewall.call("GET", "/api/wireguard/server/keyPair") for _ in range(2)]
    server = {"name": "road", "port": "51820", "tunneladdress": "10.9.0.1/24", **_pair(keys[0])}
    made = firewall.call("POST", "/api/wireguard/server/addServer", {"server": server})
    peer = {"name": "alice", "pubkey": keys[1]["pubkey"], "tunneladdress": "10.9.0.2/32"}
    peer |= {"servers": made["uuid"], "serveraddress": "198.51.100.7", "serverport": "51820"}
    firewall.call("POST", "/api/wireguard/client/addClient", {"client": peer})
    firewall.call("POST", "/api/wireguard/general/set", {"general": {"enabled": "1"}})
    assert shown() == []
    firewall.call("POST", "/api/wireguard/service/reconfigure")
    interface, alice = shown()
    assert (interface["type"], interface["name"], interface["status"]) == ("interface", "road", "up")
    assert (alice["type"], alice["name"], alice["ifname"]) == ("peer", "alice", "road")
    assert alice["peer-status"] in ("online", "stale")
    assert alice["endpoint"] == "198.51.100.7:51820"
    assert [row["name"] for row in shown(type=["peer"])] == ["alice"]
    listed = firewall.call("POST", "/api/core/service/search", {})["rows"]
    assert [row["description"] for row in listed if row["name"] == "wireguard"] == ["WireGuard road"]


def _pair(keys: dict[str, str]) -> dict[str, str]:
    return {name: keys[name] for name in ("pubkey", "privkey")}
