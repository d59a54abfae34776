"""The stream of an objective: heartbeats while nothing is said, and its end where an action outlasts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fazai.daemon.loop import routes
from fazai.daemon.settings import ServerLimits
from fazai.wire.events import DoneEvent, ErrorEvent
from tests.daemon.live import Events, until
from tests.daemon.loop.scripted import DONE, loop_world


def test_a_silent_stream_has_heartbeats(tmp_path: Path) -> None:
    with loop_world(tmp_path, DONE, limits=ServerLimits(heartbeat_s=0.05)) as world:
        world.model.hold.clear()
        body = {"session_id": world.open(), "objective": "wait"}
        with world.client.stream("POST", "/agent/generate", json=body) as answer:
            lines = answer.iter_lines()
            while not (line := next(lines)).startswith(":"):
                assert line == "" or line.startswith(("id:", "event:", "data:")), line
            world.model.hold.set()
            assert any('"stop_reason":"done"' in line for line in lines)


def test_a_stream_ends_before_an_action_that_takes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_GRACE_S", -0.8)
    with loop_world(tmp_path, DONE) as world:
        world.model.hold.clear()
        session = world.open()
        body = {"session_id": session, "objective": "wait", "budget": {"seconds": 1}}
        with world.client.stream("POST", "/agent/generate", json=body) as answer:
            frames = Events(answer).rest()
        assert not [one for one in frames if isinstance(one.event, DoneEvent | ErrorEvent)]
        assert world.session(session)["status"] == "running"
        world.model.hold.set()
        until(lambda: world.session(session)["status"] == "ended")
        assert '"level":"error"' not in world.daemon.log()
