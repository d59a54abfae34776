"""Many streams: a thousand slow readers harm nobody and cost what is allowed; two thousand end at a stop."""

from __future__ import annotations

import re
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fazai.wire.events import GapEvent
from tests.contract import SseFrame, decode_sse
from tests.daemon.child import Child
from tests.daemon.live import BUSY_S, PATIENCE_S, until

_SLOW = 1000
_EACH_BYTES = 192 * 1024  # unsent bytes (64 KiB), one block beyond, and the stream itself


@pytest.fixture(autouse=True)
def _more_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _open(port: int, *, window: int | None = None, query: str = "") -> socket.socket:
    found = socket.socket()
    if window is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    found.connect(("127.0.0.1", port))
    found.sendall(f"GET /events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    found.setblocking(False)
    return found


@contextmanager
def _opened(port: int, count: int, window: int | None = None) -> Iterator[list[socket.socket]]:
    readers = [_open(port, window=window) for _ in range(count)]
    try:
        yield readers
    finally:
        for one in readers:
            one.close()


class _Quick:
    """Readers that take everything at once, and count."""

    def __init__(self, readers: list[socket.socket]) -> None:
        self.selector = selectors.DefaultSelector()
        self.seen = dict.fromkeys(readers, 0)
        self.rest = dict.fromkeys(readers, b"")
        for one in readers:
            self.selector.register(one, selectors.EVENT_READ)

    def until(self, events: int) -> None:
        """All of them have so many, in order."""
        end = time.monotonic() + PATIENCE_S
        while min(self.seen.values()) < events:
            assert time.monotonic() < end, self.seen
            for key, _ in self.selector.select(0.1):
                reader = key.fileobj
                assert isinstance(reader, socket.socket)
                raw = self.rest[reader] + reader.recv(1 << 20)
                for number in re.findall(rb'"message":"(\d+) ', raw[: raw.rfind(b"}")]):
                    assert int(number) == self.seen[reader]
                    self.seen[reader] += 1
                self.rest[reader] = raw[raw.rfind(b"}") :]


def _drain(reader: socket.socket) -> bytes:
    """What is left, until the daemon's end of it."""
    reader.settimeout(PATIENCE_S)
    raw = b""
    with suppress(ConnectionResetError):
        while part := reader.recv(1 << 16):
            raw += part
    return raw


def _frames(raw: bytes) -> list[SseFrame]:
    body, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return [decode_sse(frame + b"\n\n") for frame in body.split(b"\n\n") if frame.startswith(b"id:")]


@pytest.mark.slow
def test_a_thousand_slow_readers(tmp_path: Path) -> None:
    """A third reads nothing, a third a byte now and then, a third after a pause. Three quick ones get every
    event meanwhile, the memory is bounded, and the slow ones come back without a loss."""
    with (
        Child(tmp_path, linger_s=5 * PATIENCE_S) as daemon,
        daemon.client() as client,
        _opened(daemon.port, 3) as quick_ones,
        _opened(daemon.port, _SLOW, window=4096) as slow,
    ):
        quick = _Quick(quick_ones)
        until(lambda: daemon.gauge(client, "fazai_sse_streams") == _SLOW + 3)
        daemon.publish(client, 10, "x")
        quick.until(10)
        base, most = daemon.memory_bytes(), 0
        drips, pausing = slow[: _SLOW // 3], slow[_SLOW // 3 : 2 * _SLOW // 3]
        taken: dict[socket.socket, bytes] = dict.fromkeys(slow, b"")
        for _ in range(30):  # 3 MB for each of them
            daemon.publish(client, 100, "y" * 950)
            quick.until(daemon.sequence)
            most = max(most, daemon.memory_bytes())
            for one in drips:
                with suppress(BlockingIOError):
                    taken[one] += one.recv(1)
        assert most - base < _SLOW * _EACH_BYTES, f"{(most - base) / _SLOW / 1024:.0f} KiB each"
        _until_read(pausing, taken, daemon.sequence)
        daemon.let_stall()
        until(lambda: daemon.gauge(client, "fazai_sse_cut_off_total") == _SLOW - len(pausing))
        for one in (*drips[:5], *slow[-5:]):
            _comes_back(daemon.port, taken[one] + _drain(one), daemon.sequence)
        daemon.publish(client, 10, "z")
        quick.until(daemon.sequence)


def _until_read(readers: list[socket.socket], taken: dict[socket.socket, bytes], events: int) -> None:
    """They go on, and get all of it from the log: nothing was lost, no gap."""
    last = f'"message":"{events - 1} '.encode()
    selector = selectors.DefaultSelector()
    for one in readers:
        selector.register(one, selectors.EVENT_READ)
    end = time.monotonic() + 5 * PATIENCE_S  # a gigabyte in small pieces
    kept = {one: bytearray(taken[one]) for one in readers[:5]}
    while selector.get_map():
        assert time.monotonic() < end, f"{len(selector.get_map())} are not there yet"
        for key, _ in selector.select(0.1):
            reader = key.fileobj
            assert isinstance(reader, socket.socket)
            part = reader.recv(1 << 18)
            assert part, "it was cut off"
            taken[reader] = taken[reader][-2000:] + part
            if reader in kept:
                kept[reader] += part
            if last in taken[reader][-2000 - len(part) :]:
                selector.unregister(reader)
    for raw in kept.values():
        found = re.findall(rb'"message":"(\d+) ', _whole(bytes(raw)))
        assert [int(number) for number in found] == list(range(events))


def _whole(raw: bytes) -> bytes:
    """Without the borders of chunks."""
    rest, body = raw.partition(b"\r\n\r\n")[2], b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def _comes_back(port: int, raw: bytes, events: int) -> None:
    frames = _frames(raw)
    gap = frames[-1].event
    assert isinstance(gap, GapEvent)
    assert (gap.reason, gap.lost_from) == ("slow_reader", (frames[-1].id or 0) + 1)
    again = _open(port, query=f"?since={frames[-1].id}&follow=false")
    rest = _frames(_drain(again))
    again.close()
    texts = [getattr(frame.event, "message", "").split()[0] for frame in (*frames[:-1], *rest)]
    assert [int(text) for text in texts if text.isdigit()] == list(range(events))


@pytest.mark.slow
def test_a_stop_ends_two_thousand_streams_within_a_second(tmp_path: Path) -> None:
    """Each is told; a hundred of them read nothing and are behind."""
    with (
        Child(tmp_path) as daemon,
        daemon.client() as client,
        _opened(daemon.port, 100, window=4096) as stuck,
        _opened(daemon.port, 1900) as streams,
    ):
        until(lambda: daemon.gauge(client, "fazai_sse_streams") == len(stuck) + len(streams))
        daemon.publish(client, 5, "x" * 900)
        took_s = daemon.stop()
        assert took_s < BUSY_S, took_s
        for one in streams:
            assert b"stops; connect again" in _drain(one)
        assert "Traceback" not in daemon.log()
        assert '"level":"error"' not in daemon.log()
