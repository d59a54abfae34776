"""How many requests a run costs a firewall, and that slow firewalls get the time that their settings give."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fazai.lab import Fault

from .conftest import World

ONE: dict[str, Any] = {"opnsense.alias": {"name": "one", "type": "host", "content": ["192.0.2.1"]}}
PING = "/api/diagnostics/interface/getInterfaceNames"


def asked(world: World) -> list[str]:
    """The requests without the uuids in them."""
    return [
        f"{method} {path.partition('/fa2a1000-')[0].removeprefix('/api/')}"
        for method, path, _ in world.firewalls["fw-01"].requests
    ]


def test_one_alias_costs_seven_requests_and_nothing_to_do_costs_one(world: World) -> None:
    world.firewall()
    inventory = world.inventory(resources=[ONE])
    assert world.fazai("apply", inventory).code == 0
    assert asked(world) == [
        "POST firewall/alias/searchItem",
        "POST firewall/alias/setItem",
        "POST firewall/alias/searchItem",  # read back
        "GET diagnostics/interface/getInterfaceNames",  # on a spare connection
        "POST firewall/alias/reconfigure",
        "GET diagnostics/interface/getInterfaceNames",  # on a fresh one
        "POST firewall/alias/searchItem",  # what runs
    ]
    world.forget()
    assert world.fazai("apply", inventory).code == 0
    assert asked(world) == ["POST firewall/alias/searchItem"]


def test_fifty_aliases_and_rules_cost_few_reads_beside_their_writes(world: World) -> None:
    world.firewall()
    resources: list[dict[str, Any]] = []
    for n in range(50):
        alias = {"name": f"a{n}", "type": "host", "content": [f"192.0.2.{n + 1}"]}
        resources.append({"opnsense.alias": alias})
        rule = {"description": f"r{n}", "interface": ["lan"], "source_net": f"a{n}"}
        resources.append({"opnsense.rule": rule})
    assert world.fazai("apply", world.inventory(resources=resources)).code == 0
    assert Counter(asked(world)) == {
        "POST firewall/alias/setItem": 50,
        "POST firewall/filter/setRule": 50,
        "POST firewall/alias/set": 1,
        "POST firewall/filter/set": 1,
        "POST firewall/alias/searchItem": 3,
        "POST firewall/filter/searchRule": 2,
        "POST firewall/alias/reconfigure": 1,
        "POST firewall/filter/apply": 1,
        "GET diagnostics/interface/getInterfaceNames": 9,  # eight spare connections, and the fresh one
    }


@pytest.mark.parametrize("status", [403, 404])
def test_a_key_that_may_not_ask_proves_that_the_firewall_answers(world: World, status: int) -> None:
    world.firewall(faults=(Fault(kind="status", path="diagnostics/interface/*", status=status, body="{}"),))
    assert world.fazai("apply", world.inventory(resources=[ONE])).code == 0


def test_a_connection_that_is_accepted_and_never_answered_is_said_as_such(world: World) -> None:
    world.firewall(faults=(Fault(kind="delay", path="diagnostics/interface/*", after=1, delay_s=60),))
    host = world.host(resources=[ONE], timeout=1, probe_timeout=1)
    result = world.fazai("apply", world.inventory({"fw-01": host}))
    assert result.code == 4
    assert "fw-01: the firewall takes new connections and does not answer on them any more" in result.out
    assert "1 change taken back" in result.out


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "<html>shop</html>"), (404, "<html>no such page</html>"), (200, '"OK"'), (403, "")],
)
def test_what_else_answers_at_the_address_is_no_proof(world: World, status: int, body: str) -> None:
    """A port forward, or a virtual address, that gives the firewall's own address to another web server."""
    fault = Fault(kind="status", path="diagnostics/interface/*", after=1, status=status, body=body)
    firewall = world.firewall(faults=(fault,))
    host = world.host(resources=[ONE], probe_timeout=1)
    result = world.fazai("apply", world.inventory({"fw-01": host}))
    assert result.code == 4
    assert "fw-01: the firewall does not answer new connections any more, something else does: " in result.out
    assert "1 change taken back" in result.out
    assert [
        row["name"]
        for row in firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        if row["name"] == "one"
    ] == []


@pytest.mark.slow
def test_a_slow_firewall_is_waited_for_as_long_as_its_settings_say(world: World) -> None:
    """Every answer takes longer than the five seconds that a ping once had."""
    world.firewall(latency_s=5.2)
    host = world.host(resources=[ONE], timeout=120, probe_timeout=120)
    result = world.fazai("apply", world.inventory({"fw-01": host}))
    assert (result.code, result.err) == (0, "")
    assert "RESULT 1 changed" in result.out
