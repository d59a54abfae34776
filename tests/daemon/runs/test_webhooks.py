"""POST /runs from git hosts, friendly and hostile."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon.live import until
from tests.daemon.runs_world import World, world

SECRET = "a secret of at least sixteen"
PUSH = {"ref": "refs/heads/main", "after": "9f2c" * 10}


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def github(body: bytes, delivery: str, *, event: str = "push", secret: str = SECRET) -> dict[str, str]:
    proof = f"sha256={signed(body, secret)}"
    return {"X-Hub-Signature-256": proof, "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}


def gitea(body: bytes, delivery: str, *, secret: str = SECRET) -> dict[str, str]:
    more = {"X-Gitea-Signature": signed(body, secret), "X-Gitea-Event": "push", "X-Gitea-Delivery": delivery}
    return {**github(body, delivery, secret=secret), **more}  # it sends GitHub's headers, too


def gitlab(body: bytes, delivery: str, *, secret: str = SECRET) -> dict[str, str]:
    return {"X-Gitlab-Token": secret, "X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": delivery}


HOSTS = {"github": github, "gitea": gitea, "gitlab": gitlab}


def hooks(folder: Path) -> dict[str, Any]:
    """One of each sort, with the secret that they share."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "hook").write_text(SECRET + "\n")
    (secrets / "hook").chmod(0o600)
    more = {"secret_file": "secrets/hook", "playbook": "edge", "branch": "main"}
    return {host: {"host": host, **more} for host in HOSTS}


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, webhooks=hooks(tmp_path)) as found:
        yield found


