"""Nobody waits for ever, and nothing grows without bound: a store that ends or hangs, peers that are silent,
drip, flood or never end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.ingest.admission import Admission
from fazai.daemon.runs.child import Child, ChildResult, StopTimeouts
from fazai.daemon.settings import ServerLimits
from fazai.errors import FazaiError, StateError
from fazai.providers.gemma import client as gemma_client
from fazai.store.base import Run
from fazai.store.daemon import NewEvent, NewSample
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.ledger import SqliteStore
from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon import certificates
from tests.daemon.live import PATIENCE_S, Live, live, token, until

GAUGES = (float("nan"),) * 12


class Poison(bytes):
    """Memory runs out when somebody asks for its size: the thread of the store does, after its commit."""

    def __len__(self) -> int:
        raise MemoryError("as when memory runs out")


class Bottomless(str):
    """The same for the ledger, which escapes what is no UTF-8."""

    def isascii(self) -> bool:
        raise MemoryError("as when memory runs out")


def _record(minute: int, host: str = "web-1") -> dict[str, object]:
    return {"hostname": host, "timestamp": f"2026-11-22T03:{minute:02d}:00Z"}


async def _write_for_ever(store: SqliteDaemonStore) -> None:
    while True:
        await store.ingest([NewSample("web-1", time.time_ns(), b"{}", GAUGES)])


# -- the store's threads


def test_a_writer_that_ends_refuses_what_waits_and_what_comes(tmp_path: Path) -> None:
    store = SqliteDaemonStore(tmp_path)
    sample = NewSample("web-1", 1, b"{}", GAUGES)

    async def use() -> None:
        assert await store.ingest([sample]) == [True]
        store.publish_soon([NewEvent("log", Poison(b"{}"))])
        with pytest.raises(StateError, match="has ended: MemoryError"):
            await _write_for_ever(store)  # before it ends, writes are good
        for write in (store.ingest([sample]), store.publish([NewEvent("log", b"{}")])):
            with pytest.raises(StateError, match="has ended"):
                await write
        with pytest.raises(StateError, match="has ended"):
            store.ingest_then([sample], lambda _: None)
        store.publish_soon([NewEvent("log", b"{}")])
        with pytest.raises(StateError, match="has ended"):
            store.check_alive()

    asyncio.run(asyncio.wait_for(use(), PATIENCE_S))
    store.close()


def test_a_ledger_that_ends_refuses_what_comes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, forgives=True)

    async def use() -> None:
        run = Run("01KANHC0E8M5T3W9Q7Z2R4V6XB", "apply", (), "root", "h", 1, 1.0)
        await store.run_begin(run)
        with pytest.raises(StateError, match="has ended: MemoryError"):
            await store.adopt(Bottomless("fw-\udcff"), "r", "k", "i", run.run_id)
        for _ in range(2):
            with pytest.raises(StateError, match="has ended"):
                await store.settle("fw-01")
        with pytest.raises(StateError, match="has ended"):
            store.check_alive()

    asyncio.run(asyncio.wait_for(use(), PATIENCE_S))
    with contextlib.suppress(StateError):
        store.close()


def test_the_daemon_ends_with_its_store(tmp_path: Path) -> None:
    with pytest.raises(FazaiError, match=r"a part of the daemon ended: .*has ended: MemoryError"):
        _serve_until_the_store_ends(tmp_path)


def _serve_until_the_store_ends(folder: Path) -> None:
    with live(folder) as daemon, daemon.client() as client:
        assert client.get("/ready").status_code == 200
        daemon.services.store.publish_soon([NewEvent("log", Poison(b"{}"))])
        with contextlib.suppress(httpx.TransportError):  # it ends meanwhile
            for minute in range(60):
                answer = client.post("/ingest", json=_record(minute))
                if answer.status_code != 200:
                    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            until(lambda: client.get("/ready").status_code == 503)
        until(lambda: not daemon.loop.is_running())


def test_slow_reads_hold_nobody_else_up(tmp_path: Path) -> None:
    """All threads that read are busy: health, telemetry, new tokens and metrics do not wait for them; a read
    waits, and is answered."""
    release = threading.Event()
    answers: list[int] = []
    text = token(tmp_path, "ops", "operator")
    with live(tmp_path) as daemon, daemon.client(text) as client, daemon.client(text) as other:
        assert client.post("/ingest", json=_record(0)).status_code == 200
        readers = daemon.services.store._readers  # type: ignore[attr-defined]
        slow = [asyncio.run_coroutine_threadsafe(readers.run(release.wait), daemon.loop) for _ in range(8)]
        waiting = threading.Thread(
            target=lambda: answers.append(other.get("/telemetry", params={"host": "web-1"}).status_code)
        )
        waiting.start()
        try:
            assert client.get("/health").status_code == 200
            for minute in range(1, 5):
                assert client.post("/ingest", json=_record(minute)).json()["accepted"] == 1
            assert client.get("/metrics").status_code == 200
            with daemon.client(token(tmp_path, "new", "viewer")) as newcomer:
                until(lambda: newcomer.get("/metrics").status_code == 200)
            assert not answers
            assert not any(one.done() for one in slow)
        finally:
            release.set()
            waiting.join(PATIENCE_S)
        assert answers == [200]


def test_nobody_is_let_in_by_tokens_that_are_too_old(tmp_path: Path) -> None:
    """While the tokens cannot be read again each request waits for them, on the fast path, too, and is told
    so by its deadline."""
    release = threading.Event()
    text = token(tmp_path, "ops", "operator")
    with live(tmp_path, limits=ServerLimits(answer_s=0.4)) as daemon, daemon.client(text) as client:
        for minute in range(2):
            assert client.post("/ingest", json=_record(minute)).status_code == 200
        watcher = daemon.services.store._watcher  # type: ignore[attr-defined]
        busy = asyncio.run_coroutine_threadsafe(watcher.run(release.wait), daemon.loop)
        try:
            until(lambda: client.post("/ingest", json=_record(2)).json().get("code") == "timeout")
            for path in ("/ingest", "/events"):
                assert client.post(path, json=_record(3)).json()["code"] == "timeout"
            assert not busy.done()
        finally:
            release.set()
        until(lambda: client.post("/ingest", json=_record(4)).status_code == 200)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Live]:
    """A daemon whose store can write nothing: another holds the file."""
    with live(tmp_path, limits=ServerLimits(answer_s=0.4)) as daemon, daemon.client() as client:
        assert client.post("/ingest", json=_record(0)).status_code == 200
        holder = sqlite3.connect(tmp_path / "state" / FILE_NAME, isolation_level=None, timeout=PATIENCE_S)
        holder.execute("BEGIN IMMEDIATE")
        try:
            yield daemon
        finally:
            holder.execute("ROLLBACK")
            holder.close()


def test_every_request_has_its_deadline(stuck: Live) -> None:
    events = {
        "run_id": "01KANHC0E8M5T3W9Q7Z2R4V6XB",
        "command": "apply",
        "host": "h",
        "user": "u",
        "started": "2026-11-22T03:04:00Z",
        "events": [{"sequence": 1, "event": {"type": "log", "level": "info", "message": "x"}}],
    }
    with stuck.client() as client:
        for path, body in (("/ingest", _record(1)), ("/events", events)):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (504, "timeout"), path
            assert "it took more than 0.4 s" in answer.json()["error"]
        assert client.get("/health").status_code == 200


def test_the_short_way_has_its_deadline(tmp_path: Path) -> None:
    with live(tmp_path, limits=ServerLimits(answer_s=0.4)) as daemon, daemon.client() as client:
        with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE_S) as line:
            for minute in range(2):  # the second one takes the short way
                line.sendall(_whole(minute))
                assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
            holder = sqlite3.connect(tmp_path / "state" / FILE_NAME, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            try:
                line.sendall(_whole(2))
                said = b"".join(iter(lambda: line.recv(65536), b""))  # to the end of the connection
            finally:
                holder.execute("ROLLBACK")
                holder.close()
            assert said.startswith(b"HTTP/1.1 504 ")
            assert b"it took more than 0.4 s" in said
            assert said.count(b"HTTP/1.1") == 1
        assert client.post("/ingest", json=_record(3)).status_code == 200


def _whole(minute: int) -> bytes:
    body = json.dumps(_record(minute)).encode()
    return b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# -- buffers


def test_bodies_have_one_budget(tmp_path: Path) -> None:
    """Many who send most of a body and then nothing do not fill the memory."""
    with live(tmp_path) as daemon, contextlib.ExitStack() as stack:
        daemon.services.bodies.limit_bytes = 300_000
        head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        lines = []
        for _ in range(2):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), PATIENCE_S))
            line.sendall(head + b"Content-Length: 200000\r\n\r\n" + b" " * 100_000)
            lines.append(line)
        until(lambda: daemon.services.bodies.total_bytes >= 200_000)
        with daemon.client() as client:
            answer = client.post(
                "/events", content=b" " * 150_000, headers={"Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert client.post("/events", json={}).status_code == 422  # a small one has room
        for line in lines:
            line.close()
        until(lambda: daemon.services.bodies.total_bytes == 0)


def test_what_a_run_says_is_bounded(tmp_path: Path) -> None:
    """One that writes to standard error for ever fills no disk, and its last words are kept."""
    said = tmp_path / "runs" / "said"
    flood = (
        "import os, sys\nfor n in range(400): os.write(2, b'x' * 65536)\n"
        "while os.stat(sys.argv[1]).st_size > 1 << 20: pass\nos.write(2, b'the end')"
    )

    async def run() -> tuple[ChildResult, int]:
        child = Child([sys.executable, "-c", flood, str(said)], {}, said, most_bytes=1 << 20, check_s=0.01)
        sizes = []

        async def watch() -> None:
            while not child.ended:
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(said.stat().st_size)
                await asyncio.sleep(0.005)

        watching = asyncio.ensure_future(watch())
        ended = await child.wait(PATIENCE_S, StopTimeouts())
        watching.cancel()
        return ended, child.cut

    ended, cut = asyncio.run(run())
    assert cut > 0
    assert (ended.exit_code, ended.stderr_tail[-7:]) == (0, "the end")
    assert len(ended.stderr_tail) <= 8192


def test_admission_is_one_budget() -> None:
    admission = Admission(100, lambda: 0.5)
    admission.hold("", 100)
    with pytest.raises(FazaiError, match="more"):
        admission.hold("", 1)
    admission.release("", 100)
    assert admission.total_bytes == 0


# -- peers of other kinds


async def _silent(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(PATIENCE_S)


async def _dripping(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"{")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _flooding(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


@contextlib.contextmanager
def _worker(
    path: Path, behaves: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]
) -> Iterator[None]:
    """A worker's socket behind which somebody behaves like that."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                await behaves(writer)
        finally:
            writer.transport.abort()

    async def end() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' last callbacks
        loop.stop()

    server = loop.run_until_complete(asyncio.start_unix_server(serve, str(path)))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(PATIENCE_S)
        loop.close()


