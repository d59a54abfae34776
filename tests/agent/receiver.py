"""A real HTTP server that takes telemetry as SPEC 3.3 and 4 say, or fails as it is told to."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from fazai.wire.base import WireError
from fazai.wire.signature import decode_signed_headers, verify_signature
from fazai.wire.telemetry import IngestAnswer, IngestPartialAnswer
from tests.contract import Sample, decode_telemetry

__all__ = ["WAIT_S", "Receiver", "Request"]

WAIT_S = 60.0  # only a broken agent makes a test wait that long


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    headers: dict[str, str]
    path: str
    body: bytes
    at_s: float

    @property
    def plain(self) -> bytes:
        if self.headers.get("content-encoding") == "gzip":
            return gzip.decompress(self.body)
        return self.body

    @property
    def records(self) -> tuple[Sample, ...]:
        return decode_telemetry(self.plain).samples


#: What to do with one request instead of taking it; returns whether the answer is sent.
Behaviour = Callable[["Exchange"], None]


@dataclass(slots=True)
class Receiver:
    """Keeps what it accepted by (hostname, time), as a store does. `script` is for the next requests."""

    script: list[Behaviour] = field(default_factory=list)
    keys: tuple[bytes, ...] = ()
    clock_offset_s: float = 0.0
    refuses: Callable[[Sample], bool] = lambda sample: False
    store: dict[tuple[str, Any], Sample] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    duplicates: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)
    address: tuple[str, int] = ("", 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def wait(self, condition: Callable[[Receiver], bool], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), WAIT_S), f"never came: {what}"

    def wait_for_records(self, count: int) -> None:
        self.wait(lambda self: len(self.store) >= count, f"{count} records")

    def sequences(self) -> dict[int, list[int]]:
        """The numbers of the samples by the agent's pid: a gap is a lost record."""
        found: dict[int, list[int]] = {}
        with self.changed:
            for sample in self.store.values():
                agent = sample.fields["agent"]
                found.setdefault(agent["pid"], []).append(agent["seq"])
        return {pid: sorted(numbers) for pid, numbers in found.items()}

    def take(self, samples: Sequence[Sample]) -> tuple[int, int]:
        new = 0
        for sample in samples:
            key = (sample.record.hostname, sample.time)
            new += key not in self.store
            self.store.setdefault(key, sample)
        self.duplicates += len(samples) - new
        return new, len(samples) - new

    @contextmanager
    def serve(self, bound: socket.socket | None = None) -> Iterator[Receiver]:
        """Listen (on a socket that is bound already, where one is given) until the block ends."""
        receiver = self

        class Handler(Exchange):
            owner = receiver

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.daemon_threads = True
        server.block_on_close = False
        if bound is None:
            server.server_bind()
        else:
            server.socket.close()
            server.socket = bound
            server.server_address = bound.getsockname()
        server.server_activate()
        self.address = ("127.0.0.1", server.socket.getsockname()[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            thread.join()
            server.server_close()


class Exchange(BaseHTTPRequestHandler):
    """One request; behaviours get it and answer through `reply`."""

    owner: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_seen = Request(headers, self.path, body, time.monotonic())
        owner = self.owner
        with owner.changed:
            owner.requests.append(self.request_seen)
            behaviour = owner.script.pop(0) if owner.script else Exchange.accept
            owner.changed.notify_all()
        self.close_connection = True
        behaviour(self)
        with owner.changed:
            owner.changed.notify_all()

    def accept(self) -> None:
        owner, request = self.owner, self.request_seen
        try:
            self._authenticate()
        except WireError as error:
            self.reply(401, msgspec.json.encode({"ok": False, "error": error.message, "code": error.code}))
            return
        if request.path != "/ingest":
            self.reply(404, b'{"ok":false,"error":"no such route","code":"not_found"}')
            return
        batch = decode_telemetry(request.plain)
        good = [sample for sample in batch.samples if not owner.refuses(sample)]
        bad = len(batch.samples) - len(good) + len(batch.errors)
        with owner.changed:
            new, known = owner.take(good)
        if bad:
            errors = tuple({"index": n, "error": "no"} for n in range(bad))
            answer = msgspec.convert({"ok": False, "accepted": new, "errors": errors}, IngestPartialAnswer)
            self.reply(200 if good else 422, msgspec.json.encode(answer))
        else:
            self.reply(200, msgspec.json.encode(IngestAnswer(accepted=new, duplicates=known)))

    def _authenticate(self) -> None:
        owner, request = self.owner, self.request_seen
        if not owner.keys:
            return
        signed = decode_signed_headers(request.headers)
        now_s = time.time() + owner.clock_offset_s
        verify_signature(signed, owner.keys, method="POST", path=request.path, body=request.body, now_s=now_s)
        if signed.nonce in owner.nonces:
            raise WireError("replayed", "the nonce was seen before")
        owner.nonces.add(signed.nonce)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response_only(status)
        date = formatdate(time.time() + self.owner.clock_offset_s, usegmt=True)
        for name, value in {"Date": date, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def hang(self) -> None:
        """Say nothing until the client or the test gives up."""
        self.connection.settimeout(0.02)
        while not self.owner.closing.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client went away

    def log_message(self, format: str, *args: Any) -> None:
        pass


def refuse_with(
    status: int, body: bytes = b'{"ok":false,"error":"not now","code":"internal"}', **headers: str
) -> Behaviour:
    return lambda exchange: exchange.reply(status, body, **headers)


def half_answer(exchange: Exchange) -> None:
    exchange.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{"ok":true,')


def half_headers(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")


def reset(exchange: Exchange) -> None:
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.connection.close()


def store_then_cut(exchange: Exchange) -> None:
    """The data is stored, the answer is lost."""
    with exchange.owner.changed:
        exchange.owner.take(exchange.request_seen.records)
