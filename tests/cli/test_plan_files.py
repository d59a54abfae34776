"""What is said of a plan's file that cannot be used: what, where, and the next step (docs/approvals.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import InputError, PlanStale
from fazai.model import Change, Diff, Verb
from fazai.plan import FORMAT, SavedPlan, check_later, read_plan

PLAN = SavedPlan(
    arguments={},
    inventory="i",
    files="f",
    created="2026-11-29T00:00:00Z",
    version="0",
    targets={},
    changes=(),
)
CHANGE = Change(
    target="fw-01",
    kind="opnsense.alias",
    identity="web",
    verb=Verb.CREATE,
    before={},
    after={"name": "web"},
    ref="r",
)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("no JSON", "this is not a plan of fazai", "make one with: fazai plan -o p.json …"),
        ("[]", "this is not a plan of fazai", "make one with: fazai plan -o p.json …"),
        ('{"format": "report/1"}', "this is not a plan of fazai", "make one with: fazai plan -o p.json …"),
        (
            '{"format": "fazai-plan/0"}',
            f"this plan has the format fazai-plan/0 of another release, and {FORMAT} is read",
            "plan again",
        ),
    ],
)
def test_a_file_that_is_no_plan_of_ours(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_plan(path)
    assert (refused.value.message, refused.value.where, refused.value.hint) == (message, str(path), hint)


def test_a_plan_that_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    body = {
        "format": FORMAT,
        "arguments": {},
        "inventory": "another",
        "files": "f",
        "created": PLAN.created,
        "version": "0",
        "targets": {},
        "changes": [],
        "digest": PLAN.digest,
    }
    path.write_text(json.dumps(body))
    with pytest.raises(InputError) as refused:
        read_plan(path)
    assert refused.value.message == "the plan was edited: its digest does not fit"
    assert (refused.value.where, refused.value.hint) == (str(path), "plan again")
    path.write_text(json.dumps({**body, "inventory": "i"}))
    assert read_plan(path).digest == PLAN.digest


@pytest.mark.parametrize("approved", ["", PLAN.digest[:12], PLAN.digest.upper(), PLAN.digest + " "])
def test_another_hash_is_another_plan(approved: str) -> None:
    PLAN.check_hash(PLAN.digest, Path("p.json"))
    with pytest.raises(PlanStale) as refused:
        PLAN.check_hash(approved, Path("p.json"))
    assert refused.value.message == f"the plan is not the approved one: its hash is {PLAN.digest}"
    assert (refused.value.where, refused.value.hint) == ("p.json", f"approved was {approved}")


def test_a_later_look_compares_changes_and_not_what_is_noted_beside_them() -> None:
    promised = Diff((replace(CHANGE, note="after category"),))
    check_later("fw-01", promised, [replace(CHANGE, note="looked again")])
    with pytest.raises(PlanStale) as refused:
        check_later("fw-01", Diff((CHANGE,)), [replace(CHANGE, after={"name": "web", "type": "url"})])
    assert refused.value.message == (
        "the plan is stale for fw-01: opnsense.alias web is not the planned change"
    )
    assert (refused.value.where, refused.value.hint) == ("fw-01", "plan again")
