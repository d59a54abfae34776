"""How the agent dials: waiting, names that do not resolve, and what it costs while nobody answers."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.actions import Actions, Worker
from fazai.agent.children import Child, LifePipe
from fazai.agent.config.settings import AgentConfig, DaemonAddress
from fazai.agent.journal import Journal
from fazai.agent.link.connection import Link, WebSocketOpening
from fazai.agent.link.dialling import (
    BACKOFF_CAP_S,
    STABLE_S,
    Address,
    Backoff,
    Opening,
    parse_address,
)
from fazai.agent.link.errors import LinkError
from fazai.agent.link.tls import make_context
from fazai.agent.loop import READ, Loop
from fazai.agent.serving import Agent as ServedAgent
from fazai.agent.serving import Conversation
from tests.agent.link.authority import Authority

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("url", "host", "port", "shown"),
    [
        ("wss://fazai.example:3121", "fazai.example", 3121, "wss://fazai.example:3121"),
        ("wss://fazai.example", "fazai.example", 3121, "wss://fazai.example:3121"),
        ("https://10.0.0.1:443/", "10.0.0.1", 443, "https://10.0.0.1:443"),
        ("wss://[::1]:99", "::1", 99, "wss://[::1]:99"),
        ("wss://[::1]", "::1", 3121, "wss://[::1]:3121"),
    ],
)
def test_addresses(url: str, host: str, port: int, shown: str) -> None:
    found = parse_address(url)
    assert (found.host, found.port, found.url) == (host, port, shown)


@pytest.mark.parametrize(
    "url",
    ["", "ws://x", "http://x:1", "x:1", "wss://", "wss://x:0", "wss://x:65536", "wss://x:y", "wss://u@x", "wss://x/y"],
)  # fmt: skip
def test_what_names_no_daemon_is_refused(url: str) -> None:
    with pytest.raises(LinkError, match=r"names no daemon \(wss://HOST:3121 or https://HOST:3121\)"):
        parse_address(url)


def test_the_wait_has_full_jitter_and_a_cap() -> None:
    backoff = Backoff(lambda: 1.0)
    bounds = [backoff.next_delay(0.0) for _ in range(2000)]
    assert bounds[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bounds[-1] == BACKOFF_CAP_S
    assert Backoff(lambda: 0.0).next_delay(0.0) == 0.0
    half = Backoff(lambda: 0.5)
    assert [half.next_delay(0.0) for _ in range(3)] == [0.5, 1.0, 2.0]


def test_only_a_stable_connection_starts_the_wait_over() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_delay(0.0)
    backoff.connected(100.0)
    assert backoff.next_delay(100.0 + STABLE_S - 1) == 32
    backoff.connected(200.0)
    assert backoff.next_delay(200.0 + STABLE_S) == 1


@pytest.fixture
def life() -> Iterator[LifePipe]:
    made = LifePipe()
    yield made
    made.close()


def test_a_name_that_does_not_resolve_does_not_hold_the_loop(life: LifePipe) -> None:
    """The resolver hangs, as it does when no DNS server answers; timers go on, and its deadline ends it."""
    now = [0.0]

    def wait(selector: Any, timeout: float | None) -> Any:
        ready = selector.select(0.05)
        if not ready and timeout is not None:
            now[0] += timeout
        return ready

    loop = Loop(clock=lambda: now[0], wait=wait)
    ticks: list[float] = []
    failed: list[LinkError] = []

    def tick() -> None:
        ticks.append(now[0])
        loop.later(0.5, tick)

    def hang(host: str, port: int) -> dict[str, Any]:
        time.sleep(3600)
        return {}

    tick()
    Opening(
        loop,
        life,
        Address("wss", "fazai.example", 3121),
        lambda: pytest.fail("nobody is connected"),
        on_open=lambda stream: pytest.fail("nobody is connected"),
        on_failed=failed.append,
        resolve=hang,
    )
    while not failed:
        loop.turn()
    assert str(failed[0]) == "the name fazai.example was not resolved within 5 s"
    assert len(ticks) >= 10
    loop.close()


def test_who_cancels_again_and_again_gives_an_action_no_more_time(life: LifePipe) -> None:
    now, ended = [0.0], list[str]()

    def wait(selector: Any, timeout: float | None) -> Any:
        ready = selector.select(0.05)
        now[0] += 1.0
        return ready

    def serve(fd: int) -> None:
        time.sleep(3600)

    loop = Loop(clock=lambda: now[0], wait=wait)
    worker = Worker(loop, life, serve)
    worker.ask({"method": "state.apply"}, 3600.0, lambda answer, reason: ended.append(reason))

    def cancel() -> None:
        worker.cancel("a-1")
        loop.later(1.0, cancel)

    cancel()
    while not ended:
        assert now[0] < 600
        loop.turn()
    assert ended == ["its process was ended by signal 15"]
    loop.close()


def test_a_name_that_nobody_knows_is_told(life: LifePipe) -> None:
    loop, failed = Loop(), list[LinkError]()
    Opening(
        loop,
        life,
        Address("wss", "no-such-host.invalid", 3121),
        lambda: pytest.fail("nobody is connected"),
        on_open=lambda stream: pytest.fail("nobody is connected"),
        on_failed=failed.append,
    )
    while not failed:
        loop.turn()
    assert "the name no-such-host.invalid" in str(failed[0])
    assert failed[0].code == "resolve"
    loop.close()


def test_a_child_that_ignores_sigterm_is_killed(life: LifePipe) -> None:
    import signal

    loop, ends = Loop(), list[tuple[Any, str]]()

    def run() -> dict[str, Any]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
        return {}

    child = Child(loop, life, run, lambda answer, reason: ends.append((answer, reason)), deadline_s=0.2)
    number = child.number
    while not ends:
        loop.turn()
    assert ends == [(None, "it did not end and was killed")]
    while child.number:  # until it is reaped
        loop.turn()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    loop.close()


@pytest.mark.parametrize("answer", [b"\0\0\0\2[]", b"\0\0\0\1x", b"\xff\xff\xff\xff", b"", b"\0\0"])
def test_a_child_that_answers_nonsense_is_told(life: LifePipe, answer: bytes) -> None:
    """What comes through the pipe is read with care: a handler has defects, too."""
    loop, ends = Loop(), list[tuple[Any, str]]()

    def run() -> dict[str, Any]:
        for fd in range(3, 64):
            try:
                os.write(fd, answer)
            except OSError:
                continue
        os._exit(3)

    Child(loop, life, run, lambda answer, reason: ends.append((answer, reason)), deadline_s=20)
    while not ends:
        loop.turn()
    found, reason = ends[0]
    assert found is None or found["code"] in ("internal", "too_large")
    assert found is not None or reason == "its process ended with 3 and no answer"
    loop.close()


@pytest.mark.slow
def test_ten_thousand_refused_connects_cost_no_memory(tmp_path: Path) -> None:
    """A7: the daemon is away for days; a fake clock makes them pass."""
    authority = Authority(tmp_path / "pki")
    pair = authority.agent("edge-7")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.agent.link.refused",
            str(authority.file),
            str(pair.certificate),
            str(pair.key),
            str(port),
            "10000",
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=110,
    )
    found = json.loads(done.stdout)
    assert found["tries"] >= 10_000
    assert found["grown_bytes"] <= 5_000_000
    assert found["files"] == found["files_before"]
    assert found["hours"] > 24  # the waits are those of the backoff
    assert found["busy_turns"] <= 5 * found["tries"]  # between the tries nothing happens


def _patient_loop(now: list[float]) -> Loop:
    """Return a loop whose clock goes on only while nothing happens on the wire."""

    def wait(selector: Any, timeout: float | None) -> Any:
        ready = selector.select(0 if timeout == 0 else 0.1)
        if not ready and timeout is not None:
            now[0] += timeout
        return ready

    return Loop(clock=lambda: now[0], wait=wait)


def test_a_listener_that_says_nothing_is_left(life: LifePipe, tmp_path: Path) -> None:
    """It accepts, and does not shake hands."""
    now, failed = [0.0], list[LinkError]()
    loop = _patient_loop(now)
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        Opening(
            loop,
            life,
            Address("wss", "127.0.0.1", server.getsockname()[1]),
            lambda: make_context(str(authority.file)),
            on_open=lambda stream: pytest.fail("nobody shook hands"),
            on_failed=failed.append,
        )
        while not failed:
            loop.turn()
    assert str(failed[0]) == "127.0.0.1 did not finish the TLS handshake in time"
    assert 9 < now[0] < 30
    loop.close()


def test_a_server_that_opens_no_websocket_is_left(life: LifePipe, tmp_path: Path) -> None:
    """It shakes hands, and does not answer the upgrade."""
    import ssl
    import threading

    now, failed = [0.0], list[LinkError]()
    loop = _patient_loop(now)
    authority = Authority(tmp_path)
    pair = authority.listener()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            plain, _ = server.accept()
            with context.wrap_socket(plain, server_side=True):
                ended.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        WebSocketOpening(
            loop,
            life,
            Address("wss", "127.0.0.1", server.getsockname()[1]),
            lambda: make_context(str(authority.file)),
            limit_bytes=1000,
            on_open=lambda link: pytest.fail("nobody opened a WebSocket"),
            on_failed=failed.append,
        )
        while not failed:
            loop.turn()
        ended.set()
        thread.join(60)
    assert "did not open a WebSocket in time" in str(failed[0])
    loop.close()


class RecordedLink(Link):
    """A connection of which the test is the other end."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: list[tuple[int, str]] = []

    def send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def ping(self) -> None:
        self.sent.append({"ping": True})

    def expect(self, limit_bytes: int, heartbeat_s: float) -> None:
        self.sent.append({"heartbeat": heartbeat_s})

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


