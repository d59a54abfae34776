"""Who may what: tokens, certificates, the local socket, names; and what must not start."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.config import is_loopback
from fazai.daemon.http.tokens import hash_of, new_token
from fazai.daemon.settings import DaemonSettings, ServerLimits
from fazai.errors import InputError, UsageError
from fazai.lab.server.tls import LabAuthority
from fazai.store.sqlite.tokens import TokenFile
from fazai.timestamps import utc_now
from fazai.wire.events import ErrorEvent, LogEvent
from tests.daemon import certificates
from tests.daemon.live import Live, live, stream, token, until


def _wait(daemon: Live) -> None:
    """Until the guard looks at the tokens again, whatever time it has."""
    daemon.services.guard._read_at = float("-inf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    return {role: token(folder, role, role) for role in ("viewer", "operator", "admin")}


@pytest.fixture(scope="module")
def daemon(folder: Path, tokens: dict[str, str]) -> Iterator[Live]:
    with live(folder, socket=folder / "d.sock", limits=ServerLimits(failures_per_minute=3)) as found:
        yield found


def test_without_tokens_loopback_may_and_is_warned(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client:
        assert client.get("/events", headers={"Last-Event-ID": "x"}).status_code == 400
        assert "no tokens are configured" in daemon.log()
        text = token(tmp_path, "first", "viewer")  # beside the running daemon
        _wait(daemon)
        assert client.get("/events", headers={"Last-Event-ID": "x"}).status_code == 401
        assert client.get("/health").status_code == 200
    with live(tmp_path) as daemon, daemon.client(text) as client, stream(client):
        assert daemon.log().count("no tokens are configured") == 1


def test_no_token_is_unauthorized(daemon: Live) -> None:
    with daemon.client() as client:
        answer = client.get("/events")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthorized"
    assert "fazai token create" in answer.json()["error"]


def test_roles(daemon: Live, tokens: dict[str, str]) -> None:
    body = {"session_id": "s"}
    wanted = {"viewer": 403, "operator": 422, "admin": 422}
    for role, status in wanted.items():
        with daemon.client(tokens[role]) as client, stream(client):
            answer = client.post("/events", json=body)
            assert answer.status_code == status, answer.text
    with daemon.client(tokens["viewer"]) as client:
        assert (
            "token:viewer is viewer, this needs operator" in client.post("/events", json=body).json()["error"]
        )


def test_a_revoked_or_expired_token_is_refused(daemon: Live, folder: Path) -> None:
    file = TokenFile(folder / "state")
    text = token(folder, "stolen", "operator")
    late = token(folder, "late", "operator", expires=time.time() - 1)
    _wait(daemon)
    with daemon.client(text) as client:
        with stream(client):
            pass
        stolen = next(one for one in file.tokens() if one.hash == hash_of(text))
        file.put(replace(stolen, revoked=time.time()))
        until(lambda: client.get("/events", headers={"Last-Event-ID": "x"}).status_code in (401, 429))
    with daemon.client(late) as client:
        assert client.get("/events").status_code in (401, 429)


def test_streams_end_when_their_token_does(tmp_path: Path) -> None:
    """Revoked, expired, or none was needed when it began; others go on."""
    kept = token(tmp_path, "kept", "viewer")
    lost = token(tmp_path, "lost", "viewer")
    brief = token(tmp_path, "brief", "viewer", expires=time.time() + 3600)
    with live(tmp_path) as daemon, contextlib.ExitStack() as stack:
        streams = {
            text: stack.enter_context(stream(stack.enter_context(daemon.client(text))))
            for text in (kept, lost, brief)
        }
        file = TokenFile(tmp_path / "state")
        known = {one.name: one for one in file.tokens()}
        file.put(replace(known["lost"], revoked=time.time()))
        file.put(replace(known["brief"], expires=time.time() + 0.5))
        for text in (lost, brief):
            last = streams[text].rest()[-1].event
            assert isinstance(last, ErrorEvent)
            assert last.code == "unauthorized"
        daemon.publish(LogEvent(timestamp=utc_now(), level="info", message="still here"))
        assert streams[kept].next().event.message == "still here"  # type: ignore[union-attr]


def test_a_stream_that_needed_no_token_ends_when_there_are_some(tmp_path: Path) -> None:
    with live(tmp_path) as daemon, daemon.client() as client, stream(client) as events:
        token(tmp_path, "first", "viewer")
        last = events.rest()[-1].event
        assert isinstance(last, ErrorEvent)
        assert last.code == "unauthorized"


def test_a_token_is_nowhere_in_the_clear(daemon: Live, folder: Path, tokens: dict[str, str]) -> None:
    with daemon.client("fzt_wrong-and-secret") as client:
        assert client.get("/events").status_code in (401, 429)
    everything = b"".join(path.read_bytes() for path in (folder / "state").iterdir() if path.is_file())
    for text in (*tokens.values(), "fzt_wrong-and-secret"):
        assert text.encode() not in everything
        assert text not in daemon.log()


def test_failures_are_limited_and_lock_nobody_out(
    daemon: Live, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, moment = daemon.services.guard, time.monotonic()
    monkeypatch.setattr(guard, "_monotonic", lambda: moment)  # a minute that does not end meanwhile
    daemon.call(guard._failures.clear)
    said = daemon.log().count("unauthorized: the token is not valid")
    with daemon.client("wrong") as client:
        answers = [client.get("/events") for _ in range(6)]
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "overloaded"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert daemon.log().count("unauthorized: the token is not valid") - said == 3
    with daemon.client(tokens["viewer"]) as client, stream(client):
        pass  # the same address


@pytest.mark.parametrize("header", ["Basic eHg6eHg=", "Bearer", "bearer x y", "\xff\xfe"])
def test_other_authorization_is_refused(daemon: Live, header: str) -> None:
    with daemon.client() as client:
        answer = client.get("/events", headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code in (401, 429)


NAMES = {
    "localhost": 200,
    "LOCALHOST:3120": 200,
    "127.0.0.1": 200,
    "127.0.0.1:99": 200,
    "[::1]:3120": 200,
    "evil.example": 403,
    "evil.example:3120": 403,
    "localhost.evil.example": 403,
    "": 403,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_were_made_to_point_here_are_refused(daemon: Live, name: str) -> None:
    with daemon.client() as client:
        answer = client.get("/health", headers={"Host": name})
    assert answer.status_code == NAMES[name]


def test_a_name_can_be_given(tmp_path: Path) -> None:
    with live(tmp_path, names=("fazai.example",)) as daemon, daemon.client() as client:
        assert client.get("/health", headers={"Host": "fazai.example:3120"}).status_code == 200


def test_pages_of_other_sites_are_refused(daemon: Live) -> None:
    with daemon.client() as client:
        for origin, status in (("http://evil.example", 403), ("null", 403), (daemon.url, 200)):
            assert client.get("/health", headers={"Origin": origin}).status_code == status
        answer = client.get("/health")
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_local_socket_knows_its_peer(daemon: Live, folder: Path) -> None:
    path = folder / "d.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path), verify=False), base_url="http://fazai"
    ) as client:
        assert client.post("/events", json={}).status_code == 422  # it may
        assert client.get("/health", headers={"Host": "anything"}).status_code == 200


def test_others_on_the_local_socket(daemon: Live, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel names the peer; here another one is named."""
    from fazai.daemon.http.server import HttpConnection

    path = folder / "d.sock"
    group = path.stat().st_gid
    for peer, status in (((54321, frozenset({group})), 422), ((54321, frozenset({54321})), 401)):
        monkeypatch.setattr(
            HttpConnection, "peer_credentials", lambda self, peer=peer: peer if self.listener.unix else None
        )
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path), verify=False), base_url="http://fazai"
        ) as client:
            assert client.post("/events", json={}).status_code == status


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_public_address_needs_tls_and_tokens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no TLS"), live(tmp_path, host="0.0.0.0"):
        pass
    files = certificates.server(tmp_path)
    tls: dict[str, Any] = {"tls_cert": files.cert, "tls_key": files.key}
    with pytest.raises(UsageError, match="there are no tokens"), live(tmp_path, host="0.0.0.0", **tls):
        pass
    text = token(tmp_path, "t", "viewer")
    trusted = ssl.create_default_context(cafile=str(files.ca))
    with live(tmp_path, host="0.0.0.0", **tls) as daemon:
        with daemon.client(text, verify=trusted) as client, stream(client):
            pass
        with daemon.client(verify=trusted) as client:
            assert client.get("/events").status_code == 401


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    for name, words in (
        ("tls_cert", "belong together"),
        ("tls_key", "belong together"),
        ("client_ca", "--client-ca needs TLS"),
    ):
        with pytest.raises(UsageError, match=words):
            DaemonSettings(state=tmp_path, secrets=tmp_path, **{name: tmp_path / "x"})  # type: ignore[arg-type]


