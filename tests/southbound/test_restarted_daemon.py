"""A daemon that was killed and began anew while an agent works for the one before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.live import until
from tests.southbound.fleet import Fleet

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        made.start_daemon()
        made.enrol("edge-1")
        made.start_agent("edge-1")
        yield made
    finally:
        made.close()


def test_a_request_waits_for_what_the_daemon_before_asked_for(fleet: Fleet) -> None:
    sleep = {"method": "command.exec", "action_id": "a-1", "command": "/bin/sleep", "args": ["5"]}
    with fleet.relay() as relay:
        relay.send(json.dumps({"id": 1, "agent": "edge-1", "message": {**sleep, "timeout": 60_000}}))
        until(lambda: "command.exec began" in (fleet.folder / "edge-1.log").read_text())
        fleet.kill(fleet.daemon)
    fleet.start_daemon()
    fleet.wait_for("edge-1", "observation")
    echo = {"method": "command.exec", "action_id": "a-2", "command": "/bin/echo", "args": ["hi"]}
    answer = fleet.ask("edge-1", {**echo, "timeout": 60_000})["answer"]
    assert answer["stdout"] == "hi\n", answer
    found = fleet.ask("edge-1", {**sleep, "timeout": 60_000})["answer"]
    assert (found["ok"], found["exit_code"]) == (True, 0)
