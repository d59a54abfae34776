"""Frames and messages that nobody wrote: no crash, no growth, and the next agent is served."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import struct
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fazai.daemon.southbound.relay import make_relay
from fazai.daemon.southbound.transport.acceptor import Pace
from fazai.daemon.southbound.transport.listener import WebSocketLink
from fazai.daemon.southbound.transport.websocket import WebSocketConnection
from fazai.store.daemon import StoredEvent
from tests.campaign import campaign_size
from tests.daemon.southbound.client import done, execute, hello
from tests.daemon.southbound.world import World

HANDSHAKE = (
    b"GET /southbound HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


PIECES = (b"null", b'"', b"{}", b"[", b"1e999", b"\\ud800", b"\xff", b"-0")


class Peer:
    """The end of TLS with a certificate."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def getpeercert(self, _: bool) -> bytes:
        return self._certificate


class Sink(asyncio.Transport):
    """A transport whose other end takes everything."""

    def __init__(self, certificate: bytes | None) -> None:
        super().__init__(
            {"ssl_object": Peer(certificate) if certificate else None, "peername": ("192.0.2.9", 1)}
        )
        self.taken = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.taken += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def mutated(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        place = rng.randrange(len(found) + 1)
        how = rng.randrange(5)
        if how == 0 and place < len(found):
            found[place] = rng.randrange(256)
        elif how == 1:
            found[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif how == 2:
            del found[place : place + rng.randrange(1, 9)]
        elif how == 3:
            found[place:place] = found[place : place + rng.randrange(1, 60)]
        else:
            found[place:place] = rng.choice(
                (b"null", b'"', b"{}", b"[", b"1e999", b"\\ud800", b"\xff", b"-0")
            )
    return bytes(found)


def messages() -> list[bytes]:
    answer = done(execute("a-1"))
    push = {"hostname": "edge-7", "timestamp": "2026-11-22T03:04:00Z"}
    found: list[dict[str, Any]] = [
        hello("edge-7"),
        {"method": "time"},
        answer,
        {"ok": False, "action_id": "a-1", "error": "x", "code": "timeout"},
        {"method": "result", "action_id": "a-1", "of": "command.exec", "answer": answer},
        {"method": "telemetry.push", "action_id": "t", "payload": push, "ts": "2026-11-22T03:04:05Z"},
        {"method": "part", "action_id": "a-1", "index": 0, "last": False, "data": "eyJvayI6"},
        {"method": "part", "action_id": "a-1", "index": 1, "last": True, "data": "dHJ1ZX0="},
        {"method": "renew", "action_id": "r", "csr": "-----BEGIN CERTIFICATE REQUEST-----\nMII"},
        execute("a-2"),
        {"method": "ack", "action_ids": ["a"]},
        {"id": 1, "agent": "edge-7", "message": execute("a-3")},
        {"id": 2, "list": True},
        {"id": 3, "agent": "edge-7", "message": {"method": "cancel", "action_id": "a-3"}},
    ]
    return [json.dumps(one).encode() for one in found]


async def feed(world: World, rng: random.Random, count: int, certificate: bytes) -> int:
    """Feeds so many inputs to connections of agents and clients; returns how many connections that were."""
    known, greeting = messages(), frame(json.dumps(hello("edge-7", instance="fuzz")).encode())
    fed = connections = 0
    while fed < count:
        connections += 1
        connection: WebSocketConnection
        if rng.random() < 0.7:
            connection = WebSocketLink(world.south, Pace()).connection
        else:
            connection = make_relay(world.south.relay_parts, local=False)
        sink = Sink(certificate)
        connection.connection_made(sink)
        connection.data_received(HANDSHAKE)
        await asyncio.sleep(0)
        if rng.random() < 0.7:
            connection.data_received(greeting)
            await asyncio.sleep(0.001)
        while not sink.closed and connection.is_open and fed < count:
            fed += 1
            data = mutated(rng, rng.choice(known))
            how = rng.random()
            if how < 0.8:
                data = frame(data)
            elif how < 0.9:
                data = mutated(rng, frame(data, rng.choice((0x81, 0x01, 0x80, 0x82, 0x89, 0x8A, 0x88, 0xF1))))
            for place in range(0, len(data), step := rng.choice((1 << 20, 1 << 20, 7))):
                if not sink.closed:
                    connection.data_received(data[place : place + step])
            if rng.random() < 0.02:
                break
            await asyncio.sleep(0)
        connection.connection_lost(None)
        if connections % 200 == 0:
            await asyncio.sleep(0.01)
    return connections


def count_objects() -> int:
    """All objects but events and their frames, of which the broadcaster keeps 8 MiB: refusals are events."""
    gc.collect()
    found = gc.get_objects()
    return len(found) - 2 * sum(type(one) is StoredEvent for one in found)


@pytest.mark.parametrize("count", [1_000, pytest.param(campaign_size(100_000), marks=pytest.mark.slow)])
def test_what_nobody_wrote(world: World, count: int) -> None:
    pem = world.authority.issue("edge-7").cert.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    rng = random.Random(20261130)
    world.live.call(lambda: feed(world, rng, 500, certificate))
    before = count_objects()
    connections = 0
    for _ in range(0, count, 1000):
        connections += world.live.call(lambda: feed(world, rng, 1000, certificate))
    assert connections > 20
    assert count_objects() - before < 5_000 + count / 20
    assert world.south.relay_parts.clients == set()
    assert world.south.session_parts.buffers.total_bytes == 0
    with world.agent("edge-7", instance="real") as agent, world.relay() as relay:
        number = relay.begin("edge-7", execute("z-1"))
        agent.send(done(agent.recv()))
        assert relay.recv()["id"] == number
    assert "a fault of fazai" not in world.live.log()
    assert "a message of an agent at" not in world.live.log()
    assert "an action of edge-7: " not in world.live.log()
