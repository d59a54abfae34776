"""What every route keeps to: shapes of errors, limits of size and time, the description, start and stop."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.routes import TABLE
from fazai.daemon.settings import ServerLimits
from fazai.errors import StateError
from fazai.wire.daemon import HTTP_STATUS
from tests.contract import decode_log_line
from tests.daemon.live import BUSY_S, PATIENCE_S, Live, live, stream, until

FAZAI = str(Path(sys.executable).with_name("fazai"))
POSTS = [route for route in TABLE if route.body is not None and not route.signed]  # those: see southbound


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("http"), limits=ServerLimits(head_bytes=4096)) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """It soon has enough of who is slow."""
    with live(tmp_path_factory.mktemp("hasty"), limits=ServerLimits(head_s=0.4, body_s=0.6)) as found:
        yield found


def test_health_and_readiness(daemon: Live) -> None:
    with daemon.client() as client:
        assert client.get("/health").json()["status"] == "alive"
        assert client.get("/ready").json()["status"] == "ready"
        assert client.head("/health").status_code == 200


def test_where_there_is_nothing(daemon: Live) -> None:
    with daemon.client() as client:
        for path in ("/", "/events/", "/agents/none", "/opn", "//health", "/%2e%2e/etc"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"], answer.json()["ok"]) == (
                404,
                "not_found",
                False,
            )


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_other_methods_are_refused(daemon: Live, route: Any) -> None:
    path = route.path.replace("{id}", "x")
    with daemon.client() as client:
        for method in {"PUT", "DELETE", "PATCH"}:
            answer = client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
            assert route.method in answer.headers["allow"]


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.path)
def test_bodies_that_are_none(daemon: Live, route: Any) -> None:
    media = {"content-type": "application/json"}
    cases: list[tuple[bytes, dict[str, str], str]] = [
        (b"{", media, "bad_json"),
        (b"\xff", media, "bad_json"),
        (b"[" * 100_000, media, "bad_request"),
        (b"[]", media, "bad_request"),
        (b'{"nonsense":1}', media, "bad_request"),
        (b"{}", {"content-type": "text/plain"}, "unsupported_media_type"),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, "unsupported_media_type"),
        (b" " * (route.limit_bytes + 1), media, "too_large"),
    ]
    with daemon.client() as client:
        for body, headers, code in cases:
            answer = client.post(route.path, content=body, headers=headers)
            assert answer.status_code == HTTP_STATUS[code], (body[:20], answer.text)
            assert answer.json()["code"] == code
        parts = (b" " * 65536 for _ in range(route.limit_bytes // 65536 + 2))  # of no announced length
        answer = client.post(route.path, content=parts, headers=media)
        assert answer.json()["code"] == "too_large"


def _talk(daemon: Live, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S) as peer:
        peer.sendall(data)
        got = b""
        while part := peer.recv(65536):
            got += part
        return got


_POST = (
    b"POST /events HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n"
)


def test_slow_and_endless_requests_are_cut_off(hasty: Live) -> None:
    for data, status in (
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nHost: local", b"408"),
        (_POST + b"{", b"408"),
    ):
        got = _talk(hasty, data)
        assert got[9:12] == status


def test_a_header_drip_is_cut_off(hasty: Live) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE_S) as peer:
        begun = time.monotonic()
        peer.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT012 - whichever byte it is
            while time.monotonic() - begun < PATIENCE_S:
                peer.sendall(b"X: y\r\n")
                time.sleep(0.02)  # slowly, as such a client does


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 5000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000,
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1500 + b"\r\n",
    ],
)
def test_heads_that_are_too_large(daemon: Live, head: bytes) -> None:
    got = _talk(daemon, head)
    assert got.startswith(b"HTTP/1.1 431")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["code"] == "too_large"


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("path", [b"/events", b"/ingest", b"/nowhere"])
def test_who_is_refused_while_he_sends_can_read_why(daemon: Live, path: bytes, close: bytes) -> None:
    """A socket that is closed with unread bytes resets the connection: the answer would be lost."""
    size = 20 << 20
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n" % (path, close)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S) as peer:
        peer.sendall(head + b"Content-Length: %d\r\n\r\n" % size + b" " * size)
        answer = peer.recv(65536)
    assert answer[9:12] == (b"404" if path == b"/nowhere" else b"413")


def test_a_request_that_the_stop_does_not_wait_for_is_told(tmp_path: Path) -> None:
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    record = b'{"hostname":"a","timestamp":"2026-11-22T03:04:00Z"}'
    with live(tmp_path, limits=ServerLimits(stop_s=0.1)) as daemon:
        server, free = daemon.daemon._server, threading.Event()
        telemetry = daemon.services.store._telemetry  # type: ignore[attr-defined]
        assert server is not None
        apply, telemetry.apply = telemetry.apply, lambda *given: free.wait(PATIENCE_S) and apply(*given)
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S) as peer:
            peer.sendall(head + b"Content-Length: %d\r\n\r\n" % len(record) + record)
            until(lambda: daemon.services.ingest.admission.total_bytes)
            daemon.call(server.stop)
            answer = peer.recv(65536)
        free.set()
    assert answer[9:12] == b"503"
    assert b"retry-after: 2" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unavailable"


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"],
)
def test_what_is_not_http(daemon: Live, data: bytes) -> None:
    got = _talk(daemon, data)
    assert got == b"" or got.startswith(b"HTTP/1.1 400")


def test_many_requests_on_one_connection(daemon: Live) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = _talk(daemon, one * 49 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert got.count(b"HTTP/1.1 200 OK") == 50


def test_a_defect_is_an_answer_and_a_line_of_log(daemon: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    store = daemon.services.store
    for error, status, code in (
        (ZeroDivisionError("secret"), 500, "internal"),
        (StateError("disk"), 503, "unavailable"),
    ):

        def broken(error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(store, "agents", broken)
        with daemon.client() as client:
            answer = client.get("/agents")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "secret" not in answer.text
    assert "ZeroDivisionError" in daemon.log()
    for line in daemon.log().splitlines():
        decode_log_line(line)


def test_the_description_is_complete_and_true(daemon: Live) -> None:
    with daemon.client() as client:
        found = client.get("/openapi.json").json()
    described = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in TABLE}
    spec = (Path(__file__).parents[3] / "SPEC.md").read_text()
    rows = re.findall(r"^\| (`(?:GET|POST) [^|]+) \|", spec, re.M)
    told = {tuple(one.split("?")[0].split(" ")) for row in rows for one in re.findall(r"`([^`]+)`", row)}
    assert described <= told  # what is planned is told, too
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found)):
        assert reference in found["components"]["schemas"]
    ids = [op["operationId"] for item in found["paths"].values() for op in item.values()]
    assert len(ids) == len(set(ids))
    assert found["components"]["schemas"]["HealthAnswer"]["properties"]["ok"] == {"const": True}


def test_metrics(daemon: Live) -> None:
    with daemon.client() as client, daemon.client() as other, stream(client):
        page = other.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = set(re.findall(r"^# TYPE (fazai_\w+)", page.text, re.M))
    assert {"fazai_sse_streams", "fazai_sse_delivery_seconds", "fazai_auth_failures_total"} <= names
    assert re.search(r"^fazai_sse_streams [1-9]", page.text, re.M)
    spec = (Path(__file__).parents[3] / "SPEC.md").read_text()
    docs = "".join(path.read_text() for path in (Path(__file__).parents[3] / "docs").glob("*.md"))
    assert {name for name in names if name.startswith("fazai_sse") and name not in spec + docs} == set()


# -- the process


class _Process:
    """`fazai daemon`, told by its sd_notify when it is ready."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.socket = folder / "d.sock"
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.bind(str(folder / f"notify-{time.monotonic_ns()}"))
        ear.settimeout(PATIENCE_S)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "HOME": str(folder),
            "FAZAI_STATE_DIR": str(folder / "state"),
            "FAZAI_GEMMA_SOCK": str(folder / "no-worker.sock"),
            "NOTIFY_SOCKET": ear.getsockname(),
        }
        self.child = subprocess.Popen(
            [FAZAI, "daemon", "--port", "0", "--socket", str(self.socket), *words],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "READY=1" in ear.recv(4096).decode()
        ear.close()

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        return httpx.Client(transport=transport, base_url="http://fazai", timeout=PATIENCE_S)

    def end(self) -> str:
        _, err = self.child.communicate(timeout=PATIENCE_S)
        return str(err)


def test_sigterm_ends_it_within_a_second_with_streams_open(tmp_path: Path) -> None:
    process = _Process(tmp_path)
    with process.client() as client, stream(client) as events:
        begun = time.monotonic()
        process.child.send_signal(signal.SIGTERM)
        texts = [frame.event.message for frame in events.rest()]  # type: ignore[union-attr]
        log = process.end()
        assert time.monotonic() - begun < BUSY_S
    assert texts[-1].endswith("stops; connect again")
    assert process.child.returncode == 0
    assert not process.socket.exists()
    lines = [decode_log_line(line) for line in log.splitlines()]
    assert "listens on http://127.0.0.1:" in lines[1].message
    assert "Traceback" not in log


def test_ids_go_on_after_a_kill(tmp_path: Path) -> None:
    process, last = _Process(tmp_path), 0
    for _ in range(2):
        with process.client() as client:
            run = f"01KANHC0E8M5T3W9Q7Z2R4V6X{last % 10}"
            body = {
                "run_id": run,
                "command": "apply",
                "host": "h",
                "user": "u",
                "started": "2026-11-22T03:04:00Z",
                "events": [
                    {"sequence": n, "event": {"type": "log", "level": "info", "message": str(n)}}
                    for n in (1, 2)
                ],
            }
            assert client.post("/events", json=body).json()["accepted"] == 2
            process.child.kill()
        process.end()
        process = _Process(tmp_path)
        with process.client() as client, stream(client, f"?since=0&run={run}&follow=false") as events:
            ids = [frame.id for frame in events.rest()]
        assert len(ids) == 2
        assert last < ids[0] < ids[1]
        last = ids[1]
    process.child.terminate()
    process.end()


def test_the_log_is_opened_again_and_two_cannot_share_a_state(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    process = _Process(tmp_path, "--log-file", str(log))
    try:
        log.rename(tmp_path / "old.log")
        process.child.send_signal(signal.SIGHUP)
        until(log.exists)
        env = {**os.environ, "HOME": str(tmp_path), "FAZAI_STATE_DIR": str(tmp_path / "state")}
        second = subprocess.run(
            [FAZAI, "daemon", "--port", "0", "--socket", str(tmp_path / "e.sock")],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert second.returncode == 5
        assert f"another daemon uses the state folder {tmp_path / 'state'}" in second.stderr
        taken = subprocess.run(
            [FAZAI, "daemon", "--port", "0", "--socket", str(process.socket)],
            env={**env, "FAZAI_STATE_DIR": str(tmp_path / "other")},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert taken.returncode == 3
        assert "another daemon answers there" in taken.stderr
    finally:
        process.child.terminate()
        process.end()