def test_wrong_tls_files_are_said_before_anything_listens(tmp_path: Path) -> None:
    one, two = certificates.server(tmp_path, "one"), certificates.server(tmp_path, "two")
    for cert, key, words in (
        (one.cert, two.key, "TLS cannot use them"),
        (tmp_path / "none", one.key, "there is no "),
        (one.key, one.key, "TLS cannot use them"),
    ):
        with pytest.raises(InputError, match=words), live(tmp_path, tls_cert=cert, tls_key=key):
            pass


def test_client_certificates(tmp_path: Path) -> None:
    authority = LabAuthority.create()
    files = certificates.server(tmp_path, authority=authority)
    mine = certificates.client(tmp_path, "edge-7", authority)
    others = certificates.client(tmp_path, "stranger", LabAuthority.create())
    more: dict[str, Any] = {"tls_cert": files.cert, "tls_key": files.key, "client_ca": files.ca}
    with live(tmp_path, client_role="operator", **more) as daemon:
        for pair, good in ((mine, True), (others, False), (None, False)):
            context = ssl.create_default_context(cafile=str(files.ca))
            if pair is not None:
                context.load_cert_chain(pair.cert, pair.key)
            with daemon.client(verify=context) as client:
                if good:
                    assert client.post("/events", json={}).status_code == 422
                else:
                    with pytest.raises(httpx.TransportError):
                        client.get("/health")


