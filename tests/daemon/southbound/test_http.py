"""The port as plain HTTPS: clock, enrolment, return; and agents that poll with signed requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fazai.pki import Enrolments
from fazai.store.certificates import Revocation
from tests.daemon.live import PATIENCE_S, until
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import DAY, Pair
from tests.daemon.southbound.client import done, execute, hello
from tests.daemon.southbound.world import World

KEY = "0f5e2a9b7c6d4e3f8a1b2c3d4e5f6071"


def https(world: World) -> httpx.Client:
    context = client.tls(world.authority.file, None)
    return httpx.Client(
        base_url=f"https://localhost:{world.port}", verify=context, timeout=PATIENCE_S, trust_env=False
    )


def request_of(name: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode(), key


def saved(world: World, name: str, certificate: str, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(world.live.folder / f"{name}-new.pem", world.live.folder / f"{name}-new.key")
    pair.cert.write_text(certificate)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return pair


# -- without a session


def test_the_clock_is_told_to_everybody(world: World) -> None:
    with https(world) as http:
        answer = http.get("/southbound/time")
        assert answer.status_code == 200
        told = datetime.fromisoformat(answer.json()["time"])
        assert abs((told - datetime.now(UTC)).total_seconds()) < 30


def test_the_port_has_no_other_routes(world: World) -> None:
    with https(world) as http:
        for path in ("/", "/agents", "/events", "/metrics", "/health", "/runs", "/ui", "/southbound/relay"):
            answer = http.get(path)
            assert answer.status_code == 404, path
        answer = http.get("/southbound/enrol")
        assert answer.status_code == 405


def test_a_token_gives_a_certificate_once(world: World) -> None:
    token = Enrolments(world.authority.pki, world.certificates).create("edge-7").token
    csr, key = request_of("edge-7")
    with https(world) as http:
        answer = http.post("/southbound/enrol", json={"token": token, "csr": csr})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["agent_id"] == "edge-7"
        assert found["ca"] == world.authority.file.read_text()
        assert world.row()["state"] == "registration"
        again = http.post("/southbound/enrol", json={"token": token, "csr": csr})
        assert (again.status_code, again.json()["code"]) == (401, "unauthorized")
        assert "was used before" in again.json()["error"]
        until(lambda: [one for one in world.events("edge-7", "agent") if one["level"] == "error"])
        assert token not in world.live.log()
    pair = saved(world, "edge-7", found["certificate"], key)
    with client.agent(world.port, world.authority.file, pair, "edge-7") as agent:
        csr, key = request_of("edge-7")
        renewed = agent.ask({"method": "renew", "action_id": "n-1", "csr": csr})
        assert renewed["ok"] is True
        other, _ = request_of("edge-8")
        refused = agent.ask({"method": "renew", "action_id": "n-2", "csr": other})
        assert (refused["code"], refused["action_id"]) == ("bad_certificate", "n-2")
    with client.agent(
        world.port, world.authority.file, saved(world, "edge-7", renewed["certificate"], key), "edge-7"
    ):
        assert world.row()["state"] == "observation"


def test_an_agent_that_renews_again_and_again_is_refused_also_when_it_comes_anew(world: World) -> None:
    pair, (csr, _) = world.authority.issue("edge-7"), request_of("edge-7")
    answers = []
    for connection in range(3):
        with client.agent(world.port, world.authority.file, pair, "edge-7") as agent:
            for number in range(8):
                renew = {"method": "renew", "action_id": f"n-{connection}-{number}", "csr": csr}
                answers.append(agent.ask(renew))
    assert [answer["ok"] for answer in answers] == [True] * 16 + [False] * 8
    assert answers[-1]["code"] == "overloaded"
    assert answers[-1]["error"].startswith("edge-7 asked for 16 certificates within 600 s")
    issued = [one for one in world.certificates.certificates() if one.name == "edge-7"]
    assert len(issued) == 16


@pytest.mark.parametrize(
    ("token", "name", "status", "code"),
    [
        ("fza_" + "A" * 32 + "." + "0" * 16, "edge-7", 401, "unauthorized"),
        (None, "edge-8", 403, "forbidden"),
    ],
)
def test_enrolment_is_refused(world: World, token: str | None, name: str, status: int, code: str) -> None:
    right = Enrolments(world.authority.pki, world.certificates).create("edge-7").token
    csr, _ = request_of(name)
    with https(world) as http:
        answer = http.post("/southbound/enrol", json={"token": token or right, "csr": csr})
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_guesses_are_counted(world: World) -> None:
    csr, _ = request_of("edge-7")
    with https(world) as http:
        codes = [
            http.post("/southbound/enrol", json={"token": f"fza_{n:032}.{n:016}", "csr": csr}).status_code
            for n in range(12)
        ]
    assert codes[:9] == [401] * 9
    assert codes[-1] == 429


def test_an_agent_that_was_away_for_long_comes_back_once(world: World) -> None:
    old = world.authority.issue("edge-7", begin=-20 * DAY, end=-10 * DAY)
    key = serialization.load_pem_private_key(old.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    csr, new_key = request_of("edge-7")

    def proof(csr: str) -> dict[str, str]:
        # as another clock than ours might write it
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = f"fazai return\n{timestamp}\n{hashlib.sha256(csr.encode()).hexdigest()}".encode()
        signature = base64.b64encode(key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()
        certificate = old.cert.read_text()
        return {"certificate": certificate, "csr": csr, "timestamp": timestamp, "signature": signature}

    body = proof(csr)
    with https(world) as http:
        wrong = http.post("/southbound/return", json={**body, "signature": base64.b64encode(b"x").decode()})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "bad_signature")
        answer = http.post("/southbound/return", json=body)
        assert answer.status_code == 200, answer.text
        again = http.post("/southbound/return", json=proof(request_of("edge-7")[0]))
        assert (again.status_code, again.json()["code"]) == (401, "bad_certificate")
        assert "came back with this expired certificate before" in again.json()["error"]
    until(lambda: [one for one in world.events("edge-7", "agent") if "came back 10 days" in one["reason"]])
    pair = saved(world, "edge-7", answer.json()["certificate"], new_key)
    with client.agent(world.port, world.authority.file, pair, "edge-7"):
        assert world.row()["state"] == "observation"


# -- signed HTTP


class Poller:
    """An agent that polls."""

    def __init__(self, http: httpx.Client, agent_id: str = "edge-7", key: str = KEY) -> None:
        self.http, self.agent_id, self.key = http, agent_id, key

    def headers(self, path: str, body: bytes, clock_s: float = 0.0) -> dict[str, str]:
        stamp, nonce = str(int(time.time() + clock_s)), secrets.token_hex(16)
        text = "\n".join((stamp, nonce, "POST", path, hashlib.sha256(body).hexdigest()))
        signature = hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "X-Fazai-Agent": self.agent_id,
            "X-Fazai-Timestamp": stamp,
            "X-Fazai-Nonce": nonce,
            "X-Fazai-Signature": f"sha256={signature}",
        }

    def post(self, message: dict[str, Any], path: str = "/southbound", **more: Any) -> httpx.Response:
        body = json.dumps(message).encode()
        return self.http.post(path, content=body, headers=self.headers(path, body, **more))

    def poll(self, wait_ms: int = 20_000) -> httpx.Response:
        return self.post({"wait_ms": wait_ms}, "/southbound/poll")

    def greet(self, **more: Any) -> httpx.Response:
        return self.post(hello(self.agent_id, **more))


@pytest.fixture(params=["agents", "daemon"])
def poller(world: World, request: pytest.FixtureRequest) -> Any:
    """On the port for agents, and on the daemon's own."""
    with world.live.client() as admin:
        assert admin.post("/agents/edge-7/key", json={"keys": [KEY]}).status_code == 200
    with https(world) if request.param == "agents" else world.live.client() as http:
        yield Poller(http)


