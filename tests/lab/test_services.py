"""Services: what they refuse (`services.json`), and what they do beyond the recorded exchanges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.lab import LabFirewall, LabSettings, LabThread

Json = dict[str, Any]
CASES: dict[str, list[list[Any]]] = json.loads((Path(__file__).parent / "services.json").read_text())
SPACE_USAGE = "4aacd826-fdaf-4e18-ac26-33e81705e584"  # a test of a new firewall's monit


@pytest.fixture
def firewall() -> Iterator[LabFirewall]:
    with LabThread() as lab:
        yield lab.start("fw", LabSettings(auth_delay_s=0))


def post(firewall: LabFirewall, path: str, body: Json | None = None) -> Json:
    answer: Json = firewall.call("POST", f"/api/{path}", body or {})
    return answer


def get(firewall: LabFirewall, path: str) -> Json:
    answer: Json = firewall.call("GET", f"/api/{path}")
    return answer


def status(firewall: LabFirewall, service: str) -> str:
    return str(get(firewall, f"{service}/service/status")["status"])


def reservation(subnet: str, number: int) -> Json:
    mac = f"52:54:00:aa:00:{number:02}"
    return {"reservation": {"subnet": subnet, "ip_address": f"192.168.1.{number}", "hw_address": mac}}


def stocked(firewall: LabFirewall) -> dict[str, str]:
    """What the cases find there; their placeholders."""
    subnet = post(firewall, "kea/dhcpv4/addSubnet", {"subnet4": {"subnet": "192.168.1.0/24"}})["uuid"]
    host = {"host": "a", "domain": "lan", "hwaddr": "52:54:00:00:00:01", "ip": "192.168.1.20"}
    peer = {"name": "p", "pubkey": "YQ==", "tunneladdress": "10.9.0.2/32"}
    for path, body in (
        ("kea/dhcpv4/addReservation", reservation(subnet, 8)),
        ("dnsmasq/settings/addHost", {"host": host}),
        ("wireguard/client/addClient", {"client": peer}),
    ):
        assert post(firewall, path, body)["result"] == "saved"
    return {"$subnet": subnet, "$test": SPACE_USAGE}


@pytest.mark.parametrize("service", CASES)
def test_what_is_refused_and_with_which_words(firewall: LabFirewall, service: str) -> None:
    known = stocked(firewall)
    writes = firewall.counters["writes"]
    for title, path, body, wanted in CASES[service]:
        text = json.dumps([path, body])
        for placeholder, uuid in known.items():
            text = text.replace(placeholder, uuid)
        answer = post(firewall, *json.loads(text))
        assert answer == {"result": "failed", "validations": wanted}, title
    assert firewall.counters["writes"] == writes


@pytest.mark.parametrize(
    ("service", "path", "root"),
    [
        ("kea", "kea/dhcpv4/set", "dhcpv4"),
        ("monit", "monit/settings/set", "monit"),
        ("ids", "ids/settings/set", "ids"),
    ],
)
def test_a_daemon_runs_when_it_is_enabled_and_reconfigured(
    firewall: LabFirewall, service: str, path: str, root: str
) -> None:
    def enable(value: str) -> None:
        assert post(firewall, path, {root: {"general": {"enabled": value}}}) == {"result": "saved"}

    assert status(firewall, service) == "disabled"
    post(firewall, f"{service}/service/reconfigure")
    assert status(firewall, service) == "disabled"
    enable("1")
    assert status(firewall, service) == "stopped"
    post(firewall, f"{service}/service/reconfigure")
    assert status(firewall, service) == "running"
    enable("0")
    assert status(firewall, service) == "running"
    post(firewall, f"{service}/service/reconfigure")
    assert status(firewall, service) == "disabled"


def test_what_is_enabled_runs_after_a_boot(tmp_path: Path) -> None:
    with LabThread(tmp_path) as lab:
        firewall = lab.start("fw")
        post(firewall, "kea/dhcpv4/set", {"dhcpv4": {"general": {"enabled": "1", "interfaces": "lan"}}})
        assert (status(firewall, "kea"), status(firewall, "monit")) == ("stopped", "disabled")
    with LabThread(tmp_path) as lab:
        firewall = lab.start("fw")
        assert (status(firewall, "kea"), status(firewall, "monit")) == ("running", "disabled")


def test_kea_puts_the_firewalls_address_into_the_options_that_ask_for_it(firewall: LabFirewall) -> None:
    own = {"subnet": "192.168.1.0/24"}
    for subnet in (
        own,
        {"subnet": "10.20.0.0/24", "option_data_autocollect": "0"},
        {"subnet": "10.7.0.0/24"},
    ):
        post(firewall, "kea/dhcpv4/addSubnet", {"subnet4": subnet})
    post(firewall, "kea/dhcpv4/set", {"dhcpv4": {"general": {"enabled": "1"}}})
    rows = post(firewall, "kea/dhcpv4/searchSubnet")["rows"]
    routers = {row["subnet"]: row["option_data.routers"] for row in rows}
    assert routers == {"192.168.1.0/24": "192.168.1.1", "10.20.0.0/24": "", "10.7.0.0/24": ""}


def test_kea_finds_the_subnet_of_an_uploaded_reservation(firewall: LabFirewall) -> None:
    post(firewall, "kea/dhcpv4/addSubnet", {"subnet4": {"subnet": "192.168.1.0/24"}})
    sheet = (
        "ip_address;hw_address;hostname\n192.168.1.5;52:54:00:00:00:05;a\n192.168.1.6;52:54:00:00:00:06;b\n"
    )
    counts = [
        (answer["inserted"], answer["updated"], len(answer["validations"]))
        for text in (sheet, sheet.replace(";a", ";z"), sheet.replace("192.168.1.5", "192.0.2.5"))
        for answer in [post(firewall, "kea/dhcpv4/uploadReservations", {"payload": text})]
    ]
    assert counts == [(2, 0, 0), (0, 2, 0), (0, 0, 1)]
    rows = post(firewall, "kea/dhcpv4/searchReservation")["rows"]
    assert [(row["ip_address"], row["hostname"]) for row in rows] == [
        ("192.168.1.5", "z"),
        ("192.168.1.6", "b"),
    ]


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ("space usage is greater than 80%", "SpaceUsage"),
        ("memory usage is greater than 75%", "SystemResource"),
        ("memory usage > 100 MB", "ProcessResource"),
        ("cpu usage > 5%", "SystemResource"),
        ("cpu > 5%", "ProcessResource"),
        ("failed ping4 count 3", "NetworkPing"),
        ("something else", "Custom"),
    ],
)
def test_the_condition_of_a_monit_test_decides_its_type(
    firewall: LabFirewall, condition: str, kind: str
) -> None:
    test = {"name": "t", "type": "Uptime", "condition": condition, "action": "alert"}
    uuid = post(firewall, "monit/settings/addTest", {"test": test})["uuid"]
    shown = get(firewall, f"monit/settings/getTest/{uuid}")["test"]["type"]
    assert [name for name, choice in shown.items() if choice["selected"]] == [kind]


def test_the_first_reconfigure_of_ids_makes_a_job_that_is_off(firewall: LabFirewall) -> None:
    for _ in range(2):
        post(firewall, "ids/service/reconfigure")
    rows = post(firewall, "cron/settings/searchJobs")["rows"]
    jobs = [(row["origin"], row["command"], row["enabled"]) for row in rows]
    assert jobs == [("IDS", "ids update", "0")]
    chosen = get(firewall, "ids/settings/get")["ids"]["general"]["UpdateCron"]
    assert chosen[rows[0]["uuid"]] == {"value": "ids rule updates", "selected": 1}


def test_pipes_are_numbered_by_the_firewall(firewall: LabFirewall) -> None:
    uuids = [
        post(
            firewall,
            "trafficshaper/settings/addPipe",
            {"pipe": {"bandwidth": "1", "description": "p", "number": "7"}},
        )["uuid"]
        for _ in range(3)
    ]
    post(firewall, f"trafficshaper/settings/delPipe/{uuids[1]}")
    post(firewall, "trafficshaper/settings/addPipe", {"pipe": {"bandwidth": "1", "description": "p"}})
    rows = post(firewall, "trafficshaper/settings/searchPipes")["rows"]
    assert [row["number"] for row in rows] == ["10000", "10001", "10002"]


def test_a_wireguard_peer_is_linked_and_unlinked(firewall: LabFirewall) -> None:
    key = get(firewall, "wireguard/server/keyPair")
    server = {"name": "w0", "privkey": key["privkey"], "pubkey": key["pubkey"]}
    uuid = post(firewall, "wireguard/server/addServer", {"server": server})["uuid"]
    peer = {"name": "p", "pubkey": key["pubkey"], "tunneladdress": "10.9.0.2/32", "servers": uuid}
    client = post(firewall, "wireguard/client/addClient", {"client": peer})["uuid"]

    def peers() -> str:
        return str(get(firewall, "wireguard/server/searchServer")["rows"][0]["peers"])

    assert peers() == client
    assert get(firewall, "wireguard/client/searchClient")["rows"][0]["%servers"] == "w0"
    post(firewall, f"wireguard/client/setClient/{client}", {"client": {"name": "q"}})
    assert peers() == ""
    post(firewall, f"wireguard/client/setClient/{client}", {"client": {"servers": uuid}})
    assert peers() == client
    post(firewall, f"wireguard/client/delClient/{client}")
    assert peers() == ""
