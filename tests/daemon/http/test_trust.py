"""What once needed a token always does, and what comes through a proxy or from another site's page is not
trusted for its connection; the audit log says who did what."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fazai.daemon.http.audit import RefusalLog
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.token_expiry import token_alarm
from fazai.service.log import Log
from fazai.store.sqlite.tokens import TokenFile
from fazai.wire.events import LogEvent
from fazai.wire.logs import LogLine
from tests.daemon.live import Live, live, stream, token, until


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A daemon that never had a token."""
    with live(tmp_path_factory.mktemp("unguarded")) as daemon:
        yield daemon


def _look_again(daemon: Live) -> None:
    daemon.services.guard._read_at = float("-inf")


def _revoke(folder: Path, **ended: float) -> None:
    file = TokenFile(folder / "state")
    for one in file.tokens():
        file.put(replace(one, **ended))  # type: ignore[arg-type]


@pytest.mark.parametrize("ended", ["revoked", "expires"])
def test_when_the_last_token_ends_nobody_is_let_in(tmp_path: Path, ended: str) -> None:
    token(tmp_path, "only", "admin")
    with live(tmp_path) as daemon, daemon.client() as client, daemon.client() as other:
        assert client.get("/runs").status_code == 401
        _revoke(tmp_path, **{ended: time.time() - 1})
        _look_again(daemon)
        answer = client.get("/runs")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert "a token is needed" in answer.json()["error"]
        assert other.post("/agents/web-1/key", json={"keys": ["k" * 32]}).status_code == 401
        until(lambda: "no token is valid any more, and nobody is let in over TCP" in daemon.log())
    with live(tmp_path) as daemon, daemon.client() as client:  # and after a restart
        assert client.get("/runs").status_code == 401
        assert "everybody on this machine may do everything" not in daemon.log().split("stops")[-1]


@pytest.mark.parametrize(
    "header",
    [
        *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-anything", "X-Real-IP"),
        *("X-Forwarded", "X-Original-Forwarded-For", "X-Cluster-Client-IP", "Fastly-Client-IP"),
        *("True-Client-IP", "CF-Connecting-IP", "X-Envoy-External-Address"),
    ],
)
def test_who_comes_through_a_proxy_is_not_trusted(unguarded: Live, header: str) -> None:
    with unguarded.client() as client:
        assert client.get("/whoami").json()["role"] == "admin"
        assert client.get("/runs").status_code == 200
        answer = client.get("/runs", headers={header: "192.0.2.7"})
        assert answer.status_code == 401
        assert "fazai token create" in answer.json()["error"]
        assert client.post("/ingest", json={}, headers={header: "192.0.2.7"}).status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_who_comes_through_a_proxy_to_the_local_socket_is_not_trusted(tmp_path: Path, header: str) -> None:
    secret = token(tmp_path, "page", "viewer")
    path = tmp_path / "d.sock"
    with (
        live(tmp_path, socket=path),
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path), verify=False), base_url="http://x"
        ) as local,
    ):
        assert local.get("/whoami").json()["role"] == "admin"
        proxied = {header: "192.0.2.7"}
        answer = local.get("/runs", headers=proxied)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert "a token is needed" in answer.json()["error"]
        assert local.post("/ingest", json={}, headers=proxied).status_code == 401
        answer = local.get("/whoami", headers={**proxied, "Authorization": f"Bearer {secret}"})
        assert answer.json()["role"] == "viewer"


def test_nginx_as_it_is_by_default_is_not_trusted(unguarded: Live) -> None:
    """It adds no header, but speaks HTTP/1.0 and calls the daemon by the address that it was given."""
    with socket.create_connection(("127.0.0.1", unguarded.port), 30) as line:
        line.sendall(f"GET /runs HTTP/1.0\r\nHost: 127.0.0.1:{unguarded.port}\r\n\r\n".encode())
        said = b"".join(iter(lambda: line.recv(65536), b""))
    assert b" 401 " in said.splitlines()[0]
    assert b"a token is needed" in said
    assert "a proxy before the daemon needs one in any case" in unguarded.log()


