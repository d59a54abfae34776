"""Streams of events beside nginx with nchan: at 5,000 subscribers, below saturation, and a long replay.

Both get the same 1 KB events over HTTP, one a request, at the same rate; a client of few instructions
(`sse_client.c`) reads for all subscribers and checks number and order of what each of them gets.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.daemon_load import cpu_s
from bench.daemon_servers import Server, daemon
from bench.sse_servers import memory_bytes, nchan, total_cpu_s

__all__ = ["fill_log", "main", "read_log"]

_EVENT_BYTES = 1024
_LIMIT_S = 55.0  # a contender that needs longer ends its turn with what it has delivered
_RUN = "01KANHC0E8M5T3W9Q7Z2R4V6XB"
_BODY = (
    '{"run_id":"%s","command":"apply","host":"h","user":"u","started":"2026-11-22T03:04:00Z","events":[%s]}'
)
_SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[Server | None]], str]] = {
    "fazai": (daemon, "/events"),
    "nchan": (nchan, "/publish"),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One server, so many subscribers, so many events a second."""

    said: dict[str, Any]
    server_cpu_s: float
    base_bytes: int
    open_bytes: int
    end_bytes: int
    subscribers: int

    @property
    def per_second(self) -> float:
        return float(self.said["delivered"] / max(0.001, self.said["wall_s"]))

    @property
    def cpu_us(self) -> float:
        """CPU of the server for each delivery."""
        return self.server_cpu_s / max(1, int(self.said["delivered"])) * 1e6

    @property
    def each_bytes(self) -> float:
        """Memory of the server for each subscriber, while it is open and at the end, whichever is more."""
        return (max(self.open_bytes, self.end_bytes) - self.base_bytes) / self.subscribers


@contextmanager
def _client(folder: Path) -> Iterator[Path]:
    path = folder / "sse_client"
    subprocess.run(["cc", "-O2", "-o", str(path), str(Path(__file__).with_name("sse_client.c"))], check=True)
    yield path


def _marked(number: int) -> str:
    return f"~{number:010d}{time.time_ns() // 1000:016d}"


def _post(name: str, number: int, port: int) -> bytes:
    """The event as each of the two takes it; the mark says when it was sent."""
    if name == "fazai":
        text = _marked(number).ljust(_EVENT_BYTES - 180, "x")
        event = {"sequence": number + 1, "event": {"type": "log", "level": "info", "message": text}}
        body, path = (_BODY % (_RUN, json.dumps(event))).encode(), "/events"
    else:
        body, path = _marked(number).ljust(_EVENT_BYTES - 40, "x").encode(), "/publish"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _publish(name: str, port: int, events: int, rate: float) -> None:
    """On time, whatever the server takes to answer."""
    with socket.create_connection(("127.0.0.1", port)) as out:

        def drop() -> None:
            try:
                while out.recv(65536):
                    pass
            except OSError:
                return

        ear = threading.Thread(target=drop, daemon=True)
        ear.start()
        begun = time.perf_counter()
        for number in range(events):
            time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            out.sendall(_post(name, number, port))
        ear.join(_LIMIT_S)  # until the connection is closed by the caller's end of the server


