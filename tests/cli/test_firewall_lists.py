"""Lists of firewalls that cannot work: what is said of them, when, and that nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

from fazai.lab import Fault

from .conftest import RESOURCES, World

CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "an alias that a rule names": (
        [
            {"opnsense.alias": {"name": "web"}, "state": "absent"},
            {"opnsense.rule": {"description": "r", "interface": ["lan"], "destination_net": "web"}},
        ],
        'opnsense.rule "r": destination_net names the alias "web", which the same list deletes',
    ),
    "a port alias that a rule names": (
        [
            {"opnsense.alias": {"name": "ports"}, "state": "absent"},
            {"opnsense.rule": {"description": "r", "interface": ["lan"], "destination_port": "ports"}},
        ],
        'opnsense.rule "r": destination_port names the alias "ports", which the same list deletes',
    ),
    "an alias in an alias": (
        [
            {"opnsense.alias": {"name": "inner"}, "state": "absent"},
            {"opnsense.alias": {"name": "outer", "type": "network", "content": ["!inner"]}},
        ],
        'opnsense.alias "outer": content names the alias "inner", which the same list deletes',
    ),
    "an alias of a port forward": (
        [
            {"opnsense.alias": {"name": "web"}, "state": "absent"},
            {
                "opnsense.dnat": {
                    "descr": "d",
                    "interface": ["wan"],
                    "target": "web",
                    "destination": {"network": "wanip"},
                }
            },
        ],
        'opnsense.dnat "d": target names the alias "web", which the same list deletes',
    ),
    "a category": (
        [
            {"opnsense.category": {"name": "managed"}, "state": "absent"},
            {"opnsense.rule": {"description": "r", "interface": ["lan"], "categories": ["managed"]}},
        ],
        'opnsense.rule "r": categories names the category "managed", which the same list deletes',
    ),
    "a gateway": (
        [
            {"opnsense.gateway": {"name": "OLD_GW"}, "state": "absent"},
            {"opnsense.route": {"network": "10.0.0.0/8", "gateway": "OLD_GW"}},
        ],
        'opnsense.route "10.0.0.0/8": gateway names the gateway "OLD_GW", which the same list deletes',
    ),
    "a group of interfaces": (
        [
            {"opnsense.interface_group": {"ifname": "servers"}, "state": "absent"},
            {"opnsense.rule": {"description": "r", "interface": ["lan", "servers"]}},
        ],
        'opnsense.rule "r": interface names the interface group "servers", which the same list deletes',
    ),
    "a host of the resolver": (
        [
            {"opnsense.unbound_host": {"hostname": "nas", "domain": "example.org"}, "state": "absent"},
            {
                "opnsense.unbound_alias": {
                    "host": "NAS.example.org",
                    "hostname": "files",
                    "domain": "example.org",
                }
            },
        ],
        'opnsense.unbound_alias "files.example.org": host names the unbound host "NAS.example.org", '
        "which the same list deletes",
    ),
    "a subnet of reservations": (
        [
            {"opnsense.kea_subnet": {"subnet": "192.0.2.0/24"}, "state": "absent"},
            {"opnsense.kea_reservation": {"subnet": "192.0.2.0/24", "hw_address": "52:54:00:00:00:01"}},
        ],
        'opnsense.kea_reservation "52:54:00:00:00:01": subnet names the kea subnet "192.0.2.0/24", '
        "which the same list deletes",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_deleted_and_still_named_is_found_without_contact(world: World, name: str) -> None:
    resources, message = CASES[name]
    firewall = world.firewall()
    result = world.fazai("validate", world.inventory(resources=[*RESOURCES, *resources]))
    assert result.code == 3
    assert message in result.err
    assert "inventory.yml:" in result.err
    assert "it is declared absent at " in result.err
    assert len(firewall.requests) == 0


def test_what_is_deleted_and_named_by_nobody_is_fine(world: World) -> None:
    world.firewall()
    gone = [
        {"opnsense.alias": {"name": "web"}, "state": "absent"},
        {"opnsense.rule": {"description": "r", "destination_net": "web"}, "state": "absent"},
        {
            "opnsense.unbound_host": {"hostname": "nas", "domain": "example.org", "rr": "AAAA"},
            "state": "absent",
        },
        {
            "opnsense.unbound_host": {
                "hostname": "nas",
                "domain": "example.org",
                "rr": "A",
                "server": "192.0.2.1",
            }
        },
        {"opnsense.unbound_alias": {"host": "nas.example.org", "hostname": "f", "domain": "example.org"}},
    ]
    assert world.fazai("validate", world.inventory(resources=gone)).code == 0


# -- what only the firewall can judge

GOOD: list[dict[str, Any]] = [
    {"opnsense.alias": {"name": f"good_{n}", "type": "host", "content": [f"192.0.2.{n}"]}}
    for n in range(1, 6)
]
WRONG: list[dict[str, Any]] = [
    {"opnsense.rule": {"description": "bad network", "interface": ["lan"], "source_net": "nobody"}},
    {"opnsense.rule": {"description": "bad interface", "interface": ["lam"], "destination_net": "good_1"}},
    {"opnsense.rule": {"description": "bad port", "interface": ["lan"], "destination_port": "nothing"}},
    {"opnsense.alias": {"name": "bad_content", "type": "networkgroup", "content": ["nobody"]}},
    {"opnsense.unbound_host": {"hostname": "a b", "domain": "example.org", "server": "192.0.2.9"}},
    {"opnsense.route": {"network": "10.99.0.0/16", "gateway": "NO_GW"}},
    {"opnsense.cron_job": {"description": "bad job", "command": "no such command"}},
    {
        "opnsense.syslog_destination": {
            "hostname": "log",
            "transport": "udp4",
            "facility": ["kern"],
            "port": 0,
        }
    },
]


def test_everything_that_the_firewall_refuses_is_said_at_once_and_nothing_is_written(world: World) -> None:
    firewall = world.firewall()
    inventory = world.inventory(resources=[*GOOD, *WRONG])
    before = firewall.box.config.writes
    result = world.fazai("apply", inventory)
    assert result.code == 1, result
    assert firewall.box.config.writes == before
    assert [path for path in world.writes() if not path.endswith("/set")] == []
    for name in ("bad network", "bad interface", "bad port", "bad_content", "10.99.0.0/16", "bad job"):
        assert f'fw-01 refused "{name}": ' in result.out + result.err, name
    assert "inventory.yml:" in result.out + result.err
    assert "nothing is written to it: a target changes as a whole or not at all" in result.out + result.err


def test_what_names_items_of_the_same_run_is_no_objection(world: World) -> None:
    firewall = world.firewall()
    resources: list[dict[str, Any]] = [
        *RESOURCES,
        *GOOD,
        {"opnsense.alias": {"name": "all_good", "type": "networkgroup", "content": ["good_1", "good_2"]}},
        {"opnsense.interface_group": {"ifname": "inside", "members": ["lan", "opt1"]}},
        {"opnsense.gateway": {"name": "NEW_GW", "interface": "lan", "gateway": "192.168.1.254"}},
        {"opnsense.route": {"network": "10.99.0.0/16", "gateway": "NEW_GW"}},
        {"opnsense.rule": {"description": "r1", "interface": ["inside"], "source_net": "all_good"}},
        {"opnsense.rule": {"description": "r2", "interface": ["lan"], "gateway": "NEW_GW"}},
        {"opnsense.unbound_host": {"hostname": "nas", "domain": "example.org", "server": "192.0.2.1"}},
        {"opnsense.unbound_alias": {"host": "nas.example.org", "hostname": "f", "domain": "example.org"}},
        {"opnsense.shaper_pipe": {"description": "guests", "bandwidth": 20, "bandwidthMetric": "Mbit"}},
        {"opnsense.cron_job": {"description": "update check", "command": "firmware poll"}},
        {"opnsense.vlan": {"if": "vtnet3", "tag": 100}},
    ]
    result = world.fazai("apply", world.inventory(resources=resources))
    assert result.code == 0, result
    trials = [path for path in world.writes() if path.endswith("/set")]
    assert len(trials) == len(set(trials)) + 1  # hosts and aliases of the resolver share a path
    assert firewall.box.config.writes == len(resources)


def test_one_change_needs_no_trial(world: World) -> None:
    world.firewall()
    assert world.fazai("apply", world.inventory(resources=GOOD[:1])).code == 0
    assert not any(path.endswith("/set") for path in world.writes())


def test_a_key_that_may_not_try_still_applies(world: World) -> None:
    world.firewall(faults=(Fault(kind="status", path="firewall/*/set", status=403),))
    assert world.fazai("apply", world.inventory(resources=GOOD)).code == 0


def test_a_firewall_that_saves_a_trial_is_stopped_at(world: World) -> None:
    fault = Fault(kind="status", path="firewall/alias/set", status=200, body='{"result":"saved"}')
    world.firewall(faults=(fault,))
    result = world.fazai("apply", world.inventory(resources=GOOD))
    assert result.code == 1
    assert (
        "saved what it should have refused: a trial of 5 items of opnsense.alias" in result.out + result.err
    )
    assert [path for path in world.writes() if not path.endswith("/set")] == []
