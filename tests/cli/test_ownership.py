"""Whose an item is: what others made is left alone, what we made may be pruned, within the cap."""

from __future__ import annotations

from typing import Any

from .conftest import World


def aliases(*numbers: int) -> list[dict[str, Any]]:
    return [
        {"opnsense.alias": {"name": f"a{n}", "type": "host", "content": [f"192.0.2.{n}"]}} for n in numbers
    ]


def stored(world: World) -> dict[str, dict[str, Any]]:
    rows = world.firewalls["fw-01"].call("POST", "/api/firewall/alias/searchItem", {})["rows"]
    return {row["name"]: row for row in rows}


def foreign(world: World, name: str, content: str) -> str:
    item = {"alias": {"name": name, "type": "host", "content": content}}
    answer = world.firewalls["fw-01"].call("POST", "/api/firewall/alias/addItem", item)
    return str(answer["uuid"])


def test_what_others_made_is_not_changed_without_adopt(world: World) -> None:
    world.firewall()
    uuid = foreign(world, "a1", "203.0.113.1")
    world.forget()
    refused = world.fazai("apply", world.inventory(resources=aliases(1, 2)))
    assert refused.code == 7
    assert '"a1" on fw-01 was not made by fazai' in refused.out
    assert "adopt: true" in refused.out
    assert world.writes() == []
    hosts = {"fw-01": world.host(resources=aliases(1, 2), adopt=True)}
    adopted = world.fazai("apply", world.inventory(hosts), "-v")
    assert adopted.code == 0, adopted.out
    assert "(adopted)" in adopted.out
    assert (stored(world)["a1"]["uuid"], stored(world)["a1"]["content"]) == (uuid, "192.0.2.1")
    hosts = {"fw-01": world.host(resources=[{**aliases(1)[0], "state": "absent"}])}
    gone = world.fazai("apply", world.inventory(hosts), "--yes")
    assert gone.code == 0, gone.out  # it was adopted, and that is remembered
    assert "a1" not in stored(world)


def test_an_equal_item_of_others_is_left_as_it_is(world: World) -> None:
    world.firewall()
    foreign(world, "a1", "192.0.2.1")
    result = world.fazai("apply", world.inventory(resources=aliases(1)))
    assert (result.code, "RESULT 0 changed, 1 unchanged" in result.out) == (0, True)


def test_prune_deletes_what_is_ours_and_no_longer_listed(world: World) -> None:
    world.firewall()
    foreign(world, "theirs", "203.0.113.1")
    world.fazai("apply", world.inventory(resources=aliases(*range(1, 21))))
    less = {"fw-01": world.host(resources=aliases(*range(1, 20)))}
    assert (
        "RESULT 0 changed" in world.fazai("apply", world.inventory(less)).out
    )  # not asked for: nothing goes
    less["fw-01"]["prune"] = True
    asked = world.fazai("apply", world.inventory(less))
    assert asked.code == 3
    assert "1 item on 1 target would be deleted" in asked.err
    assert world.fazai("apply", world.inventory(less), "--yes").code == 0
    assert "a20" not in stored(world)
    assert "theirs" in stored(world)


def test_prune_is_capped_and_never_with_a_filter(world: World) -> None:
    world.firewall()
    world.fazai("apply", world.inventory(resources=aliases(*range(1, 21))))
    few = {"fw-01": world.host(resources=[{**aliases(1)[0], "tags": ["one"]}], prune=True)}
    refused = world.fazai("apply", world.inventory(few), "--yes")
    assert refused.code == 7
    assert "at most 2 may be" in refused.out
    filtered = world.fazai("apply", world.inventory(few), "--yes", "--tags", "one")
    assert filtered.code == 0
    assert len([name for name in stored(world) if name.startswith("a")]) == 20
    few["fw-01"]["max_prune"] = "100%"
    assert world.fazai("apply", world.inventory(few), "--yes").code == 0
    assert [name for name in stored(world) if name.startswith("a")] == ["a1"]


def test_protected_names_stay(world: World) -> None:
    world.firewall()
    world.fazai("apply", world.inventory(resources=aliases(1, 2, 3)))
    options: dict[str, Any] = {"prune": True, "max_prune": "100%", "protected": ["a3"]}
    hosts = {"fw-01": world.host(resources=aliases(1), **options)}
    assert world.fazai("apply", world.inventory(hosts), "--yes").code == 0
    assert sorted(name for name in stored(world) if name.startswith("a")) == ["a1", "a3"]


def test_two_owners_share_a_firewall(world: World) -> None:
    world.firewall()
    world.fazai("apply", world.inventory({"fw-01": world.host(resources=aliases(1, 2), owner="blue")}))
    red = {"fw-01": world.host(resources=aliases(3), owner="red", prune=True, max_prune="100%")}
    assert world.fazai("apply", world.inventory(red), "--yes").code == 0
    assert {"a1", "a2", "a3"} <= set(stored(world))
    taken = {"fw-01": world.host(resources=[{**aliases(1)[0], "state": "absent"}], owner="red")}
    refused = world.fazai("apply", world.inventory(taken), "--yes")
    assert refused.code == 7
    assert '"a1" on fw-01 is managed by fazai for another owner' in refused.out
    assert "a1" in stored(world)


def test_the_order_of_the_list_is_the_order_on_the_firewall(world: World) -> None:
    firewall = world.firewall()

    def rules(*names: str) -> list[dict[str, Any]]:
        return [{"opnsense.rule": {"description": name, "interface": ["lan"]}} for name in names]

    def order() -> list[str]:
        rows = firewall.call("POST", "/api/firewall/filter/searchRule", {})["rows"]
        ours = [r for r in rows if str(r.get("uuid", "")).startswith("fa2a1000")]
        return [row["description"] for row in sorted(ours, key=lambda r: int(r["sequence"]))]

    world.fazai("apply", world.inventory(resources=rules("one", "two", "three", "four")))
    assert order() == ["one", "two", "three", "four"]
    world.forget()
    moved = world.fazai("apply", world.inventory(resources=rules("four", "one", "new", "two", "three")), "-v")
    assert moved.code == 0
    assert order() == ["four", "one", "new", "two", "three"]
    assert len([path for path in world.writes() if "setRule" in path]) == 2  # one moved, one made
    assert "> rule four" in moved.out
    assert 'after "one"' in moved.out


def test_source_nat_rules_without_effect_are_noted(world: World) -> None:
    world.firewall()
    rule = {
        "opnsense.source_nat": {
            "description": "out",
            "interface": "wan",
            "source_net": "10.0.0.0/8",
            "target": "wanip",
        }
    }
    inventory = world.inventory(resources=[rule])
    first = world.fazai("apply", inventory)
    assert first.code == 0, first.out
    assert "automatic mode" in first.out
    assert "RESULT 0 changed, 1 unchanged" in world.fazai("apply", inventory).out
    mode = {"opnsense.source_nat_mode": {"mode": "hybrid"}}
    both = world.fazai("apply", world.inventory(resources=[mode, rule]), "-v")
    assert both.code == 0, both.out
    assert "automatic mode" not in both.out
    assert (
        "RESULT 0 changed, 2 unchanged" in world.fazai("apply", world.inventory(resources=[mode, rule])).out
    )