def _turn(client: Path, name: str, subscribers: int, events: int, rate: float) -> Turn | None:
    make, _ = _SERVERS[name]
    with tempfile.TemporaryDirectory() as folder, make(Path(folder)) as server:
        if server is None:
            return None
        time.sleep(0.5)
        base = memory_bytes(server.pid)
        command = [str(client), str(server.port), "/events", str(subscribers), str(events)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            opened = memory_bytes(server.pid)
            before = total_cpu_s(server.pid)
            arguments = (name, server.port, events, rate)
            threading.Thread(target=_publish, args=arguments, daemon=True).start()
            timer = threading.Timer(_LIMIT_S, reader.stdin.close)
            timer.start()
            said = json.loads(reader.stdout.readline())
            spent = total_cpu_s(server.pid) - before
            ended = memory_bytes(server.pid)
            timer.cancel()
        return Turn(said, spent, base, opened, ended, subscribers)


def _rounds(client: Path, rounds: int, *load: Any) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {name: [] for name in _SERVERS}
    for _ in range(rounds):
        for name in _SERVERS:
            turn = _turn(client, name, *load)
            if turn is not None:
                found[name].append(turn)
    return found


def _spread(values: list[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


_ROWS: tuple[tuple[str, Callable[[Turn], float], int], ...] = (
    ("deliveries a second, thousands", lambda turn: turn.per_second / 1000, 1),
    ("delivered, of what was published, %", lambda t: 100 * t.said["delivered"] / t.said["expected"], 2),
    ("out of order, or missing between two", lambda turn: turn.said["out_of_order"], 0),
    ("delay, median, ms", lambda turn: turn.said["p50_ms"], 1),
    ("delay, p99, ms", lambda turn: turn.said["p99_ms"], 1),
    ("CPU of the server a delivery, µs", lambda turn: turn.cpu_us, 2),
    ("CPU of the server, s", lambda turn: turn.server_cpu_s, 2),
    ("CPU of the client, s", lambda turn: turn.said["cpu_s"], 2),
    ("memory a subscriber, KiB", lambda turn: turn.each_bytes / 1024, 1),
)


def _table(found: dict[str, list[Turn]]) -> list[str]:
    names = [name for name, turns in found.items() if turns]
    rows = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for title, of, digits in _ROWS:
        cells = (_spread([of(turn) for turn in found[name]], digits) for name in names)
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def _replay(events: int) -> list[str]:
    """One reader asks for all there is; and four at once."""
    rows = [
        "| replay of 100,000 events of 1 KB over SSE | events/s | CPU of the daemon an event, µs |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder)) as server:
        fill_log(server, events)
        for readers in (1, 4):
            before, begun = cpu_s(server.pid), time.perf_counter()
            read_log(server, readers, events)
            wall, spent = time.perf_counter() - begun, cpu_s(server.pid) - before
            count = readers * events
            rows.append(f"| {readers} at once | {count / wall:,.0f} | {spent / count * 1e6:.1f} |")
    return rows


def fill_log(server: Server, events: int) -> None:
    import http.client

    to = http.client.HTTPConnection("127.0.0.1", server.port)
    for first in range(0, events, 500):
        rows = [
            json.dumps(
                {
                    "sequence": number + 1,
                    "event": {
                        "type": "log",
                        "level": "info",
                        "message": _marked(number).ljust(_EVENT_BYTES - 180, "x"),
                    },
                }
            )
            for number in range(first, first + 500)
        ]
        body = _BODY % (_RUN, ",".join(rows))
        to.request("POST", "/events", body, {"Content-Type": "application/json"})
        answer = to.getresponse()
        if answer.status != 200:
            raise RuntimeError(answer.read())
        answer.read()
    to.close()


def read_log(server: Server, readers: int, events: int) -> None:
    """Raises RuntimeError when one is missing."""
    with tempfile.TemporaryDirectory() as folder, _client(Path(folder)) as client:
        command = [
            str(client),
            str(server.port),
            "/events?since=0&types=log&run=" + _RUN,
            str(readers),
            str(events),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            said = json.loads(reader.stdout.readlines()[-1])
    if said["out_of_order"] or said["delivered"] != said["expected"]:
        raise RuntimeError(f"events are missing: {said}")


_PARTS = ("scale", "quiet", "replay")


def main(parts: tuple[str, ...] = _PARTS) -> Iterator[str]:
    """Raises RuntimeError where a contender fails. Without a C compiler or nchan there is less to say."""
    if shutil.which("cc") is None:
        yield "It needs a C compiler."
        return
    with tempfile.TemporaryDirectory() as folder, _client(Path(folder)) as client:
        if "scale" in parts:
            yield "**5,000 subscribers, 100 events/s of 1 KB for 5 s**\n"
            yield from _table(_rounds(client, 1, 5000, 500, 100.0))
            yield "\n**5,000 subscribers, 200 events/s of 1 KB for 5 s**\n"
            turn = _turn(client, "fazai", 5000, 1000, 200.0)
            assert turn is not None
            yield from _table({"fazai": [turn]})
        if "quiet" in parts:
            yield "\n**1,000 subscribers, 20 events/s of 1 KB for 10 s**\n"
            yield from _table(_rounds(client, 2, 1000, 200, 20.0))
    if "replay" in parts:
        yield "\n"
        yield from _replay(100_000)


if __name__ == "__main__":
    import sys

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    for line in main(tuple(sys.argv[1:]) or _PARTS):
        print(line, flush=True)
