"""fazai diff: two firewalls side by side."""

from __future__ import annotations

import json

from fazai.lab import Fault
from tests.cli.conftest import World


def _two(world: World) -> list[str]:
    for name, address in (("fw-01", "192.0.2.1"), ("fw-02", "192.0.2.2")):
        firewall = world.firewall(name)
        for alias in ("both", name.replace("-", "_")):
            body = {"alias": {"name": alias, "type": "host", "content": address, "description": alias}}
            assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
    inventory = world.inventory({name: world.host(name) for name in ("fw-01", "fw-02")})
    return [str(inventory), "fw-01", "fw-02"]


def test_two_firewalls(world: World) -> None:
    found = world.fazai("diff", *_two(world))
    assert found.code == 2
    assert found.out.splitlines() == [
        "--- fw-01",
        "+++ fw-02",
        "~ alias both",
        '    content: ["192.0.2.1"] | ["192.0.2.2"]',
        "- alias fw_01",
        "+ alias fw_02",
    ]
    assert found.err.startswith("3 differences, 4 left out of fw-01")


def test_the_same_is_no_difference(world: World) -> None:
    found = world.fazai("diff", *_two(world), "--kind", "gateway")
    assert (found.code, found.out) == (0, "--- fw-01\n+++ fw-02\n")


def test_as_json(world: World) -> None:
    found = world.fazai("diff", *_two(world), "--kind", "alias", "--output", "json")
    said = json.loads(found.out)
    assert (said["first"], said["second"]) == ("fw-01", "fw-02")
    assert said["differences"][0] == {
        "kind": "opnsense.alias",
        "identity": "both",
        "fields": {"content": [["192.0.2.1"], ["192.0.2.2"]]},
    }
    assert [row.get("only") for row in said["differences"][1:]] == ["first", "second"]


def test_two_are_compared(world: World) -> None:
    found = world.fazai("diff", *_two(world)[:2])
    assert found.code == 3
    assert "two are compared" in found.err


def _rules(world: World, *each: list[dict[str, str]]) -> list[str]:
    for name, rules in zip(("fw-01", "fw-02"), each, strict=True):
        firewall = world.firewall(name)
        for rule in rules:
            body = {"rule": {"interface": "lan", "description": "web", **rule}}
            assert firewall.call("POST", "/api/firewall/filter/addRule", body)["result"] == "saved"
    inventory = world.inventory({name: world.host(name) for name in ("fw-01", "fw-02")})
    return [str(inventory), "fw-01", "fw-02", "--kind", "rule"]


def test_items_of_one_name_are_compared_each(world: World) -> None:
    both = {"interface": "opt1"}
    found = world.fazai("diff", *_rules(world, [{"action": "pass"}, both], [{"action": "block"}, both]))
    assert found.code == 2
    assert "~ rule web" in found.out
    assert "action" in found.out


def test_one_of_several_that_is_missing(world: World) -> None:
    found = world.fazai("diff", *_rules(world, [{}, {"interface": "opt1"}], [{}]))
    assert found.code == 2
    assert [line[:10] for line in found.out.splitlines()[2:]] == ["- rule web"]


def test_rules_in_another_order(world: World) -> None:
    one, two = {"description": "one"}, {"description": "two", "action": "block"}
    found = world.fazai("diff", *_rules(world, [one, two], [two, one]))
    assert (found.code, found.out.splitlines()[2:]) == (2, ["~ rule: in another order"])


def test_lists_are_compared_without_their_order(world: World) -> None:
    for name, content in (("fw-01", "192.0.2.1\n192.0.2.2"), ("fw-02", "192.0.2.2\n192.0.2.1")):
        body = {"alias": {"name": "a", "type": "host", "content": content}}
        firewall = world.firewall(name)
        assert firewall.call("POST", "/api/firewall/alias/addItem", body)["result"] == "saved"
    inventory = world.inventory({name: world.host(name) for name in ("fw-01", "fw-02")})
    assert world.fazai("diff", inventory, "fw-01", "fw-02", "--kind", "alias").code == 0


def test_what_a_key_may_not_read_is_not_nothing(world: World) -> None:
    words = _two(world)
    fault = Fault(
        kind="status", path="firewall/alias/*", status=403, body='{"status": 403, "message": "Forbidden"}'
    )
    world.firewalls["fw-02"].inject(fault)
    found = world.fazai("diff", *words, "--kind", "alias")
    assert found.code == 1
    assert found.out == ""
