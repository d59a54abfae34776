"""Signed HTTP: the same conversation as over a WebSocket, one message a request."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.link.longpoll import sign_headers
from fazai.wire.signature import decode_signed_headers, sign, verify_signature
from tests.agent.link.authority import Authority
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import POLICY, WAIT_S, Daemon

KEY = "correct horse battery staple"
Reply = tuple[HTTPStatus, dict[str, Any] | None]


class PolledPeer:
    """The daemon's end: checks each signature, hands out requests, collects what the agent posts."""

    def __init__(self) -> None:
        self.posted: queue.Queue[dict[str, Any]] = queue.Queue()
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.nonces: set[str] = set()
        self.waits: list[int] = []
        self.greeted = threading.Event()
        self.lose = threading.Event()  # forget the session
        self.policy: dict[str, Any] = {}
        self.answers: dict[str, dict[str, Any]] = {}

    def routes(self) -> dict[str, Any]:
        return {"/southbound": self._take, "/southbound/poll": self._poll}

    def _check(self, headers: dict[str, str], path: str) -> Reply | None:
        found = decode_signed_headers(headers)
        body = headers[":body"].encode()
        verify_signature(found, [KEY.encode()], method="POST", path=path, body=body, now_s=time.time())
        assert found.agent == "edge-7"
        assert found.nonce not in self.nonces
        self.nonces.add(found.nonce)
        return None

    def _take(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        self._check(headers, "/southbound")
        if body.get("method") == "hello":
            self.lose.clear()
            self.posted.put(body)
            self.greeted.set()
            return HTTPStatus.OK, {"ok": True, "policy": {**POLICY, **self.policy}, "contract": "1.1"}
        if not self.greeted.is_set() or self.lose.is_set():
            return HTTPStatus.FORBIDDEN, {"ok": False, "code": "hello_required", "error": "hello comes first"}
        self.posted.put(body)
        if "method" in body and body["method"] != "part":
            return HTTPStatus.OK, {"ok": True, "action_id": body["action_id"]}
        return HTTPStatus.NO_CONTENT, None

    def _poll(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        self._check(headers, "/southbound/poll")
        self.waits.append(body["wait_ms"])
        limit = time.monotonic() + body["wait_ms"] / 1000
        while time.monotonic() < limit:
            if self.lose.is_set():
                text = "the session has ended"
                return HTTPStatus.FORBIDDEN, {"ok": False, "code": "hello_required", "error": text}
            try:
                return HTTPStatus.OK, self.requests.get(timeout=0.02)
            except queue.Empty:
                continue
        return HTTPStatus.NO_CONTENT, None

    def take(self) -> dict[str, Any]:
        return self.posted.get(timeout=WAIT_S)

    def ask(self, **request: Any) -> dict[str, Any]:
        self.requests.put(request)
        return self.take()


@pytest.fixture
def peer() -> PolledPeer:
    return PolledPeer()


@pytest.fixture
def polled(peer: PolledPeer, start_daemon: Callable[..., Daemon], agent: Agent, tmp_path: Path) -> Agent:
    """An agent that is configured for a daemon of signed HTTP."""
    daemon = start_daemon(posts=peer.routes())
    key = tmp_path / "signing.key"
    key.touch(mode=0o600)
    key.write_text(f"{KEY}\n")
    agent.pair.certificate.unlink()  # nobody asks for it
    agent.configure(f"https://localhost:{daemon.port}", more=f"signing_key: {key}\n")
    return agent


def test_the_signature_is_the_contracts() -> None:
    found = sign_headers(KEY.encode(), "web-1", "POST", "/southbound", b"{}", 1_795_316_645.9)
    assert found["X-Fazai-Timestamp"] == "1795316645"
    again = sign(
        KEY.encode(),
        timestamp=found["X-Fazai-Timestamp"],
        nonce=found["X-Fazai-Nonce"],
        method="POST",
        path="/southbound",
        body=b"{}",
    )
    assert found["X-Fazai-Signature"] == again
    assert len(found["X-Fazai-Nonce"]) == 32


def test_an_action_over_signed_http(polled: Agent, peer: PolledPeer) -> None:
    polled.start()
    hello = peer.take()
    assert (hello["method"], hello["agent_id"]) == ("hello", "edge-7")
    request = {"method": "command.exec", "command": "/bin/echo", "args": ["x"], "timeout": 9000}
    for number in range(3):
        answer = peer.ask(**request, action_id=f"a-{number}")
        assert (answer["ok"], answer["action_id"], answer["stdout"]) == (True, f"a-{number}", "x\n")
    peer.requests.put({"method": "ack", "action_ids": ["a-0", "a-1"]})
    assert peer.ask(method="cancel", action_id="none")["code"] == "not_found"
    assert peer.waits[0] == 15_000  # a poll is the heartbeat


def test_a_quiet_connection_is_kept_by_polls(polled: Agent, peer: PolledPeer) -> None:
    peer.policy["heartbeat_ms"] = 500
    polled.start()
    peer.take()
    request = {"method": "command.exec", "command": "/bin/sleep", "args": ["2"], "timeout": 9000}
    assert peer.ask(**request, action_id="a-1")["exit_code"] == 0
    assert len(peer.waits) > 2
    assert "silent" not in polled.said()


def test_long_answers_go_in_parts(polled: Agent, peer: PolledPeer) -> None:
    import base64

    polled.start()
    peer.take()
    peer.requests.put({"method": "file.diff", "action_id": "d-1", "path": "/x", "want": "a" * 60_000})
    assert peer.take()["patch"] == "x" * 60_000
    want = json.dumps(
        {"method": "file.diff", "action_id": "d-2", "path": "/x", "want": "a" * 300_000}
    ).encode()
    for index in range(8):
        piece = want[index * 40_000 : (index + 1) * 40_000]
        part = {"method": "part", "action_id": "d-2", "index": index, "last": index == 7}
        peer.requests.put({**part, "data": base64.b64encode(piece).decode()})
    joined = b""
    while True:
        found = peer.take()
        joined += base64.b64decode(found["data"])
        if found["last"]:
            break
    assert json.loads(joined)["patch"] == "x" * 300_000


def test_a_session_that_the_daemon_forgot_is_made_again(polled: Agent, peer: PolledPeer) -> None:
    """And an outcome that it did not acknowledge is delivered in the next one."""
    polled.start()
    peer.take()
    request = {"method": "command.exec", "command": "/bin/echo", "args": ["x"], "timeout": 9000}
    answer = peer.ask(**request, action_id="a-1")
    peer.lose.set()
    assert peer.take()["method"] == "hello"
    result = peer.take()
    assert (result["method"], result["action_id"], result["answer"]) == ("result", "a-1", answer)
    assert "hello_required" in polled.said() or "the session has ended" in polled.said()


def test_a_key_that_others_may_read_is_refused(polled: Agent, tmp_path: Path) -> None:
    (tmp_path / "signing.key").chmod(0o644)
    polled.start()
    polled.wait_said("others may read the key (mode 0644)")


def test_a_refusal_is_said(
    polled: Agent, peer: PolledPeer, agent: Agent, start_daemon: Callable[..., Daemon]
) -> None:
    def refuse(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        text = "the signature does not fit the request (check the key)"
        return HTTPStatus.UNAUTHORIZED, {"ok": False, "code": "bad_signature", "error": text}

    daemon = start_daemon(posts={"/southbound": refuse})
    text = polled.config.read_text()
    polled.config.write_text(text.replace(text.split("localhost:")[1].split("]")[0], str(daemon.port)))
    polled.start()
    polled.wait_said("refused: the signature does not fit the request (check the key)")


def test_the_authorities_are_replaced_over_signed_http(
    polled: Agent, peer: PolledPeer, tmp_path: Path
) -> None:
    """Without a certificate of its own, of which there is none to prove."""
    polled.start()
    assert "trust" in peer.take()["capabilities"]
    after = Authority(tmp_path / "after", "the next authority")
    both = polled.authority.file.read_text() + after.file.read_text()
    alone = peer.ask(method="trust", action_id="q-0", ca=both, renew=True)
    assert alone["code"] == "conflict"
    assert (
        f"the authority {after.mark} is new, and none that this agent trusts has endorsed it"
        in alone["error"]
    )
    assert after.file.read_text() not in polled.authority.file.read_text()
    words = [polled.authority.endorse(after.fingerprint)]
    answer = peer.ask(method="trust", action_id="q-1", ca=both, endorsements=words, renew=True)
    assert answer == {"ok": True, "action_id": "q-1"}
    assert after.file.read_text() in polled.authority.file.read_text()
    refused = peer.ask(method="trust", action_id="q-2", ca=after.file.read_text())
    assert (refused["code"], refused["action_id"]) == ("conflict", "q-2")
    assert "the certificate of localhost is not trusted" in refused["error"]
    asked = peer.ask(method="outcomes", action_id="q-3", action_ids=["a-1"])
    assert asked == {"ok": True, "action_id": "q-3", "unknown": ["a-1"]}
