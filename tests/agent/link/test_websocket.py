"""RFC 6455, the client's half: against the library `websockets`, and against servers that break the rules."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from fazai.compat import websocket
from fazai.compat.websocket import FrameError, FrameReader
from tests.campaign import campaign_size

LIMIT = 100_000


def _zeros(count: int) -> bytes:
    return b"\1\2\3\4"[:count]


def _server_frame(first: int, data: bytes, *, second: int = 0, length: bytes = b"") -> bytes:
    if not length:
        size = len(data)
        length = (
            bytes([second | size])
            if size < 126
            else bytes([second | 126]) + struct.pack("!H", size)
            if size < 65_536
            else bytes([second | 127]) + struct.pack("!Q", size)
        )
    return bytes([first]) + length + data


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_001])
def test_the_library_reads_our_messages(size: int) -> None:
    server = Protocol(SERVER, max_size=None)
    text = ("ä" * size)[:size].encode()
    server.receive_data(websocket.build_text(text))
    frames = [event for event in server.events_received() if isinstance(event, Frame)]
    assert frames[0].opcode == Opcode.TEXT
    assert all(frame.opcode == Opcode.CONT for frame in frames[1:])
    assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert b"".join(bytes(frame.data) for frame in frames) == text
    assert len(frames) == max(1, -(-len(text) // websocket.FRAME_BYTES))


def test_the_library_reads_our_control_frames() -> None:
    server = Protocol(SERVER)
    server.receive_data(websocket.build_frame(websocket.PING, b"hi"))
    server.receive_data(websocket.build_close(1008, "bad_certificate: " + "ä" * 100))
    ping, close = (event for event in server.events_received() if isinstance(event, Frame))
    assert (ping.opcode, ping.data) == (Opcode.PING, b"hi")
    assert server.close_rcvd is not None
    assert server.close_rcvd.code == 1008
    assert server.close_rcvd.reason == "bad_certificate: " + "ä" * 53
    assert close.opcode == Opcode.CLOSE


@pytest.mark.parametrize("step", [1, 3, 10_000_000])
def test_messages_in_pieces_are_joined(step: int) -> None:
    stream = (
        _server_frame(0x01, "grü".encode()[:3])
        + _server_frame(0x89, b"between")
        + _server_frame(0x00, "grü".encode()[3:])
        + _server_frame(0x80, b"x" * 70_000)
        + _server_frame(0x81, b"")
        + _server_frame(0x8A, b"")
        + _server_frame(0x88, struct.pack("!H", 1001) + b"going")
        + b"\xff\xff"
    )
    reader = FrameReader(LIMIT)
    events = []
    for at in range(0, len(stream), step):
        events += reader.feed(stream[at : at + step])
    assert [(event.kind, event.data, event.code) for event in events] == [
        (websocket.PING, b"between", 0),
        (websocket.TEXT, "grü".encode() + b"x" * 70_000, 0),
        (websocket.TEXT, b"", 0),
        (websocket.PONG, b"", 0),
        (websocket.CLOSE, b"going", 1001),
    ]


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (_server_frame(0xC1, b""), 1002, "reserved bits"),
        (_server_frame(0xA1, b""), 1002, "reserved bits"),
        (_server_frame(0x91, b""), 1002, "reserved bits"),
        (_server_frame(0x81, b"", second=0x80), 1002, "masked a frame"),
        (_server_frame(0x83, b""), 1002, "unknown opcode 3"),
        (_server_frame(0x8B, b""), 1002, "unknown opcode 11"),
        (_server_frame(0x09, b""), 1002, "control frame is too long or in pieces"),
        (_server_frame(0x89, b"x" * 126), 1002, "control frame is too long or in pieces"),
        (_server_frame(0x80, b"x"), 1002, "not in their order"),
        (_server_frame(0x01, b"x") + _server_frame(0x81, b"x"), 1002, "not in their order"),
        (_server_frame(0x82, b"x"), 1003, "binary message"),
        (_server_frame(0x81, b"\xff"), 1007, "not UTF-8"),
        (_server_frame(0x81, b"\xed\xa0\x80"), 1007, "not UTF-8"),
        (_server_frame(0x01, b"\xc3") + _server_frame(0x80, b"x"), 1007, "not UTF-8"),
        (_server_frame(0x81, b"", length=b"\x7e\x00\x7d"), 1002, "too many bytes"),
        (_server_frame(0x81, b"", length=b"\x7f" + struct.pack("!Q", 65_535)), 1002, "too many bytes"),
        (_server_frame(0x81, b"", length=b"\x7f" + struct.pack("!Q", 1 << 63)), 1002, "too many bytes"),
        (_server_frame(0x81, b"", length=b"\x7f" + struct.pack("!Q", LIMIT + 1)), 1009, "over 100000 bytes"),
        (
            _server_frame(0x01, b"x" * 60_000) + _server_frame(0x00, b"", length=b"\x7e\xff\xff"),
            1009,
            "over 100000 bytes",
        ),
        (_server_frame(0x88, b"\x03"), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 999)), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 1005)), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 1006)), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 2000)), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 5000)), 1002, "no valid status"),
        (_server_frame(0x88, struct.pack("!H", 1000) + b"\xff"), 1007, "not UTF-8"),
    ],
)
def test_what_the_rules_forbid_ends_the_connection(data: bytes, code: int, text: str) -> None:
    with pytest.raises(FrameError, match=text) as caught:
        FrameReader(LIMIT).feed(data)
    assert caught.value.code == code


def test_a_long_frame_is_refused_before_its_bytes_are_kept() -> None:
    reader = FrameReader(LIMIT)
    with pytest.raises(FrameError, match="over 100000 bytes"):
        reader.feed(b"\x81\x7f" + struct.pack("!Q", 1 << 40))


def test_many_empty_pieces_are_not_kept() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(_server_frame(0x01, b""))
    tracemalloc.start()
    try:
        for _ in range(50_000):
            reader.feed(_server_frame(0x00, b""))
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (200, {}, "answered 200"),
        (101, {}, "names no upgrade"),
        (101, {"upgrade": "websocket"}, "does not upgrade"),
        (101, {"upgrade": "websocket", "connection": "Upgrade"}, "does not belong to our key"),
        (
            101,
            {
                "upgrade": "WebSocket",
                "connection": "keep-alive, Upgrade",
                "sec-websocket-accept": websocket.accept_value("k"),
                "sec-websocket-extensions": "permessage-deflate",
            },
            "which nobody offered",
        ),
    ],
)
def test_wrong_upgrades_are_refused(status: int, headers: dict[str, str], text: str) -> None:
    with pytest.raises(FrameError, match=text):
        websocket.check_upgrade(status, headers, "k")


def test_the_example_of_the_rfc() -> None:
    assert websocket.accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    frame = websocket.build_frame(websocket.TEXT, b"Hello", random=lambda n: b"\x37\xfa\x21\x3d")
    assert frame == bytes.fromhex("818537fa213d7f9f4d5158")
    assert websocket.apply_mask(websocket.apply_mask(b"\0\0abc", b"\0\1\2\3"), b"\0\1\2\3") == b"\0\0abc"


def _fuzz(count: int, seed: int) -> None:
    """Feed broken streams: each ends in events, in waiting, or in a FrameError; memory stays bounded."""
    chance = random.Random(seed)
    whole = [
        _server_frame(0x81, b'{"method":"ack","action_ids":["a"]}'),
        _server_frame(0x01, b"ab") + _server_frame(0x89, b"p") + _server_frame(0x80, b"cd"),
        _server_frame(0x88, struct.pack("!H", 1000) + b"bye"),
        _server_frame(0x81, b"x" * 300),
    ]
    outcomes = {"events": 0, "waits": 0, "error": 0}
    for _ in range(count):
        data = bytearray(b"".join(chance.choices(whole, k=chance.randint(1, 3))))
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(min(len(data), 40))] = chance.randrange(256)
        if chance.random() < 0.2:
            data = bytearray(chance.randbytes(chance.randint(0, 40)))
        reader, events = FrameReader(1000), []
        try:
            cut = chance.randint(0, len(data))
            events = reader.feed(bytes(data[:cut])) + reader.feed(bytes(data[cut:]))
            outcomes["events" if events else "waits"] += 1
        except FrameError as error:
            outcomes["error"] += error.code in (1002, 1003, 1007, 1009)
        assert all(isinstance(event.data, bytes) and len(event.data) <= 1000 for event in events)
    assert sum(outcomes.values()) == count
    assert min(outcomes.values()) > count // 100


def test_broken_frames_neither_crash_nor_stay() -> None:
    _fuzz(5_000, 1)


@pytest.mark.slow
def test_many_broken_frames_do_not_grow_the_process() -> None:
    _fuzz(5_000, 2)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _fuzz(campaign_size(100_000), 3)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