@pytest.mark.parametrize("behaves", [_silent, _dripping, _flooding])
def test_a_worker_that_does_not_answer_holds_nobody_up(
    tmp_path: Path,
    behaves: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gemma_client, "_ANSWER_S", 0.4)
    path = tmp_path / "gemma.sock"
    with _worker(path, behaves), live(tmp_path, gemma_socket=path) as daemon, daemon.client() as client:
        answer = client.post("/agent/sessions", json={"plain": True})
        assert (answer.status_code, answer.json()["code"]) == (503, "worker_unavailable")
        assert "the Gemma worker does not answer" in answer.json()["error"]
        assert client.get("/agent/status").json()["gemma_worker"] == "unavailable"
        assert client.get("/health").status_code == 200


def test_a_tls_peer_that_says_nothing_is_let_go(tmp_path: Path) -> None:
    files = certificates.server(tmp_path)
    tls: dict[str, Any] = {"tls_cert": files.cert, "tls_key": files.key}
    with live(tmp_path, limits=ServerLimits(head_s=0.4), **tls) as daemon:
        with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE_S) as line:
            assert line.recv(1) == b""  # the daemon ends it
        with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE_S) as line:
            line.sendall(b"\x16\x03\x01")  # the beginning of a greeting
            assert line.recv(65536)[:1] in (b"", b"\x15")  # an alert at most


# -- clients that do not read


@pytest.mark.parametrize("count", range(1, 7))
def test_a_client_that_does_not_read_its_answers_is_let_go(tmp_path: Path, count: int) -> None:
    """Whatever of it the kernel takes: nothing waits for the client, neither an answer nor the end."""
    limits = ServerLimits(answer_s=0.3, idle_s=0.3, stall_s=0.3, linger_s=0.3)
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with (
        live(tmp_path, limits=limits, socket=tmp_path / "d.sock") as daemon,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        server = daemon.daemon._server
        assert server is not None
        peer.connect(str(tmp_path / "d.sock"))
        peer.sendall(asked * count)
        until(lambda: server.open == 1)
        until(lambda: server.open == 0)
