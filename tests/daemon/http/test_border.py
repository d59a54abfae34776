"""The border to the network: whatever comes over a raw socket, the daemon answers as HTTP wants it or closes,
in bounded time, and goes on."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fazai.daemon.settings import ServerLimits
from tests.daemon.live import PATIENCE_S, Live, live, until

#: Of a daemon that soon has enough, for what is slow; the other one waits for a client that the machine
#: holds up.
_HASTY = ServerLimits(head_s=1.0, body_s=1.2, head_bytes=4096, idle_s=1.0)
_PATIENT = ServerLimits(head_bytes=4096)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("hasty"), limits=_HASTY) as found:
        yield found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("border"), limits=_PATIENT) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, in parts with a moment between them, and the statuses that come back. `half`: our side is
    closed after it; otherwise the daemon has to end the connection, as every case makes it. `slow`: after it
    waited."""

    name: str
    parts: tuple[bytes, ...]
    statuses: tuple[int, ...]
    half: bool = False
    slow: bool = False


_H = b"Host: localhost\r\n"
_END = b"Connection: close\r\n\r\n"
_JSON = b"Content-Type: application/json\r\n"
_GET = b"GET /health HTTP/1.1\r\n" + _H
_POST = b"POST /agent/abort HTTP/1.1\r\n" + _H + _JSON
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n"
_BODY = b'{"session_id":"s"}'  # 404: there is no such session
_SIZED = b"Content-Length: %d\r\n" % len(_BODY)

