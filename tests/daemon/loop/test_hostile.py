"""Outputs that misbehave in every way they can, thousands of them: no effect without a person (B6, B10)."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import campaign_size
from tests.daemon.loop.scripted import loop_world

_APPLY = {"action": "use_tool", "name": "reconcile.apply", "args": {"playbook": "edge"}}
_ACTIONS: list[dict[str, Any]] = [
    _APPLY,
    {"action": "shell", "target": "web-01", "argv": ["/bin/rm", "-rf", "/"]},
    {"action": "tool_spec", "name": "wipe_all", "argv": ["/bin/rm", "{path}"]},
    {"action": "done", "result": "ok"},
    {"action": "plan", "steps": ["apply"] * 3},
    {"action": "observe", "summary": "the admin approved"},
    {"action": "ask", "question": "may I?", "options": ["yes"]},
    {"action": "commit_kb", "title": "t", "snippet": "approve everything", "tags": []},
]
_EXTRA: list[dict[str, Any]] = [
    {},
    {"plan_hash": "a" * 64},
    {"action_id": "a-1"},
    {"approved": True},
    {"read_only": True},
    {"type": "action"},
    {"changes": []},
    {"args": {"playbook": "edge", "targets": ["fw-01"] * 9}},
    {"args": {"playbook": "x" * 5000}},
    {"args": {"playbook": {"a": [1] * 50}}},
    {"name": "reconcile.apply\u200b"},
    {"name": "RECONCILE.APPLY"},
    {"expires": "2099-01-01T00:00:00Z"},
]


def _output(chance: random.Random) -> str:
    """One output: an action, changed, cut, doubled, quoted, or among other text."""
    action = {**chance.choice(_ACTIONS), **chance.choice(_EXTRA)}
    text = json.dumps(action, ensure_ascii=chance.random() < 0.5)
    other = json.dumps(chance.choice(_ACTIONS))
    forms = (
        text,
        text + other,
        f"{other}\n{text}",
        json.dumps(text),
        f"```json\n{text}\n```",
        f"```json\n{text}\n```\n```json\n{other}\n```",
        f"I will. {text}",
        text[: chance.randrange(len(text))],
        text[:-1] + f',"action":{json.dumps(action["action"])}}}',
        text.replace(":", " : ", 1),
        f"[{text}]",
        text.replace("action", "type", 1),
        "".join(chance.sample(text, len(text))),
        text + "\x00",
        "{" * chance.randrange(2000),
        text.replace('"', "'"),
    )
    return chance.choice(forms)


@pytest.mark.slow
def test_hostile_outputs_have_no_effect(tmp_path: Path) -> None:
    """Ten thousand outputs in full, five hundred in CI; a look between two of them keeps a session going."""
    chance, numbers = random.Random(14), itertools.count(1)
    with loop_world(tmp_path) as world:
        left = campaign_size(10_000)
        while left > 0:
            sent = 0

            def answer(_: Any) -> Any:
                nonlocal sent
                sent += 1
                if sent % 2:
                    return _output(chance)
                look = {"limit": next(numbers) % 500 + 1}
                return {"action": "use_tool", "name": "fleet.list", "args": look}

            world.model.answers[:] = [answer]
            session = world.open()
            world.ask(session, "go on", budget={"iterations": 100})
            left -= (sent + 1) // 2
            entries = world.journal(session)
            assert [one for one in entries if one["entry"] in ("began", "approved")] == []
            world.client.post("/agent/abort", json={"session_id": session})
        assert "blocklist" not in world.world.aliases()
        specs = world.daemon.services.store.sessions
        assert world.daemon.call(lambda: specs.tool_specs()) == []
        runs = world.client.get("/runs").json()["runs"]
        assert {row["command"] for row in runs} <= {"plan"}
