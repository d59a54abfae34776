"""The policy in the loop: what a rule allows needs no question, the rest is asked or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fazai.loop.effects import Effect
from fazai.policy.values import Decision
from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain
from tests.daemon.loop.test_loop import APPLY, LIST

POLICY = """
rules:
  - name: blocklists
    tool: reconcile.apply
    kinds: opnsense.alias
    targets: [fw-01]
    identities: [blocklist]
    verbs: [create]
    fields: [name, type, content]
    per_hour: 1
    expires: 2999-01-01
"""


def run(world: LoopWorld, *answers: Any) -> tuple[str, list[dict[str, Any]]]:
    world.model.answers[:] = [*answers, DONE]
    session = world.open()
    return session, plain(world.ask(session, "bring it back"))


def decisions(world: LoopWorld, session: str) -> list[dict[str, Any]]:
    return [one for one in world.journal(session) if one["entry"] == "decided" and one.get("effect")]


def test_what_a_rule_allows_is_done_without_a_question_and_counted(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text(POLICY)
    with loop_world(tmp_path) as world:
        session, events = run(
            world, LIST, APPLY
        )  # it has read what devices say, and its choice is a playbook
        assert events[-1]["result"]["stop_reason"] == "done"
        assert "blocklist" in world.world.aliases()
        (decided,) = decisions(world, session)
        assert (decided["verdict"], decided["rule"]) == ("allow", "blocklists")
        approved = [one for one in world.journal(session) if one["entry"] == "approved"]
        assert [one["by"] for one in approved] == ["policy:blocklists"]
        rows = world.world.firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        uuid = next(row["uuid"] for row in rows if row["name"] == "blocklist")
        world.world.firewall.call("POST", f"/api/firewall/alias/delItem/{uuid}", {})
        session, events = run(world, APPLY)
        assert events[-1]["result"]["stop_reason"] == "approval"  # used up
        assert decisions(world, session)[0]["reason"].startswith(
            "the rule blocklists allows it 1 time an hour"
        )
        assert "blocklist" not in world.world.aliases()


@pytest.mark.parametrize(
    ("policy", "stop", "verdict", "words"),
    [
        (
            POLICY.replace("fields: [name, type, content]", "fields: [content]"),
            "approval",
            "ask",
            "does not cover",
        ),
        (POLICY.replace("[fw-01]", "[fw-02]"), "approval", "ask", "the rule is about fw-02"),
        (POLICY.replace("2999", "2020"), "approval", "ask", "it expired"),
        (
            POLICY + "deny: [{name: edge, targets: [fw-*]}]\n",
            "done",
            "refuse",
            "edge denies fw-01/opnsense.alias",
        ),
        (POLICY.replace("fields", "field"), "done", "refuse", "the policy cannot be used"),
    ],
)
def test_what_no_rule_covers_is_asked_and_what_is_denied_is_refused(
    tmp_path: Path, policy: str, stop: str, verdict: str, words: str
) -> None:
    (tmp_path / "policy.yml").write_text(policy)
    with loop_world(tmp_path) as world:
        session, events = run(world, APPLY)
        assert events[-1]["result"]["stop_reason"] == stop
        (decided,) = decisions(world, session)
        assert decided["verdict"] == verdict
        assert words in decided["reason"]
        assert "blocklist" not in world.world.aliases()
        if verdict == "refuse":
            assert words in world.model.said()  # the model is told why


def test_a_policy_that_changes_while_it_is_shown_ends_the_approval(tmp_path: Path) -> None:
    with loop_world(tmp_path) as world:
        session, events = run(world, APPLY)
        shown = of_type(events, "action")[0]
        (tmp_path / "policy.yml").write_text(POLICY + "deny: [{name: edge, targets: [fw-*]}]\n")
        late = world.post("approve", session, shown)
        assert (late.status_code, late.json()["code"]) == (409, "conflict")
        assert "the policy was edited since this was shown" in late.json()["error"]
        assert "blocklist" not in world.world.aliases()


def test_a_session_that_a_rule_started_is_tainted_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy allows it a choice of the inventory, and nothing that the model wrote."""
    (tmp_path / "policy.yml").write_text(POLICY.replace("[fw-01]", "[fw-02]"))
    with loop_world(tmp_path) as world:
        policy, asked = world.daemon.services.policy, list[bool]()
        claim = policy.claim

        async def noting(effect: Effect, *, tainted: bool) -> Decision:
            asked.append(tainted)
            return await claim(effect, tainted=tainted)

        monkeypatch.setattr(policy, "claim", noting)
        run(world, APPLY)
        starter = world.daemon.services.rules.starter
        assert starter is not None
        world.model.answers[:] = [APPLY, DONE]
        session = world.daemon.call(lambda: starter.start_objective("look at 203.0.113.7", "scan"))
        until(lambda: world.session(session)["status"] == "waiting")
        assert asked == [False, True]
        assert (world.session(session)["owner"], decisions(world, session)[0]["verdict"]) == (
            "rule:scan",
            "ask",
        )
