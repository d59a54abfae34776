"""/openapi.json against the daemon itself: requests made from the description, valid and not, and what
the answers must be. The daemon has one of everything that the routes can name, so that half of the
requests reach it. Bounded, and from a fixed seed; another one: FAZAI_SCHEMA_SEED, FAZAI_SCHEMA_EXAMPLES.

What the description forbids is judged from the bytes that were sent (`_allowed`): a query is text, so that
`types=false` is a list with one name, whatever its maker had in mind."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fazai.daemon.http.routing import Route
from fazai.daemon.routes import TABLE
from tests.daemon.gemma.test_sessions import worker
from tests.daemon.live import Live
from tests.daemon.runs_world import World, world

__all__ = ["worker"]

_EXAMPLES = int(os.environ.get("FAZAI_SCHEMA_EXAMPLES", "25"))
_SEED = int(os.environ.get("FAZAI_SCHEMA_SEED", "7"))
_NOBODY_LISTENS = 1
_RECORD = {
    "hostname": "web-01",
    "timestamp": "2026-11-22T03:04:05Z",
    "os": {"load": [0.5, 0.4, 0.3], "mem": {"total": 8 << 30, "free": 2 << 30}},
}


@dataclass
class Described:
    """A daemon, its description, and what there is: by path, values for its parameters."""

    daemon: Live
    document: dict[str, Any]
    known: Mapping[str, dict[str, str]]
    session: str


@pytest.fixture(scope="module")
def described(worker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    folder = tmp_path_factory.mktemp("openapi")
    more = {"gemma_socket": worker, "ingest": "open", "inventory": (str(folder / "inventory.yml"),)}
    with world(folder, daemon=more) as edge:
        yield Described(edge.daemon, edge.client.get("/openapi.json").json(), _known(edge), _session(edge))


def _session(edge: World) -> str:
    return str(
        edge.client.post("/agent/sessions", json={"params": {"max_tokens": 3}, "plain": True}).json()[
            "session_id"
        ]
    )


def _known(edge: World) -> dict[str, dict[str, str]]:
    client = edge.client
    assert client.post("/ingest", json=_RECORD).status_code == 200
    planned = edge.ended(edge.started(edge.run()))
    assert planned["exit_code"] == 2
    (firewall,) = client.get("/opn/list").json()["items"]
    body = {"title": "a note", "snippet": "of something"}
    note = {"id": client.post("/kb", json=body).json()["id"]}
    run, device = {"id": planned["run_id"]}, {"id": firewall["id"]}
    found = {
        "/agents/{id}": {"id": "gemma-1"},
        "/agents/{host}/key": {"host": "web-01"},
        "/ui/{file}": {"file": "style.css"},
        **dict.fromkeys(_paths("/runs/{id}"), run),
        **dict.fromkeys(_paths("/opn/{id}"), device),
        **dict.fromkeys(_paths("/agent/sessions/{id}"), _loop_session(edge)),
        "/tools/{name}": {"name": "fleet.list"},
        **dict.fromkeys(_paths("/kb/{id}"), note),
    }
    assert set(found) == set(_paths("{"))
    return found


def _loop_session(edge: World) -> dict[str, str]:
    """A session of the action loop, and an output of it."""
    session = str(edge.client.post("/agent/sessions", json={}).json()["session_id"])
    store = edge.daemon.services.store.sessions
    edge.daemon.call(lambda: store.put_output(session, "o-1", b"long"))
    return {"id": session, "output": "o-1"}


def _paths(part: str) -> list[str]:
    return [route.path for route in TABLE if part in route.path]


def _operation(described: Described, route: Route) -> Any:
    import schemathesis

    schema = schemathesis.openapi.from_dict(described.document)
    schema.config.update(base_url=described.daemon.url)
    return schema[route.path][route.method]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")  # schemathesis does; hypothesis seeds it
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_answers_are_as_described(described: Described, route: Route, mode: str) -> None:
    """No server error; status, media and body of each answer are among those described; what the description
    does not allow is refused, and the query that it allows is not."""
    import hypothesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    if mode == "negative" and route.query is None and route.body is None and route.takes is None:
        return  # nothing of it can be wrong
    if route.path == "/openapi.json":
        return  # it is what all this comes from
    operation = _operation(described, route)
    beyond: list[Any] = [negative_data_rejection]  # `_allowed` knows better
    special = route.path in ("/telemetry", "/ui/{file}", "/mcp")
    if route.body is not None or route.takes is not None or special:
        beyond.append(positive_data_acceptance)  # rules that no schema can say
    known = described.known.get(route.path)
    number, before = 0, len(_lines(described.daemon))

    @hypothesis.seed(_SEED)
    @hypothesis.settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def check(case: Any) -> None:
        nonlocal number
        number += 1
        if known is not None and number % 2:
            case.path_parameters = dict(known)
        if route.path == "/opn/add":
            _keep_here(case.body)
        if route.path == "/telemetry" and number % 2:
            case.query = {**(case.query or {}), "host": _RECORD["hostname"]}
        if route.path == "/events" and route.method == "GET":
            case.query = {**(case.query or {}), "follow": "false"}  # else it never ends
        answer = case.call_and_validate(timeout=20, excluded_checks=beyond)
        if mode == "negative" and not _allowed(described.document, route, answer.request):
            assert 400 <= answer.status_code < 500, (answer.request.url, answer.request.body, answer.text)

    check()
    said = [json.loads(line) for line in _lines(described.daemon)[before:]]
    assert [line for line in said if line["level"] in ("error", "critical")] == []


def _lines(daemon: Live) -> list[str]:
    """Of its log; the last one may not be complete yet."""
    return daemon.log().split("\n")[:-1]


def _keep_here(body: Any) -> None:
    """The daemon asks the firewalls that it is told of: none of them is on another machine."""
    if isinstance(body, dict) and re.match(r"https?://", str(body.get("base_url"))):
        body["base_url"] = f"https://127.0.0.1:{_NOBODY_LISTENS}/"


def _allowed(document: dict[str, Any], route: Route, request: Any) -> bool:
    """Whether the query and the body that were sent are as described."""
    import jsonschema_rs

    operation = document["paths"][route.path][route.method.lower()]

    def holds(schema: Any, value: Any) -> bool:
        whole = {**schema, "components": document["components"]}
        return jsonschema_rs.Draft202012Validator(whole, validate_formats=True).is_valid(value)

    pairs = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    described = {one["name"]: one for one in operation.get("parameters", ()) if one["in"] == "query"}
    sent = dict(pairs)
    if len(sent) != len(pairs) or not described.keys() >= sent.keys():
        return False
    if any(one["required"] and name not in sent for name, one in described.items()):
        return False
    if not all(
        holds(described[name]["schema"], _typed(described[name]["schema"], text)) for name, text in pairs
    ):
        return False
    if "requestBody" not in operation:
        return True
    try:
        body = json.loads(request.body or b"")
    except ValueError:
        return False
    return holds(operation["requestBody"]["content"]["application/json"]["schema"], body)


def _typed(schema: dict[str, Any], text: str) -> Any:
    """A parameter's text as the type that the description gives it; as it is where it is none."""
    kind = schema.get("type")
    if kind == "array":
        return text.split(",") if text else []
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind in ("integer", "number"):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


def test_every_pattern_is_one_of_ecma(described: Described) -> None:
    text = json.dumps(described.document)
    assert r"\\A" not in text
    assert r"\\Z" not in text
    assert "(?#" not in text
