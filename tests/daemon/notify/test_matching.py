"""Which events are worth a notice, as a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fazai.daemon.notify.matching import (
    Draft,
    judge_run,
    may_matter,
    read_effect,
    read_rest,
    read_run_end,
    read_silence,
)
from fazai.daemon.runs.config import Job
from fazai.store.daemon import RunRecord, StoredEvent, Trigger

JOBS = {
    "edge": Job(name="edge", inventory=("i.yml",)),
    "look": Job(name="look", inventory=("i.yml",), modes=("check",)),
}
PENDING = {"type": "outcome", "target": "fw-01", "status": "pending", "pending": 2}
CONVERGED = {"type": "outcome", "target": "fw-02", "status": "converged", "pending": 0}
FAILED = {"type": "outcome", "target": "fw-03", "status": "unreachable", "errors": ["no\nroute", "x"]}


def stored(type_: str, level: str | None = None, target: str | None = None, **data: Any) -> StoredEvent:
    return StoredEvent(1, 0, type_, json.dumps(data).encode(), target, "r", None, None, level)


def record(job: str, trigger: Trigger, plan: str | None = None, **more: Any) -> RunRecord:
    return RunRecord(
        run_id="r", job=job, mode="check", trigger=trigger, by="x", asked=0.0, plan_hash=plan, **more
    )


def judge(
    code: int, found: RunRecord | None, *outcomes: dict[str, Any], command: str = "plan"
) -> list[Draft]:
    end = read_run_end(stored("run", state="finished", command=command, exit_code=code))
    return judge_run("r", end, found, JOBS, outcomes) if end is not None else []


@pytest.mark.parametrize(
    ("code", "found", "keys"),
    [
        (0, record("edge", "schedule"), []),
        (130, record("edge", "schedule"), []),
        (2, record("edge", "api"), []),  # who asked sees it; a plan that could not be kept waits for nobody
        (2, record("edge", "schedule"), ["drift:fw-01"]),
        (2, record("edge", "webhook", "h"), ["approval_waits:edge:h", "drift:fw-01"]),
        (2, record("edge", "api", "h"), ["approval_waits:edge:h"]),
        (2, record("edge", "api", "h", approved=1.0), []),
        (2, record("edge", "session", "h"), []),
        (2, record("edge", "rule", "h"), ["approval_waits:edge:h"]),
        (2, record("look", "api", "h"), []),
        (2, record("gone", "api", "h"), []),
        (1, record("edge", "api"), ["failed_run:check of edge:1"]),
        (4, record("edge", "schedule", "h"), ["failed_run:check of edge:4"]),
        (137, record("edge", "schedule"), ["failed_run:check of edge:137"]),
    ],
)
def test_the_end_of_a_run_of_the_daemon(code: int, found: RunRecord, keys: list[str]) -> None:
    assert [draft.key for draft in judge(code, found, PENDING, CONVERGED)] == keys


@pytest.mark.parametrize(
    ("command", "code", "keys"),
    [
        ("plan", 2, []),  # of a person, or of cron: its exit code is theirs
        ("drift", 2, ["drift:fw-01"]),
        ("apply", 1, ["failed_run:apply:1"]),
        ("exec", 1, []),
        ("cp", 4, []),
    ],
)
def test_the_end_of_a_run_that_was_reported(command: str, code: int, keys: list[str]) -> None:
    assert [draft.key for draft in judge(code, None, PENDING, command=command)] == keys


def test_lines_name_the_targets_and_cannot_be_several() -> None:
    (draft,) = judge(4, record("edge", "schedule"), FAILED, PENDING)
    assert draft.line == "check of edge failed with exit code 4: fw-03: unreachable, no route"
    many = [{**PENDING, "target": f"fw-{n:02}"} for n in range(9)]
    (draft,) = judge(2, record("edge", "api", "h" * 64), *many)
    assert draft.line.endswith("fw-04: 2 changes; … and 4 more")
    assert "waits for approval (hhhhhhhhhhhh): fw-00: 2 changes; " in draft.line


EFFECT = {
    "action": "use_tool",
    "action_id": "a-1",
    "plan_hash": "h",
    "changes": [{"target": "fw-01", "kind": "opnsense.alias", "identity": "x\ny", "verb": "create"}],
}


def rest(**result: Any) -> StoredEvent:
    return stored("done", result=result)._replace(session="s-1")


def test_sessions_of_the_action_loop() -> None:
    event = StoredEvent(1, 0, "action", json.dumps(EFFECT, separators=(",", ":")).encode(), *[None] * 5)
    assert may_matter(event)
    shown = read_effect(event)
    assert shown == ("a-1", "create of opnsense.alias x y on fw-01")
    waits = read_rest(rest(stop_reason="approval", action_id="a-1", plan_hash="h"), dict([shown]))
    assert waits is not None
    assert (waits.key, waits.session_id, waits.action_id) == ("approval_waits:s-1:a-1", "s-1", "a-1")
    assert waits.line == "session s-1 waits for an approval: create of opnsense.alias x y on fw-01"
    unknown = read_rest(rest(stop_reason="approval", action_id="a-2"), {})
    assert unknown is not None
    assert unknown.line == "session s-1 waits for an approval: action a-2"
    stuck = read_rest(rest(stop_reason="stuck", note="the same twice"), {})
    assert stuck is not None
    assert (stuck.key, stuck.line) == ("loop_stuck:s-1", "session s-1 is stuck: the same twice")
    plain = stored("done", result="text")
    for other in (rest(stop_reason="done"), rest(stop_reason="answer"), plain, rest()):
        assert read_rest(other, {}) is None
    assert not may_matter(stored("action", action="plan", steps=[]))
    assert not may_matter(stored("done", result={"stop_reason": "stuck"}))
    assert read_effect(stored("done", result={})) is None


@pytest.mark.parametrize(
    ("event", "matters", "key"),
    [
        (stored("agent", "warning", "web-01", state="closing", reason="x"), True, "silent_host:web-01"),
        (stored("agent", "error", "fw-01", state="closing"), True, "silent_host:fw-01"),
        (stored("agent", "info", "web-01", state="closing", reason="removed"), False, "silent_host:web-01"),
        (stored("agent", "warning", "web-01", state="observation"), True, None),
        (stored("agent", "warning", None, state="closing"), False, None),  # the worker
        (stored("agent", "warning", "unknown", state="closing"), False, "silent_host:unknown"),
        (stored("telemetry", None, "web-01"), False, None),
        (stored("log", "error", "web-01", message="x"), False, None),
    ],
)
def test_machines_that_go_silent(event: StoredEvent, matters: bool, key: str | None) -> None:
    assert may_matter(event) is matters
    found = read_silence(event)
    assert (found.key if found is not None else None) == key
