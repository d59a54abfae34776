"""From telemetry to an entry on a firewall and out of it again: by plans, under the policy, over restarts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fazai.cli.main import main
from fazai.daemon.runs.child import entries_path
from tests.daemon.live import until
from tests.daemon.rules.world import (
    ATTACKER,
    POLICY,
    RESOURCES,
    RULES,
    alert,
    applied,
    checks,
    content,
    daemon,
    lab_firewall,
    report,
    set_clock,
    wait_content,
)
from tests.daemon.runs_world import World, write_inventory


def test_hits_of_a_sensor_become_one_plan_that_the_policy_allows_and_it_ends(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall) as world:
        for number in range(4):
            report(world, -number, alert(), alert("203.0.113.9", severity=3))
        assert content(firewall) == []
        report(world, -4, alert())
        wait_content(world, [ATTACKER])
        (run,) = applied(world)
        assert run["exit_code"] == 0
        log = world.daemon.log()
        assert f"{ATTACKER} is to be in attackers for 86400 s: suricata: 5 hits within 600 s" in log
        assert "the rule attackers of the policy allowed" in log
        assert (run["trigger"], run["by"]) == ("approval", "policy:attackers")
        checked = checks(world)[0]
        assert (checked["trigger"], checked["by"]) == ("rule", "event rules")
        assert world.plan(checked["run_id"])["approved_by"] == "policy:attackers"
        report(world, -5, *[alert()] * 9)  # throttled: nothing more is done
        start = time.time()
        set_clock(world, lambda: time.time() + 86401)
        wait_content(world, [])
        assert len(applied(world)) == 2
        assert time.time() - start < 86400


def five_hits(world: World, address: str = ATTACKER, start: int = 0) -> None:
    for number in range(5):
        report(world, -start - number, alert(address))


def waits_for_a_person(world: World, words: str) -> dict[str, Any]:
    """The plan that waits, once the log says why."""
    until(lambda: "the plan of edge waits for a person: " in world.daemon.log())
    assert words in world.daemon.log()
    assert applied(world) == []
    return world.plan(checks(world)[0]["run_id"])


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (None, "no rule allows it"),
        (POLICY.replace("[attackers]", "[other]"), "the rule is about other"),
        (POLICY.replace("[create, update]", "[update]"), "the rule lets it update"),
        (POLICY.replace("2999", "2020"), "it expired at 2020-01-01"),
        (POLICY.replace("per_hour", "per_day"), "the policy cannot be used"),
        (POLICY + "deny: [{name: core, targets: [fw-*]}]\n", "core denies fw-01/opnsense.alias/attackers"),
    ],
)
def test_without_a_rule_of_the_policy_the_plan_waits_for_a_person(
    tmp_path: Path, policy: str | None, words: str
) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall, policy=policy) as world:
        five_hits(world)
        plan = waits_for_a_person(world, words)
        assert (plan["state"], content(firewall)) == ("pending", [])
        body = {"run_id": checks(world)[0]["run_id"], "plan_hash": plan["plan_hash"]}
        answer = world.client.post(f"/runs/{body['run_id']}/approve", json={"plan_hash": plan["plan_hash"]})
        assert answer.status_code == 202, answer.text
        wait_content(world, [ATTACKER])


def test_a_policy_that_is_put_in_place_later_is_asked_again(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall, policy=None) as world:
        five_hits(world)
        waits_for_a_person(world, "no rule allows it")
        (tmp_path / "policy.yml").write_text(POLICY)
        world.daemon.call(world.daemon.services.rules.keeper.wake)
        wait_content(world, [ATTACKER])


def test_a_plan_that_does_more_waits_for_a_person(tmp_path: Path) -> None:
    more = [*RESOURCES, {"opnsense.alias": {"name": "other", "type": "host", "content": ["192.0.2.1"]}}]
    with lab_firewall(tmp_path) as firewall:
        write_inventory(tmp_path, firewall, more)
        with daemon(tmp_path, firewall, policy=POLICY.replace("[attackers]", "['*']")) as world:
            five_hits(world)
            waits_for_a_person(world, "fw-01/opnsense.alias/other is no alias of an event rule")


def test_what_somebody_put_into_the_alias_by_hand_is_not_taken_out_without_a_person(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall) as world:
        five_hits(world)
        wait_content(world, [ATTACKER])
        rows = firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        uuid = next(row["uuid"] for row in rows if row["name"] == "attackers")
        by_hand = {"alias": {"content": f"{ATTACKER}\n192.0.2.99"}}
        assert firewall.call("POST", f"/api/firewall/alias/setItem/{uuid}", by_hand)["result"] == "saved"
        five_hits(world, "203.0.113.8")
        until(lambda: "would lose 192.0.2.99, which no event rule put there" in world.daemon.log())
        assert content(firewall) == ["192.0.2.99", ATTACKER]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "it is a firewall's, or the daemon's own"),
        ("127.9.9.9", "it is no address of another host"),
        ("169.254.1.1", "it is no address of another host"),
        ("10.1.2.3", "it is in a private network"),
        ("fd00::1", "it is in a private network"),
        ("198.51.100.9", "it is in 198.51.100.0/24, of which nothing is ever blocked"),
        ("::ffff:198.51.100.9", "it is in 198.51.100.0/24"),
        ("203.0.113.0/24", "it is no address"),
        ("evil.example", "it is no address"),
        ("203.0.113.7; rm", "it is no address"),
    ],
)
def test_protected_addresses_and_what_is_none_get_nowhere(tmp_path: Path, address: str, words: str) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall) as world:
        five_hits(world, address)
        until(lambda: "the rule suricata does nothing about" in world.daemon.log())
        assert words in world.daemon.log()
        five_hits(world, "203.0.113.8", 5)  # others are not held up
        wait_content(world, ["203.0.113.8"])


def test_an_alias_takes_as_many_as_the_rule_says(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall:
        rules = RULES.replace("most: 10", "most: 2")
        with daemon(tmp_path, firewall, rules) as world:
            for number in range(3):
                five_hits(world, f"203.0.113.{number}", number * 5)
            until(lambda: "attackers has 2 entries already" in world.daemon.log())
            wait_content(world, ["203.0.113.0", "203.0.113.1"])


def test_a_restart_between_hits_and_plan_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall:
        with daemon(tmp_path, firewall, policy=None) as world:
            five_hits(world)
            waits_for_a_person(world, "no rule allows it")
        assert json.loads(entries_path(tmp_path / "state", "edge").read_text())["aliases"]["attackers"]
        with daemon(tmp_path, firewall) as world:
            wait_content(world, [ATTACKER])
            five_hits(world, start=10)  # throttled since before the restart
            five_hits(world, "203.0.113.8", start=20)
            wait_content(world, ["203.0.113.7", "203.0.113.8"])
            assert world.daemon.log().count(f"{ATTACKER} is to be in attackers") == 1
        with daemon(tmp_path, firewall) as world:
            until(lambda: len(checks(world)) and not world.daemon.services.run_queue.busy_jobs())
            assert len(applied(world)) == 2


def test_an_entry_that_ended_while_the_daemon_was_away_is_taken_out_by_any_run_of_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reconciler reads the times itself: no daemon, no timer."""
    with lab_firewall(tmp_path) as firewall:
        with daemon(tmp_path, firewall) as world:
            five_hits(world)
            wait_content(world, [ATTACKER])
        file = entries_path(tmp_path / "state", "edge")
        words = ["apply", str(tmp_path / "inventory.yml"), "--entries", str(file), "--quiet"]
        assert main(words) == 0
        assert content(firewall) == [ATTACKER]
        body = json.loads(file.read_text())
        body["aliases"]["attackers"][0]["until"] = "2026-01-01T00:00:00Z"
        file.write_text(json.dumps(body))
        assert main(words) == 0
        assert content(firewall) == []