def test_an_agent_that_polls_is_asked_like_any_other(world: World, poller: Poller) -> None:
    assert poller.post({"method": "time"}).json()["ok"] is True
    answer = poller.greet()
    assert answer.json()["policy"]["heartbeat_ms"] == 15_000
    row = world.row()
    assert (row["state"], row["protocol"], row["contract"]) == ("observation", "http", "1.1")
    with world.relay() as relay:
        number = relay.begin("edge-7", execute("a-1"))
        answer = poller.poll()
        assert answer.json() == execute("a-1")
        assert world.row()["state"] == "execution"
        answer = poller.post(done(answer.json(), stdout="polled"))
        assert (answer.status_code, answer.content) == (204, b"")
        assert relay.recv() == {"id": number, "answer": done(execute("a-1"), stdout="polled")}
        assert poller.poll().json() == {"method": "ack", "action_ids": ["a-1"]}
        assert poller.poll(0).status_code == 204
    push = {
        "method": "telemetry.push",
        "action_id": "t-1",
        "payload": {"hostname": "edge-7", "timestamp": "2026-11-22T03:04:00Z", "uptime": 7200},
        "ts": "2026-11-22T03:04:05Z",
    }
    assert poller.post(push).json() == {"ok": True, "action_id": "t-1"}
    late = {"method": "result", "action_id": "z", "of": "command.exec", "answer": done(execute("z"))}
    assert poller.post(late).json() == {"ok": True, "action_id": "z"}


