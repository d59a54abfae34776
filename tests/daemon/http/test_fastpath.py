"""The short way of POST /ingest answers as the long one does, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.http.fastpath import KnownHead, remember_head
from fazai.daemon.settings import ServerLimits
from fazai.errors import StateError
from tests.daemon.live import PATIENCE_S, Live, live, token, until

HEADS = {
    "plain": b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\nX-A: b\r\n\r\n",
    "last": b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nConnection: Keep-Alive\r\n"
    b"content-length:  12\r\n\r\n",
}
OTHERS = {
    "closing": b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
    "chunked": b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "twice": b"POST /ingest HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 12\r\n\r\n",
    "expects": b"POST /ingest HTTP/1.1\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    "older": b"POST /ingest HTTP/1.0\r\nContent-Length: 12\r\n\r\n",
    "elsewhere": b"POST /other HTTP/1.1\r\nContent-Length: 12\r\n\r\n",
}


def known(head: bytes) -> KnownHead | None:
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:-2]]
    headers = [(name.lower(), value.strip()) for name, _, value in lines]
    return remember_head(head, b"/ingest", headers, lambda body, answer: True)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_differs_in_its_length_alone(name: str) -> None:
    head = HEADS[name]
    found = known(head)
    assert found is not None
    assert found.body_of(head + b"x" * 12) == b"x" * 12
    assert found.body_of(head.replace(b"12", b"3") + b"abc") == b"abc"
    for other in (
        head + b"x" * 11,
        head + b"x" * 13,
        head.replace(b"12", b"+3") + b"abc",
        head.replace(b"12", b"") + b"",
        head.replace(b"12", b"3, 3") + b"abc",
        head.replace(b"localhost", b"localhosT") + b"x" * 12,
        head.replace(b"\r\n\r\n", b"\r\nA: b\r\n\r\n") + b"x" * 12,
    ):
        assert found.body_of(other) is None, other


@pytest.mark.parametrize("name", OTHERS)
def test_other_heads_go_the_long_way(name: str) -> None:
    assert known(OTHERS[name]) is None


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path, limits=ServerLimits(stop_s=0.5)) as found:
        yield found


class Client:
    """One connection; each answer is read to its end."""

    def __init__(self, port: int, bearer: str = "") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.file = self.sock.makefile("rb")
        self.more = f"Authorization: Bearer {bearer}\r\n" if bearer else ""

    def request(self, body: bytes) -> bytes:
        head = f"POST /ingest HTTP/1.1\r\nHost: localhost\r\n{self.more}Content-Length: {len(body)}\r\n"
        return head.encode() + b"Content-Type: application/json\r\n\r\n" + body

    def answer(self) -> tuple[int, dict[bytes, bytes], Any]:
        status = int(self.file.readline().split()[1])
        headers: dict[bytes, bytes] = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return status, headers, json.loads(self.file.read(int(headers[b"content-length"])))

    def post(self, body: bytes) -> tuple[int, dict[bytes, bytes], Any]:
        self.sock.sendall(self.request(body))
        return self.answer()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def record(minute: int, host: str = "web-1") -> bytes:
    return json.dumps({"hostname": host, "timestamp": f"2026-11-22T03:{minute:02d}:00Z"}).encode()


def test_both_ways_answer_alike(daemon: Live) -> None:
    bodies = [record(1), record(1), b"[]", b'{"hostname":"x"}', b"{", record(2) + b"\n" + record(1)]
    client = Client(daemon.port)
    client.post(record(0))  # from here on the head is known
    short = [client.post(body) for body in bodies]
    client.close()
    long = []
    for body in [record(3), record(3), *bodies[2:5], record(4) + b"\n" + record(3)]:
        client = Client(daemon.port)
        long.append(client.post(body))
        client.close()
    assert [(status, said) for status, _, said in short] == [(status, said) for status, _, said in long]
    assert [sorted(headers) for _, headers, _ in short] == [sorted(headers) for _, headers, _ in long]
    assert [time_us for time_us, _ in asyncio.run(daemon.services.store.records("web-1"))] == sorted(
        [time_us for time_us, _ in asyncio.run(daemon.services.store.records("web-1"))], reverse=True
    )
    assert len(asyncio.run(daemon.services.store.records("web-1"))) == 5


def test_requests_that_come_at_once_are_answered_in_order(daemon: Live) -> None:
    client = Client(daemon.port)
    client.post(record(0))
    wanted = [record(1), record(1), b"{", record(2), record(2)]
    for body in wanted:  # each in a packet of its own, none waiting for the answer before
        client.sock.sendall(client.request(body))
    found = [client.answer() for _ in wanted]
    client.close()
    assert [(status, said.get("accepted")) for status, _, said in found] == [
        (200, 1),
        (200, 0),
        (400, None),
        (200, 1),
        (200, 0),
    ]


def test_a_revoked_token_ends_the_short_way(tmp_path: Path) -> None:
    bearer = token(tmp_path, "agent", "operator")
    with live(tmp_path) as daemon:
        client = Client(daemon.port, bearer)
        assert [client.post(record(minute))[0] for minute in range(3)] == [200, 200, 200]
        guard = daemon.services.guard
        daemon.call(guard._tokens.clear)
        status, headers, said = client.post(record(3))
        client.close()
        assert (status, said["code"], headers[b"www-authenticate"]) == (401, "unauthorized", b"Bearer")
        assert daemon.services.ingest.refusals["unauthorized"] == 1


def test_what_the_store_refuses_is_said_and_counted(daemon: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(daemon.port)
    client.post(record(0))
    telemetry = daemon.services.store._telemetry  # type: ignore[attr-defined]

    def full(*_: object) -> None:
        raise OverflowError("no room")

    with monkeypatch.context() as changed:
        changed.setattr(telemetry, "apply", full)
        status, headers, said = client.post(record(1))
        assert (status, said["code"], headers[b"retry-after"]) == (503, "unavailable", b"5")

        def closed(*_: object) -> None:
            raise StateError("the store is closed")

        changed.setattr(daemon.services.store, "ingest_then", closed)
        assert client.post(record(1))[0] == 503
    assert client.post(record(1))[::2] == (200, {"ok": True, "accepted": 1, "duplicates": 0})
    client.close()
    ingest = daemon.services.ingest
    assert ingest.refusals["unavailable"] == 2
    assert ingest.admission.total_bytes == 0


def test_a_connection_that_was_idle_long_enough_is_closed(tmp_path: Path) -> None:
    with live(tmp_path, limits=ServerLimits(idle_s=2.0)) as daemon:
        client = Client(daemon.port)
        for minute in range(3):
            assert client.post(record(minute))[0] == 200
        assert client.file.read(1) == b""
        client.close()


def test_a_stop_waits_for_what_is_being_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live(tmp_path, limits=ServerLimits(stop_s=PATIENCE_S)) as daemon:
        client = Client(daemon.port)
        client.post(record(0))
        telemetry = daemon.services.store._telemetry  # type: ignore[attr-defined]
        apply, stopping = telemetry.apply, threading.Event()

        def slow(*given: Any) -> Any:
            stopping.wait(PATIENCE_S)
            return apply(*given)

        monkeypatch.setattr(telemetry, "apply", slow)
        client.sock.sendall(client.request(record(1)))
        until(lambda: daemon.services.ingest.admission.total_bytes)
        daemon.call(daemon.daemon.stop)
        daemon.loop.call_soon_threadsafe(stopping.set)
        assert client.answer()[::2] == (200, {"ok": True, "accepted": 1, "duplicates": 0})
        assert client.file.read(1) == b""
        client.close()
