"""The benchmark's judge of answers is no rubber stamp."""

from __future__ import annotations

import json

import pytest

from bench.gemma_cases import CASES, Case, judge
from bench.llama_peers import Answer

pytest.importorskip("jsonschema_rs")
COPY = next(case for case in CASES if case.title == "three names, copied")
MANY = next(case for case in CASES if case.title == "one of 5,000 names")
HOSTS = ["a.example.net", "b.example.net", "c.example.net"]


def answer(value: object, reason: str = "eos") -> Answer:
    made = Answer()
    made.text, made.reason = value if isinstance(value, str) else json.dumps(value), reason
    return made


def action(**fields: object) -> dict[str, object]:
    return {"type": "action", "action": "use_tool", **fields}


def test_answers_are_judged() -> None:
    good = action(name="alias_add", args={"hosts": HOSTS})
    assert judge(answer(good), COPY) == "valid"
    assert judge(answer(good, "length"), COPY) == "length"
    assert judge(answer('{"type":'), COPY) == "no JSON"
    wrong = "does not fit its schema"
    assert judge(answer(action(name="alias_add", args={"hosts": HOSTS[:2]})), COPY) == wrong
    assert judge(answer(action(name="host_show", args={"host": "edge-faro-042"})), MANY) == "valid"
    assert judge(answer(action(name="host_show", args={"host": "edge-faro-100"})), MANY) == wrong


def test_the_daemons_reader_judges_too() -> None:
    case = Case("loose", {"type": "object", "properties": {"type": {}}})
    assert judge(answer(action(name="alias_add")), case) == "valid"
    assert judge(answer({"type": "action", "action": "unheard"}), case) == "refused by the daemon's reader"