def test_broken_rules_do_nothing_and_what_they_put_in_place_still_ends(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall:
        with daemon(tmp_path, firewall) as world:
            five_hits(world)
            wait_content(world, [ATTACKER])
        with daemon(tmp_path, firewall, RULES.replace("threshold", "treshold")) as world:
            five_hits(world, "203.0.113.8", 5)
            assert "knows no 'treshold'" in world.daemon.log()
            set_clock(world, lambda: time.time() + 86401)
            wait_content(world, [])


def test_what_is_put_into_never_is_let_go(tmp_path: Path) -> None:
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall) as world:
        five_hits(world)
        five_hits(world, "203.0.113.8", 5)
        wait_content(world, [ATTACKER, "203.0.113.8"])
        rules = world.daemon.services.rules
        (tmp_path / "rules.yml").write_text(RULES.replace("never: [", f"never: [{ATTACKER}, "))
        until(lambda: len(world.daemon.call(lambda: rules.book.rules.never)) == 2)
        world.daemon.call(rules.keeper.wake)
        wait_content(world, ["203.0.113.8"])
        broken = RULES.replace("threshold", "treshold")
        (tmp_path / "rules.yml").write_text(broken)
        until(lambda: world.daemon.call(lambda: rules.book.rules.broken))
        world.daemon.call(rules.keeper.step)
        assert in_file(tmp_path) == ["203.0.113.8"]
    with lab_firewall(tmp_path) as firewall, daemon(tmp_path, firewall, broken) as world:
        world.daemon.call(world.daemon.services.rules.keeper.step)
        assert in_file(tmp_path) == ["203.0.113.8"]  # nobody knows by now what is protected
        (tmp_path / "rules.yml").write_text(RULES)
        until(lambda: not world.daemon.call(lambda: world.daemon.services.rules.book.rules.broken))
        world.daemon.call(world.daemon.services.rules.keeper.step)
        assert in_file(tmp_path) == [ATTACKER, "203.0.113.8"]


def in_file(folder: Path) -> list[str]:
    """The addresses that the job's file has."""
    rows = json.loads(entries_path(folder / "state", "edge").read_text())["aliases"]["attackers"]
    return [row["address"] for row in rows]
