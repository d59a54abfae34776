"""The action loop over a real daemon and the lab: one action an iteration, approvals of a hash, ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.live import token, until
from tests.daemon.loop.scripted import DONE, LoopWorld, loop_world, of_type, plain

LIST: dict[str, Any] = {"action": "use_tool", "name": "fleet.list", "args": {}}
PLAN: dict[str, Any] = {"action": "use_tool", "name": "reconcile.plan", "args": {"playbook": "edge"}}
APPLY: dict[str, Any] = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopWorld]:
    """For objectives that change nothing."""
    with loop_world(tmp_path_factory.mktemp("loop")) as found:
        yield found


def test_a_read_only_objective_runs_to_its_end(looks: LoopWorld) -> None:
    events = looks.run(LIST, PLAN, {"action": "done", "result": "blocklist is missing on fw-01"})
    assert [one["type"] for one in events] == ["action", "observe", "action", "observe", "action", "done"]
    assert "1 changes on fw-01" in events[3]["note"]
    assert events[-1]["result"]["result"] == "blocklist is missing on fw-01"
    assert events[-1]["result"]["stop_reason"] == "done"
    assert "blocklist" not in looks.world.aliases()
    told = looks.model.said()
    assert '"identity":"blocklist"' in told
    assert told.count("<data ") == 1
    assert "plan_hash" not in str(events)


def test_an_effect_waits_for_the_hash_that_was_shown(looks: LoopWorld) -> None:
    session = looks.open()
    looks.model.answers[:] = [APPLY, DONE]
    events = _events(looks, session)
    shown = of_type(events, "action")[0]
    assert events[-1]["result"]["stop_reason"] == "approval"
    assert events[-1]["result"]["plan_hash"] == shown["plan_hash"]
    assert shown["changes"][0]["identity"] == "blocklist"
    assert "blocklist" not in looks.world.aliases()
    wrong = looks.client.post(
        "/agent/approve",
        json={"session_id": session, "action_id": shown["action_id"], "plan_hash": "a" * 64},
    )
    assert (wrong.status_code, wrong.json()["code"]) == (409, "plan_mismatch")
    assert looks.session(session)["status"] == "waiting"
    assert looks.post("reject", session, shown, reason="not now").json() == {"ok": True}
    until(lambda: looks.session(session)["status"] == "ended")
    assert "rejected by anonymous: not now" in looks.model.said()
    late = looks.post("approve", session, shown)
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert "blocklist" not in looks.world.aliases()


def _events(world: LoopWorld, session: str, objective: str = "bring it back") -> list[dict[str, Any]]:
    return plain(world.ask(session, objective))


def test_an_approved_effect_happens_once(tmp_path: Any) -> None:
    with loop_world(tmp_path) as world:
        session = world.open()
        world.model.answers[:] = [APPLY, DONE]
        shown = of_type(_events(world, session), "action")[0]
        assert world.post("approve", session, shown).json() == {"ok": True}
        until(lambda: world.session(session)["status"] == "ended")
        assert "blocklist" in world.world.aliases()
        assert "applied it" in world.model.said()
        again = world.post("approve", session, shown)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        assert [one["entry"] for one in world.journal(session)].count("began") == 1


def test_drift_between_approval_and_write_stops_it(tmp_path: Any) -> None:
    with loop_world(tmp_path) as world:
        session = world.open()
        world.model.answers[:] = [APPLY, DONE]
        shown = of_type(_events(world, session), "action")[0]
        world.world.firewall.call(
            "POST",
            "/api/firewall/alias/addItem",
            {"alias": {"name": "blocklist", "type": "host", "content": "198.51.100.1"}},
        )
        assert world.post("approve", session, shown).json() == {"ok": True}
        until(lambda: world.session(session)["status"] == "ended")
        assert "nothing was written: something moved" in world.model.said()
        rows = world.world.firewall.call("POST", "/api/firewall/alias/searchItem", {})["rows"]
        assert [row["content"] for row in rows if row["name"] == "blocklist"] == ["198.51.100.1"]


def test_a_rejection_binds(looks: LoopWorld) -> None:
    session = looks.open()
    looks.model.answers[:] = [APPLY]
    shown = of_type(_events(looks, session), "action")[0]
    looks.post("reject", session, shown)
    until(lambda: looks.session(session)["status"] == "ended")
    entries = looks.journal(session)
    verdicts = [one["verdict"] for one in entries if one["entry"] == "decided"]
    assert verdicts[:2] == ["ask", "refuse"]
    assert verdicts.count("ask") == 1
    assert entries[-1]["reason"] == "stuck"


def test_no_progress_ends(looks: LoopWorld) -> None:
    events = looks.run(PLAN)
    assert events[-1]["result"]["stop_reason"] == "stuck"
    assert len(of_type(events, "observe")) == 2
    assert "It showed the same as before." in looks.model.said()


def test_budgets_end(looks: LoopWorld) -> None:
    counter = iter(range(100))
    events = looks.run(lambda _: {**LIST, "args": {"limit": next(counter) + 1}}, budget={"iterations": 3})
    assert events[-1]["result"]["note"] == "it has used its 3 iterations"
    assert len(of_type(events, "action")) == 3


def test_a_question_waits_for_its_answer(looks: LoopWorld) -> None:
    session = looks.open()
    looks.model.answers[:] = [{"action": "ask", "question": "Which one?", "options": ["a", "b"]}, DONE]
    events = _events(looks, session)
    asked = of_type(events, "ask")[0]
    assert (asked["question"], asked["options"]) == ("Which one?", ["a", "b"])
    assert events[-1]["result"]["stop_reason"] == "answer"
    body = {"session_id": session, "action_id": asked["action_id"], "text": "b"}
    assert looks.client.post("/agent/answer", json=body).json() == {"ok": True}
    until(lambda: looks.session(session)["status"] == "ended")
    assert "The person answers: b" in looks.model.said()


def test_a_viewer_approves_nothing(tmp_path: Any) -> None:
    with loop_world(tmp_path) as world:
        session = world.open()
        world.model.answers[:] = [APPLY, DONE]
        shown = of_type(_events(world, session), "action")[0]
        bearer = token(world.daemon.folder, "eve", "viewer")
        body = {"session_id": session, "action_id": shown["action_id"], "plan_hash": shown["plan_hash"]}
        with world.daemon.client(bearer) as viewer:
            until(lambda: viewer.get("/agent/sessions").status_code == 200)  # the token is known
            refused = viewer.post("/agent/approve", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "blocklist" not in world.world.aliases()


def test_a_note_of_a_model_says_what_it_rests_on(looks: LoopWorld) -> None:
    first = looks.client.post("/kb", json={"title": "omega one", "snippet": "omega is a router"}).json()["id"]
    search = {"action": "use_tool", "name": "kb.search", "args": {"query": "omega router"}}
    keep = {"action": "commit_kb", "title": "omega", "snippet": "it is old, see kb-999999", "tags": []}
    session = looks.open()
    looks.model.answers[:] = [search, keep, DONE]
    events = _events(looks, session)
    kept = of_type(events, "observe")[-1]["note"].split()[3].rstrip(",")
    found = looks.client.get(f"/kb/{kept}").json()
    note = found["note"]
    assert (note["origin"], note["status"], note["session_id"]) == ("model", "unverified", session)
    assert [one["id"] for one in found["linked"]] == [first]


def test_an_objective_keeps_few_notes(looks: LoopWorld) -> None:
    counter = iter(range(100))

    def keep(_: Any) -> dict[str, Any]:
        return {"action": "commit_kb", "title": f"t{next(counter)}", "snippet": "x", "tags": []}

    events = looks.run(keep, budget={"iterations": 12})
    assert of_type(events, "observe")[9]["note"].startswith("kept as note")
    assert "an objective keeps 10 notes at most" in looks.model.said()
