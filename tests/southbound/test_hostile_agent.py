"""A machine that means ill, with a certificate or without: the daemon stays small, and answers others."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fazai.compat import websocket
from fazai.providers.hosts.remote.relay import AgentRelay, RelayAddress
from tests.southbound.fleet import Fleet

pytestmark = pytest.mark.slow
WAIT_S = 60.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"), heartbeat_s=2)
    try:
        made.start_daemon()
        made.enrol("edge-1")
        yield made
    finally:
        made.close()


class Machine:
    """A client of the agents' port that says what the test wants."""

    def __init__(self, fleet: Fleet, *, certificate: bool = True) -> None:
        folder = fleet.folder / "edge-1"
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        plain = socket.create_connection((fleet.address, fleet.port), timeout=WAIT_S)
        self.socket = context.wrap_socket(plain, server_hostname=fleet.address)
        host = f"{fleet.address}:{fleet.port}"
        self.socket.sendall(websocket.upgrade_request(host, "/southbound", websocket.new_key()))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        self._frames = websocket.FrameReader(1 << 24)

    def hello(self) -> None:
        """Say who it is, and be let in."""
        self.send(
            {
                "method": "hello",
                "agent_id": "edge-1",
                "name": "edge-1",
                "version": "1.0.0",
                "capabilities": ["command.exec", "part", "ack", "cancel", "result", "telemetry.push"],
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "contract": "1.1",
            }
        )
        assert self.receive()["ok"] is True

    def send(self, message: dict[str, Any] | bytes) -> None:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(websocket.build_text(raw))

    def send_parts(self, action_id: str, raw: bytes) -> None:
        size = 700_000
        for place in range(0, len(raw), size):
            data = base64.b64encode(raw[place : place + size]).decode()
            part = {"method": "part", "action_id": action_id, "index": place // size, "data": data}
            self.send({**part, "last": place + size >= len(raw)})

    def receive(self) -> dict[str, Any]:
        """Return the next message; the close frame's code and reason where there is none."""
        while data := self._receive_some():
            for event in self._frames.feed(data):
                if event.kind == websocket.TEXT:
                    return dict(json.loads(event.data))
                if event.kind == websocket.CLOSE:
                    return {"closed": event.code, "reason": event.data.decode()}
        return {"closed": 1006, "reason": ""}

    def _receive_some(self) -> bytes:
        """Read, and show that it lives meanwhile."""
        self.socket.settimeout(1.0)
        for _ in range(int(WAIT_S)):
            try:
                return self.socket.recv(65_536)
            except TimeoutError:
                self.socket.sendall(_frame(0x89))
        raise AssertionError("nothing came")


@pytest.fixture
def connect(fleet: Fleet) -> Iterator[Callable[..., Machine]]:
    """Connects machines; their connections end with the test."""
    made: list[Machine] = []

    def make(*, certificate: bool = True, hello: bool = True) -> Machine:
        made.append(Machine(fleet, certificate=certificate))
        if hello:
            made[-1].hello()
        return made[-1]

    yield make
    for machine in made:
        machine.socket.close()


class Watch:
    """Asks the daemon all the time whether it is well, and how large it is."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before_kib = self.most_kib = self._memory_kib()
        self.longest_s = 0.0

    def _memory_kib(self) -> int:
        assert self._fleet.daemon is not None
        text = Path(f"/proc/{self._fleet.daemon.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))

    def _run(self) -> None:
        while not self._done.wait(0.05):
            begun_s = time.monotonic()
            assert self._fleet.get("/health") is not None
            self.longest_s = max(self.longest_s, time.monotonic() - begun_s)
            self.most_kib = max(self.most_kib, self._memory_kib())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        assert self._fleet.daemon is not None
        assert self._fleet.daemon.poll() is None

    @property
    def grown_kib(self) -> int:
        return self.most_kib - self.before_kib


def _send_for_ever(machine: Machine, data: bytes) -> None:
    while True:
        machine.socket.sendall(data)


def _frame(first: int, data: bytes = b"") -> bytes:
    return bytes([first, 0x80 | len(data)]) + b"\0\0\0\0" + data


@pytest.mark.parametrize("certificate", [False, True], ids=["stranger", "agent"])
def test_a_message_in_endless_empty_pieces_is_cut_off(
    fleet: Fleet, connect: Callable[..., Machine], certificate: bool
) -> None:
    machine = connect(certificate=certificate, hello=certificate)
    machine.socket.sendall(_frame(0x01))
    with Watch(fleet) as watch, pytest.raises(OSError):
        _send_for_ever(machine, _frame(0x00) * 50_000)
    assert watch.grown_kib < 50_000
    assert watch.longest_s < 10.0, "the daemon answered nobody meanwhile"


def test_pings_of_one_who_reads_nothing_do_not_fill_the_memory(
    fleet: Fleet, connect: Callable[..., Machine]
) -> None:
    machine = connect()
    with Watch(fleet) as watch, pytest.raises(OSError):
        _send_for_ever(machine, _frame(0x89, b"x" * 125) * 2000)
    assert watch.grown_kib < 50_000
    assert watch.longest_s < 10.0


@pytest.mark.parametrize(
    "head",
    [
        b'{"method":"result","action_id":"b-1","of":"command.exec","answer":{"ok":true,"action_id":"b-1","x":',
        b'{"method":"telemetry.push","action_id":"b-1","ts":"2026-11-30T07:00:00Z","payload":{"x":',
    ],
    ids=["result", "telemetry"],
)
def test_a_message_of_more_values_than_there_is_memory_for_is_refused(
    fleet: Fleet, connect: Callable[..., Machine], head: bytes
) -> None:
    machine = connect()
    with Watch(fleet) as watch:
        machine.send_parts("b-1", head + b"[" + b"[]," * 20_000_000 + b"[]]}}")
        answer = machine.receive()
    assert answer == {"closed": 1008, "reason": "too_large: the message has more than 2000000 values"}
    assert watch.grown_kib < 400_000  # twice the message, and parts of it
    assert watch.longest_s < 10.0


def test_a_result_of_many_values_is_not_made_into_objects(
    fleet: Fleet, connect: Callable[..., Machine]
) -> None:
    """It is kept as it came: 1.9 million lists would be 150 MB."""
    machine = connect()
    head = (
        b'{"method":"result","action_id":"b-2","of":"command.exec","answer":{"ok":true,"action_id":"b-2","x":'
    )
    with Watch(fleet) as watch:
        machine.send_parts("b-2", head + b"[" + b"[]," * 900_000 + b"[]]}}")
        assert machine.receive() == {"ok": True, "action_id": "b-2"}
    assert watch.grown_kib < 60_000


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b'{"ok":true,"action_id":"a","stdout":"\xff"}', "bad_json: the text is not valid UTF-8"),
        (
            b'{"method":"result","action_id":"a","action_id":"a","of":"x","answer":{"ok":true,"action_id":"a"}}',
            "bad_request: the name 'action_id' occurs twice in one object",
        ),
        (
            b'{"method":"result","action_id":"a","of":"x","answer":{"ok":true,"action_id":"a"},'
            b'"answer":{"ok":true,"action_id":"a"}}',
            "bad_request: the name 'answer' occurs twice in one object",
        ),
        (
            b'{"method":"result","action_id":"a","of":"x","answer":[1]}',
            "bad_request: expected `object` in what the message carries",
        ),
    ],
    ids=["utf-8", "name-twice", "answer-twice", "no-object"],
)
def test_a_message_that_is_none_ends_the_connection_with_the_reason(
    fleet: Fleet, connect: Callable[..., Machine], message: bytes, reason: str
) -> None:
    machine = connect()
    machine.send(message)
    assert machine.receive() == {"closed": 1008, "reason": reason}


@pytest.mark.parametrize("said", ["[" * 5000, "nope", '"' + "\\ud800"], ids=["deep", "no-json", "cut"])
def test_an_answer_that_the_client_cannot_read_fails_that_one_request(said: str) -> None:
    """The daemon hands on what an agent says: one host of many may lie, and is not waited for."""

    async def ask() -> Mapping[str, Any]:
        relay = AgentRelay(RelayAddress("ws://agents/southbound/relay"))
        waiting = relay._open[7] = asyncio.get_running_loop().create_future()
        relay._take(('{"id":7,"answer":' + said).encode())
        async with asyncio.timeout(WAIT_S):
            found: Mapping[str, Any] = await waiting
            return found

    found = asyncio.run(ask())
    assert found["error"] == "the agent's answer is no JSON, or is nested too deeply"