def post(edge: World, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return edge.client.post("/runs", content=body, headers={"content-type": "application/json", **headers})


def encoded(**more: Any) -> bytes:
    return json.dumps({**PUSH, **more}).encode()


@pytest.mark.parametrize("host", HOSTS)
def test_a_push_starts_a_run_once(edge: World, host: str) -> None:
    body = encoded()
    answer = post(edge, body, HOSTS[host](body, "d-1"))
    run_id = edge.started(answer)
    again = post(edge, body, HOSTS[host](body, "d-1"))
    assert (again.status_code, again.json()["code"]) == (409, "replayed")
    row = edge.ended(run_id)
    assert (row["trigger"], row["by"], row["exit_code"], row["check"]) == (
        "webhook",
        f"webhook:{host}",
        2,
        True,
    )


def test_a_delivery_is_known_after_a_restart(tmp_path: Path) -> None:
    body, config = encoded(), hooks(tmp_path)
    with world(tmp_path, webhooks=config) as edge:
        edge.ended(edge.started(post(edge, body, github(body, "d-1"))))
    with world(tmp_path, webhooks=config) as edge:
        assert post(edge, body, github(body, "d-1")).json()["code"] == "replayed"
        (row,) = edge.client.get("/runs").json()["runs"]
        assert (row["trigger"], row["plan_state"], row["state"]) == ("webhook", "pending", "finished")


def test_hostile_deliveries_start_nothing(edge: World) -> None:
    body = encoded()
    good = github(body, "d-1")
    cases: list[tuple[bytes, dict[str, str], int, str]] = [
        (body, github(body, "d-1", secret="another secret of that length"), 401, "bad_signature"),
        (encoded(ref="refs/heads/main "), good, 401, "bad_signature"),
        (body, {**good, "X-Hub-Signature-256": good["X-Hub-Signature-256"][:-1]}, 401, "bad_signature"),
        (body, {**good, "X-Hub-Signature-256": f"sha1={signed(body)}"}, 401, "bad_signature"),
        (body, {**good, "X-Hub-Signature-256": "sha256="}, 401, "bad_signature"),
        (body, {**good, "X-GitHub-Delivery": ""}, 401, "bad_signature"),
        (body, gitlab(body, "d-2", secret="guess"), 401, "bad_signature"),
        (body, gitea(body, "d-3", secret="guess"), 401, "bad_signature"),
        (b"[]", github(b"[]", "d-4"), 422, "bad_request"),
        (b"{", github(b"{", "d-5"), 400, "bad_json"),
        (b" " * (3 << 20), github(b"", "d-6"), 413, "too_large"),
        (body, {**good, "content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ]
    for content, headers, status, code in cases:
        answer = post(edge, content, headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (headers, answer.text)
        assert SECRET not in answer.text
    # a body that was signed once does not come again under another id
    edge.started(post(edge, body, good))
    replayed = post(edge, body, github(body, "d-7"))
    assert (replayed.status_code, replayed.json()["code"]) == (409, "replayed")
    assert len(list(edge.daemon.services.run_queue.records)) == 1
    assert SECRET not in edge.daemon.log()


@pytest.mark.in_turn("host")
@pytest.mark.in_turn("host")
@pytest.mark.parametrize("host", HOSTS)
def test_wrong_signatures_are_limited_and_lock_nobody_out(edge: World, host: str) -> None:
    body, limit = encoded(), edge.daemon.services.settings.limits.failures_per_minute
    guess = {**HOSTS[host](body, "d-1", secret="another secret of that length")}
    codes = [post(edge, body, guess).json()["code"] for _ in range(limit + 3)]
    assert codes == ["bad_signature"] * limit + ["overloaded"] * 3
    refused = post(edge, body, guess)
    assert (refused.status_code, 0 < int(refused.headers["retry-after"]) <= 60) == (429, True)
    # nor is a token guessed beside them, and the one who knows the secret is let in
    with edge.daemon.client("wrong") as client:
        assert client.get("/runs").status_code == 429
    edge.started(post(edge, body, HOSTS[host](body, "d-2")))
    assert f"fazai_auth_failures_total {limit + 5}.0\n" in edge.client.get("/metrics").text
    assert edge.daemon.log().count("POST /runs from 127.0.0.1: bad_signature") == limit
    until(lambda: not edge.daemon.services.run_queue.busy_jobs())


def test_what_is_no_reason_to_run(edge: World) -> None:
    cases = [
        (encoded(ref="refs/heads/topic"), "push", "not the branch main"),
        (encoded(ref="refs/tags/main"), "push", "not the branch main"),
        (encoded(after="0" * 40), "push", "was deleted"),
        (encoded(deleted=True, n=1), "push", "was deleted"),
        (encoded(zen="x"), "ping", "is no push"),
    ]
    for number, (body, event, why) in enumerate(cases):
        answer = post(edge, body, github(body, f"n-{number}", event=event))
        assert answer.status_code == 200
        assert why in answer.json()["ignored"]
    assert list(edge.daemon.services.run_queue.records) == []


def test_a_burst_is_one_run_that_goes_on_and_one_that_waits(edge: World) -> None:
    answers = []
    for number in range(5):
        body = encoded(number=number)
        answers.append(post(edge, body, github(body, f"b-{number}")).json())
    ids = [answer["run_id"] for answer in answers]
    assert len(set(ids)) == 2
    assert [answer.get("coalesced", False) for answer in answers] == [False, False, True, True, True]
    assert edge.client.get("/runs/schedule").json()["jobs"][0]["queued"] in ([ids[1]], [])
    for run_id in set(ids):
        assert edge.ended(run_id)["exit_code"] == 2
    first, second = (edge.daemon.services.run_queue.records.get(run_id) for run_id in (ids[0], ids[1]))
    assert first is not None
    assert second is not None
    assert first.finished is not None
    assert second.started is not None
    assert first.finished <= second.started


def test_a_secret_that_others_can_read_is_not_used(edge: World, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "hook").chmod(0o644)
    body = encoded()
    answer = post(edge, body, github(body, "d-1"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    (tmp_path / "secrets" / "hook").chmod(0o600)
    edge.started(post(edge, body, github(body, "d-1")))
    until(lambda: not edge.daemon.services.run_queue.busy_jobs())
