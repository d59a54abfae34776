"""Long observations in a small context: trimmed; nothing that was decided is forgotten (requirement B8)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.loop import registry
from fazai.loop.tools import Observation, Tool, ToolArgs
from tests.daemon.live import until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain

APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}


class LongArgs(ToolArgs, frozen=True, kw_only=True):
    number: int = 0


@Tool("test.long", "Returns 200 KB.")
async def long_tool(call: Any, args: LongArgs) -> Observation:
    return Observation(note=f"observation {args.number}", data=f"{args.number}:" + "x" * 200_000)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    with loop_world(tmp_path) as found:
        found.daemon.services.tools = (*found.daemon.services.tools, long_tool)
        yield found


def test_fifty_long_observations_fit(world: LoopWorld) -> None:
    looks: list[Any] = [
        {"action": "use_tool", "name": "test.long", "args": {"number": number}} for number in range(50)
    ]
    session = world.open()
    world.model.answers[:] = [APPLY, *looks, DONE]
    shown = of_type(plain(world.ask(session, "read it all", budget={"iterations": 60})), "action")[0]
    assert world.post("reject", session, shown, reason="not this week").json() == {"ok": True}
    until(lambda: world.session(session)["status"] != "running")
    assert world.session(session)["why"] == "done", world.session(session)
    whole = "\n".join(message["content"] for message in world.model.asked[-1])
    assert len(whole) < 8192 * 4  # characters, of 8,192 tokens of context
    assert "Objective: read it all" in whole
    assert "rejected by anonymous: not this week" in whole
    assert "observation 49" in whole
    entries = world.journal(session)
    assert sum(one.get("fresh", False) for one in entries if one["entry"] == "asked") > 1


def test_the_rest_of_a_long_observation_can_be_read(world: LoopWorld) -> None:
    def read_on(messages: list[dict[str, str]]) -> dict[str, Any]:
        output = messages[-1]["content"].rpartition("The whole is output ")[2].partition(".")[0]
        return {"action": "use_tool", "name": "output.read", "args": {"output": output, "offset": 199_990}}

    world.model.answers[:] = [
        {"action": "use_tool", "name": "test.long", "args": {"number": 7}},
        read_on,
        DONE,
    ]
    session = world.open()
    events = plain(world.ask(session))
    assert "characters 199990 to 200004 of 200004" in [one["note"] for one in of_type(events, "observe")][1]
    entry = next(one for one in world.journal(session) if one.get("output_id"))
    page = world.client.get(f"/agent/sessions/{session}/outputs/{entry['output_id']}", params={"limit": 4})
    assert page.json() == {"ok": True, "text": '"7:x', "total": 200_004}
    other = world.open()
    gone = world.client.get(f"/agent/sessions/{other}/outputs/{entry['output_id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_old_outputs_and_long_journals_go(world: LoopWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    session = world.open()
    store = world.daemon.services.store.sessions
    names = [f"o-{number:x}" for number in range(20)]
    for name in names:
        world.daemon.call(functools.partial(store.put_output, session, name, b"x"))
    kept = [world.daemon.call(functools.partial(store.output, session, name)) == b"x" for name in names]
    assert kept == [False] * 4 + [True] * 16
    monkeypatch.setattr(registry, "_MOST_ENTRIES", 3)
    world.model.answers[:] = [DONE]
    world.ask(session)
    body = {"session_id": session, "objective": "more"}
    refused = world.client.post("/agent/generate", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "takes no further objective (open another session)" in refused.json()["error"]


def test_bytes_are_a_budget(world: LoopWorld) -> None:
    counter = iter(range(1000))

    def look(_: Any) -> dict[str, Any]:
        return {"action": "use_tool", "name": "test.long", "args": {"number": next(counter)}}

    events = world.run(look, budget={"bytes": 10_000})
    assert events[-1]["result"]["note"] == "it has read its 10000 bytes of observations"
