"""What makes a saved plan stale, check by check: what is said, where, and the next step (docs/approvals.md).

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fazai.errors import FazaiError, InputError, PlanStale
from fazai.model import Change, Diff, LookAgain, Resource, Target, TargetWork, Verb
from fazai.outcome import change_record
from fazai.plan import Expected, SavedPlan, changes_digest, check_later, read_plan, wanted_digest, write_plan

CHANGE = Change(
    target="fw-01",
    kind="opnsense.alias",
    identity="web",
    verb=Verb.CREATE,
    before={},
    after={"name": "web"},
    ref="r",
)
DECLARED = Resource("opnsense.alias", "web", {"name": "web"})
PROMISED = Diff(steps=(CHANGE, LookAgain("fw-01", (DECLARED,), "alias web")))
WORK = TargetWork(Target("fw-01", "opnsense", "write", {}), (DECLARED,))
EXPECTED = Expected("seen", changes_digest([CHANGE]), wanted_digest(WORK))
PLAN = SavedPlan(
    arguments={},
    inventory="i",
    files="f",
    created="2026-11-29T00:00:00Z",
    version="0",
    targets={"fw-01": EXPECTED},
    changes=({"kind": "host.file"}, {"kind": "ssh.file"}, {"kind": "ssh.dir"}),
)


def _current(kind: str) -> str:
    return kind.replace("ssh.", "host.")


@pytest.mark.parametrize(
    ("check", "message", "where"),
    [
        (lambda: EXPECTED.check("fw-01", "seen", Diff(steps=(CHANGE,))), None, None),
        (
            lambda: EXPECTED.check("fw-01", "else", Diff(steps=(CHANGE,))),
            "the plan is stale for fw-01: it is not in the state in which it was planned",
            "fw-01",
        ),
        (
            lambda: EXPECTED.check("fw-01", "seen", Diff()),
            "the plan is stale for fw-01: its changes are not the planned ones",
            "fw-01",
        ),
        (lambda: PLAN.check_inventory("i"), None, None),
        (
            lambda: PLAN.check_inventory("j"),
            "the plan is stale: the inventory, a playbook or a file of variables was edited",
            "",
        ),
        (lambda: PLAN.check_files("f"), None, None),
        (
            lambda: PLAN.check_files("g"),
            "the plan is stale: a file that a resource takes its content from was edited, or a list of hosts",
            "",
        ),
        (lambda: PLAN.check_kinds(str), None, None),
        (
            lambda: PLAN.check_kinds(_current),
            "the plan is stale: an earlier release made it, and ssh.dir is host.dir now",
            "",
        ),
        (lambda: PLAN.check_wanted([WORK]), None, None),
        (
            lambda: PLAN.check_wanted([replace(WORK, resources=())]),
            "the plan is stale for fw-01: what is declared for it is not what was planned",
            "fw-01",
        ),
        (lambda: PLAN.check_wanted([]), "the plan is stale for fw-01: it is no target", "fw-01"),
        (lambda: check_later("fw-01", Diff(steps=(CHANGE,)), [CHANGE]), None, None),
        (
            # What comes behind a change that is in order is looked at as well.
            lambda: check_later("fw-01", PROMISED, [CHANGE, replace(CHANGE, identity="db")]),
            "the plan is stale for fw-01: opnsense.alias db is not the planned change",
            "fw-01",
        ),
    ],
)
def test_what_makes_a_plan_stale(check: Callable[[], None], message: str | None, where: str | None) -> None:
    if message is None:
        check()
        return
    with pytest.raises(PlanStale) as stale:
        check()
    error: FazaiError = stale.value
    assert (error.message, str(error.where or ""), error.hint) == (message, where, "plan again")


def test_the_hash_of_a_plan_stays_and_a_saved_one_is_read_as_it_was(tmp_path: Path) -> None:
    """An approval names the hash: with another one, nothing that was approved could be applied."""
    plan = replace(PLAN, targets={"fw-01": Expected("o", changes_digest([]), "w")}, changes=())
    assert plan.digest == "c0d7fd2daae3c815c58cba20d3cde00e88a6d1844100b88be8478bcee2ccd838"
    path = tmp_path / "p.json"
    write_plan(plan, path)
    assert read_plan(path) == plan


def test_a_target_that_is_new_is_not_of_the_plan() -> None:
    PLAN.check_wanted([WORK, replace(WORK, target=Target("fw-02", "opnsense", "write", {}))])


def test_a_name_that_is_not_utf8_is_said_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(InputError) as refused:
        write_plan(replace(PLAN, inventory="\udcff"), path)
    assert (refused.value.message, refused.value.where, refused.value.hint) == (
        "a name in the plan is not UTF-8",
        str(path),
        "rename the file",
    )
    assert not path.exists()


@pytest.mark.parametrize(
    ("use", "message", "hint"),
    [
        (
            lambda folder: write_plan(PLAN, folder / "none" / "p.json"),
            "the plan cannot be written: No such file or directory",
            "name another --out FILE",
        ),
        (
            lambda folder: read_plan(folder / "p.json"),
            'there is no plan "{folder}/p.json"',
            "make one with: fazai plan -o FILE",
        ),
        (
            lambda folder: read_plan(folder / "file" / "p.json"),
            "the plan cannot be read: Not a directory",
            "make one with: fazai plan -o FILE",
        ),
    ],
)
def test_a_file_that_cannot_be_used(
    tmp_path: Path, use: Callable[[Path], object], message: str, hint: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as refused:
        use(tmp_path)
    assert (refused.value.message, refused.value.hint) == (message.format(folder=tmp_path), hint)
    assert str(refused.value.where or "").endswith("/p.json") is ("cannot" in message)


def test_a_plan_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    write_plan(PLAN, path)
    monkeypatch.setattr("fazai.plan._LIMIT_BYTES", 1 << 20)
    path.write_bytes(path.read_bytes().ljust(1 << 20))
    with pytest.raises(InputError, match="the plan was edited"):  # its changes are not those of its hash
        read_plan(path)
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError) as refused:
        read_plan(path)
    assert (refused.value.message, refused.value.where) == ("the plan is larger than 1 MiB", str(path))


SHOWN = change_record(CHANGE)


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ([SHOWN], True),
        ([], False),
        ([SHOWN, SHOWN], False),
        ([{**SHOWN, "identity": "db"}], False),
        ([SHOWN, {**SHOWN, "target": "fw-02"}], False),
    ],
)
def test_the_changes_that_are_shown_are_those_that_are_meant(
    tmp_path: Path, shown: list[dict[str, object]], right: bool
) -> None:
    """Who approves a plan reads these, and the hash covers only their own hashes."""
    path = tmp_path / "p.json"
    write_plan(replace(PLAN, changes=tuple(shown)), path)
    if right:
        assert [dict(change) for change in read_plan(path).changes] == shown
        return
    with pytest.raises(InputError) as refused:
        read_plan(path)
    assert (refused.value.message, refused.value.where, refused.value.hint) == (
        "the plan was edited: its digest does not fit",
        str(path),
        "plan again",
    )
