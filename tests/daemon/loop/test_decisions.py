"""What people decide in a session, and what is refused, is on its stream: who looks on knows it, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.daemon.live import stream, until
from tests.daemon.loop.scripted import DONE, loop_world, of_type, plain

APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
ASK: dict[str, Any] = {"action": "ask", "question": "which one?"}
SPEC: dict[str, Any] = {"action": "tool_spec", "name": "Not A Name", "argv": ["/bin/df"]}


def test_decisions_and_refusals_are_events(tmp_path: Path) -> None:
    with loop_world(tmp_path) as loop:
        session = loop.open()
        loop.model.answers[:] = [SPEC, APPLY, APPLY, ASK, DONE]
        shown = of_type(plain(loop.ask(session, "bring it back")), "action")[-1]
        assert loop.post("reject", session, shown, reason="not now").status_code == 200
        until(lambda: loop.session(session)["status"] == "waiting")
        question = {"session_id": session, "action_id": loop.session(session)["waiting"]["action_id"]}
        assert loop.client.post("/agent/pause", json={"session_id": session}).status_code == 200
        assert loop.client.post("/agent/resume", json={"session_id": session}).status_code == 200
        assert loop.client.post("/agent/answer", json={**question, "text": "fw-01"}).status_code == 200
        until(lambda: loop.session(session)["status"] == "ended")
        with stream(loop.client, f"?session={session}&since=0&follow=false") as events:
            said = plain(events.rest())
    told = [one.get("note") or one.get("message") for one in said if one["type"] in ("observe", "log")]
    assert told == [
        "'Not A Name' is no name of a tool (lower case, digits and _)",
        f"anonymous rejected {shown['plan_hash'][:12]}: not now",
        "anonymous rejected it, and nothing has changed since",
        "anonymous resumed it",
        "anonymous answered: fw-01",
    ]
    assert [one["action_id"] for one in of_type(said, "log") if "action_id" in one] == [
        shown["action_id"],
        question["action_id"],
    ]
