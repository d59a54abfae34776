"""Outcomes reach the store before they are acknowledged, and the event stream once."""

from __future__ import annotations

import time
from typing import Any

from fazai.store.daemon import StoreLimits
from fazai.store.sqlite.agent_actions import trim_agent_actions
from fazai.store.sqlite.schema import FILE_NAME, connect
from tests.daemon.live import until
from tests.daemon.southbound.client import done, execute, split
from tests.daemon.southbound.world import World


def result(action_id: str, answer: dict[str, Any], of: str = "command.exec") -> dict[str, Any]:
    return {"method": "result", "action_id": action_id, "of": of, "answer": answer}


def outcomes(world: World, action_id: str) -> list[dict[str, Any]]:
    """The events of an action's outcome."""
    return [event for event in world.events("edge-7", "log") if event.get("action_id") == action_id]


def stored(world: World, action_id: str) -> Any:
    store = world.live.services.store
    return world.live.call(lambda: store.agent_action("edge-7", action_id))


def test_an_action_is_recorded_before_it_is_sent_and_its_outcome_before_it_is_acknowledged(
    world: World,
) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1", env={"TOKEN": "hunter2 asked"}))
        request = agent.recv()
        found = stored(world, "a-1")
        assert (found.method, found.done, found.answer) == ("command.exec", None, None)
        assert found.client.startswith("uid:")
        assert len(found.digest) == 64
        agent.send(done(request, exit_code=3, stdout="hunter2 told"))
        assert agent.recv() == {"method": "ack", "action_ids": ["a-1"]}
        found = stored(world, "a-1")
        assert found.done is not None
        assert b'"exit_code": 3' in found.answer
        (event,) = outcomes(world, "a-1")
        assert event["message"] == "command.exec on edge-7: exit code 3"
        assert (event["target"], event["level"]) == ("edge-7", "info")
        assert "hunter2" not in str(world.events()) + world.live.log()


def test_outcomes_that_come_later_are_stored_once(world: World) -> None:
    answers = [done(execute(f"a-{number}"), stdout=str(number)) for number in range(50)]
    with world.relay() as relay:
        with world.agent() as agent:
            relay.begin("edge-7", execute("a-0"))
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"
        for _ in range(2):  # the second time as if no answer to the first had come
            with world.agent() as agent:
                for number, answer in enumerate(answers):
                    agent.send(result(f"a-{number}", answer))
                for number in range(50):
                    assert agent.recv() == {"ok": True, "action_id": f"a-{number}"}
        known, unknown = outcomes(world, "a-0"), outcomes(world, "a-1")
        assert [event["message"] for event in known] == ["command.exec on edge-7: exit code 0"]
        assert [event["message"] for event in unknown] == [
            "command.exec on edge-7: exit code 0 (it is not known here who asked for it)"
        ]
        every = [event for event in world.events("edge-7", "log") if "exit code 0" in event["message"]]
        assert len(every) == 50
        with world.agent():  # and the client that repeats its action has the outcome
            assert relay.ask("edge-7", execute("a-0"))["answer"] == answers[0]


def test_an_interrupted_action_stays_interrupted(world: World) -> None:
    lost = {"ok": False, "action_id": "a-1", "error": "what became of it is unknown", "code": "interrupted"}
    with world.relay() as relay:
        with world.agent(instance="one") as agent:
            relay.begin("edge-7", execute("a-1"))
            agent.recv()
        assert relay.recv()["code"] == "agent_lost"
        with world.agent(instance="two") as agent:
            assert agent.ask(result("a-1", lost))["ok"] is True
            assert relay.ask("edge-7", execute("a-1"))["answer"] == lost
        assert outcomes(world, "a-1")[0]["level"] == "warning"


def test_a_result_that_is_no_answer_of_its_action_is_refused(world: World) -> None:
    with world.agent() as agent:
        for wrong in (done(execute("a-2")), {"action_id": "a-1"}, {"ok": True}):
            found = agent.ask(result("a-1", wrong))
            assert (found["ok"], found["code"]) == (False, "bad_request")
            assert found["error"] == "`answer` is no answer of this action"
        assert stored(world, "a-1") is None


def test_a_large_answer_is_kept_without_its_text(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        answer = done(agent.recv(), exit_code=4, stdout="x" * 2_000_000)
        for part in split(answer, "a-1"):
            agent.send(part)
        assert relay.recv()["answer"] == answer
        assert agent.recv()["method"] == "ack"
        assert relay.ask("edge-7", execute("a-1"))["answer"] == done(
            execute("a-1"), exit_code=4, truncated=True
        )


def test_outcomes_go_by_age_and_their_text_by_size(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        for number in range(3):
            relay.begin("edge-7", execute(f"a-{number}"))
            agent.send(done(agent.recv(), stdout="x" * 1000))
            relay.recv()
            agent.recv()
        connection = connect(world.live.folder / "state" / FILE_NAME)
        assert not trim_agent_actions(connection, StoreLimits(actions_bytes=2500), time.time())
        assert [stored(world, f"a-{n}").answer is None for n in range(3)] == [True, False, False]
        gone = relay.ask("edge-7", execute("a-0"))
        assert (gone["code"], gone["error"]) == (
            "not_found",
            "its outcome came, and its text is no longer kept",
        )
        assert not trim_agent_actions(connection, StoreLimits(actions_age_s=0.0), time.time() + 1)
        assert stored(world, "a-2") is None
        connection.close()


def test_what_cannot_be_stored_is_not_acknowledged(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        request = agent.recv()
        store: Any = world.live.services.store
        world.live.call(store._writer.close)  # the disk takes nothing any more
        agent.send(done(request))
        assert relay.recv()["answer"]["ok"] is True
        assert agent.ask({"method": "time"})["ok"] is True
        until(lambda: "the outcome of a-1 is not stored" in world.live.log())
        found = agent.ask(result("a-9", done(execute("a-9"))))
        assert (found["ok"], found["code"]) == (False, "unavailable")
        found = relay.ask("edge-7", execute("a-2"))
        assert (found["code"], found["error"]) == (
            "unavailable",
            "it could not be recorded: the store is closed",
        )