def _converse(
    loop: Loop, life: LifePipe, tmp_path: Path
) -> tuple[RecordedLink, Conversation, list[LinkError]]:
    config = AgentConfig(
        *("agent.yml", "edge-7", (DaemonAddress("wss", "127.0.0.1", 1),)),
        *("ca.pem", "cert.pem", "key.pem"),
    )
    journal = Journal(tmp_path / "journal", 4 * 1024 * 1024, time.time)
    actions = Actions(loop, life, {}, {}, fault=lambda name: None)
    agent = ServedAgent(
        *(loop, config, journal, actions),
        log=lambda level, message, **ids: None,
        instance="x",
        fault=lambda name: None,
    )
    link, lost = RecordedLink(), list[LinkError]()
    return link, Conversation(agent, link, on_ready=lambda: None, on_lost=lost.append), lost


def test_hello_is_waited_for_ten_seconds(life: LifePipe, tmp_path: Path) -> None:
    now = [0.0]
    loop = _patient_loop(now)
    link, _, lost = _converse(loop, life, tmp_path)
    while not lost:
        loop.turn()
    assert now[0] == 10.0
    assert str(lost[0]) == "the daemon did not answer hello within 10 s"
    assert link.closed == [(1001, "the daemon did not answer hello within 10 s")]
    loop.close()


