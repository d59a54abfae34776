"""Parts of the wider recording (`opnsense-more`) that the lab answers as the recorded firewall did."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.lab import LabSettings, LabThread
from tests.lab import recorded

FOLDER = Path(os.environ.get("FAZAI_RECORDINGS_MORE", recorded.ROOT.with_name("opnsense-more")))
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings at {FOLDER}: set FAZAI_RECORDINGS_MORE"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabThread]:
    with LabThread() as running:
        yield running


def exchanges(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{file}.json").read_text())
    return found


def differences(
    lab: LabThread, name: str, chosen: list[dict[str, Any]], before: list[tuple[str, dict[str, Any]]]
) -> list[str]:
    """What a fresh firewall answers otherwise than these exchanges say, after some writes of our own."""
    firewall = lab.start(name, LabSettings(auth_delay_s=0))
    for path, body in before:
        assert "failed" not in json.dumps(firewall.call("POST", path, body))
    with httpx.Client(base_url=firewall.base_url, verify=False) as client:
        replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
        return [
            f"{exchange['name']}: {problem}"
            for index, exchange in enumerate(chosen)
            for problem in replay.problems(index, exchange, replay.send(exchange))
        ]


@pytest.mark.parametrize("suffix", ["Dot", "Forward"])
def test_each_wrong_field_of_a_resolver_gets_the_recorded_refusal(lab: LabThread, suffix: str) -> None:
    chosen = [
        exchange
        for exchange in exchanges("unbound_settings_more")
        if f"/{('add' + suffix)}" in exchange["path"] and "validations" in exchange["response"]
    ]
    assert len(chosen) > 10
    assert differences(lab, f"wrong-{suffix}", chosen, []) == []


def test_forwards_and_dns_over_tls_share_a_store_and_are_listed_apart(lab: LabThread) -> None:
    found = exchanges("unbound_settings_more")
    first = next(i for i, e in enumerate(found) if e["name"] == "searchForward does not list it") - 1
    chosen = [e for e in found[first : first + 5] if "bulk" not in e["name"]]
    assert chosen[0]["name"] == "addDot"
    assert any("turns it into a forward" in e["name"] for e in chosen)
    before = [("/api/unbound/settings/addDot", {"dot": {"domain": "b.example.org", "server": "192.0.2.54"}})]
    assert differences(lab, "one-store", chosen, before) == []


BULK = [
    "firewall_filter_more",
    "firewall_source_nat_more",
    "firewall_one_to_one_more",
    "firewall_npt_more",
    "firewall_d_nat_more",
    "routes_routes_more",
    "cron_settings_more",
    "syslog_settings_more",
]


def _uuids_by_order(answer: Any) -> Any:
    """An answer with its uuids numbered as they come: new items get uuids of the firewall's own."""
    text = json.dumps(answer)
    for place, found in enumerate(
        dict.fromkeys(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))
    ):
        text = text.replace(found, f"uuid {place}")
    return json.loads(text)


@pytest.mark.parametrize("file", BULK)
def test_a_set_of_the_whole_model_judges_all_items_and_saves_all_or_none(lab: LabThread, file: str) -> None:
    firewall = lab.start(file, LabSettings(auth_delay_s=0))
    refused = saved = 0
    with httpx.Client(base_url=firewall.base_url, verify=False) as client:
        replay = recorded.Replay(firewall, client, set(recorded.settings("")["volatile"]))
        for exchange in exchanges(file):
            before = firewall.box.config.writes
            answer = replay.send(exchange)
            if "bulk" not in exchange["name"] or not exchange["path"].endswith("/set"):
                replay.problems(0, exchange, answer)  # takes in the uuids
                continue
            assert _uuids_by_order(answer.json()) == _uuids_by_order(replay.translated(exchange["response"]))
            writes = firewall.box.config.writes - before
            if exchange["response"]["result"] == "failed":
                refused += 1
                assert writes == 0
            else:
                saved += 1
                assert writes == 1
    assert refused >= 2
    assert saved >= 1


def test_the_lab_has_the_privileges_of_the_recorded_firewall(lab: LabThread) -> None:
    new = next(e for e in exchanges("auth_user") if e["name"].startswith("auth/user: get without uuid"))
    firewall = lab.start("privileges", LabSettings(auth_delay_s=0))
    shown = firewall.call("GET", "/api/auth/user/get")["user"]["priv"]
    assert shown == new["response"]["user"]["priv"]
    assert len(shown) == 143
    older = lab.start("privileges-26.1", LabSettings(auth_delay_s=0, release="26.1.11"))
    assert "page-system-groupmanager" in older.call("GET", "/api/auth/user/get")["user"]["priv"]


