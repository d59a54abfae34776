"""/openapi.json against the daemon itself: requests made from the description, valid and not; answers are held
against it. Bounded, and the same ones each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .live import Live, live

pytestmark = pytest.mark.slow

_EXAMPLES = 25


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("openapi")
    with live(folder, gemma_socket=folder / "none.sock", ingest="open") as found:
        yield found


def _operations(daemon: Live) -> Iterator[Any]:
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{daemon.url}/openapi.json")
    for result in schema.get_all_operations():
        yield result.ok()


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_as_described(daemon: Live, mode: str) -> None:
    """No server error; status, media and body of each answer are among those described; what the description
    refuses is refused."""
    import hypothesis
    from schemathesis import GenerationMode

    for operation in _operations(daemon):
        strategy = operation.as_strategy(generation_mode=GenerationMode(mode))

        @hypothesis.seed(7)
        @hypothesis.settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=strategy)
        def check(case: Any) -> None:
            if case.path == "/events" and case.method == "GET":
                case.query = {**(case.query or {}), "follow": "false"}  # else it never ends
            case.call_and_validate(timeout=20)

        check()
    assert '"level":"error"' not in daemon.log()
    assert "Traceback" not in daemon.log()


def test_what_was_made_from_the_description_is_enough(daemon: Live) -> None:
    """Every route of the table was asked."""
    from fazai.daemon.routes import TABLE

    found = {(one.method.upper(), one.path) for one in _operations(daemon)}
    assert found == {(route.method, route.path) for route in TABLE}