CASES = [
    # -- chunking
    Case("chunks", (_CHUNKED + _END + b"12\r\n" + _BODY + b"\r\n0\r\n\r\n",), (404,)),
    Case(
        "chunks, byte by byte",
        tuple(bytes([b]) for b in _CHUNKED + _END + b"12\r\n" + _BODY + b"\r\n0\r\n\r\n"),
        (404,),
    ),
    Case(
        "chunks with extension and trailer",
        (_CHUNKED + _END + b"12;a=b\r\n" + _BODY + b"\r\n0\r\nX: y\r\n\r\n",),
        (404,),
    ),
    Case(
        "a trailer is no header",
        (_CHUNKED + _END + b"12\r\n" + _BODY + b"\r\n0\r\nHost: evil.example\r\nVia: x\r\n\r\n",),
        (404,),
    ),
    Case("trailers that never end", (_CHUNKED + b"\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n" * 200_000), (431,)),
    Case("one endless trailer", (_CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: ", b"x" * 1_000_000), (431,)),
    Case("one endless extension of a chunk", (_CHUNKED + b"\r\n2;", b"x" * 1_000_000), (431,)),
    Case("a chunk's size is no number", (_CHUNKED + _END + b"zz\r\n" + _BODY,), (400,)),
    Case("a negative chunk", (_CHUNKED + _END + b"-5\r\n" + _BODY,), (400,)),
    Case("a chunk of 2^64", (_CHUNKED + _END + b"1" + b"0" * 16 + b"\r\n" + _BODY,), (400,)),
    Case("a chunk of 2^63", (_CHUNKED + _END + b"8" + b"0" * 15 + b"\r\n" + _BODY,), (408,)),
    Case("a chunk longer than it says", (_CHUNKED + _END + b"2\r\n" + _BODY + b"\r\n0\r\n\r\n",), (400,)),
    Case("chunks that never end", (_CHUNKED + b"\r\n" + b"1\r\n{\r\n",), (408,)),
    Case("chunks, cut off", (_CHUNKED + b"\r\n" + b"12\r\n{",), (), half=True),
    Case("both lengths", (_CHUNKED + _SIZED + _END + b"0\r\n\r\n",), (400,)),
    Case("an unknown coding", (_POST + b"Transfer-Encoding: tango\r\n" + _END + _BODY,), (400,)),
    # -- lengths
    Case(
        "two lengths that differ",
        (_POST + b"Content-Length: 2\r\nContent-Length: 3\r\n" + _END + b"{}x",),
        (400,),
    ),
    Case("a negative length", (_POST + b"Content-Length: -1\r\n" + _END,), (400,)),
    Case("a length that is no number", (_POST + b"Content-Length: 1e3\r\n" + _END,), (400,)),
    Case("a length of 2^65", (_POST + b"Content-Length: 36893488147419103232\r\n" + _END,), (400,)),
    Case("a length beyond the limit", (_POST + b"Content-Length: 99999999999\r\n\r\n",), (413,)),
    Case("no length and no body", (_POST + _END,), (400,)),
    # -- the head
    Case("nothing", (), (), slow=True),
    Case("only line ends", (b"\r\n" * 100,), (), slow=True),
    Case("many headers", (_GET + b"X: y\r\n" * 2000 + _END,), (431,)),
    Case("one endless header", (_GET + b"X: " + b"x" * 9000,), (431,)),
    Case("one endless method", (b"G" * 9000,), (400,)),
    Case("one endless target", (b"GET /" + b"x" * 9000,), (431,)),
    Case("a header without a colon", (_GET + b"nonsense\r\n" + _END,), (400,)),
    Case("a header without a name", (_GET + b": x\r\n" + _END,), (400,)),
    Case("a space before the colon", (_GET + b"X : y\r\n" + _END,), (400,)),
    Case("a folded header", (_GET + b"X: a\r\n b\r\n" + _END,), (400,)),
    Case("NUL in a header", (_GET + b"X: a\0b\r\n" + _END,), (400,)),
    Case("a lone CR in a header", (_GET + b"X: a\rb\r\n" + _END,), (400,)),
    Case("bytes above 127 in a header", (_GET + b"X: \xff\xfe\r\n" + _END,), (200,)),
    Case("no host", (b"GET /health HTTP/1.1\r\n" + _END,), (403,)),
    Case("two hosts", (_GET + b"Host: evil.example\r\n" + _END,), (400,)),
    Case("a foreign host", (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n" + _END,), (403,)),
    # -- targets
    Case("an absolute target", (b"GET http://localhost/health HTTP/1.1\r\n" + _H + _END,), (200,)),
    Case(
        "an absolute target elsewhere", (b"GET http://evil.example/health HTTP/1.1\r\n" + _H + _END,), (200,)
    ),
    Case("the asterisk", (b"OPTIONS * HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("an authority", (b"CONNECT localhost:1 HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("NUL in the path", (b"GET /a\0b HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("NUL, encoded", (b"GET /agents/a%00b HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("bytes above 127 in the path", (b"GET /\xc3\xa9 HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("UTF-8, encoded", (b"GET /agents/%C3%A9 HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("no UTF-8, encoded", (b"GET /agents/%ff%fe HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("half an escape", (b"GET /agents/%f HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("a bad query", (b"GET /events?since=%ff HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("upwards", (b"GET /../../etc/passwd HTTP/1.1\r\n" + _H + _END,), (404,)),
    Case("no path", (b"GET  HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("a fragment", (b"GET /health#x HTTP/1.1\r\n" + _H + _END,), (200,)),
    # -- versions and methods
    Case("HTTP/1.0", (b"GET /health HTTP/1.0\r\n" + _H + b"\r\n",), (200,)),
    Case(
        "HTTP/1.0 that wants to stay",
        (b"GET /health HTTP/1.0\r\n" + _H + b"Connection: keep-alive\r\n\r\n",),
        (200,),
    ),
    Case("HTTP/0.9", (b"GET /health\r\n\r\n",), (403,)),
    Case("HTTP/2's preface", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), (400,)),
    Case("HTTP/9.9", (b"GET /health HTTP/9.9\r\n" + _H + _END,), (400,)),
    Case("TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),), (400,)),
    Case("an unknown method", (b"FETCH /health HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("a method in small letters", (b"get /health HTTP/1.1\r\n" + _H + _END,), (400,)),
    Case("TRACE", (b"TRACE /health HTTP/1.1\r\n" + _H + _END,), (405,)),
    Case("GET with a body", (_GET + b"Content-Length: 5\r\n" + _END + b"hello",), (200,)),
    # -- expectations and upgrades
    Case("Expect, then the body", (_POST + _SIZED + b"Expect: 100-continue\r\n" + _END, _BODY), (100, 404)),
    Case("Expect, and nothing", (_POST + _SIZED + b"Expect: 100-continue\r\n\r\n",), (100, 408)),
    Case("an unknown expectation", (_POST + _SIZED + b"Expect: tea\r\n" + _END + _BODY,), (404,)),
    Case(
        "WebSocket",
        (_GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n",),
        (200,),
        slow=True,
    ),
    Case(
        "h2c",
        (_GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",),
        (200,),
        slow=True,
    ),
    # -- several requests
    Case("a hundred in a row", ((_GET + b"\r\n") * 99 + _GET + _END,), (200,) * 100),
    Case(
        "bodies in a row",
        ((_POST + _SIZED + b"\r\n" + _BODY) * 9 + _POST + _SIZED + _END + _BODY,),
        (404,) * 10,
    ),
    Case("the second one is nonsense", (_GET + b"\r\n" + b"nonsense\r\n\r\n",), (400,)),  # at once
    Case("something after the last one", (_GET + _END + b"GET /metrics HTTP/1.1\r\n\r\n",), (200,)),
    Case(
        "a request, smuggled into a length of 0",
        (_POST + b"Content-Length: 0\r\n\r\n" + _GET + _END,),
        (400, 200),
    ),
    # -- slow, and gone
    Case("half a head", (_GET + b"X: ",), (408,)),
    Case("half a body", (_POST + _SIZED + b"\r\n" + _BODY[:3],), (408,)),
    Case("half a head, half closed", (_GET,), (), half=True),
    Case("half a body, half closed", (_POST + _SIZED + b"\r\n" + _BODY[:3],), (), half=True),
    Case("a whole one, idle afterwards", (_GET + b"\r\n",), (200,), slow=True),
]


def _talk(port: int, parts: tuple[bytes, ...], *, half: bool = False, timeout_s: float = PATIENCE_S) -> bytes:
    """All that comes back until the daemon ends the connection. Raises TimeoutError when it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        try:
            for part in parts:
                peer.sendall(part)
            if half:
                peer.shutdown(socket.SHUT_WR)
            while part := peer.recv(65536):
                got += part
        except (ConnectionResetError, BrokenPipeError):  # it did not want to read the rest
            pass
        return got


def _statuses(got: bytes) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", got))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases(daemon: Live, hasty: Live, case: Case) -> None:
    daemon = hasty if case.slow or 408 in case.statuses else daemon
    got = _talk(daemon.port, case.parts, half=case.half)
    assert _statuses(got) == case.statuses, got[:400]
    if case.statuses and case.statuses[-1] >= 400:
        answer = json.loads(got.rpartition(b"\r\n\r\n")[2])
        assert (answer["ok"], bool(answer["code"])) == (False, True)
    _still_there(daemon)


def _still_there(daemon: Live) -> None:
    assert _statuses(_talk(daemon.port, (_GET + _END,))) == (200,)
    assert "Traceback" not in daemon.log()


def test_a_drip_of_bytes_is_ended_in_head_and_body(hasty: Live) -> None:
    for first, drip in ((b"GET /health HTTP/1.1\r\n", b"X: y\r\n"), (_CHUNKED + b"\r\n", b"1\r\n \r\n")):
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE_S) as peer:
            peer.sendall(first)
            peer.settimeout(0.05)
            got = b"x"
            while got:
                assert time.monotonic() - begun < PATIENCE_S
                try:
                    peer.sendall(drip)
                    got = peer.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    break
    _still_there(hasty)


def test_many_that_are_slow_at_once_hold_up_nobody(daemon: Live) -> None:
    slow = []
    try:
        for number in range(300):
            one = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S)
            one.sendall((_GET, _POST + _SIZED + b"\r\n{", b"", _CHUNKED + b"\r\n1")[number % 4])
            slow.append(one)
        server = daemon.daemon._server
        assert server is not None
        _still_there(daemon)
        assert server.open >= len(slow)  # it did not wait for one of them
    finally:
        for one in slow:
            one.close()


def test_clients_that_are_gone_leave_nothing_behind(daemon: Live) -> None:
    """Closed and reset at every point of a request; its connections end."""
    linger = b"\1\0\0\0\0\0\0\0"
    for reset in (False, True):
        for size in range(0, len(_GET) + 2, 7):
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE_S) as peer:
                if reset:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.sendall((_GET + b"\r\n")[:size])
    server = daemon.daemon._server
    assert server is not None
    until(lambda: not server.open)
    _still_there(daemon)


_WORDS = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/health",
            b"/events",
            b"/ingest",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"\r\n",
            b"\n",
        ),
        *(
            _H,
            _JSON,
            _SIZED,
            _END,
            _BODY,
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Encoding: gzip\r\n",
            b"0\r\n\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"\0",
            b":",
            b" ",
            b"\xff",
            b"12\r\n",
            b"Connection: keep-alive\r\n",
            b"\x1f\x8b\x08",
        ),
        *(
            b"Authorization: Bearer x\r\n",
            b"Last-Event-ID: 9\r\n",
            b"?since=0&follow=false",
            b"{",
            b'{"hostname":"h"}',
        ),
    ]
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(words=st.lists(_WORDS | st.binary(max_size=20), max_size=25))
def test_any_words_of_http(daemon: Live, words: list[bytes]) -> None:
    got = _talk(daemon.port, (b"".join(words),), half=True)
    assert b" 500 " not in got
    assert not got or got.startswith(b"HTTP/1.1 ")


def test_nothing_of_it_was_a_defect(daemon: Live, hasty: Live) -> None:
    for one in (daemon, hasty):
        _still_there(one)
        assert '"level":"error"' not in one.log()
