"""Agents on the port 3121: hello, actions, and what the registry shows of them."""

from __future__ import annotations

from tests.daemon.live import until
from tests.daemon.southbound.client import done, execute
from tests.daemon.southbound.world import World


def test_an_agent_that_said_hello_is_listed_and_answers_a_command(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        row = world.row()
        assert row["state"] == "observation"
        assert row["protocol"] == "websocket"
        assert (row["version"], row["contract"], row["reconcile"]) == ("0.2.0", "1.1", "yes")
        number = relay.begin("edge-7", execute("a-1", "hello"))
        request = agent.recv()
        assert request == execute("a-1", "hello")
        assert world.row()["state"] == "execution"
        agent.send(done(request, stdout="hello\n"))
        assert relay.recv() == {"id": number, "answer": done(request, stdout="hello\n")}
        assert agent.recv() == {"method": "ack", "action_ids": ["a-1"]}
        assert world.row()["state"] == "observation"
        assert world.row()["last_outcome"] == "ok"
        assert relay.rows()["edge-7"]["state"] == "observation"
    until(lambda: world.row()["state"] == "closing")


def test_looking_leaves_an_agent_in_observation_and_is_no_event(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        until(lambda: [event["state"] for event in world.events("edge-7", "agent")][-1:] == ["observation"])
        before = len(world.events("edge-7", "agent"))
        look = {
            "method": "state.observe",
            "action_id": "o-1",
            "session": "s",
            "timeout": 1000,
            "resources": [],
        }
        number = relay.begin("edge-7", look)
        assert agent.recv() == look
        assert world.row()["state"] == "observation"
        answer = {"ok": True, "action_id": "o-1", "observation": {"items": []}}
        agent.send(answer)
        assert relay.recv() == {"id": number, "answer": answer}
        assert world.row()["last_outcome"] == "ok"
        relay.begin("edge-7", execute("a-1"))
        agent.send(done(agent.recv()))
        relay.recv()
        assert agent.recv() == {"method": "ack", "action_ids": ["a-1"]}
        until(lambda: len(world.events("edge-7", "agent")) >= before + 2)
        states = [event["state"] for event in world.events("edge-7", "agent")[before:]]
        assert states == ["execution", "observation"]