#: As the real API code of 26.7.2 answers; no exchange of the recordings holds them.
ANSWERS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("firewall/alias/addItem", {"alias": {"name": "p1", "type": "port", "content": "https"}}, None),
    ("firewall/alias/addItem", {"alias": {"name": "p2", "type": "port", "content": "http:https"}}, None),
    (
        "firewall/alias/addItem",
        {"alias": {"name": "p3", "type": "port", "content": "http:xx"}},
        {"alias.content": 'Entry "http:xx" is not a valid port number.'},
    ),
    (
        "firewall/alias/addItem",
        {"alias": {"name": "g1", "type": "authgroup", "content": "admins"}},
        {"alias.content": 'Entry "admins" is not a valid group id.'},
    ),
    ("firewall/alias/addItem", {"alias": {"name": "g2", "type": "authgroup", "content": "1999"}}, None),
    (
        "interfaces/vlan_settings/addItem",
        {"vlan": {"if": "vtnet3", "tag": "201", "vlanif": "vlan0.201", "descr": "x"}},
        None,
    ),
    (
        "interfaces/vlan_settings/addItem",
        {"vlan": {"if": "vtnet3", "tag": "202", "vlanif": "foo0.202"}},
        {"vlan.vlanif": 'The device name prefix "vlan" is required.'},
    ),
    (
        "firewall/filter/addRule",
        {"rule": {"interface": "lan", "description": "two\nlines"}},
        {
            "rule.description": [
                "Text may not contain newlines.",
                "Description should be a string between 1 and 255 characters.",
            ]
        },
    ),
]


@pytest.mark.parametrize(("path", "body", "refused"), ANSWERS)
def test_values_that_the_lab_took_or_refused_otherwise(
    lab: LabThread, path: str, body: dict[str, Any], refused: dict[str, Any] | None
) -> None:
    firewall = lab.start(f"value-{ANSWERS.index((path, body, refused))}", LabSettings(auth_delay_s=0))
    answer = firewall.call("POST", f"/api/{path}", body)
    assert answer.get("validations") == refused
    assert answer["result"] == ("saved" if refused is None else "failed")


def test_a_privilege_opens_addresses_as_they_are_written(lab: LabThread) -> None:
    firewall = lab.start("spelling", LabSettings(auth_delay_s=0))
    compared = 0
    with httpx.Client(base_url=firewall.base_url, verify=False) as client:
        for place, exchange in enumerate(exchanges("protocol_acl_more")):
            if "/radvd/" in exchange["path"]:
                continue  # the lab does not have these
            user = {"name": f"user{place}", "password": "Secret-123-x", "disabled": "0"}
            user["priv"] = exchange["request"]["auth"].rpartition(" ")[2]
            assert firewall.call("POST", "/api/auth/user/add", {"user": user})["result"] == "saved"
            key = firewall.call("POST", f"/api/auth/user/addApiKey/user{place}", {})
            auth = httpx.BasicAuth(key["key"], key["secret"])
            body: dict[str, Any] | None = {} if exchange["method"] == "POST" else None
            answer = client.request(exchange["method"], exchange["path"], json=body, auth=auth)
            assert answer.status_code == exchange["status"], exchange["name"]
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("kind", ["ca", "cert"])
def test_each_wrong_field_of_a_certificate_gets_the_recorded_refusal(lab: LabThread, kind: str) -> None:
    """The rest cannot be replayed: the certificates were left out of the recording."""
    chosen = [
        exchange
        for exchange in exchanges(f"trust_{kind}")
        if exchange["path"].endswith("/add") and "validations" in exchange["response"]
    ]
    assert len(chosen) >= 8
    authority = {"refid": "65a0000000004", "descr": "CA one", "commonname": "ca-one"}
    before = [("/api/trust/ca/add", {"ca": authority})]
    assert differences(lab, f"wrong-{kind}", chosen, before) == []


def test_each_wrong_field_of_a_key_pair_gets_the_recorded_refusal(lab: LabThread) -> None:
    """The rest cannot be replayed: the keys were left out of the recording."""
    chosen = [
        exchange
        for exchange in exchanges("ipsec_key_pairs")
        if exchange["path"].endswith("/addItem")
        and "validations" in exchange["response"]
        and "pem>" not in json.dumps(exchange["request"])
        and "a key that is none" not in exchange["name"]  # the text is that of the recorded library
    ]
    assert len(chosen) >= 3
    assert differences(lab, "wrong-key-pair", chosen, []) == []


def test_a_certificate_that_openvpn_uses_is_not_deleted(lab: LabThread) -> None:
    chosen = [e for e in exchanges("trust_cert") if e["name"] == "del of a certificate in use by openvpn"]
    assert len(chosen) == 1
    ca = {"refid": "65a0000000003", "descr": "VPN CA", "commonname": "vpn-ca"}
    cert = {"refid": "65a0000000002", "descr": "VPN server", "commonname": "vpn", "caref": ca["refid"]}
    instance = {"vpnid": "", "server": "10.90.0.0/24", "cert": cert["refid"]}
    uuids = re.findall(recorded.UUID_WITHIN, chosen[0]["response"]["errorMessage"])
    before: list[tuple[str, dict[str, Any]]] = [
        ("/api/trust/ca/add", {"ca": ca}),
        (chosen[0]["path"].replace("/del/", "/set/"), {"cert": cert}),
        *(
            (f"/api/openvpn/instances/set/{uuid}", {"instance": {**instance, "description": name}})
            for uuid, name in zip(uuids, ("srv", "srv2"), strict=True)
        ),
    ]
    assert differences(lab, "used", chosen, before) == []