def test_any_frame_is_life_and_silence_is_the_end(life: LifePipe, tmp_path: Path) -> None:
    """Pings go out at each heartbeat; what counts is what comes in, whatever it is."""
    now = [0.0]
    loop = _patient_loop(now)
    link, _, lost = _converse(loop, life, tmp_path)
    policy = {"timeouts": {}, "max_payload": 65_536, "heartbeat_ms": 5000}
    link.on_message(json.dumps({"ok": True, "policy": policy, "contract": "1.1"}).encode())
    while now[0] < 60:
        loop.turn()
        link.on_life()
    assert lost == []
    last = now[0]
    while not lost:
        loop.turn()
    assert str(lost[0]) == "the daemon was silent for 15 s"
    assert now[0] == last + 15
    assert link.sent.count({"ping": True}) >= 12
    loop.close()


def test_a_request_of_ours_is_waited_for_thirty_seconds(life: LifePipe, tmp_path: Path) -> None:
    now = [0.0]
    loop = _patient_loop(now)
    link, conversation, lost = _converse(loop, life, tmp_path)
    policy = {"timeouts": {}, "max_payload": 65_536, "heartbeat_ms": 60_000}
    link.on_message(json.dumps({"ok": True, "policy": policy, "contract": "1.1"}).encode())
    request = {"method": "renew", "action_id": "r-1", "csr": "x"}
    conversation.request(request, lambda answer: pytest.fail("nobody answered"))
    while not lost:
        loop.turn()
    assert str(lost[0]) == "the daemon did not answer renew within 30 s"
    assert now[0] == 30
    loop.close()


def _call(ready: Callable[[str, str], None], name: str, other: str, events: int) -> None:
    ready(name, other)


def test_a_file_that_took_a_closed_ones_number_is_not_taken_for_it() -> None:
    """Two are ready in one turn; the first to be called closes the other, whose number goes to a third."""
    loop, called = Loop(), list[str]()
    pipes = {name: os.pipe() for name in ("one", "two")}

    def ready(name: str, other: str) -> None:
        called.append(name)
        loop.forget(pipes[name][0])
        if len(called) == 1:
            number = pipes[other][0]
            loop.forget(number)
            os.close(number)
            fresh = os.pipe()
            assert number in fresh
            pipes[other] = (fresh[0], pipes[other][1])
            loop.watch(number, READ, lambda events: called.append("third"))

    for name, other in (("one", "two"), ("two", "one")):
        os.write(pipes[name][1], b"x")
        loop.watch(pipes[name][0], READ, functools.partial(_call, ready, name, other))
    loop.turn()
    assert len(called) == 1
    loop.close()
