"""Reaching the daemon: refusals and their sentences, silence, several addresses, renewal and return."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fazai.agent.link.tls import Dates
from fazai.agent.process import Log
from fazai.wire.base import decode_body
from fazai.wire.logs import LogLine
from tests.agent.link.authority import DAY, Authority, Pair
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import Daemon
from tests.agent.link.proxy import Proxy


@pytest.fixture
def proxy(daemon: Daemon) -> Iterator[Proxy]:
    made = Proxy(daemon.port)
    yield made
    made.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# -- life -------------------------------------------------------------------------------------------------


def test_a_silent_daemon_is_noticed_within_three_heartbeats(
    agent: Agent, daemon: Daemon, proxy: Proxy
) -> None:
    agent.configure(f"wss://localhost:{proxy.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(heartbeat_ms=200)
    peer.ask(method="cancel", action_id="none")
    proxy.cut()
    said = agent.wait_said("the daemon was silent for")
    assert "the daemon was silent for 0.6 s" in said
    assert "state=connecting" in (agent.state / "status").read_text()
    proxy.mend()
    assert daemon.accept().hello()["agent_id"] == "edge-7"
    agent.wait_said("connected to", times=2)


def test_pings_keep_a_quiet_connection(agent: Agent, daemon: Daemon) -> None:
    """The library answers pings; nothing else is said for longer than three heartbeats."""
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello(heartbeat_ms=500)
    assert peer.exec("a-1", "/bin/sleep", "2")["exit_code"] == 0
    assert "silent" not in agent.said()


def test_a_connection_that_ends_is_made_again(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    first = daemon.accept()
    one = first.hello()["instance"]
    first.close(1001, "restarting")
    second = daemon.accept()
    assert second.hello()["instance"] == one
    assert "the daemon closed the connection with 1001: restarting" in agent.said()


def test_the_next_address_is_tried(agent: Agent, daemon: Daemon) -> None:
    port = _free_port()
    agent.configure(f"wss://localhost:{port}", f"wss://127.0.0.1:{daemon.port}")
    agent.start()
    daemon.accept().hello()
    said = agent.wait_said("connected to")
    assert f"localhost:{port} is not reached: Connection refused" in said
    assert f"connected to wss://127.0.0.1:{daemon.port}" in said


def test_a_daemon_without_an_answer_to_hello_is_left(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.receive()
    peer.send({"method": "cancel", "action_id": "a"})
    assert peer.wait_closed() == (1008, "protocol: the daemon sent a request before it answered hello")
    peer.close()
    second = daemon.accept()
    second.receive()
    second.send({"ok": True, "policy": {"timeouts": {}, "max_payload": "1"}})
    assert second.wait_closed() == (1008, "protocol: the daemon's policy has an unusable `max_payload`")
    second.close()
    third = daemon.accept()
    third.receive()
    third.send("{")
    assert "JSON is malformed" in third.wait_closed()[1]


# -- a daemon that lies -----------------------------------------------------------------------------------


def test_an_answer_that_nobody_asked_for_ends_the_connection(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    peer.send({"ok": True, "action_id": "a-1"})
    assert peer.wait_closed() == (1008, "bad_request: the daemon answered what nobody asked")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "bad_json"),
        ("[]", "bad_request"),
        ("{}", "bad_request"),
        ('{"method":"command.shell","action_id":"a"}', "unknown_method"),
        ('{"method":"cancel","action_id":"a","action_id":"a"}', "bad_request"),
        ('{"method":"cancel","action_id":"a b"}', "bad_request"),
        ('{"method":"ack","action_ids":[]}', "bad_request"),
        ('{"method":"hello","action_id":"a"}', "unknown_method"),
        ('{"method":"cancel","action_id":"' + "x" * 70_000 + '"}', "too_large"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_requests_are_refused_and_harm_nothing(
    agent: Agent, daemon: Daemon, text: str, code: str
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    peer.send(text)
    assert peer.receive()["code"] == code
    assert peer.exec("a-1", "/bin/echo", "x")["exit_code"] == 0


def test_acknowledgements_of_what_never_was_are_left_alone(agent: Agent, daemon: Daemon) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    peer.send({"method": "ack", "action_ids": [f"x-{number}" for number in range(1024)]})
    assert peer.exec("a-1", "/bin/echo", "x")["exit_code"] == 0


# -- refusals, each with its sentence ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("bad_certificate", "the certificate of edge-7 was revoked on 2026-11-30"),
        ("bad_clock", "the clocks differ by 412 s, 300 s are allowed (set the clock)"),
        ("bad_version", "the daemon speaks 1.1, the agent 2.0"),
        ("conflict", "another machine is connected as edge-7"),
    ],
)
def test_the_daemons_refusal_is_said(agent: Agent, daemon: Daemon, code: str, sentence: str) -> None:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    daemon.accept().refuse(code, sentence)
    said = agent.wait_said(sentence)
    assert f"the daemon refused this agent: {sentence}" in said
    daemon.accept().close(1008, f"{code}: {sentence}")  # without an answer, by the close alone
    agent.wait_said(f"localhost:{daemon.port}: {sentence}")
    status = (agent.state / "status").read_text()
    assert "state=refused\n" in status
    assert f"last_error={sentence}\n" in status


def test_an_unknown_authority_is_told_before_anything_is_sent(
    tmp_path: Path, agent: Agent, daemon: Daemon
) -> None:
    agent.pair = Authority(tmp_path / "other", "another authority").agent("edge-7")
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("was not made by the authority")
    assert (
        f"the certificate {agent.pair.certificate} was not made by the authority {agent.authority.file}"
        in said
    )
    assert "both must come from the same `fazai pki`" in said
    assert not daemon.has_more()


def test_a_key_of_another_certificate_is_told(agent: Agent, daemon: Daemon) -> None:
    other = agent.authority.agent("other")
    agent.pair = Pair(agent.pair.certificate, other.key)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("does not belong to the certificate")
    assert f"the key {other.key} does not belong to the certificate {agent.pair.certificate}" in said


def test_another_name_is_told(agent: Agent, daemon: Daemon) -> None:
    agent.pair = agent.authority.agent("other")
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    agent.wait_said('the certificate is made out to "other", and agent.yml names "edge-7"')
    assert not daemon.has_more()


def test_a_key_that_others_may_read_is_refused(agent: Agent, daemon: Daemon) -> None:
    agent.pair.key.chmod(0o640)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("others may read the key (mode 0640)")
    assert f"chmod 600 {agent.pair.key}" in said


def test_no_certificate_is_told_with_the_next_step(agent: Agent, daemon: Daemon) -> None:
    agent.pair.certificate.unlink()
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("cannot be read: No such file or directory")
    assert "enrol this agent first: fazai agent enrol" in said


def test_a_listener_of_another_authority_is_refused(
    tmp_path: Path, agent: Agent, start_daemon: Callable[..., Daemon]
) -> None:
    other = start_daemon(pair=Authority(tmp_path / "other").listener())
    agent.configure(f"wss://localhost:{other.port}")
    agent.start()
    said = agent.wait_said("the certificate of localhost is not trusted")
    assert "`ca` in agent.yml must be the authority of the daemon's listener" in said
    assert "was the authority replaced while this agent was away? then fazai pki enrol NAME there" in said
    assert not other.has_more()


def test_a_listener_of_another_name_is_refused(agent: Agent, start_daemon: Callable[..., Daemon]) -> None:
    other = start_daemon(pair=agent.authority.listener(host="fazai.example"))
    agent.configure(f"wss://localhost:{other.port}")
    agent.start()
    said = agent.wait_said("is not trusted")
    assert "Hostname mismatch" in said
    assert "fazai pki listener --name HOST" in said
    assert not other.has_more()


def test_a_port_that_speaks_no_tls_is_told(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        agent.configure(f"wss://127.0.0.1:{server.getsockname()[1]}")
        agent.start()
        client, _ = server.accept()
        client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        said = agent.wait_said("no TLS with 127.0.0.1")
        client.close()
    assert "wrong version number" in said or "record layer failure" in said


# -- dates and clocks -------------------------------------------------------------------------------------


def test_a_certificate_that_does_not_hold_yet_is_told(agent: Agent, daemon: Daemon) -> None:
    agent.pair = agent.authority.agent("edge-7", begins_s=DAY)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("does not hold yet, but from")
    assert "is the clock of this machine right?" in said
    assert "/southbound" not in daemon.requests


def test_a_wrong_clock_is_told_as_such(agent: Agent, start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(clock_s=2 * DAY)
    agent.pair = agent.authority.agent("edge-7", begins_s=DAY)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("the clocks differ by")
    assert f"the clocks differ by {2 * DAY} s" in said or f"the clocks differ by {2 * DAY - 1} s" in said
    assert "this agent's certificate does not hold yet" in said
    assert "(set the clock)" in said
    assert not daemon.has_more()


def test_a_listener_whose_certificate_has_expired_is_told(
    agent: Agent, start_daemon: Callable[..., Daemon]
) -> None:
    daemon = start_daemon(pair=agent.authority.listener(begins_s=-3 * DAY, ends_s=-DAY))
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("the certificate of localhost has expired by the clock of this machine")
    assert "look at both clocks" in said
    assert not daemon.has_more()


def _read_csr(text: str) -> x509.CertificateSigningRequest:
    found = x509.load_pem_x509_csr(text.encode())
    assert found.is_signature_valid
    return found


def _answer_return(
    authority: Authority, seen: list[dict[str, Any]], body: dict[str, Any]
) -> tuple[HTTPStatus, dict[str, Any]]:
    """Answer POST /southbound/return as SPEC.md says, once the proof fits."""
    seen.append(body)
    expired = x509.load_pem_x509_certificate(body["certificate"].encode())
    digest = hashlib.sha256(body["csr"].encode()).hexdigest()
    key = expired.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    text = f"fazai return\n{body['timestamp']}\n{digest}".encode()
    key.verify(base64.b64decode(body["signature"]), text, ec.ECDSA(hashes.SHA256()))
    csr = _read_csr(body["csr"])
    assert csr.subject.rfc4514_string() == "CN=edge-7"
    public = csr.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    made = authority.sign("edge-7", public).decode()
    return HTTPStatus.OK, {"ok": True, "agent_id": "edge-7", "certificate": made, "ca": "-"}


def test_an_agent_comes_back_after_its_certificate_expired(
    agent: Agent, start_daemon: Callable[..., Daemon]
) -> None:
    seen: list[dict[str, Any]] = []
    lost = True

    def answer(body: dict[str, Any], headers: dict[str, str]) -> tuple[HTTPStatus, dict[str, Any]] | None:
        nonlocal lost
        found = _answer_return(agent.authority, seen, body)
        if lost:  # the first answer does not arrive
            lost = False
            return None
        return found

    daemon = start_daemon(posts={"/southbound/return": answer})
    agent.pair = agent.authority.agent("edge-7", begins_s=-40 * DAY, ends_s=-10 * DAY)
    before = agent.pair.certificate.read_bytes()
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    assert daemon.accept().hello()["agent_id"] == "edge-7"
    said = agent.wait_said("connected to")
    assert "this agent's certificate has expired: it held until" in said
    assert "the daemon made another one" in said
    assert agent.pair.certificate.read_bytes() != before
    assert "Traceback" not in said
    assert len(seen) == 2
    assert seen[0]["csr"] == seen[1]["csr"]  # an answer that was lost is asked for again
    assert not (agent.state / "return.csr").exists()


def test_an_agent_that_may_not_come_back_says_why(agent: Agent, start_daemon: Callable[..., Daemon]) -> None:
    def answer(body: dict[str, Any], headers: dict[str, str]) -> tuple[HTTPStatus, dict[str, Any]]:
        text = "the certificate expired 60 days ago, 30 are allowed"
        return HTTPStatus.UNAUTHORIZED, {"ok": False, "code": "bad_certificate", "error": text}

    daemon = start_daemon(posts={"/southbound/return": answer})
    agent.pair = agent.authority.agent("edge-7", begins_s=-90 * DAY, ends_s=-60 * DAY)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    said = agent.wait_said("30 are allowed")
    assert "no other one was given" in said
    assert "fazai pki enrol edge-7" in said
    assert not daemon.has_more()


def test_a_certificate_is_renewed_over_the_connection(agent: Agent, daemon: Daemon) -> None:
    agent.pair = agent.authority.agent("edge-7", begins_s=-20 * DAY, ends_s=4 * DAY)
    key = agent.pair.key.read_bytes()
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    request = peer.receive()
    assert request["method"] == "renew"
    csr = _read_csr(request["csr"])
    public = csr.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    made = agent.authority.sign("edge-7", public)
    peer.send({"ok": True, "action_id": request["action_id"], "certificate": made.decode()})
    agent.wait_said("the certificate was renewed: it holds until")
    assert agent.pair.certificate.read_bytes() == made
    assert agent.pair.key.read_bytes() != key  # each certificate has a key of its own
    assert agent.pair.key.stat().st_mode & 0o777 == 0o600
    peer.close(1001, "restarting")
    peer = daemon.accept()  # the new pair is good for a connection
    new = x509.load_pem_x509_certificate(made).serial_number
    assert int(peer.certificate()["serialNumber"], 16) == new
    peer.hello()
    assert peer.exec("a-1", "/bin/echo", "x")["exit_code"] == 0


def test_a_short_life_is_not_renewed_without_a_pause(agent: Agent, daemon: Daemon) -> None:
    """Certificates begin five minutes before they are made: two thirds of a short one are over at once."""
    agent.pair = agent.authority.agent("edge-7", begins_s=-310, ends_s=4)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    request = peer.receive()
    public = _read_csr(request["csr"]).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    made = agent.authority.sign("edge-7", public, begins_s=-300, ends_s=60)
    peer.send({"ok": True, "action_id": request["action_id"], "certificate": made.decode()})
    agent.wait_said("the certificate was renewed")
    assert peer.exec("a-1", "/bin/sleep", "1")["exit_code"] == 0  # the next message is no renewal
    assert Dates("x", 0.0, 300.0 + 90).renewal_due() == 300 + 60


@pytest.mark.parametrize("wrong", ["name", "authority", "text", "refused"])
def test_a_wrong_renewal_changes_nothing(agent: Agent, daemon: Daemon, tmp_path: Path, wrong: str) -> None:
    agent.pair = agent.authority.agent("edge-7", begins_s=-20 * DAY, ends_s=4 * DAY)
    before, key = agent.pair.certificate.read_bytes(), agent.pair.key.read_bytes()
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    request = peer.receive()
    public = _read_csr(request["csr"]).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    answer: dict[str, Any] = {"ok": True, "action_id": request["action_id"]}
    if wrong == "name":
        answer["certificate"] = agent.authority.sign("other", public).decode()
    elif wrong == "authority":
        answer["certificate"] = Authority(tmp_path / "other").sign("edge-7", public).decode()
    elif wrong == "text":
        answer["certificate"] = "-----BEGIN CERTIFICATE-----\n"
    else:
        answer = {**answer, "ok": False, "code": "forbidden", "error": "not while the moon is full"}
    peer.send(answer)
    words = {
        "name": 'is made out to "other"',
        "authority": "was not made by",
        "text": "cannot be",
        "refused": "the moon",
    }
    said = agent.wait_said("the certificate was not renewed")
    assert words[wrong] in said
    assert agent.pair.certificate.read_bytes() == before
    assert agent.pair.key.read_bytes() == key
    assert peer.exec("a-1", "/bin/echo", "x")["exit_code"] == 0


# -- what others look at ----------------------------------------------------------------------------------


def test_the_status_file_and_the_trial_of_an_update(agent: Agent, daemon: Daemon, tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    trial.touch()
    agent.configure(f"wss://localhost:{daemon.port}")
    process = agent.start(FAZAI_AGENT_TRIAL=str(trial))
    peer = daemon.accept()
    assert trial.exists()
    peer.hello()
    peer.ask(method="cancel", action_id="none")
    assert not trial.exists()
    status = dict(line.split("=", 1) for line in (agent.state / "status").read_text().splitlines())
    assert status["state"] == "connected"
    assert status["pid"] == str(process.pid)
    assert status["daemon"] == f"wss://localhost:{daemon.port}"
    assert int(status["started_at"]) <= int(status["connected_at"]) <= int(status["written_at"])
    assert int(status["not_after"]) > int(status["written_at"])
    assert os.stat(agent.state / "status").st_mode & 0o777 == 0o600
    assert agent.stop() == 0
    assert "state=stopped\n" in (agent.state / "status").read_text()


def test_the_log_is_json_for_machines(capfd: pytest.CaptureFixture[str]) -> None:
    Log(text=False)("warning", "two\nlines \x1b[31m", action_id="a-1")
    line = capfd.readouterr().err
    found = decode_body(line, LogLine)
    assert found.message == "two?lines ?[31m"
    assert (found.level, found.logger, found.action_id) == ("warning", "agent", "a-1")
    Log(text=True)("info", "hello", action_id="a-1")
    assert capfd.readouterr().err.endswith(" info     hello  action_id=a-1\n")
