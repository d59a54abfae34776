"""Real handshakes over loopback: what the listener lets through, what ends in an alert, what a session that
is resumed is worth."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fazai.errors import InputError, SecretError
from fazai.pki import PeerChecker, PkiError, client_context, server_context
from fazai.pki.administration import Maker
from fazai.pki.building import KeyType
from fazai.store.certificates import Revocation
from fazai.store.factory import open_certificates
from tests.pki.world import (
    DAY_S,
    HOUR_S,
    Existing,
    Machine,
    Server,
    World,
    connect,
    der_of,
    openssl,
    refused,
    serving,
)

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=["p256", "ed25519"])
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A CA of this moment, with a listener: OpenSSL's clock is the real one."""
    key_type: KeyType = request.param
    world = World(tmp_path, key_type=key_type)
    with contextlib.closing(world.store):
        yield _now(world)


def _now(world: World) -> World:
    """Begin anew at the real time."""
    for file in world.folder.glob("*"):
        file.unlink()
    world.clock.now = time.time()
    world.maker().make_ca(world.key_type)
    world.load()
    world.authority.issue_listener(["127.0.0.1", "fazai.example.net"])
    return world


def client(
    world: World, machine: Machine | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    files = (machine.certificate, machine.key) if machine else ()
    context = client_context(world.authority.ca_pem, *files)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def seen_by(server: Server) -> bytes | str | None:
    return server.seen[-1][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("sort", ["p256", "ed25519", "rsa2048"])
def test_an_agent_is_known_by_its_certificate(daemon: World, version: ssl.TLSVersion, sort: str) -> None:
    machine = daemon.machine(sort=sort)
    issued = daemon.enrol(machine)
    with serving(server_context(daemon.authority)) as server:
        connect(server, client(daemon, machine, version))
        connect(server, client(daemon, machine, version), name="fazai.example.net")
    assert [cert for cert, _ in server.seen] == [der_of(issued.pem)] * 2
    daemon.peers.check_peer(der_of(issued.pem), "edge-7", time.time())


@pytest.mark.parametrize("version", VERSIONS)
def test_none_revoked_and_another_name_get_as_far_as_the_sentence(
    daemon: World, version: ssl.TLSVersion
) -> None:
    good, gone = daemon.machine(), daemon.machine("edge-8")
    daemon.enrol(good)
    daemon.enrol(gone)
    daemon.store.revoke(Revocation("edge-8", time.time(), "stolen"))
    daemon.peers.refresh()
    found = []
    with serving(server_context(daemon.authority)) as server:
        for machine in (None, gone, good):
            connect(server, client(daemon, machine, version))
    found = [cert for cert, _ in server.seen]
    assert all(cert is None or isinstance(cert, bytes) for cert in found)
    for cert, code, match in zip(
        found,
        ("no_certificate", "revoked", "wrong_name"),
        ("presented no certificate", "stolen", "is that of edge-7, and the agent says that it is edge-8"),
        strict=True,
    ):
        with pytest.raises(PkiError, match=match) as failed:
            daemon.peers.check_peer(cert if isinstance(cert, bytes) else None, "edge-8", time.time())
        assert failed.value.code == code


@pytest.mark.parametrize(
    ("off_s", "alert"),
    [(-31 * DAY_S, "expired"), (-40 * DAY_S, "expired"), (HOUR_S, "not yet valid"), (DAY_S, "not yet valid")],
)
def test_expired_and_not_yet_valid_end_the_handshake(daemon: World, off_s: float, alert: str) -> None:
    """With an alert, which is why agents look at their own dates first; the daemon's sentence is the same."""
    machine = daemon.machine()
    now = daemon.clock.now
    daemon.clock.now = now + off_s
    issued = daemon.enrol(machine)
    with (
        serving(server_context(daemon.authority)) as server,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        connect(server, client(daemon, machine))
    assert alert in str(seen_by(server))
    with pytest.raises(PkiError, match=r"expired at|valid only from"):
        daemon.peers.check_peer(der_of(issued.pem), "edge-7", now)


def test_an_unknown_ca_ends_the_handshake_at_both_ends(daemon: World, tmp_path: Path) -> None:
    other = _now(World(tmp_path / "other"))
    with contextlib.closing(other.store):
        stranger = other.machine()
        other.enrol(stranger)
        with serving(server_context(daemon.authority)) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                connect(server, client(daemon, stranger))
            with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
                connect(server, client(other, stranger))  # who trusts another CA does not talk to this daemon
    (first, _), (second, _) = server.seen
    assert "certificate verify failed: unable to get local issuer" in str(first)
    assert "unknown ca" in str(second)


def test_the_name_of_the_daemon_is_checked(daemon: World) -> None:
    with serving(server_context(daemon.authority)) as server:
        for name in ("localhost", "127.0.0.2", "example.net"):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|doesn't match|not valid for"):
                connect(server, client(daemon), name=name)


def test_an_agents_certificate_is_no_listeners(daemon: World) -> None:
    """An agent that was broken into cannot be the daemon for others."""
    machine = daemon.machine("fazai.example.net")
    daemon.enrol(machine)
    context = server_context(daemon.authority, machine.certificate, machine.key)
    with (
        serving(context) as server,
        pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"),
    ):
        connect(server, client(daemon), name="fazai.example.net")


def test_old_versions_of_tls_are_refused(daemon: World) -> None:
    for context in (server_context(daemon.authority), client(daemon)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_not_resumed(daemon: World, version: ssl.TLSVersion) -> None:
    machine = daemon.machine()
    issued = daemon.enrol(machine)
    context, session = client(daemon, machine, version), None
    with serving(server_context(daemon.authority)) as server:
        for _ in range(3):
            session = connect(server, context, session)
            assert session is None or not session.has_ticket
    assert server.seen == [(der_of(issued.pem), False)] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_is_worth_no_more(daemon: World, version: ssl.TLSVersion) -> None:
    """Also where somebody else's context resumes it: the certificate is at hand, and is checked again."""
    machine = daemon.machine()
    issued = daemon.enrol(machine)
    resuming = server_context(daemon.authority)
    resuming.num_tickets = 2
    resuming.options &= ~ssl.OP_NO_TICKET
    context = client(daemon, machine, version)
    with serving(resuming) as server:
        session = connect(server, context)
        daemon.store.revoke(Revocation("edge-7", time.time()))
        connect(server, context, session)
    assert server.seen == [(der_of(issued.pem), False), (der_of(issued.pem), True)]
    daemon.peers.refresh()
    with refused("revoked", "the certificate of edge-7 was revoked"):
        daemon.peers.check_peer(der_of(issued.pem), "edge-7", time.time())


def test_the_listener_that_was_renewed_serves_the_same_clients(daemon: World) -> None:
    machine = daemon.machine()
    daemon.enrol(machine)
    context = client(daemon, machine)
    daemon.authority.renew_listener(force=True)
    with serving(server_context(daemon.authority)) as server:
        connect(server, context)
    assert isinstance(seen_by(server), bytes)


def test_an_intermediate_ca_is_trusted_without_its_root(tmp_path: Path) -> None:
    """And the root is not: other CAs below it issue no agents."""
    root = Existing(tmp_path / "root")
    machines = Machine(tmp_path / "machines", "Machines CA").make_key()
    extensions = "basicConstraints = critical,CA:true\nkeyUsage = keyCertSign\nsubjectKeyIdentifier = hash\n"
    pem = ("x509", "-inform", "DER")
    machines.certificate.write_bytes(openssl(*pem, data=root.issue(machines.request(), extensions)))
    ca = ("-CA", str(machines.certificate), "-CAkey", str(machines.key), "-CAcreateserial")
    agent, stranger, daemon = (
        Machine(tmp_path / "below", name).make_key() for name in ("edge-7", "edge-8", "127.0.0.1")
    )
    (tmp_path / "ext").write_text("subjectAltName = IP:127.0.0.1\n")
    for machine in (agent, daemon):
        csr, out = machine.folder / "csr", str(machine.certificate)
        csr.write_text(machine.request())
        files = ("-in", str(csr), "-extfile", str(tmp_path / "ext"), "-out", out)
        openssl("x509", "-req", *files, *ca, "-days", "10")
    stranger.certificate.write_bytes(openssl(*pem, data=root.issue(stranger.request())))
    authority, _ = Maker(tmp_path / "secrets/pki").trust_existing(machines.certificate, None)
    with serving(server_context(authority, daemon.certificate, daemon.key)) as server:
        connect(server, client_context(authority.ca_pem, agent.certificate, agent.key))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(server, client_context(authority.ca_pem, stranger.certificate, stranger.key))
    (first, _), (second, _) = server.seen
    assert isinstance(first, bytes)
    assert "certificate verify failed" in str(second)
    with contextlib.closing(open_certificates(tmp_path / "state")) as store:
        peers = PeerChecker(authority, store)
        peers.check_peer(first, "edge-7")
        with refused(
            "unknown_ca", "was issued by 'Example Machines CA', and this daemon trusts 'Machines CA'"
        ):
            peers.check_peer(der_of(stranger.certificate.read_text()), "edge-8")


def test_a_token_tells_the_daemon_by_its_chain(daemon: World) -> None:
    """An agent that has no CA yet compares the token's mark with the last certificate that it is shown."""
    chain = ssl.PEM_cert_to_DER_cert
    pems = daemon.authority.listener_certificate.read_text().split("-----END CERTIFICATE-----\n")
    ca = chain(pems[1] + "-----END CERTIFICATE-----\n")
    token = daemon.enrolments.create("edge-7").token
    assert token.endswith("." + hashlib.sha256(ca).hexdigest()[:16])


# -- files that contexts are made of


def test_a_listener_without_files_says_what_makes_them(daemon: World) -> None:
    daemon.authority.listener_certificate.unlink()
    with pytest.raises(
        SecretError, match=r"there is no certificate .*listener\.pem \(make it with: fazai pki"
    ):
        server_context(daemon.authority)
    daemon.authority.listener_key.unlink()
    with pytest.raises(SecretError, match=r"there is no file .*listener\.key"):
        server_context(daemon.authority)


def test_files_that_do_not_fit_are_told(daemon: World) -> None:
    other = daemon.machine()
    with pytest.raises(InputError, match=r"edge-7\.key is not the key of .*listener\.pem"):
        server_context(daemon.authority, daemon.authority.listener_certificate, other.key)
    daemon.authority.listener_certificate.write_text("no certificate")
    with pytest.raises(InputError, match="is damaged: it holds no certificate"):
        server_context(daemon.authority)
    other.key.chmod(0o640)
    with pytest.raises(SecretError, match=r"open to others \(mode 0640\)"):
        client_context(daemon.authority.ca_pem, daemon.authority.listener_certificate, other.key)
    with pytest.raises(InputError, match="the CA's certificate cannot be used"):
        client_context("no certificate")
