"""Agents that break the contract: each is cut off, and said to be."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.live import until
from tests.daemon.southbound.client import Agent, done, execute
from tests.daemon.southbound.world import World


def part(index: int, data: bytes, *, last: bool = False, action_id: str = "a-1") -> dict[str, Any]:
    return {
        "method": "part",
        "action_id": action_id,
        "index": index,
        "last": last,
        "data": base64.b64encode(data).decode(),
    }


def twice(agent: Agent, request: dict[str, Any]) -> None:
    agent.send(done(request))
    agent.send(done(request))


def other_id(agent: Agent, request: dict[str, Any]) -> None:
    agent.send({**done(request), "action_id": "another"})


def no_id(agent: Agent, request: dict[str, Any]) -> None:
    answer = done(request)
    del answer["action_id"]
    agent.send(answer)


def parts_of_two(agent: Agent, _: dict[str, Any]) -> None:
    agent.send(part(0, b"x"))
    agent.send(part(1, b"x", action_id="a-2"))


LIES: dict[str, tuple[Callable[[Agent, dict[str, Any]], object], str]] = {
    "answers twice": (twice, "bad_request: an answer to a-1, which is not open"),
    "answers another action": (other_id, "bad_request: an answer to another, which is not open"),
    "answers nobody": (no_id, "bad_request: an answer has no `action_id`"),
    "neither asks nor answers": (
        lambda agent, _: agent.send({"action_id": "a-1"}),
        "bad_request: a message has neither `method` nor `ok`",
    ),
    "a number as its id": (
        lambda agent, request: agent.send({**done(request), "action_id": 7}),
        "bad_request: `action_id`: expected `str",
    ),
    "no JSON": (lambda agent, _: agent.send("hello"), "bad_json: JSON is malformed"),
    "binary": (lambda agent, _: agent.send(bytes(range(256))), "bad_request: messages are text"),
    "says hello again": (
        lambda agent, _: agent.send({"method": "command.exec", "action_id": "x"}),
        "bad_request: missing required field|bad_request: .*missing",
    ),
    "asks the daemon": (
        lambda agent, _: agent.send(execute("a-9")),
        "bad_request: command.exec is nothing that an agent sends after hello",
    ),
    "a name twice": (
        lambda agent, _: agent.send('{"method":"time","method":"time"}'),
        "bad_request: the name 'method' occurs twice",
    ),
    "a part that is not the next": (
        lambda agent, _: agent.send(part(1, b"x")),
        "bad_request: part 1 of a-1 is not the next one",
    ),
    "parts of two": (
        parts_of_two,
        "bad_request: part 1 of a-2 is not the next one",
    ),
    "parts of another action": (
        lambda agent, request: agent.send(part(0, b'{"ok":true,"action_id":"b"}', last=True)),
        "bad_request: the parts of a-1 hold another action",
    ),
    "parts that hold parts": (
        lambda agent, request: agent.send(
            part(0, b'{"method":"part","action_id":"a-1","index":0,"last":true,"data":""}', last=True)
        ),
        "bad_request: part is nothing that comes in parts",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_connection_and_is_announced(world: World, lie: str) -> None:
    tell, reason = LIES[lie]
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        tell(agent, agent.recv())
        code, said = agent.closed()
        assert code in (1003, 1008)
        assert re.match(reason, said), said
        if lie == "answers twice":
            assert relay.recv()["answer"]["ok"] is True
        else:
            assert relay.recv()["code"] == "agent_lost"
    until(lambda: world.row()["state"] == "closing")
    assert re.match(reason, world.row()["last_error"])
    until(lambda: any(event["state"] == "closing" for event in world.events("edge-7", "agent")))
    last = [event for event in world.events("edge-7", "agent") if event["state"] == "closing"]
    assert re.match(reason, last[0]["reason"])
    assert last[0]["level"] == "error"
    with world.agent(), world.relay() as relay:  # it may come back
        assert relay.rows()["edge-7"]["state"] == "observation"


def test_endless_output_is_cut_off(world: World) -> None:
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        agent.send(done(agent.recv(), stdout="x" * (1 << 20)))
        code, reason = agent.closed()
        assert code == 1009
        assert "exceeds limit of 1048576 bytes" in reason
        assert relay.recv()["code"] == "agent_lost"
    assert world.row()["last_error"] == f"bad_request: {reason}"


@pytest.mark.slow
def test_endless_parts_are_cut_off_at_their_limit(world: World) -> None:
    piece = b"x" * 750_000
    with world.agent() as agent, world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        agent.recv()
        for index in range(90):
            agent.send(part(index, piece))
        assert agent.closed() == (1008, "too_large: the parts have more than 67108864 bytes")
        assert relay.recv()["code"] == "agent_lost"
        until(lambda: world.south.session_parts.buffers.total_bytes == 0)


def test_parts_of_many_agents_share_a_bound(world: World) -> None:
    world.south.session_parts.buffers.limit_bytes = 2_000_000
    piece = b"x" * 750_000
    with world.agent("edge-7") as one, world.agent("edge-8") as two:
        for index in range(2):
            one.send(part(index, piece))
        assert one.ask({"method": "time"})["ok"] is True
        two.send(part(0, piece))
        assert two.closed()[1].startswith("overloaded: ")
        assert one.ask({"method": "time"})["ok"] is True


def test_a_lying_agent_does_not_disturb_another(world: World) -> None:
    with world.agent("edge-8") as good, world.relay() as relay:
        for number in range(3):
            with world.agent("edge-7", instance=f"start-{number}") as bad:
                relay.begin("edge-7", execute(f"a-{number}"))
                other_id(bad, bad.recv())
                bad.closed()
            assert relay.recv()["code"] == "agent_lost"
        number = relay.begin("edge-8", execute("b"))
        good.send(done(good.recv()))
        assert relay.recv() == {"id": number, "answer": done(execute("b"))}
