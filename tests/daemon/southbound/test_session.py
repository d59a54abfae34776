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
