"""Every action that the daemon recorded has an outcome, and a repeated one is answered from its store whether
the agent is connected or not."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from fazai.store.daemon import NOT_SENT, UNKNOWN
from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon.live import until
from tests.daemon.southbound import client
from tests.daemon.southbound.client import done, execute
from tests.daemon.southbound.test_outcomes import outcomes, result, stored
from tests.daemon.southbound.world import World

ASKED = [*client.CAPABILITIES, "outcomes"]


def leave_open(world: World, action_id: str, **more: Any) -> None:
    """Have an action recorded and sent, and cut its agent off before it answers."""
    with world.relay() as relay:
        with world.agent(**more) as agent:
            relay.begin("edge-7", execute(action_id))
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"


def test_a_repeated_action_is_answered_while_the_agent_is_away(world: World) -> None:
    with world.relay() as relay:
        with world.agent() as agent:
            relay.begin("edge-7", execute("a-1"))
            answer = done(agent.recv(), exit_code=3, stdout="once\n")
            agent.send(answer)
            assert relay.recv()["answer"] == answer
            assert agent.recv()["method"] == "ack"
        until(lambda: world.row()["state"] == "closing")
        assert relay.ask("edge-7", execute("a-1"))["answer"] == answer
        other = relay.ask("edge-7", execute("a-1", "other"))
        assert (other["code"], other["error"]) == ("conflict", "a-1 was another action")
        new = relay.ask("edge-7", execute("a-2"))
        assert new["code"] == "agent_offline"
        assert "edge-7 is not connected" in new["error"]
        assert stored(world, "a-2") is None


def test_a_repeated_action_is_answered_by_an_agent_that_does_not_serve_it_any_more(world: World) -> None:
    with world.relay() as relay:
        with world.agent() as agent:
            relay.begin("edge-7", execute("a-1"))
            agent.send(done(agent.recv()))
            assert relay.recv()["answer"]["ok"] is True
            assert agent.recv()["method"] == "ack"
        with world.agent(capabilities=["ack", "result"]):
            assert relay.ask("edge-7", execute("a-1"))["answer"] == done(execute("a-1"))
            assert relay.ask("edge-7", execute("a-2"))["code"] == "unknown_method"


def test_an_action_whose_outcome_has_not_come_is_not_told_as_without_effect(world: World) -> None:
    leave_open(world, "a-1")
    until(lambda: world.row()["state"] == "closing")
    with world.relay() as relay:
        found = relay.ask("edge-7", execute("a-1"))
    assert found["code"] == "agent_lost"
    assert found["error"].startswith("a-1 was sent before, and its outcome has not come: edge-7 is not conn")


OLD: dict[str, Any] = {"contract": None, "capabilities": ["command.exec", "file.diff", "file.apply"]}


def test_what_an_agent_cannot_say_is_told_as_unknown_once_it_is_back(world: World) -> None:
    """One of contract 1.0: nobody waits for an outcome that cannot come."""
    leave_open(world, "a-1", **OLD)
    assert stored(world, "a-1").done is None
    with world.agent(**OLD) as agent, world.relay() as relay:
        until(lambda: stored(world, "a-1").done is not None)
        assert stored(world, "a-1").answer == UNKNOWN
        (event,) = outcomes(world, "a-1")
        assert event["level"] == "warning"
        assert event["message"] == (
            "command.exec on edge-7: agent_lost: the agent cannot say what became of it: look at the machine,"
            " and update the agent"
        )
        # asked for again, the agent is asked, which knows what it did
        other = relay.ask("edge-7", execute("a-1", "other"))
        assert (other["code"], other["error"]) == ("conflict", "a-1 was another action")
        relay.begin("edge-7", execute("a-1"))
        answer = done(agent.recv(), exit_code=5)
        agent.send(answer)
        assert relay.recv()["answer"] == answer
        until(lambda: stored(world, "a-1").answer not in (None, UNKNOWN))
    until(lambda: world.row()["state"] == "closing")
    with world.relay() as relay:
        assert relay.ask("edge-7", execute("a-1"))["answer"] == answer


def test_what_is_unknown_is_not_told_as_without_effect_while_the_agent_is_away(world: World) -> None:
    leave_open(world, "a-1", **OLD)
    with world.agent(**OLD):
        until(lambda: stored(world, "a-1").done is not None)
    until(lambda: world.row()["state"] == "closing")
    with world.relay() as relay:
        found = relay.ask("edge-7", execute("a-1"))
    assert found["code"] == "agent_lost"
    assert "a-1 was sent before, and its outcome has not come" in found["error"]


def test_an_agent_that_delivers_outcomes_by_itself_is_waited_for(world: World) -> None:
    leave_open(world, "a-1")
    with world.agent() as agent:
        assert agent.ask({"method": "time"})["ok"] is True
        answer = done(execute("a-1"), exit_code=6)
        assert agent.ask(result("a-1", answer))["ok"] is True
        assert json.loads(stored(world, "a-1").answer)["exit_code"] == 6
        assert [event["level"] for event in outcomes(world, "a-1")] == ["info"]


@pytest.mark.slow  # 45 s: the second action waits until the first is given up
def test_an_agent_is_asked_about_actions_without_an_outcome(world: World) -> None:
    leave_open(world, "a-1")
    leave_open(world, "a-2")
    with world.agent(capabilities=ASKED) as agent, world.relay() as relay:
        question = agent.recv()
        assert (question["method"], sorted(question["action_ids"])) == ("outcomes", ["a-1", "a-2"])
        agent.send({"ok": True, "action_id": question["action_id"], "unknown": ["a-1", "a-9"]})
        answer = done(execute("a-2"), exit_code=4)
        assert agent.ask(result("a-2", answer))["ok"] is True
        until(lambda: stored(world, "a-1").done is not None)
        assert stored(world, "a-1").answer == NOT_SENT
        assert stored(world, "a-9") is None
        (event,) = outcomes(world, "a-1")
        assert event["message"] == (
            "command.exec on edge-7: not_sent: it did not reach the agent, and had no effect"
        )
        assert relay.ask("edge-7", execute("a-2"))["answer"] == answer
        # it had no effect, so that it is carried out when it is asked for again: as the same action only
        other = relay.ask("edge-7", execute("a-1", "other"))
        assert (other["code"], other["error"]) == ("conflict", "a-1 was another action")
        relay.begin("edge-7", execute("a-1"))
        request = agent.recv()
        assert stored(world, "a-1").done is None
        agent.send(done(request))
        assert relay.recv()["answer"]["ok"] is True
        assert agent.recv() == {"method": "ack", "action_ids": ["a-1"]}
        assert b'"exit_code": 0' in stored(world, "a-1").answer
    with world.agent(capabilities=ASKED) as agent:  # nothing is open any more: nothing is asked
        assert agent.ask({"method": "time"})["ok"] is True


def test_an_action_that_did_not_reach_the_agent_is_offline_while_it_is_away(world: World) -> None:
    leave_open(world, "a-1")
    with world.agent(capabilities=ASKED) as agent:
        agent.send({"ok": True, "action_id": agent.recv()["action_id"], "unknown": ["a-1"]})
        until(lambda: stored(world, "a-1").done is not None)
    until(lambda: world.row()["state"] == "closing")
    with world.relay() as relay:
        assert relay.ask("edge-7", execute("a-1"))["code"] == "agent_offline"


def test_an_outcome_that_comes_all_the_same_counts(world: World) -> None:
    leave_open(world, "a-1")
    with world.agent(capabilities=ASKED) as agent:
        agent.send({"ok": True, "action_id": agent.recv()["action_id"], "unknown": ["a-1"]})
        until(lambda: stored(world, "a-1").done is not None)
        assert agent.ask(result("a-1", done(execute("a-1"), exit_code=5)))["ok"] is True
    assert b'"exit_code": 5' in stored(world, "a-1").answer


def test_after_a_day_an_agent_that_knows_nothing_proves_nothing(world: World) -> None:
    leave_open(world, "a-1")
    with contextlib.closing(sqlite3.connect(world.live.folder / "state" / FILE_NAME)) as connection:
        connection.execute("UPDATE agent_actions SET sent = sent - 86401")
        connection.commit()
    with world.agent(capabilities=ASKED) as agent:
        agent.send({"ok": True, "action_id": agent.recv()["action_id"], "unknown": ["a-1"]})
        until(lambda: stored(world, "a-1").done is not None)
    (event,) = outcomes(world, "a-1")
    assert "agent_lost: neither the daemon nor the agent knows what became of it" in event["message"]


@pytest.mark.parametrize("capabilities", [client.CAPABILITIES, ASKED])
def test_an_older_agent_is_not_asked_and_settles_by_its_results(
    world: World, capabilities: list[str]
) -> None:
    leave_open(world, "a-1")
    with world.agent(capabilities=capabilities) as agent:
        if "outcomes" in capabilities:  # it is no answer that the daemon can use
            refused = {"ok": False, "error": "not now", "code": "internal"}
            agent.send({**refused, "action_id": agent.recv()["action_id"]})
        assert agent.ask({"method": "time"})["ok"] is True
        assert stored(world, "a-1").done is None
        assert agent.ask(result("a-1", done(execute("a-1"))))["ok"] is True
    assert stored(world, "a-1").done is not None


def test_what_cannot_be_sent_has_that_as_its_outcome(world: World) -> None:
    few = ["command.exec", "ack", "result"]  # no parts
    with world.agent(capabilities=few), world.relay() as relay:
        found = relay.ask("edge-7", execute("a-1", stdin="x" * 1_100_000))
        assert found["code"] == "too_large"
        until(lambda: stored(world, "a-1").done is not None)
        assert stored(world, "a-1").answer == NOT_SENT


def test_a_question_is_answered_once(world: World) -> None:
    leave_open(world, "a-1")
    with world.agent(capabilities=ASKED) as agent:
        answer = {"ok": True, "action_id": agent.recv()["action_id"], "unknown": []}
        agent.send(answer)
        agent.send(answer)
        assert agent.closed() == (
            1008,
            f"bad_request: an answer to {answer['action_id']}, which is not open",
        )