def test_tls_files_are_read_again(tmp_path: Path) -> None:
    old, new = certificates.server(tmp_path, "old"), certificates.server(tmp_path, "new")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(files: certificates.Files) -> None:
        for source, goal in ((files.cert, cert), (files.key, key)):
            fresh = goal.with_suffix(".new")
            fresh.write_bytes(source.read_bytes())
            fresh.replace(goal)

    put(old)
    with live(tmp_path, tls_cert=cert, tls_key=key) as daemon:
        server = daemon.daemon._server
        assert server is not None
        trusted = ssl.create_default_context(cafile=str(old.ca))
        with daemon.client(verify=trusted) as kept, stream(kept) as events:
            put(new)
            daemon.call(lambda: daemon.daemon._renew_tls(server))
            with daemon.client(verify=ssl.create_default_context(cafile=str(new.ca))) as client:
                assert client.get("/health").status_code == 200
            with (
                daemon.client(verify=ssl.create_default_context(cafile=str(old.ca))) as client,
                pytest.raises(httpx.ConnectError),
            ):
                client.get("/health")
            key.write_text("nonsense")
            daemon.call(lambda: daemon.daemon._renew_tls(server))
            assert "the TLS files are not used" in daemon.log()
            with daemon.client(verify=ssl.create_default_context(cafile=str(new.ca))) as client:
                assert client.get("/health").status_code == 200
            assert events.answer.is_closed is False  # connections that stand go on


def test_tokens_look_like_tokens() -> None:
    texts = {new_token() for _ in range(50)}
    assert len(texts) == 50
    assert all(text.startswith("fzt_") and len(text) == 47 for text in texts)
