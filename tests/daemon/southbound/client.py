"""A second agent, written from the contract alone, and a client of the relay: what they say stands in the
tests."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.daemon.live import PATIENCE_S
from tests.daemon.southbound.authority import Pair

CAPABILITIES = [
    *("command.exec", "telemetry.push", "file.diff", "file.apply", "state.observe", "state.apply"),
    *("state.close", "cancel", "ack", "result", "renew", "part", "time"),
]


def tls(ca: Path, pair: Pair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def hello(agent_id: str, **more: Any) -> dict[str, Any]:
    clock = datetime.now(UTC) + timedelta(seconds=more.pop("clock_s", 0))
    said = {
        "method": "hello",
        "agent_id": agent_id,
        "name": f"The {agent_id}",
        "version": "0.2.0",
        "capabilities": CAPABILITIES,
        "timestamp": clock.isoformat(),
        "contract": "1.1",
        "reconcile": "yes",
    }
    return {name: value for name, value in (said | more).items() if value is not None}


class Agent:
    """A connection of an agent."""

    def __init__(self, socket_: ClientConnection, agent_id: str) -> None:
        self.socket = socket_
        self.agent_id = agent_id

    def send(self, message: dict[str, Any] | str | bytes) -> None:
        self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    def recv(self, seconds: float = PATIENCE_S) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.socket.recv(seconds))
        return found

    def recv_request(self, acknowledged: list[str]) -> dict[str, Any]:
        """The next message that is no `ack`; those are noted."""
        while (found := self.recv()).get("method") == "ack":
            acknowledged += found["action_ids"]
        return found

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send(message)
        return self.recv()

    def greet(self, **more: Any) -> dict[str, Any]:
        return self.ask(hello(self.agent_id, **more))

    def closed(self) -> tuple[int, str]:
        """Code and reason with which the daemon closes."""
        with pytest.raises(ConnectionClosed) as error:  # noqa: PT012 - what comes before is not looked at
            while True:
                self.socket.recv(PATIENCE_S)
        frame = error.value.rcvd
        assert frame is not None, "it was cut off"
        return frame.code, frame.reason


@contextlib.contextmanager
def agent(
    port: int, ca: Path, pair: Pair | None, agent_id: str, *, greet: bool = True, **more: Any
) -> Iterator[Agent]:
    url = f"wss://127.0.0.1:{port}/southbound"
    with connect(
        url, ssl=tls(ca, pair), compression=None, ping_interval=None, max_size=None, proxy=None
    ) as opened:
        made = Agent(opened, agent_id)
        if greet:
            answer = made.greet(**more)
            assert answer["ok"] is True, answer
        yield made


class Relay:
    """A client of the relay."""

    def __init__(self, opened: ClientConnection) -> None:
        self.socket = opened
        self.numbers = itertools.count(1)

    def begin(self, agent_id: str, message: dict[str, Any]) -> int:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "agent": agent_id, "message": message}))
        return number

    def recv(self, seconds: float = PATIENCE_S) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.socket.recv(seconds))
        return found

    def ask(self, agent_id: str, message: dict[str, Any]) -> dict[str, Any]:
        number = self.begin(agent_id, message)
        found = self.recv()
        assert found.pop("id") == number
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        self.socket.send('{"id":0,"list":true}')
        found = self.recv()
        assert found["id"] == 0
        return {row["agent_id"]: row for row in found["answer"]["agents"]}


@contextlib.contextmanager
def local_relay(path: Path) -> Iterator[Relay]:
    with unix_connect(
        str(path), uri="ws://localhost/southbound/relay", compression=None, max_size=None
    ) as opened:
        yield Relay(opened)


@contextlib.contextmanager
def relay(port: int, ca: Path, token: str | None) -> Iterator[Relay]:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    url = f"wss://127.0.0.1:{port}/southbound/relay"
    with connect(
        url,
        ssl=tls(ca, None),
        compression=None,
        additional_headers=headers,
        proxy=None,
        max_size=None,
    ) as opened:
        yield Relay(opened)


def execute(action_id: str, *args: str, **more: Any) -> dict[str, Any]:
    return {
        "method": "command.exec",
        "action_id": action_id,
        "command": "/bin/echo",
        "args": list(args),
        "timeout": 30_000,
        **more,
    }


def done(request: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "action_id": request["action_id"],
        "exit_code": 0,
        "stdout": "",
        "stderr": "",
        **more,
    }


def split(answer: dict[str, Any], action_id: str) -> list[dict[str, Any]]:
    """The parts of an answer."""
    text = json.dumps(answer).encode()
    pieces = [text[place : place + 500_000] for place in range(0, len(text), 500_000)]
    return [
        {
            "method": "part",
            "action_id": action_id,
            "index": index,
            "last": index == len(pieces) - 1,
            "data": base64.b64encode(piece).decode(),
        }
        for index, piece in enumerate(pieces)
    ]
