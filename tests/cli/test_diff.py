"""fazai diff: two firewalls side by side."""

from __future__ import annotations

import json

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
    assert found.err.startswith("3 differences, 3 left out of fw-01")


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
