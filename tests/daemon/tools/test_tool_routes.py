"""GET /tools and POST /tools/{name}: who may call what, with which arguments, for how long, and how much
comes back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.daemon.tools.running import MAX_DATA_BYTES
from fazai.daemon.tools.table import TABLE
from fazai.wire.base import decode_body
from fazai.wire.tools import ToolAnswer, ToolsAnswer
from tests.daemon.live import Live, live, token, until
from tests.daemon.tools.samples import SAMPLES, Gate

RECORD = {"hostname": "web-1", "timestamp": "2026-11-22T03:04:05Z", "os": {"load": [0.5, 0.4, 0.3]}}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("tools")
    return folder, {role: token(folder, role, role) for role in ("viewer", "operator", "admin")}


@pytest.fixture(scope="module")
def daemon(tokens: tuple[Path, dict[str, str]]) -> Iterator[Live]:
    with live(tokens[0], ingest="open") as found:
        found.services.tools = (*TABLE, *SAMPLES)
        yield found


@pytest.fixture(scope="module")
def viewer(daemon: Live, tokens: tuple[Path, dict[str, str]]) -> Iterator[httpx.Client]:
    with daemon.client(tokens[1]["viewer"]) as client:
        yield client


def call(client: httpx.Client, name: str, args: Any = None, status: int = 200, **more: Any) -> Any:
    answer = client.post(f"/tools/{name}", json={"args": args or {}, **more})
    assert answer.status_code == status, answer.text
    if status == 200:
        decode_body(answer.content, ToolAnswer)
    return answer.json()


def test_the_list_has_every_tool_and_what_the_client_may(
    daemon: Live, viewer: httpx.Client, tokens: tuple[Path, dict[str, str]]
) -> None:
    answer = viewer.get("/tools")
    decode_body(answer.content, ToolsAnswer)
    rows = {row["name"]: row for row in answer.json()["tools"]}
    assert list(rows) == [tool.name for tool in (*TABLE, *SAMPLES)]
    assert rows["fleet.list"]["args"]["properties"]["limit"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 500,
        "default": 50,
    }
    assert {name: row["allowed"] for name, row in rows.items() if row["has_effect"]}["sample.block"] is False
    with daemon.client(tokens[1]["operator"]) as operator:
        again = {row["name"]: row for row in operator.get("/tools").json()["tools"]}
    assert again["sample.block"]["allowed"] is True
    with daemon.client() as nobody:
        assert nobody.get("/tools").status_code == 401
        assert nobody.post("/tools/fleet.list", json={}).status_code == 401


def test_a_tool_is_called_by_its_name_with_dots_or_without(daemon: Live, viewer: httpx.Client) -> None:
    assert daemon.services.store.host("web-1") is not None or ingest(daemon)
    for name in ("fleet.list", "fleet_list"):
        found = call(viewer, name, {"limit": 5})["observation"]
        assert found["note"] == "1 machines"
        assert [row["name"] for row in found["data"]] == ["web-1"]
        assert (found["failed"], found["untrusted"], found["citations"]) == (False, True, [])


def ingest(daemon: Live) -> bool:
    path, text = daemon.folder, token(daemon.folder, "reporter", "operator")
    daemon.services.guard._read_at = float("-inf")
    with daemon.client(text) as client:
        assert client.post("/ingest", json=RECORD).status_code == 200
    return path is not None


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b'{"args":{"limit":1,"limit":2}}', 422, "bad_request", "the name 'limit' occurs twice"),
        (b'{"args":{"only_rong":true}}', 422, "bad_request", 'did you mean "only_wrong"?'),
        (b'{"args":{"limit":0}}', 422, "bad_request", "`limit`: expected `int` >= 1"),
        (b'{"args":{"limit":"5"}}', 422, "bad_request", "`limit`: expected `int`, got `str`"),
        (b'{"args":[]}', 422, "bad_request", "`args`: expected `object`, got `array`"),
        (b'{"args":{},"read_only":true}', 422, "bad_request", "unknown field `read_only`"),
        (b'{"args":{"limit":5', 400, "bad_json", "JSON"),
        (b'{"args":{"x":"' + b"y" * (1 << 20) + b'"}}', 413, "too_large", "1048576"),
        (b'{"args":{"x":' + b"[" * 100_000, 400, "bad_json", "nested too deeply"),
    ],
)
def test_what_is_not_as_it_says_is_refused(
    viewer: httpx.Client, body: bytes, status: int, code: str, said: str
) -> None:
    answer = viewer.post("/tools/fleet.list", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert said in answer.json()["error"]


def test_unknown_tools_and_names_are_refused_with_what_was_meant(viewer: httpx.Client) -> None:
    assert 'did you mean "fleet.list"?' in call(viewer, "fleet.lst", status=404)["error"]
    assert "see: GET /tools" in call(viewer, "x" * 300, status=404)["error"]
    assert call(viewer, "..%2F..%2Fagent%2Fapprove", status=404)["code"] == "not_found"


def test_an_effect_is_not_for_viewers(daemon: Live, viewer: httpx.Client) -> None:
    said = call(viewer, "sample.block", {"target": "fw-01", "address": "203.0.113.9"}, 403)
    assert said["error"] == "token:viewer is viewer, this needs operator"
    until(lambda: "refused: POST /tools/sample.block" in daemon.log())


def test_a_session_is_the_clients_own(
    daemon: Live, viewer: httpx.Client, tokens: tuple[Path, dict[str, str]]
) -> None:
    session = daemon.call(lambda: daemon.services.loop.open("token:operator")).session_id
    daemon.call(lambda: daemon.services.store.sessions.put_output(session, "o-0123456789ab", b"what it saw"))
    asked = {"name": "output.read", "args": {"output": "o-0123456789ab"}, "session_id": session}
    refused = call(viewer, **asked, status=403)
    assert refused["error"] == "the session is another's (open one: POST /agent/sessions)"
    assert call(viewer, **{**asked, "session_id": "s-none"}, status=404)["code"] == "unknown_session"
    with daemon.client(tokens[1]["operator"]) as operator:
        assert call(operator, **asked)["observation"]["data"] == "what it saw"


def test_names_are_those_of_the_fleet(daemon: Live, tokens: tuple[Path, dict[str, str]]) -> None:
    with daemon.client(tokens[1]["operator"]) as operator:
        said = call(operator, "sample.block", {"target": "*", "address": "203.0.113.9"}, 422)
    assert "`target`: '*' is none of the targets" in said["error"]


@pytest.mark.parametrize(
    ("how", "note"),
    [
        ("device", "fw-01: the answer was no (look at its log)"),
        ("refusal", "not now"),
        ("slow", "sample.fail took more than 0.01 s"),
    ],
)
def test_what_a_tool_cannot_do_is_an_observation(viewer: httpx.Client, how: str, note: str) -> None:
    found = call(viewer, "sample.fail", {"how": how})["observation"]
    assert (found["note"], found["failed"], found["data"]) == (note, True, None)


@pytest.mark.parametrize("what", ["list", "object", "text", "nested", "numbers"])
def test_data_are_bounded_and_it_is_said(viewer: httpx.Client, what: str) -> None:
    found = call(viewer, "sample.much", {"what": what})["observation"]
    size = len(json.dumps(found["data"], separators=(",", ":"), ensure_ascii=False).encode())
    assert MAX_DATA_BYTES * 0.9 < size <= MAX_DATA_BYTES
    assert "only a part of the data is here" in found["note"]
    assert len(found["citations"]) == 64
    if what == "nested":
        assert found["data"]["small"] == 1


def test_calls_beyond_the_slots_are_refused_at_once(daemon: Live, viewer: httpx.Client) -> None:
    gate = Gate()
    before = daemon.services.tools
    daemon.services.tools = (*before, gate.tool())
    try:
        with ThreadPoolExecutor(16) as pool:
            running = [pool.submit(call, viewer, "sample.wait") for _ in range(16)]
            until(lambda: gate.running == 16)
            refused = viewer.post("/tools/sample.wait", json={})
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "too many tools run at once, 16 of one client" in refused.json()["error"]
            daemon.call(gate.open.set)
            assert {one.result()["observation"]["data"] for one in running} == {"token:viewer"}
    finally:
        daemon.services.tools = before
    assert call(viewer, "fleet.list")["ok"] is True


def test_a_client_that_goes_away_ends_its_call(daemon: Live, tokens: tuple[Path, dict[str, str]]) -> None:
    gate = Gate()
    before = daemon.services.tools
    daemon.services.tools = (*before, gate.tool())
    try:
        with socket.create_connection(("127.0.0.1", daemon.port)) as client:
            head = "POST /tools/sample.wait HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            head += f"Authorization: Bearer {tokens[1]['viewer']}\r\nContent-Length: 2\r\n\r\n{{}}"
            client.sendall(head.encode())
            until(lambda: gate.running == 1)
        until(lambda: gate.ended)
    finally:
        daemon.services.tools = before
    assert gate.ended == ["cancelled"]
    assert "fault of fazai" not in daemon.log()


def test_a_thousand_calls_at_once_are_answered_or_refused(daemon: Live, viewer: httpx.Client) -> None:
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda _: viewer.post("/tools/fleet.list", json={}).status_code, range(1000)))
    assert set(found) <= {200, 429}
    assert 200 in found
    assert call(viewer, "fleet.list")["ok"] is True
