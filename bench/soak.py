"""Everything at once for `FAZAI_SOAK_S` seconds (600): telemetry, runs that report, streams that follow and
come back, /metrics; the daemon is killed and started again in between, and its clock jumps.

It ends with an error when anything that was acknowledged is not there or is there twice, an id does not
grow, a stream misses, repeats or never gets an event, the daemon logs an error, or its memory in the last
life is not flat or above its goal. What it saw it prints.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import DEVNULL, Popen

__all__ = ["Soak", "main"]

_SECONDS = 600.0
_LIVES = 6  # how often the daemon is started in all; the last life is the longest
_FLAT = 1.05  # the last third of the last life beside the third before it
_SLACK_BYTES = 4 << 20
_WARM_S = 90.0  # a third of the last life that is shorter is still warming up
_WARM_BYTES = 32 << 20
_MOST_BYTES = 300 << 20
_WAIT_S = 60.0  # for a client to end, and between two events of a stream that has not all
_BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
_STEP = timedelta(seconds=1)  # between two records of a host, whatever the clocks say; never ahead of today
_JUMPS_S = (0.0, 86_400.0, -3600.0, 5.0, -86_400.0, 0.0)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

#: A daemon whose clock jumps by argv[2] seconds, two seconds after its start; the rest is the command line.
#: However the soak (argv[1]) ends, it does not outlive it.
_CODE = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(1)
jump, real, real_ns, begun = float(sys.argv[1]), time.time, time.time_ns, time.monotonic()
shift = lambda: jump if time.monotonic() - begun > 2 else 0.0
time.time = lambda: real() + shift()
time.time_ns = lambda: real_ns() + int(shift() * 1e9)
from fazai.cli import main
sys.exit(main(sys.argv[2:]))
"""


class Failed(Exception):
    """What the soak found."""


@dataclass(slots=True)
class Seen:
    """What the clients know: what was acknowledged, and what the streams brought."""

    hosts: dict[str, int] = field(default_factory=dict)  # host -> records acknowledged
    reported: dict[str, int] = field(default_factory=dict)  # run -> events acknowledged
    streams: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # run -> (id, sequence)
    scrapes: int = 0
    tries: int = 0  # that had no answer, because the daemon was away
    reconnects: int = 0


