"""Several items of one identity, as ordinary configurations have them; items that uuid: or match: names."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.lab import LabFirewall
from fazai.providers.opnsense.provider import PROVIDER
from tests.cli.conftest import World

SUBNETS = [
    {"opnsense.kea_subnet": {"subnet": "192.168.1.0/24"}},
    {"opnsense.kea_subnet": {"subnet": "10.20.0.0/24"}},
]
MAC = "52:54:00:11:22:33"


def rule(**fields: Any) -> dict[str, Any]:
    return {"opnsense.rule": {"interface": ["lan"], **fields}}


def reservation(subnet: str, address: str) -> dict[str, Any]:
    return {"opnsense.kea_reservation": {"subnet": subnet, "hw_address": MAC, "ip_address": address}}


def gateway(name: str, address: str) -> dict[str, Any]:
    return {"opnsense.gateway": {"name": name, "interface": "lan", "gateway": address}}


def nas(record: str, server: str) -> dict[str, Any]:
    return {
        "opnsense.unbound_host": {"hostname": "nas", "domain": "example.org", "rr": record, "server": server}
    }


def files(host: str) -> dict[str, Any]:
    return {"opnsense.unbound_alias": {"hostname": "files", "domain": "example.org", "host": host}}


def rows(firewall: LabFirewall, kind: str) -> list[dict[str, Any]]:
    row = PROVIDER.kinds[f"opnsense.{kind}"].row
    found = firewall.call("POST", f"/api/{row.path}/{row.verbs.search}", {})["rows"]
    return [each for each in found if not each.get("is_automatic")]


#: Kind, the list, the field that tells the two apart, and how the plan calls them.
PAIRS: list[tuple[str, list[dict[str, Any]], str, list[str]]] = [
    (
        "kea_reservation",
        [*SUBNETS, reservation("192.168.1.0/24", "192.168.1.40"), reservation("10.20.0.0/24", "10.20.0.40")],
        "subnet",
        [f"{MAC} (subnet 192.168.1.0/24)", f"{MAC} (subnet 10.20.0.0/24)"],
    ),
    (
        "syslog_destination",
        [
            {
                "opnsense.syslog_destination": {
                    "hostname": "192.0.2.60",
                    "transport": "udp4",
                    "program": [name],
                }
            }
            for name in ("unbound", "filterlog")
        ],
        "program",
        ["192.0.2.60:514 udp4 (program unbound)", "192.0.2.60:514 udp4 (program filterlog)"],
    ),
    (
        "rule",
        [rule(description="let in", ipprotocol="inet"), rule(description="let in", ipprotocol="inet6")],
        "ipprotocol",
        ["let in (ipprotocol inet)", "let in (ipprotocol inet6)"],
    ),
    (
        "route",
        [
            gateway("ONE", "192.168.1.253"),
            gateway("TWO", "192.168.1.254"),
            *({"opnsense.route": {"network": "10.9.0.0/16", "gateway": name}} for name in ("ONE", "TWO")),
        ],
        "gateway",
        ["10.9.0.0/16 (gateway ONE)", "10.9.0.0/16 (gateway TWO)"],
    ),
    (
        "unbound_host",
        [
            {"opnsense.unbound_host": {"hostname": "web", "domain": "example.org", "server": f"192.0.2.{n}"}}
            for n in (1, 2)
        ],
        "server",
        ["web.example.org A (server 192.0.2.1)", "web.example.org A (server 192.0.2.2)"],
    ),
    (
        "unbound_alias",
        [
            nas("A", "192.0.2.1"),
            nas("AAAA", "2001:db8::1"),
            files("nas.example.org A"),
            files("nas.example.org AAAA"),
        ],
        "host",
        ["files.example.org (host nas.example.org A)", "files.example.org (host nas.example.org AAAA)"],
    ),
    (
        "dnat",
        [
            {
                "opnsense.dnat": {
                    "descr": "web",
                    "interface": [name],
                    "protocol": "tcp",
                    "target": "192.168.1.5",
                }
            }
            for name in ("wan", "opt1")
        ],
        "interface",
        ["web (interface wan)", "web (interface opt1)"],
    ),
]


@pytest.mark.parametrize(("kind", "resources", "field", "called"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_two_of_one_identity(
    world: World, kind: str, resources: list[dict[str, Any]], field: str, called: list[str]
) -> None:
    firewall = world.firewall()
    before = len(rows(firewall, kind))
    planned = world.fazai("plan", world.inventory(resources=resources), "--output", "json")
    assert planned.code == 2, planned.err
    changes = [change for target in planned.document["targets"] for change in target["changes"]]
    assert [each["identity"] for each in changes if each["kind"] == f"opnsense.{kind}"] == called
    assert world.fazai("apply", world.inventory(resources=resources)).code == 0
    assert len({row[field] for row in rows(firewall, kind)[-2:]}) == 2
    assert len(rows(firewall, kind)) == before + 2
    world.forget()
    assert world.fazai("drift", world.inventory(resources=resources)).code == 0
    # the order of the list does not matter, nor that one of them goes
    assert world.fazai("drift", world.inventory(resources=resources[::-1])).code == (
        2 if kind in ORDERED else 0
    )
    alone = resources[:-2] + resources[-1:]
    assert world.fazai("drift", world.inventory(resources=alone)).code == 0
    assert world.writes() == []


ORDERED = [name.partition(".")[2] for name, kind in PROVIDER.kinds.items() if kind.ordered]


def test_one_that_changes_what_told_it_apart_is_changed_and_not_left_behind(world: World) -> None:
    firewall = world.firewall()
    pair = [rule(description="x"), rule(description="x", ipprotocol="inet6")]
    world.fazai("apply", world.inventory(resources=pair))
    refs = {row["uuid"] for row in rows(firewall, "rule")}
    pair[1] = rule(description="x", ipprotocol="inet46")
    assert world.fazai("apply", world.inventory(resources=pair)).code == 0
    assert {row["uuid"] for row in rows(firewall, "rule")} == refs
    assert {row["ipprotocol"] for row in rows(firewall, "rule") if row["description"] == "x"} == {
        "inet",
        "inet46",
    }


def test_a_list_that_says_two_things_of_one_item_is_still_refused(world: World) -> None:
    world.firewall()
    both = [
        rule(description="x", destination_port="80", protocol="TCP"),
        rule(description="x", protocol="UDP"),
    ]
    result = world.fazai("plan", world.inventory(resources=both))
    assert result.code == 3
    assert 'opnsense.rule "x" stands twice in this list, with different values for protocol' in result.err
    for each in both:
        each["opnsense.rule"]["match"] = ["protocol"]
    assert world.fazai("apply", world.inventory(resources=both)).code == 0
    assert world.fazai("drift", world.inventory(resources=both)).code == 0


def seeded(firewall: LabFirewall) -> list[str]:
    return firewall.seed(
        "rule",
        [
            {"description": "", "interface": "lan", "source_net": "192.168.1.7"},
            {"description": "", "interface": "lan", "source_net": "192.168.1.8"},
            {"description": "same", "interface": "lan", "destination_port": "80", "protocol": "TCP"},
            {"description": "same", "interface": "lan", "destination_port": "443", "protocol": "TCP"},
        ],
    )


def test_items_with_repeated_and_empty_descriptions_are_adopted(world: World) -> None:
    firewall = world.firewall()
    refs = seeded(firewall)
    unclear = world.fazai("plan", world.inventory(resources=[rule(description="same", log=True)]))
    assert unclear.code == 1
    assert "which one is meant is not clear" in unclear.out + unclear.err
    assert "say which with uuid: or match:, or rename the others" in unclear.out + unclear.err
    wanted = [
        {**rule(uuid=refs[0].upper(), log=True, source_net="192.168.1.7"), "adopt": True},
        {
            **rule(match={"source_net": "192.168.1.8"}, source_net="192.168.1.8", protocol="TCP"),
            "adopt": True,
        },
        {
            **rule(
                description="same",
                match=["destination_port"],
                destination_port="443",
                protocol="TCP",
                log=True,
            ),
            "adopt": True,
        },
    ]
    result = world.fazai("apply", world.inventory(resources=wanted))
    assert result.code == 0, result.out + result.err
    found = {row["uuid"]: row for row in rows(firewall, "rule")}
    assert [found[ref]["log"] for ref in refs] == ["1", "0", "0", "1"]
    assert [found[ref]["protocol"] for ref in refs[:2]] == ["any", "TCP"]
    assert len(found) == 6
    assert world.fazai("drift", world.inventory(resources=wanted)).code == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uuid": "x"}, 'uuid: is no uuid: "x"'),
        (
            {"description": "a", "match": "interface"},
            "match: takes names of fields, or a map of fields to values",
        ),
        ({"description": "a", "match": ["intreface"]}, 'match: names no field: "intreface"'),
        ({"description": "a", "match": ["source_port"]}, "match: names source_port, which is not declared"),
        (
            {"match": {"source_net": "10.0.0.1"}, "source_net": "10.0.0.2"},
            "match: finds the item by another source_net than it is to have: it would not be found again",
        ),
        ({"log": True}, "description: is missing: it names the item"),
    ],
)
def test_what_names_no_item(world: World, fields: dict[str, Any], message: str) -> None:
    world.firewall()
    result = world.fazai("plan", world.inventory(resources=[rule(**fields)]))
    assert result.code == 3
    assert message in result.err


def test_a_uuid_that_is_not_there(world: World) -> None:
    world.firewall()
    ref = "12345678-1234-4234-8234-123456789abc"
    result = world.fazai("plan", world.inventory(resources=[rule(uuid=ref, log=True)]))
    assert result.code == 1
    assert f"there is no opnsense.rule with the uuid {ref} on fw-01" in result.out + result.err
    gone = [{**rule(uuid=ref), "state": "absent"}]
    assert world.fazai("drift", world.inventory(resources=gone)).code == 0


def test_a_second_alias_of_one_name_beside_the_one_that_is_there(world: World) -> None:
    """The one that was made alone stays what it is; the other one is an item of its own."""
    firewall = world.firewall()
    hosts = [nas("A", "192.0.2.1"), nas("AAAA", "2001:db8::1")]
    assert world.fazai("apply", world.inventory(resources=[*hosts, files("nas.example.org A")])).code == 0
    (first,) = [row["uuid"] for row in rows(firewall, "unbound_alias")]
    both = [*hosts, files("nas.example.org AAAA"), files("nas.example.org A")]
    result = world.fazai("apply", world.inventory(resources=both))
    assert (result.code, result.err) == (0, "")
    assert "1 changed" in result.out
    assert first in {row["uuid"] for row in rows(firewall, "unbound_alias")}
    assert len(rows(firewall, "unbound_alias")) == 2
    assert world.fazai("drift", world.inventory(resources=both)).code == 0
    gone = [*hosts, files("nas.example.org A"), {**files("nas.example.org AAAA"), "state": "absent"}]
    assert world.fazai("apply", world.inventory(resources=gone), "--yes").code == 0
    assert [row["uuid"] for row in rows(firewall, "unbound_alias")] == [first]
