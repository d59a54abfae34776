"""/openapi.json against the daemon itself: requests made from the description, valid and not, and what
the answers must be. Bounded.

By hand, `python -m pytest -m by_hand tests/daemon/test_openapi.py`: what schemathesis makes is not the same
each time, and some of what it calls invalid is valid; CI waits until that is understood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fazai.daemon.routes import TABLE
from fazai.daemon.web import Route

from .live import Live, live

_EXAMPLES = 25


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("openapi")
    with live(folder, gemma_socket=folder / "none.sock", ingest="open") as found:
        yield found


def _operations(daemon: Live) -> dict[tuple[str, str], Any]:
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{daemon.url}/openapi.json")
    results: Iterator[Any] = iter(schema.get_all_operations())
    found = [result.ok() for result in results]
    return {(one.method.upper(), one.path): one for one in found}


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_answers_are_as_described(daemon: Live, route: Route, mode: str) -> None:
    """No server error; status, media and body of each answer are among those described; what the description
    does not allow is refused, and the query that it allows is not."""
    import hypothesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    if mode == "negative" and route.query is None and route.body is None:
        return  # nothing of it can be wrong
    if route.path == "/openapi.json":
        return  # it is what all this comes from
    operation = _operations(daemon)[route.method, route.path]
    beyond: list[Any] = []
    if route.body is not None or route.raw is not None or route.path == "/telemetry":
        beyond.append(positive_data_acceptance)  # rules that no schema can say
    if "worker_unavailable" in route.codes:
        beyond.append(not_a_server_error)  # there is no worker: 503; a 500 would be in the log

    @hypothesis.seed(7)
    @hypothesis.settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def check(case: Any) -> None:
        if route.path == "/events" and route.method == "GET":
            case.query = {**(case.query or {}), "follow": "false"}  # else it never ends
        case.call_and_validate(timeout=20, excluded_checks=beyond)

    check()
    assert '"level":"error"' not in daemon.log()


def test_every_pattern_is_one_of_ecma(daemon: Live) -> None:
    with daemon.client() as client:
        text = client.get("/openapi.json").text
    assert r"\\A" not in text
    assert r"\\Z" not in text
    assert "(?#" not in text
