"""Lists of firewalls that cannot work: what is said of them, when, and that nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

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
