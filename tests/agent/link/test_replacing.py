"""The agent's key and the authorities that it trusts are replaced, and it is never without a good pair."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.agent.link.authority import DAY, Authority
from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import WAIT_S, Closed, Daemon, Peer

#: In the order in which a renewal passes them.
FAULTS = ("renewal.key", "renewal.written", "renewal.key_renamed", "renewal.done")


def certificates(text: str) -> set[str]:
    return {part.strip() for part in text.split("-----END CERTIFICATE-----") if part.strip()}


def public_key(csr: str) -> ec.EllipticCurvePublicKey:
    found = x509.load_pem_x509_csr(csr.encode()).public_key()
    assert isinstance(found, ec.EllipticCurvePublicKey)
    return found


def serial(peer: Peer) -> int:
    return int(peer.certificate()["serialNumber"], 16)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_agent_that_is_killed_while_it_renews_has_a_good_pair(
    agent: Agent, daemon: Daemon, fault: str
) -> None:
    agent.pair = agent.authority.agent("edge-7", begins_s=-20 * DAY, ends_s=4 * DAY)
    agent.configure(f"wss://localhost:{daemon.port}")
    process = agent.start(fault=fault)
    peer = daemon.accept()
    old = serial(peer)
    peer.hello()
    made = b""
    with contextlib.suppress(Closed):
        request = peer.receive()
        made = agent.authority.sign("edge-7", public_key(request["csr"]))
        peer.send({"ok": True, "action_id": request["action_id"], "certificate": made.decode()})
    assert process.wait(WAIT_S) == -9
    peer.close()
    agent.start()
    second = daemon.accept()
    second.hello()
    if fault in FAULTS[2:]:  # the old key is gone: it is the new pair
        assert serial(second) == x509.load_pem_x509_certificate(made).serial_number
        assert second.ask(method="cancel", action_id="none")["code"] == "not_found"
    else:
        assert serial(second) == old
        assert second.receive()["method"] == "renew"  # and it tries again
    assert agent.stop() == 0


@pytest.fixture
def connected(agent: Agent, daemon: Daemon) -> Peer:
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    return peer


def test_the_authorities_are_replaced(
    agent: Agent, daemon: Daemon, connected: Peer, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    after = Authority(tmp_path / "after", "the next authority")
    both = agent.authority.file.read_text() + after.file.read_text()
    endorsement = agent.authority.endorse(after.fingerprint)
    answer = connected.ask(method="trust", action_id="q-1", ca=both, endorsements=[endorsement])
    assert answer == {"ok": True, "action_id": "q-1"}
    assert certificates(agent.authority.file.read_text()) == certificates(both)
    assert not list(agent.authority.folder.glob("ca.pem.*"))
    again = connected.ask(method="trust", action_id="q-2", ca=both)
    assert again["ok"] is True
    assert agent.said().count("the daemon's authorities are those that it sent") == 1
    # a listener of the next one is believed from now on
    other = start_daemon(pair=after.listener())
    agent.configure(f"wss://localhost:{other.port}")
    connected.close(1001, "restarting")
    agent.stop()
    agent.start()
    assert other.accept().hello()["agent_id"] == "edge-7"


@pytest.mark.parametrize("wrong", ["daemon", "own", "text", "folder"])
def test_authorities_that_would_shut_it_out_are_not_taken(
    agent: Agent, daemon: Daemon, connected: Peer, tmp_path: Path, wrong: str
) -> None:
    before = agent.authority.file.read_text()
    stranger = Authority(tmp_path / "other", "somebody else")
    other, endorsements = stranger.file.read_text(), [agent.authority.endorse(stranger.fingerprint)]
    offered = {"daemon": other, "own": other, "text": "-----BEGIN CERTIFICATE-----\n", "folder": other}[wrong]
    if wrong == "daemon":  # its own certificate is of both, the listener's of one
        both = Authority(tmp_path / "both", "another")
        agent.pair.certificate.write_bytes(both.sign("edge-7", public_key_of(agent)))
        offered, endorsements = both.file.read_text(), [agent.authority.endorse(both.fingerprint)]
    elif wrong == "folder":
        agent.authority.file.with_name("ca.pem.offered.new").mkdir()
    answer = connected.ask(method="trust", action_id="q-1", ca=offered, endorsements=endorsements)
    words = {
        "daemon": "the certificate of localhost is not trusted",
        "own": "was not made by the authority",
        "text": "the authority's certificate cannot be read",
        "folder": "cannot be written",
    }
    assert (answer["ok"], answer["code"], answer["action_id"]) == (False, "conflict", "q-1")
    assert words[wrong] in answer["error"]
    assert agent.authority.file.read_text() == before
    assert not list(agent.authority.folder.glob("*.offered"))
    assert connected.exec("a-1", "/bin/echo", "x")["exit_code"] == 0
    agent.wait_said("other authorities were not taken")


@pytest.mark.parametrize(
    "sort", ["none", "another's", "itself", "agent's", "expired", "no pair", "nobody", "hidden"]
)
def test_a_new_authority_that_none_of_the_old_endorses_is_not_taken(
    agent: Agent, connected: Peer, tmp_path: Path, sort: str
) -> None:
    """As of somebody who holds the key of the listener, and not that of its authority."""
    before = agent.authority.file.read_text()
    wicked, third = Authority(tmp_path / "wicked"), Authority(tmp_path / "third")
    mark, offered = wicked.fingerprint, before + wicked.file.read_text()
    signer = agent.pair.certificate.read_text() + agent.pair.key.read_text()
    endorsements = {
        "none": [],
        "another's": [agent.authority.endorse(third.fingerprint)],
        "itself": [wicked.endorse(mark)],
        "agent's": [signer],  # of the authority, and says nothing of another
        "expired": [agent.authority.endorse(mark, ends_s=-60)],
        "no pair": [agent.authority.endorse(mark).partition("-----BEGIN PRIVATE KEY")[0]],
        "nobody": ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
        "hidden": [],
    }[sort]
    if sort == "hidden":  # as OpenSSL reads it, and no reader who looks for the usual name
        offered = before + wicked.file.read_text().replace("CERTIFICATE", "X509 CERTIFICATE")
    answer = connected.ask(method="trust", action_id="q-1", ca=offered, endorsements=endorsements)
    assert (answer["ok"], answer["code"]) == (False, "conflict")
    text = f"the authority {mark[:16]} is new, and none that this agent trusts has endorsed it"
    why = {
        "agent's": ": its endorsement names 'edge-7', which an agent or a host may be called",
        "itself": ": the certificate of its endorsement was not made by the authority",
        "expired": ": the certificate of its endorsement was not made by the authority",
        "no pair": ": its endorsement cannot be used",
        "nobody": ": its endorsement cannot be used",
    }.get(sort, " (fazai pki ca rotate makes an endorsement")
    assert text + why in answer["error"]
    assert agent.authority.file.read_text() == before
    assert not list(agent.authority.folder.glob("ca.pem.*"))
    agent.wait_said("other authorities were not taken: the authority")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("edge-7", []),
        ("*.example.net", []),
        ("fazai trust", [x509.DNSName("localhost")]),
        ("fazai trust", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        ("fazai trust", [x509.UniformResourceIdentifier("fazai:agent:edge-7")]),
    ],
)
def test_an_endorsement_that_could_be_an_agent_or_a_host_is_none(
    agent: Agent, connected: Peer, tmp_path: Path, name: str, more: list[x509.GeneralName]
) -> None:
    """Its key is no secret."""
    before, after = agent.authority.file.read_text(), Authority(tmp_path / "after")
    word = agent.authority.endorse(after.fingerprint, name=name, more=more)
    offered = before + after.file.read_text()
    answer = connected.ask(method="trust", action_id="q-1", ca=offered, endorsements=[word])
    assert (answer["ok"], answer["code"]) == (False, "conflict")
    named = name if not more else more[0].value
    assert f"its endorsement names '{named}', which an agent or a host may be called" in answer["error"]
    assert agent.authority.file.read_text() == before


def test_an_authority_that_goes_needs_no_word_of_another(
    agent: Agent, connected: Peer, tmp_path: Path
) -> None:
    own, after = agent.authority.file.read_text(), Authority(tmp_path / "after")
    endorsement = agent.authority.endorse(after.fingerprint)
    both = own + after.file.read_text()
    assert connected.ask(method="trust", action_id="q-1", ca=both, endorsements=[endorsement])["ok"]
    assert connected.ask(method="trust", action_id="q-2", ca=own)["ok"]
    assert certificates(agent.authority.file.read_text()) == certificates(own)


def public_key_of(agent: Agent) -> Any:
    return x509.load_pem_x509_certificate(agent.pair.certificate.read_bytes()).public_key()


def tell_to_renew(agent: Agent, daemon: Daemon) -> tuple[Peer, str]:
    """Have an agent whose certificate is due in forty minutes renew it now; returns the CAs, too."""
    agent.pair = agent.authority.agent("edge-7", ends_s=3600)
    agent.configure(f"wss://localhost:{daemon.port}")
    agent.start()
    peer = daemon.accept()
    peer.hello()
    text = agent.authority.file.read_text()
    assert peer.ask(method="trust", action_id="q-1", ca=text, renew=True)["ok"] is True
    return peer, text


def test_an_agent_is_asked_to_renew(agent: Agent, daemon: Daemon) -> None:
    peer, _ = tell_to_renew(agent, daemon)
    assert peer.receive()["method"] == "renew"  # which was due in forty minutes


def test_one_offer_is_proven_at_a_time_and_the_newest_holds(
    agent: Agent, daemon: Daemon, connected: Peer
) -> None:
    text = agent.authority.file.read_text()
    for number in range(40):
        connected.send({"method": "trust", "action_id": f"q-{number}", "ca": text + "\n" * (number + 1)})
    answers = {answer["action_id"]: answer for answer in (connected.receive() for _ in range(40))}
    taken = [number for number in range(40) if answers[f"q-{number}"]["ok"]]
    assert taken[0] == 0
    assert taken[-1] == 39
    assert len(taken) < 40
    assert agent.authority.file.read_text() == text
    refused = next(answer for answer in answers.values() if not answer["ok"])
    assert refused["code"] == "conflict"
    assert "other authorities were offered after them" in refused["error"]


def test_an_agent_that_is_told_to_renew_again_and_again_does_so_once(agent: Agent, daemon: Daemon) -> None:
    peer, text = tell_to_renew(agent, daemon)
    request = peer.receive()
    for number in range(5):  # while it waits for the certificate
        answer = peer.ask(method="trust", action_id=f"r-{number}", ca=text, renew=True)
        assert (answer.get("action_id"), answer.get("ok")) == (f"r-{number}", True)
    made = agent.authority.sign("edge-7", public_key(request["csr"]))
    peer.send({"ok": True, "action_id": request["action_id"], "certificate": made.decode()})
    agent.wait_said("the certificate was renewed")
    for number in range(5):
        answer = peer.ask(method="trust", action_id=f"s-{number}", ca=text, renew=True)
        assert (answer.get("action_id"), answer.get("ok")) == (f"s-{number}", True)
    assert peer.exec("a-1", "/bin/echo", "x")["exit_code"] == 0  # nothing else was asked meanwhile