@pytest.mark.parametrize("path", ["/runs", "/health", "/metrics", "/fleet", "/openapi.json"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_gets_no_answer_of_the_api(unguarded: Live, path: str, site: str) -> None:
    with unguarded.client() as client:
        answer = client.get(path, headers={"Sec-Fetch-Site": site})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "requests of other sites' pages are refused" in answer.json()["error"]
        for good in ("same-origin", "none"):
            answer = client.get(path, headers={"Sec-Fetch-Site": good})
            assert answer.status_code == 200
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert client.get("/ui", headers={"Sec-Fetch-Site": site}).status_code == 200  # a link to the page


def test_every_answer_is_for_its_own_origin(unguarded: Live) -> None:
    with unguarded.client() as client:
        record = {"hostname": "web-1", "timestamp": "2026-11-22T03:04:00Z"}
        for answer in (
            client.post("/ingest", json=record),
            client.post("/ingest", json=record),  # the short way
            client.get("/nothing"),
            client.get("/ui"),
        ):
            assert answer.headers["cross-origin-resource-policy"] == "same-origin", answer.url
        with stream(client) as events:
            assert events.answer.headers["cross-origin-resource-policy"] == "same-origin"


# -- tokens that expire


def test_the_alarm_grows() -> None:
    day = 86400.0
    assert token_alarm(None, 0.0) is None
    assert token_alarm(float("inf"), 0.0) is None
    assert token_alarm(15 * day, 0.0) is None
    stages = []
    for left_s in (14 * day, 13 * day, 2.9 * day, 0.9 * day, 1800.0, 0.0):
        alarm = token_alarm(left_s, 0.0)
        assert alarm is not None
        assert alarm.level == ("warning" if left_s else "error")
        stages.append(alarm.stage_s)
    assert stages == [14 * day, 14 * day, 3 * day, day, 3600.0, 0.0]


def test_before_the_last_token_expires_it_is_said(tmp_path: Path) -> None:
    text = token(tmp_path, "only", "viewer", expires=time.time() + 2 * 86400)
    token(tmp_path, "sooner", "viewer", expires=time.time() + 3600)
    with live(tmp_path) as daemon, daemon.client(text) as client:
        until(lambda: "the last valid token expires in 48.0 hours" in daemon.log())
        with stream(client, "?since=0&follow=false") as events:
            said = [frame.event for frame in events.rest()]
        assert any(
            isinstance(one, LogEvent) and "the last valid token expires" in one.message for one in said
        )
        line = next(
            line
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("fazai_tokens_last_expiry_timestamp_seconds ")
        )
        assert 47 * 3600 < float(line.split()[1]) - time.time() < 49 * 3600
        token(tmp_path, "for ever", "viewer")
        _look_again(daemon)
        assert "fazai_tokens_last_expiry_timestamp_seconds +Inf" in client.get("/metrics").text


# -- the audit log


def _audit(daemon: Live) -> list[LogLine]:
    lines = (json.loads(line) for line in daemon.log().splitlines())
    return [LogLine(**line) for line in lines if line["logger"] == "fazai.audit"]


def test_tokens_keys_and_refusals_are_in_the_audit_log(tmp_path: Path) -> None:
    admin = token(tmp_path, "root", "admin")
    viewer = token(tmp_path, "grafana", "viewer")
    with live(tmp_path) as daemon, daemon.client(admin) as client, daemon.client(viewer) as reader:
        assert client.post("/agents/web-1/key", json={"keys": ["k" * 32]}).status_code == 200
        assert reader.post("/agents/web-1/key", json={"keys": ["k" * 32]}).status_code == 403
        token(tmp_path, "late", "operator")
        _look_again(daemon)
        assert client.get("/runs").status_code == 200
        file = TokenFile(tmp_path / "state")
        file.put(replace(next(one for one in file.tokens() if one.name == "late"), revoked=time.time()))
        _look_again(daemon)
        assert client.get("/runs").status_code == 200
        said = [(line.message, line.target) for line in _audit(daemon)]
    assert said == [
        ("token:root set 1 key(s) of web-1", "web-1"),
        (
            "refused: POST /agents/web-1/key from 127.0.0.1: forbidden:"
            " token:grafana is viewer, this needs admin",
            None,
        ),
        ("token late (operator) was created", None),
        ("token late (operator) was revoked", None),
    ]
    assert "k" * 32 not in daemon.log()


def test_the_audit_log_does_not_fill_the_disk(tmp_path: Path) -> None:
    log, now = Log(tmp_path / "log"), [0.0]
    refusals = RefusalLog(log, lambda: now[0])
    for _ in range(250):
        refusals.note("GET /runs", "192.0.2.7", Refusal("unauthorized", "a token is needed"))
        refusals.note("GET /none", "192.0.2.7", Refusal("not_found", "there is no route"))
    now[0] = 61.0
    refusals.note("GET /runs", "192.0.2.7", Refusal("unauthorized", "a token is needed"))
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 102
    assert "150 more requests were refused" in lines[100]
