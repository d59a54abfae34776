"""Who is let in: each refusal has its sentence at both ends."""

from __future__ import annotations

import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from fazai.pki.administration import Maker
from fazai.store.certificates import Revocation
from tests.daemon.live import until
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import DAY, Authority, Pair
from tests.daemon.southbound.client import execute, hello
from tests.daemon.southbound.world import World


def refused(world: World, pair: Pair | None, said: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The answer to a hello, and the reason with which the connection is closed."""
    with client.agent(world.port, world.authority.file, pair, "edge-7", greet=False) as agent:
        answer = agent.ask(said)
        code, reason = agent.closed()
        assert code == 1008
        return answer, reason


@pytest.mark.parametrize(
    ("certificate", "said", "code", "sentence"),
    [
        (None, {}, "bad_certificate", "edge-7 presented no certificate"),
        ("edge-8", {}, "bad_certificate", "the certificate is that of edge-8"),
        ("edge-7", {"clock_s": 900}, "bad_clock", "the clocks differ by (899|900|901) s, 300 s are allowed"),
        ("edge-7", {"clock_s": -900}, "bad_clock", "the clocks differ by (899|900|901) s, 300 s are allowed"),
        ("edge-7", {"contract": "2.0"}, "bad_version", "the agent speaks contract 2.0"),
        ("edge-7", {"contract": "0.9"}, "bad_version", "the agent speaks contract 0.9"),
    ],
)
def test_a_hello_is_refused_with_its_reason(
    world: World, certificate: str | None, said: dict[str, Any], code: str, sentence: str
) -> None:
    pair = world.authority.issue(certificate) if certificate else None
    answer, reason = refused(world, pair, hello("edge-7", **said))
    assert (answer["ok"], answer["code"]) == (False, code)
    assert re.search(sentence, answer["error"])
    assert reason.startswith(f"{code}: ")
    assert re.search(sentence, reason)
    until(lambda: world.events("edge-7", "agent"))
    events = world.events("edge-7", "agent")
    assert [event["state"] for event in events] == ["closing"]
    assert f"refused from 127.0.0.1: {code}: " in events[0]["reason"]
    assert events[0]["level"] == "warning"


def test_a_revoked_certificate_is_refused(world: World) -> None:
    pair = world.authority.issue("edge-7")
    world.certificates.revoke(Revocation("edge-7", time.time(), "stolen"))
    until(lambda: world.trust.refresh() or True)
    answer, reason = refused(world, pair, hello("edge-7"))
    assert answer["code"] == "bad_certificate"
    assert "the certificate of edge-7 was revoked" in answer["error"]
    assert "(stolen)" in answer["error"]
    assert reason.startswith("bad_certificate: the certificate of edge-7 was revoked")


def test_why_a_known_agent_is_refused_is_what_is_told_of_it(world: World) -> None:
    pair = world.authority.issue("edge-7")
    with client.agent(world.port, world.authority.file, pair, "edge-7"):
        until(lambda: world.row()["state"] == "observation")
    until(lambda: world.row()["state"] == "closing")
    world.certificates.revoke(Revocation("edge-7", time.time(), "stolen"))
    until(lambda: world.trust.refresh() or True)
    refused(world, pair, hello("edge-7"))
    why = "refused from 127.0.0.1: bad_certificate: the certificate of edge-7 was revoked at "
    until(lambda: world.row()["last_error"].startswith(why))
    assert world.row()["state"] == "closing"


@pytest.mark.parametrize(
    ("message", "code", "sentence"),
    [
        (execute("a-1"), "hello_required", "command.exec came before hello"),
        ({"ok": True, "action_id": "a-1"}, "hello_required", "an answer came before hello"),
        (hello("edge-7", colour="red"), "bad_request", "unknown field `colour`"),
        ({**hello("edge-7"), "agent_id": 7}, "bad_request", "expected `str`, got `int`"),
        ('{"method":"hello","method":"hello"}', "bad_request", "missing required field"),
        ("[]", "bad_request", "expected `object`"),
        ("{", "bad_json", "JSON is malformed|truncated"),
        ('{"method":"shell"}', "unknown_method", "unknown method 'shell'"),
    ],
)
def test_nothing_but_time_is_taken_before_hello(
    world: World, message: dict[str, Any] | str, code: str, sentence: str
) -> None:
    pair = world.authority.issue("edge-7")
    with client.agent(world.port, world.authority.file, pair, "edge-7", greet=False) as agent:
        assert agent.ask({"method": "time"})["ok"] is True
        agent.send(message)
        answer = agent.recv()
        assert (answer["ok"], answer["code"]) == (False, code)
        assert re.search(sentence, answer["error"])
        assert agent.closed()[1].startswith(f"{code}: ")


@pytest.mark.parametrize("sort", ["unknown", "expired", "not yet valid"])
def test_what_fails_in_tls_is_written_down_and_announced(world: World, tmp_path: Path, sort: str) -> None:
    if sort == "unknown":
        (tmp_path / "other").mkdir(mode=0o700)
        pair = Authority(tmp_path / "other/pki").issue("edge-7")
    elif sort == "expired":
        pair = world.authority.issue("edge-7", begin=-3 * DAY, end=-DAY)
    else:
        pair = world.authority.issue("edge-7", begin=DAY, end=2 * DAY)
    with (
        pytest.raises((OSError, WebSocketException), match=r"[a-z]"),
        client.agent(world.port, world.authority.file, pair, "edge-7"),
    ):
        pass
    until(lambda: world.events("unknown", "agent"))
    (event,) = world.events("unknown", "agent")
    words = {
        "unknown": "its certificate is of a CA that this daemon does not trust (was the CA replaced while it"
        " was away? then: fazai pki list, fazai pki enrol NAME)",
        "expired": "certificate has expired",
        "not yet valid": "certificate is not yet valid",
    }
    assert event["reason"] == f"refused from 127.0.0.1: bad_certificate: {words[sort]}"
    assert words[sort] in world.live.log()


def test_an_agent_that_does_not_trust_the_daemons_ca_is_announced(world: World, tmp_path: Path) -> None:
    """As one that was away while the CA was replaced: it learns of it in TLS, and so do we."""
    (tmp_path / "other").mkdir(mode=0o700)
    other = Authority(tmp_path / "other/pki")
    with (
        pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"),
        client.agent(world.port, other.file, other.issue("edge-7"), "edge-7"),
    ):
        pass
    until(lambda: world.events("unknown", "agent"))
    (event,) = world.events("unknown", "agent")
    why = (
        "it does not trust the CA of this daemon's certificate (was the CA replaced while it was away? then: "
    )
    assert event["reason"].startswith(f"refused from 127.0.0.1: bad_certificate: {why}fazai pki list")


def test_a_refusal_that_comes_again_and_again_is_announced_once(world: World) -> None:
    for _ in range(5):
        refused(world, None, hello("edge-7"))
    refused(world, None, hello("edge-8"))
    until(lambda: world.events("edge-8", "agent"))
    assert len(world.events("edge-7", "agent")) == 1


def test_an_agent_of_1_0_is_spoken_to_in_its_words(world: World) -> None:
    capabilities = ["command.exec", "telemetry.push", "file.diff", "file.apply"]
    old = {"contract": None, "reconcile": None, "capabilities": capabilities}
    with world.agent(greet=False) as agent, world.relay() as relay:
        answer = agent.greet(**old)
        assert answer["contract"] == "1.0"
        assert answer["policy"].keys() == {"timeouts", "max_payload", "max_output", "heartbeat_ms"}
        number = relay.begin("edge-7", execute("a-1"))
        request = agent.recv()
        answer = client.done(request)
        del answer["action_id"]
        agent.send(answer)
        assert relay.recv() == {"id": number, "answer": answer}
        observe = {"method": "state.observe", "action_id": "o", "session": "s", "timeout": 9, "resources": []}
        assert relay.ask("edge-7", observe)["code"] == "unknown_method"
        diff = {"method": "file.diff", "action_id": "d", "path": "/x", "want_base64": "aGk="}
        found = relay.ask("edge-7", diff)
        assert found["code"] == "unknown_method"
        assert "edge-7 speaks contract 1.0, which has no `want_base64`" in found["error"]


def test_the_listener_is_renewed_without_a_restart(world: World) -> None:
    def serial() -> int:
        with world.agent() as agent:
            found = agent.socket.socket.getpeercert()
            return int(found["serialNumber"], 16)

    before = serial()
    with world.agent("edge-8") as living:
        Maker(world.authority.folder).make_ca("p256")[0].renew_listener(force=True)
        until(lambda: serial() != before)
        assert living.ask({"method": "time"})["ok"] is True
