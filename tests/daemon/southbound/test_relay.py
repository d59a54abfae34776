"""Clients of the relay: who may, what a frame is, and that nobody fills the memory."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fazai.daemon.http.tokens import hash_of
from fazai.store.daemon import Token
from fazai.store.sqlite.tokens import TokenFile
from tests.daemon.live import token, until
from tests.daemon.southbound import client
from tests.daemon.southbound.client import done, execute
from tests.daemon.southbound.world import World


def known_token(world: World, name: str, role: Any) -> str:
    """A token that the daemon has read."""
    text = token(world.live.folder, name, role)
    with world.live.client(text) as http:
        until(lambda: http.get("/whoami").json().get("role") == role)
    return text


def test_a_token_of_an_operator_opens_the_relay_over_tls(world: World) -> None:
    text = known_token(world, "ops", "operator")
    with world.agent() as agent, client.relay(world.port, world.authority.file, text) as relay:
        number = relay.begin("edge-7", execute("a-1"))
        agent.send(done(agent.recv()))
        assert relay.recv() == {"id": number, "answer": done(execute("a-1"))}
    found = [json.loads(line) for line in world.live.log().splitlines()]
    (line,) = [one for one in found if "asked edge-7" in one["message"]]
    assert line["message"] == "token:ops asked edge-7 for command.exec"
    assert (line["logger"], line["action_id"], line["agent_id"]) == ("fazai.audit", "a-1", "edge-7")


@pytest.mark.parametrize(
    ("role", "status", "says"),
    [
        (None, 401, "unauthorized: a token is needed"),
        ("wrong", 401, "unauthorized: the token is not valid"),
        ("viewer", 403, "forbidden: token:me is viewer, this needs operator"),
    ],
)
def test_others_are_not_let_in(world: World, role: Any, status: int, says: str) -> None:
    text = role if role in (None, "wrong") else known_token(world, "me", role)
    with (
        pytest.raises(InvalidStatus, match=str(status)) as refused,
        client.relay(world.port, world.authority.file, text),
    ):
        pass
    assert refused.value.response.body.decode().startswith(says)
    until(lambda: f"refused: /southbound/relay from 127.0.0.1: {says}"[:60] in world.live.log())


def test_an_agent_certificate_opens_no_relay(world: World) -> None:
    url = f"wss://127.0.0.1:{world.port}/southbound/relay"
    context = client.tls(world.authority.file, world.authority.issue("edge-7"))
    with (
        pytest.raises(InvalidStatus, match="401"),
        connect(url, ssl=context, compression=None, proxy=None),
    ):
        pass


def test_a_client_whose_token_is_revoked_is_sent_away(world: World) -> None:
    text = known_token(world, "ops", "operator")
    with client.relay(world.port, world.authority.file, text) as relay:
        assert relay.rows() == {}
        now = time.time()
        revoked = Token(hash_of(text), "ops", "operator", now, revoked=now)
        TokenFile(world.live.folder / "state").put(revoked)
        with pytest.raises(ConnectionClosed, match="unauthorized: the token was revoked, or has expired"):
            relay.recv()


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ("hello", "bad_json: JSON is malformed"),
        ("[]", "bad_request: expected `object`"),
        ('{"id":-1,"list":true}', "bad_request: `id`"),
        ('{"list":true}', "bad_request: missing required field `id`|bad_request: .*`id`"),
        ('{"id":1,"list":true,"all":1}', "bad_request: .*unknown field `all`"),
        ('{"id":1,"id":2,"list":true}', "bad_request: the name 'id' occurs twice"),
        (b"\x00\x01", "bad_request: messages are text"),
    ],
)
def test_a_frame_that_is_none_ends_the_connection(world: World, frame: Any, says: str) -> None:
    with world.relay() as relay:
        relay.socket.send(frame)
        with pytest.raises(ConnectionClosed, match=says):
            relay.recv()


def test_a_frame_that_asks_for_nothing_is_refused_alone(world: World) -> None:
    with world.relay() as relay:
        relay.socket.send('{"id":7}')
        assert relay.recv() == {
            "id": 7,
            "error": "`agent` and `message` are needed, or `list`",
            "code": "bad_request",
        }
        relay.socket.send('{"id":8,"agent":"edge-7","message":[1]}')
        found = relay.recv()
        assert (found["id"], found["code"]) == (8, "bad_request")
        assert relay.rows() == {}


def test_a_client_that_takes_no_answers_is_not_read_and_then_cut_off(world: World) -> None:
    with world.agent() as agent, world.relay() as other:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(world.socket))
            raw.sendall(
                b"GET /southbound/relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert raw.recv(4096).startswith(b"HTTP/1.1 101 ")
            raw.settimeout(0.5)
            frame = json.dumps({"id": 1, "list": True}).encode()
            masked = b"\x81" + bytes([0x80 | len(frame)]) + b"\0\0\0\0" + frame
            with pytest.raises(TimeoutError):
                raw.sendall(masked * 1_000_000)
            connections = [one.connection for one in world.south.relay_parts.clients if one.connection]
            until(lambda: any(one.is_held for one in connections))
            (busy,) = [one for one in connections if one.is_held]
            assert busy.unsent_bytes < 64 << 20
            # others go on
            number = other.begin("edge-7", execute("a-1"))
            agent.send(done(agent.recv()))
            assert other.recv()["id"] == number
        until(lambda: len(world.south.relay_parts.clients) == 1)


def test_a_client_may_have_many_requests_open(world: World) -> None:
    with world.relay() as relay:
        agents = [f"m-{number}" for number in range(20)]
        opened = [world.agent(name) for name in agents]
        living = [one.__enter__() for one in opened]
        numbers = {relay.begin(name, execute("a-1")): name for name in agents}
        for one in reversed(living):
            request = one.recv()
            one.send(done(request, stdout=one.agent_id))
        for _ in agents:
            frame = relay.recv()
            assert numbers.pop(frame["id"]) == frame["answer"]["stdout"]
        for one in opened:
            one.__exit__(None, None, None)
    until(lambda: world.south.relay_parts.buffers.total_bytes == 0)


def test_too_much_at_once_is_overload(world: World) -> None:
    world.south.relay_parts.buffers.limit_bytes = 300
    with world.agent() as agent, world.relay() as relay:
        first = relay.begin("edge-7", execute("a-1", "x" * 100))
        request = agent.recv()
        found = relay.ask("edge-7", execute("a-2", "x" * 100))
        assert found["code"] == "overloaded"
        agent.send(done(request))
        assert relay.recv()["id"] == first
        until(lambda: world.south.relay_parts.buffers.total_bytes == 0)
