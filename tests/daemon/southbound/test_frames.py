"""What comes over a WebSocket in pieces of any size: whole texts pass the library's protocol by."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from fazai.daemon.southbound.transport.frames import FrameSplitter, write_text
from fazai.daemon.southbound.transport.websocket import WebSocketConnection
from tests.daemon.southbound.test_fuzz import HANDSHAKE, Sink


def masked(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


class Hearer:
    """Takes down what it is given."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.lost = ""

    async def open(self, request: Request) -> tuple[int, str] | None:
        return None

    def receive(self, message: bytes) -> None:
        self.heard.append(message)

    def lose(self, reason: str) -> None:
        self.lost = reason

    def fail(self, error: BaseException) -> None:
        raise error


async def connected(most_bytes: int = 1 << 20) -> tuple[WebSocketConnection, Hearer, Sink]:
    hearer, sink = Hearer(), Sink(None)
    connection = WebSocketConnection(asyncio.get_running_loop(), hearer, most_bytes)
    connection.connection_made(sink)
    connection.data_received(HANDSHAKE)
    while not sink.taken:  # noqa: ASYNC110 - a turn of the loop, which nobody announces
        await asyncio.sleep(0)
    sink.taken.clear()
    return connection, hearer, sink


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_a_whole_text_is_taken_out_with_its_length_in_any_form(length: int) -> None:
    data = masked(b"x" * length)
    splitter = FrameSplitter(most_bytes=1 << 20, piece_bytes=10)
    assert splitter.next(data + b"more", 0, in_pieces=False) == (len(data), b"x" * length)
    for cut in {1, 2, 3, len(data) - 1}:
        assert splitter.next(data[:cut], 0, in_pieces=False) == (0, None)
    assert write_text(b"x" * length) == Frame(Opcode.TEXT, b"x" * length).serialize(mask=False)


def test_what_is_no_whole_text_is_for_the_protocol_to_its_end() -> None:
    for data in (
        masked(b"ping", Opcode.PING),
        masked(b"begin", fin=False),
        masked(b"x" * 200),
        Frame(Opcode.TEXT, b"not masked").serialize(mask=False),
    ):
        splitter = FrameSplitter(most_bytes=100, piece_bytes=4)
        place, text = 0, None
        while place < len(data):
            end, text = splitter.next(data + masked(b"next"), place, in_pieces=False)
            assert place < end <= place + 4
            assert text is None
            place = end
        assert splitter.next(data + masked(b"next"), place, in_pieces=False)[1] == b"next"
    splitter = FrameSplitter(most_bytes=100, piece_bytes=100)
    assert splitter.next(masked(b"text"), 0, in_pieces=True)[1] is None


@pytest.mark.parametrize("seed", range(40))
def test_the_same_texts_arrive_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    sent: list[bytes] = []
    stream = b""
    for number in range(chance.randrange(1, 30)):
        text = f"{number}:".encode() + b"\xc3\xa9" * chance.choice((0, 3, 60, 400, 9000, 40_000))
        sent.append(text)
        if chance.random() < 0.3:
            cut = chance.randrange(len(text))
            stream += (
                masked(text[:cut], fin=False) + masked(b"", Opcode.PING) + masked(text[cut:], Opcode.CONT)
            )
        else:
            stream += masked(text)
        if chance.random() < 0.3:
            stream += masked(b"?", Opcode.PING)

    async def run() -> None:
        connection, hearer, _ = await connected()
        place = 0
        while place < len(stream):
            size = chance.choice((1, 2, 5, 700, 30_000)) if len(stream) < 50_000 else 30_000
            connection.data_received(stream[place : place + size])
            place += size
            await asyncio.sleep(0)
        while len(hearer.heard) < len(sent):  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        assert hearer.heard == sent
        assert connection.is_open
        connection.connection_lost(None)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_text_that_is_too_long_or_not_masked_ends_the_connection() -> None:
    async def run(data: bytes, code: int) -> None:
        connection, hearer, sink = await connected(most_bytes=1000)
        for _ in range(3):  # until the handshake is over and done with
            await asyncio.sleep(0)
        connection.data_received(masked(b"first") + data)
        assert hearer.heard == [b"first"]
        assert not connection.is_open
        close: Any = sink.taken
        assert int.from_bytes(close[2:4], "big") == code
        connection.connection_lost(None)

    asyncio.run(run(masked(b"x" * 1001), 1009))
    asyncio.run(run(Frame(Opcode.TEXT, b"x").serialize(mask=False), 1002))
    asyncio.run(run(masked(b"x", Opcode.CONT), 1002))