def test_a_poll_waits_for_the_next_request(world: World, poller: Poller) -> None:
    poller.greet()
    found: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: found.append(poller.poll()))
    waiting.start()
    until(lambda: world.south.polled["edge-7"].silent_since_s is None)
    with world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        waiting.join(PATIENCE_S)
        assert found[0].json() == execute("a-1")


def test_a_request_is_not_given_to_a_poll_that_was_given_up(world: World, poller: Poller) -> None:
    poller.greet()
    with pytest.raises(httpx.ReadTimeout):
        poller.http.post(
            "/southbound/poll",
            content=b'{"wait_ms":20000}',
            headers=poller.headers("/southbound/poll", b'{"wait_ms":20000}'),
            timeout=0.3,
        )
    until(lambda: world.south.polled["edge-7"].silent_since_s is not None)
    with world.relay() as relay:
        relay.begin("edge-7", execute("a-1"))
        assert poller.poll().json() == execute("a-1")


def refusals() -> dict[str, tuple[Callable[[Poller], httpx.Response], int, str]]:
    def replay(poller: Poller) -> httpx.Response:
        poller.greet()
        body = b'{"method":"time"}'
        headers = poller.headers("/southbound", body)
        assert poller.http.post("/southbound", content=body, headers=headers).status_code == 200
        return poller.http.post("/southbound", content=body, headers=headers)

    def another_key(poller: Poller) -> httpx.Response:
        return Poller(poller.http, "edge-7", "another-key-of-some-length").greet()

    def another_name(poller: Poller) -> httpx.Response:
        return poller.post(hello("edge-8"))

    return {
        "a poll before hello": (lambda poller: poller.poll(0), 403, "hello_required"),
        "an answer before hello": (lambda p: p.post(done(execute("a"))), 403, "hello_required"),
        "no signature": (lambda p: p.http.post("/southbound", json=hello("edge-7")), 401, "bad_signature"),
        "a nonce again": (replay, 401, "replayed"),
        "another key": (another_key, 401, "bad_signature"),
        "a host without a key": (lambda p: Poller(p.http, "edge-9").greet(), 401, "bad_signature"),
        "another name in hello": (another_name, 401, "bad_signature"),
        "a clock that is off": (lambda p: p.post({"method": "time"}, clock_s=400), 401, "bad_clock"),
        "a version of another kind": (lambda p: p.greet(contract="3.0"), 403, "bad_version"),
    }


@pytest.mark.parametrize("case", refusals())
def test_signed_requests_are_refused(world: World, poller: Poller, case: str) -> None:
    act, status, code = refusals()[case]
    answer = act(poller)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_unsigned_requests_leave_nothing_behind(world: World, poller: Poller) -> None:
    store: Any = world.live.services.store
    before = len(store._nonces)
    wrong = Poller(poller.http, "edge-7", "another-key-of-some-length")
    for _ in range(5):
        wrong.greet()
    assert len(store._nonces) == before
    assert "edge-7" not in world.south.polled


def test_a_second_machine_with_the_same_key_is_refused(world: World, poller: Poller) -> None:
    assert poller.greet(instance="one").json()["ok"] is True
    refused = poller.greet(instance="two")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert poller.poll(0).status_code == 204  # the first one goes on
    again = poller.greet(instance="one")
    assert again.json()["ok"] is True


def test_a_lie_over_http_ends_the_session(world: World, poller: Poller) -> None:
    poller.greet()
    lie = poller.post(done(execute("never-asked")))
    assert (lie.status_code, lie.json()["code"]) == (422, "bad_request")
    assert world.row()["state"] == "closing"
    assert poller.poll(0).status_code == 422
    assert poller.greet().json()["ok"] is True


def test_a_revoked_name_is_refused_with_a_signature_too(world: World, poller: Poller) -> None:
    assert poller.greet().json()["ok"] is True
    world.certificates.revoke(Revocation("edge-7", time.time(), "stolen"))
    until(lambda: world.row()["state"] == "closing")  # the session that stands ends
    sentence = "bad_certificate: the certificate of edge-7 was revoked at "
    assert sentence in world.row()["last_error"]
    refused = poller.greet()
    assert (refused.status_code, refused.json()["code"]) == (401, "bad_certificate")
    assert "was revoked at" in refused.json()["error"]
    assert "(stolen)" in refused.json()["error"]
    until(lambda: [one for one in world.events("edge-7", "agent") if sentence in (one["reason"] or "")])
    Enrolments(world.authority.pki, world.certificates).create("edge-7")
    assert poller.greet().status_code == 401  # a token alone lets nobody in
    issued = world.authority.pki.issue(request_of("edge-7")[0], "edge-7")
    world.certificates.add_certificate(issued.record("issued", time.time()))
    until(lambda: poller.greet().status_code == 200)
