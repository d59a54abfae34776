"""Load over real sockets, and the CPU that a server spent on it, by the kernel's account."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "cpu_s", "post_all", "request", "send_all"]

_RUN_S = 60.0  # a contender that needs longer ends the measurement: others wait for the machine
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What a run cost: CPU of the server, wall time, by request."""

    cpu_s: float
    wall_s: float
    requests: int


def cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def request(method: str, path: str, body: bytes, port: int, media: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {media}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


class _Client(asyncio.Protocol):
    """One connection, one request at a time; takes the next one from those that are left."""

    def __init__(self, requests: list[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if self._requests:
            self._transport.write(self._requests.pop())
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        length = 0
        if b"content-length:" in lower:
            length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if head[9:10] != b"2":
            self._done.set_exception(RuntimeError(self._buffer[:500].decode(errors="replace")))
            return
        self._buffer = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed the connection: {error}"))


async def send_all(port: int, requests: Sequence[bytes], connections: int) -> None:
    """Send them over so many connections, and wait for all answers. Raises RuntimeError for a refusal."""
    loop = asyncio.get_running_loop()
    left = list(reversed(requests))
    waits = []
    for _ in range(min(connections, len(requests))):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda done=done: _Client(left, done), "127.0.0.1", port)  # type: ignore[misc]
        waits.append(done)
    async with asyncio.timeout(_RUN_S):
        await asyncio.gather(*waits)


def post_all(pid: int, port: int, requests: Sequence[bytes], connections: int, settle_s: float) -> Load:
    """Send them; the CPU includes what the server still does in the background for `settle_s` afterwards."""
    before, begun = cpu_s(pid), time.perf_counter()
    asyncio.run(send_all(port, requests, connections))
    wall_s = time.perf_counter() - begun
    time.sleep(settle_s)
    return Load(cpu_s(pid) - before, wall_s, len(requests))
