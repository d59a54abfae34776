"""The person of a trial: gives the objective, approves what the task allows and nothing else, answers."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from bench.evaluation.tasks import Task
from bench.evaluation.world import EvalWorld, State, until

_NO_ANSWER = "Nobody can say more. Go on with what you know, or end."
_NOT_ALLOWED = "that is not what was asked for"
_MOST_WORDS = 12  # of a person in one trial; then he ends it


class Trial(Struct, kw_only=True):
    """What one trial came to. `approved`: the changes of each effect that was approved, by action id."""

    task: str
    before: State
    after: State
    journal: list[dict[str, Any]]
    approved: dict[str, list[dict[str, Any]]]
    writes: int
    applied: int
    tools_made: int
    questions: list[str]
    status: str
    why: str
    result: str
    iterations: int
    tokens: int


class _Seen(Struct, kw_only=True):
    """What the person saw and said so far; `before`: the state before any effect, others' changes in it."""

    before: State
    approved: dict[str, list[dict[str, Any]]] = {}
    questions: list[str] = []


def run_trial(world: EvalWorld, task: Task, params: dict[str, Any]) -> Trial:
    """Let the model try the task."""
    before, writes = world.state(), world.writes()
    session = world.post("/agent/sessions", {"params": params} if params else {})["session_id"]
    budget = {"iterations": task.iterations, "tokens": 6000, "seconds": 3600}
    body = {"session_id": session, "objective": task.objective, "budget": budget, "detach": True}
    world.post_stream("/agent/generate", body)
    seen = _Seen(before=before)
    row = _resting(world, session)
    for _ in range(_MOST_WORDS):
        if row["status"] != "waiting":
            break
        _say(world, task, session, row["waiting"], seen)
        row = _resting(world, session)
    if row["status"] != "ended":
        world.post("/agent/abort", {"session_id": session})
    services = world.daemon.services
    assert services is not None
    usage = row.get("usage") or {}
    return Trial(
        task=task.id,
        before=seen.before,
        after=world.state(),
        journal=_journal(world, session),
        approved=seen.approved,
        writes=world.writes() - writes,
        applied=sum(run["command"] == "apply" for run in world.get("/runs")["runs"]),
        tools_made=_tools_made(world),
        questions=seen.questions,
        status=row["status"],
        why=row.get("why") or "",
        result=str(row.get("result") or ""),
        iterations=usage.get("iterations", 0),
        tokens=usage.get("tokens", 0),
    )


def change_line(change: dict[str, Any]) -> str:
    """Return a change as tasks name it."""
    return f"{change['verb']} {change['kind']} {change['identity']} on {change['target']}"


def _say(
    world: EvalWorld,
    task: Task,
    session: str,
    waiting: dict[str, Any],
    seen: _Seen,
) -> None:
    said = {"session_id": session, "action_id": waiting["action_id"]}
    if waiting["kind"] == "answer":
        number = len(seen.questions)
        known = task.answers[number] if number < len(task.answers) else _NO_ANSWER
        seen.questions.append(" ".join([waiting["question"], *waiting.get("options", ())]))
        world.post("/agent/answer", {**said, "text": known})
        return
    changes = waiting["changes"]
    said["plan_hash"] = waiting["plan_hash"]
    if all(change_line(one) in task.approve for one in changes):
        seen.approved[waiting["action_id"]] = changes
        seen.before = world.move() or seen.before
        world.post("/agent/approve", said)
    else:
        world.post("/agent/reject", {**said, "reason": _NOT_ALLOWED})


def _resting(world: EvalWorld, session: str) -> dict[str, Any]:
    """Return the session's row once nothing goes on in it."""
    rows: list[dict[str, Any]] = []

    def rests() -> bool:
        rows[:] = [world.get(f"/agent/sessions/{session}")["session"]]
        return bool(rows[0]["status"] != "running")

    until(rests)
    return rows[0]


def _journal(world: EvalWorld, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = world.get(f"/agent/sessions/{session}/journal", since=len(found))
        found += page["entries"]
        if page.get("next") is None:
            return found


def _tools_made(world: EvalWorld) -> int:
    services = world.daemon.services
    assert services is not None
    return len(world.on_loop(services.store.sessions.tool_specs()))