class Soak:
    """One run."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self._held = socket.socket()  # bound, not listening: between two lives nobody else is given the port
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = int(self._held.getsockname()[1])
        self.seen = Seen()
        self.over = threading.Event()  # nobody writes any more
        self.seen_all = threading.Event()  # nor reads
        self.failures: queue.Queue[BaseException] = queue.Queue()
        self.memory: list[int] = []
        self.runs = [_ulid(number) for number in range(2)]
        self.daemon: Popen[bytes] | None = None

    # -- the daemon

    def start(self, shift_s: float) -> None:
        folder = self.folder
        env = {
            **os.environ,
            "FAZAI_STATE_DIR": str(folder / "state"),
            "FAZAI_SECRETS": str(folder / "secrets"),
            "FAZAI_SOCKET": str(folder / "socket"),
        }
        words = ("daemon", "--port", str(self.port), "--log-file", str(folder / "log"))
        command = [sys.executable, "-c", _CODE, str(os.getpid()), str(shift_s), *words]
        self.daemon = Popen(command, env=env, stdout=DEVNULL, stderr=DEVNULL)
        until = time.monotonic() + _WAIT_S
        while True:
            with suppress(OSError, HTTPException):
                if self.ask("GET", "/ready")[0] == 200:
                    return
            if self.daemon.poll() is not None or time.monotonic() > until:
                raise Failed(f"it does not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def end(self, number: int) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(_WAIT_S)

    def memory_bytes(self) -> int:
        assert self.daemon is not None
        text = Path(f"/proc/{self.daemon.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024

    # -- clients

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        to = HTTPConnection("127.0.0.1", self.port, timeout=_WAIT_S)
        try:
            to.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = to.getresponse()
            return answer.status, answer.read()
        finally:
            to.close()

    def send(self, path: str, body: bytes) -> dict[str, int] | None:
        """The answer when it is a yes; None when there was none, or it was "later"."""
        try:
            status, said = self.ask("POST", path, body)
        except (OSError, HTTPException):
            self.seen.tries += 1
            self.over.wait(0.05)
            return None
        if status in (429, 503):
            self.over.wait(0.2)
            return None
        if status != 200:
            raise Failed(f"POST {path}: {status} {said[:500]!r}")
        found: dict[str, int] = json.loads(said)
        return found

    def ingest(self, number: int) -> None:
        """A host that repeats what was not acknowledged, with growing times whatever the clocks say."""
        host, moment = f"soak-{number}", _BEGIN
        padding = "USER PID %CPU COMMAND\n" * 100
        while not self.over.is_set():
            moment += _STEP
            record = {
                "hostname": host,
                "timestamp": moment.isoformat(),
                "processes": padding,
                "os": {"hostname": host, "load": [0.5, 0.4, 0.3], "mem": {"total": 8 << 30, "free": 2 << 30}},
            }
            body = json.dumps(record).encode()
            while not self.over.is_set():
                answer = self.send("/ingest", body)
                if answer is not None:
                    self.seen.hosts[host] = self.seen.hosts.get(host, 0) + 1
                    break
            self.over.wait(0.02)

    def report(self, number: int) -> None:
        """A reconciler's run of endless events, ten a request, repeated until they are acknowledged."""
        run, sequence = self.runs[number], 0
        while not self.over.is_set():
            events = [
                {
                    "sequence": sequence + n + 1,
                    "event": {"type": "log", "level": "info", "message": f"{sequence + n} {'x' * 300}"},
                }
                for n in range(10)
            ]
            head = {"run_id": run, "command": "apply", "host": "h", "user": "u"}
            body = json.dumps({**head, "started": "2026-11-22T03:04:00Z", "events": events}).encode()
            if self.send("/events", body) is not None:
                sequence += 10
                self.seen.reported[run] = sequence
            self.over.wait(0.02)

    def follow(self, number: int) -> None:
        """A client that comes back with the last id it saw, as EventSource does."""
        run, last = self.runs[number], 0
        found = self.seen.streams.setdefault(run, [])
        while not self.seen_all.is_set():
            to = HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                to.request("GET", f"/events?run={run}&since={last}")
                answer = to.getresponse()
                for id_, sequence in _events(answer.fp, self.seen_all):
                    found.append((id_, sequence))
                    last = id_
            except (OSError, HTTPException, ValueError):
                self.seen_all.wait(0.05)
            finally:
                to.close()
            self.seen.reconnects += 1

    def scrape(self, number: int) -> None:
        while not self.over.is_set():
            with suppress(OSError, HTTPException):
                status, page = self.ask("GET", "/metrics")
                if status != 200 or b"fazai_sse_streams" not in page:
                    raise Failed(f"/metrics: {status}")
                self.ask("GET", "/runs")
                self.seen.scrapes += 1
            self.over.wait(0.2)

    # -- the whole

    def run(self) -> str:
        """What it saw. Raises Failed."""
        writers = self._threads((self.ingest, 4), (self.report, 2), (self.scrape, 1))
        readers = self._threads((self.follow, 2))
        begun = time.monotonic()
        try:
            for life in range(_LIVES):
                self.start(_JUMPS_S[life % len(_JUMPS_S)])
                if not life:
                    for thread in writers + readers:
                        thread.start()
                last = life == _LIVES - 1
                length_s = self.seconds * (0.5 if last else 0.5 / (_LIVES - 1))
                self._live(length_s, watched=last)
                if not last:
                    self.end(signal.SIGTERM if life == 2 else signal.SIGKILL)
            self.over.set()
            self._join(writers)  # what is under way may yet be acknowledged: streams must have that, too
            self._wait_for_streams()
            self.seen_all.set()
            self._join(readers)
            self._check()
        finally:
            self.over.set()
            self.seen_all.set()
            if self.daemon is not None and self.daemon.poll() is None:
                self.end(signal.SIGTERM)
            self._held.close()
        return self.said(time.monotonic() - begun)

    def _threads(self, *work: tuple[Callable[[int], None], int]) -> list[threading.Thread]:
        return [
            threading.Thread(target=self._guarded, args=(what, number), daemon=True)
            for what, count in work
            for number in range(count)
        ]

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        for thread in threads:
            thread.join(_WAIT_S)
            if thread.is_alive():
                raise Failed(f"a client does not end: {thread.name}")

    def _guarded(self, what: Callable[[int], None], number: int) -> None:
        try:
            what(number)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.failures.put(error)

    def _live(self, length_s: float, *, watched: bool) -> None:
        until = time.monotonic() + length_s
        while time.monotonic() < until:
            if not self.failures.empty():
                raise self.failures.get()
            if watched:
                self.memory.append(self.memory_bytes())
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))

    def _wait_for_streams(self) -> None:
        """Until each has all that was acknowledged, or gets nothing more: what is missing `_check` says."""
        had, until = -1, 0.0
        while self.failures.empty():
            if all(len(self.seen.streams[run]) >= count for run, count in self.seen.reported.items()):
                return
            has = sum(map(len, self.seen.streams.values()))
            if has > had:
                had, until = has, time.monotonic() + _WAIT_S
            elif time.monotonic() > until:
                return
            time.sleep(0.05)

    def _check(self) -> None:
        """After the last life, with the daemon still there."""
        if not self.failures.empty():
            raise self.failures.get()
        self._check_log()
        for run, count in self.seen.reported.items():
            stored = self._log_of(run)
            if [sequence for _, sequence in stored][:count] != list(range(1, count + 1)):
                raise Failed(
                    f"run {run}: {count} events were acknowledged, the log has {len(stored)} or other ones"
                )
            ids = [id_ for id_, _ in stored]
            if ids != sorted(set(ids)):
                raise Failed(f"run {run}: ids do not grow")
            followed = self.seen.streams[run]
            if followed != stored[: len(followed)]:
                raise Failed(f"run {run}: the stream missed or repeated an event")
            if len(followed) < count:
                raise Failed(f"run {run}: the stream has {len(followed)} of {count}")
        self._check_memory()
        self._check_hosts()

    def _check_log(self) -> None:
        lines = (json.loads(line) for line in (self.folder / "log").read_text().split("\n")[:-1])
        bad = [line for line in lines if line["level"] in ("error", "critical")]
        if bad:
            raise Failed(f"the daemon logged {len(bad)} errors, the first: {bad[0]}")

    def _check_memory(self) -> None:
        before, after = self.memory_thirds()[1:]
        warm = self.seconds / 2 / 3 >= _WARM_S
        if after > before * _FLAT + (_SLACK_BYTES if warm else _WARM_BYTES):
            raise Failed(f"the memory grew from {before >> 20} to {after >> 20} MiB")
        if max(self.memory) > _MOST_BYTES:
            raise Failed(f"the daemon had {max(self.memory) >> 20} MiB, {_MOST_BYTES >> 20} are its goal")

    def memory_thirds(self) -> list[int]:
        """The most in each third of the last life."""
        third = max(1, len(self.memory) // 3)
        return [max(self.memory[begin : begin + third]) for begin in (0, third, len(self.memory) - third)]

    def _check_hosts(self) -> None:
        """What the file itself has, read by another process than the one that wrote it."""
        from fazai.store.factory import open_daemon_store

        self.end(signal.SIGKILL)
        store = open_daemon_store(self.folder / "state")
        try:
            for host, count in self.seen.hosts.items():
                times = [time_us for time_us, _ in asyncio.run(store.history(host, limit=1 << 30))]
                wanted = [int((_BEGIN + n * _STEP).timestamp()) * 1_000_000 for n in range(1, count + 2)]
                if times not in (wanted[:-1], wanted):  # the last one may have lost its answer
                    raise Failed(
                        f"{host}: {count} records were acknowledged, {len(times)} or other ones are there"
                    )
        finally:
            store.close()

    def _log_of(self, run: str) -> list[tuple[int, int]]:
        to = HTTPConnection("127.0.0.1", self.port, timeout=_WAIT_S)
        to.request("GET", f"/events?run={run}&since=0&follow=false")
        answer = to.getresponse()
        found = list(_events(answer.fp, threading.Event()))
        to.close()
        return found

    def said(self, took_s: float) -> str:
        """What it saw."""
        seen = self.seen
        delivered = sum(map(len, seen.streams.values()))
        return (
            f"{took_s:.0f} s, {_LIVES} lives: {sum(seen.hosts.values())} records and"
            f" {sum(seen.reported.values())} events acknowledged, {delivered} on streams"
            f" ({seen.reconnects} times opened), {seen.scrapes} scrapes, {seen.tries} without an answer;"
            f" memory after the last start {self.memory[0] >> 20} MiB, at most in each third of that life"
            f" {', '.join(str(one >> 20) for one in self.memory_thirds())} MiB"
        )


def _ulid(number: int) -> str:
    """Of the time of the run's beginning."""
    moment, text = int(time.time() * 1000) - 1000, ""
    for _ in range(10):
        text = _CROCKFORD[moment % 32] + text
        moment //= 32
    return text + "8M5T3W9Q7Z2R4V6X"[:15] + _CROCKFORD[number]


def _events(file: object, over: threading.Event) -> Iterator[tuple[int, int]]:
    """(id, sequence) of each event, until the stream or the soak ends."""
    id_ = 0
    read: Callable[[], bytes] = file.readline  # type: ignore[attr-defined]
    while not over.is_set():
        line = read()
        if not line:
            return
        if line.startswith(b"id: "):
            id_ = int(line[4:])
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["type"] == "gap":
                raise Failed(f"a gap: {event}")
            if "sequence" in event:
                yield id_, int(event["sequence"])


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> Iterator[str]:
    signal.signal(signal.SIGTERM, _terminated)  # what it started ends with it
    seconds = float(os.environ.get("FAZAI_SOAK_S", _SECONDS))
    with tempfile.TemporaryDirectory() as folder:
        yield Soak(Path(folder), seconds).run()
    yield "Nothing that was acknowledged was lost."


if __name__ == "__main__":
    for line in main():
        print(line)
