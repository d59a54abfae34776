"""A defect in a tool ends neither the daemon nor an objective: it rests, and can be ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fazai.loop.tools import NoArgs, Observation, Tool
from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, loop_world


async def _break(call: Any, args: NoArgs) -> Observation:
    raise RuntimeError("a defect")


BROKEN = Tool("test.broken", "Has a defect.", run=_break)


def test_an_objective_that_meets_a_defect_rests(tmp_path: Path) -> None:
    with loop_world(tmp_path) as world:
        services = world.daemon.services
        services.tools = (*services.tools, BROKEN)
        session = world.open()
        world.model.answers[:] = [{"action": "use_tool", "name": "test.broken", "args": {}}, DONE]
        world.ask(session)
        until(lambda: world.session(session)["status"] != "running")
        row = world.session(session)
        assert (row["status"], row["why"]) == ("paused", "it met a defect of the daemon: see its log")
        until(lambda: "a defect ended an objective: RuntimeError('a defect')" in world.daemon.log())
        assert world.client.post("/agent/resume", json={"session_id": session}).status_code == 200
        until(lambda: world.session(session)["status"] == "ended")
