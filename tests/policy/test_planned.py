"""The changes of a plan as an effect has them: what only says how something is written counts as well."""

from __future__ import annotations

from typing import Any

from fazai.plan import SavedPlan
from fazai.policy.planned import RECONCILE, plan_changes, plan_effect
from tests.policy.effects import NOW, ask, policy_of

FILES = """
rules:
  - name: motd
    tool: reconcile.apply
    kinds: host.file
    targets: box
    identities: /etc/motd
    verbs: update
    fields: content
    per_hour: 1
    expires: 2027-06-30
"""


def record(**more: Any) -> dict[str, Any]:
    plain = {
        "target": "box",
        "kind": "host.file",
        "identity": "/etc/motd",
        "verb": "update",
        "ref": "/etc/motd",
    }
    return {**plain, "before": {"content": "a"}, "after": {"content": "b"}, **more}


def decide(*records: dict[str, Any]) -> tuple[str, str]:
    plan = SavedPlan({}, "i", "f", "t", "v", {}, records)
    policy = policy_of(FILES)
    made = plan_effect(plan, RECONCILE, policy=policy.generation, expires=NOW + 60, ref="R")
    assert (made.base, made.inventory, made.free, made.ref) == (plan.digest, "i", False, "R")
    found = ask(policy, made)
    return found.verdict, found.reason


def test_a_plan_is_covered_by_its_changes() -> None:
    assert decide(record())[0] == "allow"


def test_what_runs_beside_a_change_is_a_field_of_it() -> None:
    """`validate: sh -c …` is no state of the file, and runs on the host."""
    options = {"validate": "sh -c 'id > /tmp/x; true %s'"}
    assert plan_changes([record(options=options)])[0].after == {"content": "b", **options}
    verdict, reason = decide(record(options=options))
    assert verdict == "ask"
    assert "the rule does not cover validate" in reason


def test_an_item_that_is_adopted_is_asked() -> None:
    verdict, reason = decide(record(adopts=True))
    assert verdict == "ask"
    assert "the rule does not cover (adopts)" in reason


def test_a_plan_without_changes_is_asked() -> None:
    assert decide()[1] == "it does not say what it changes"
