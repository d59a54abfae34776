"""The agent's journal: intents, outcomes, acknowledgements, what is left after a crash, its bounds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.journal import Journal
from fazai.errors import LockHeld, StateError

DAY = 24 * 3600
LIMIT = 256 * 1024


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Journal]]:
    """Opens the journal, after closing it where it is open."""
    opened: list[Journal] = []

    def open_again(limit: int = LIMIT, **options: Any) -> Journal:
        while opened:
            opened.pop().close()
        opened.append(Journal(tmp_path / "journal", limit, clock, **options))
        return opened[0]

    yield open_again
    while opened:
        opened.pop().close()


def _run(journal: Journal, action_id: str, answer: dict[str, Any] | None = None) -> None:
    assert journal.begin(action_id, "d" * 64, "command.exec") is None
    journal.finish(action_id, answer or {"ok": True, "action_id": action_id, "exit_code": 0})


def _unread(journal: Journal) -> list[str]:
    return [action_id for action_id, _method, _answer in journal.unacknowledged()]


def _total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "lock")


def test_an_action_is_answered_once_and_then_from_the_journal(reopen: Callable[..., Journal]) -> None:
    journal = reopen()
    answer = {"ok": True, "action_id": "a-1", "stdout": "zwölf \x00\t\n\udc80", "exit_code": 3}
    assert journal.begin("a-1", "1" * 64, "command.exec") is None
    assert journal.finish("a-1", answer)
    assert journal.begin("a-1", "1" * 64, "command.exec") == answer
    assert reopen().begin("a-1", "1" * 64, "command.exec") == answer


def test_the_same_id_for_something_else_is_refused(reopen: Callable[..., Journal]) -> None:
    _run(reopen(), "a-1")
    for journal in (reopen(), reopen()):
        with pytest.raises(Refused, match="action a-1 was something else") as refused:
            journal.begin("a-1", "2" * 64, "command.exec")
        assert refused.value.code == "conflict"


def test_an_action_that_runs_is_not_begun_again(reopen: Callable[..., Journal]) -> None:
    journal = reopen()
    assert journal.begin("a-1", "1" * 64, "command.exec") is None
    with pytest.raises(Refused, match="action a-1 still runs"):
        journal.begin("a-1", "1" * 64, "command.exec")
    with pytest.raises(ValueError, match="a-2 was not begun"):
        journal.finish("a-2", {"ok": True})


def test_what_has_no_outcome_is_interrupted_for_ever(reopen: Callable[..., Journal]) -> None:
    assert reopen().begin("a-1", "1" * 64, "state.apply") is None
    for journal in (reopen(), reopen()):
        answer = journal.begin("a-1", "1" * 64, "state.apply")
        assert answer is not None
        assert (answer["ok"], answer["code"], answer["action_id"]) == (False, "interrupted", "a-1")
        assert "what became of it is not known" in answer["error"]
        assert list(journal.unacknowledged()) == [("a-1", "state.apply", answer)]


def test_outcomes_wait_for_their_acknowledgement_oldest_first(reopen: Callable[..., Journal]) -> None:
    journal = reopen()
    for number in range(50):
        _run(journal, f"a-{number}")
    assert _unread(reopen()) == [f"a-{number}" for number in range(50)]
    journal = reopen()
    journal.acknowledge([f"a-{number}" for number in range(0, 50, 2)] + ["unknown"])
    assert _unread(journal) == [f"a-{number}" for number in range(1, 50, 2)]
    assert _unread(reopen()) == [f"a-{number}" for number in range(1, 50, 2)]


def test_acknowledgements_go_with_the_next_intent(reopen: Callable[..., Journal], tmp_path: Path) -> None:
    """Each record is waited for on the disk: an action has two, whenever the daemon acknowledges."""
    records: list[str] = []
    journal = reopen(fault=records.append)
    for number in range(3):
        _run(journal, f"a-{number}")
        journal.acknowledge([f"a-{number}"])
    synced = [name for name in records if name.endswith(".synced")]
    assert synced == ["intent.synced", "outcome.synced"] * 3
    lines = (tmp_path / "journal" / "journal-00000001").read_bytes().splitlines()
    assert b'"what":"intent"' in lines[4]
    assert b'"acks":["a-1"]' in lines[4]
    assert _unread(reopen()) == []


def test_acknowledgements_while_outcomes_are_read(reopen: Callable[..., Journal]) -> None:
    journal = reopen()
    for number in range(5):
        _run(journal, f"a-{number}")
    seen = []
    for action_id, _method, _answer in journal.unacknowledged():
        seen.append(action_id)
        journal.acknowledge(["a-2", action_id])
        _run(journal, f"b-{action_id}")
    assert seen == ["a-0", "a-1", "a-3", "a-4"]


def test_a_torn_end_is_cut_at_any_byte(reopen: Callable[..., Journal], tmp_path: Path) -> None:
    journal = reopen()
    _run(journal, "a-1")
    file = tmp_path / "journal" / "journal-00000001"
    whole = file.stat().st_size
    assert journal.begin("a-2", "1" * 64, "command.exec") is None
    journal.close()
    longer = file.read_bytes()
    for length in range(whole, len(longer)):
        file.write_bytes(longer[:length])
        with_rest = Journal(tmp_path / "journal", LIMIT, lambda: 1.0)
        assert len(with_rest) == 1
        assert _unread(with_rest) == ["a-1"]
        with_rest.close()
    file.write_bytes(longer[:whole] + b"\x00" * 100 + b"\n")  # a page that was not written
    assert len(reopen()) == 1


def test_damage_in_the_middle_is_an_error_with_its_place(
    reopen: Callable[..., Journal], tmp_path: Path
) -> None:
    journal = reopen()
    _run(journal, "a-1")
    _run(journal, "a-2")
    journal.close()
    file = tmp_path / "journal" / "journal-00000001"
    data = bytearray(file.read_bytes())
    data[data.index(b"command")] ^= 1
    file.write_bytes(data)
    with pytest.raises(StateError, match=r"journal-00000001:1: a record is damaged: its checksum"):
        Journal(tmp_path / "journal", LIMIT, lambda: 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_one_byte_that_changed_is_never_taken_for_another_outcome(tmp_path: Path, seed: int) -> None:
    """An error with the place; of the last line, which may be torn, nothing is left."""
    folder = tmp_path / "journal"
    journal = Journal(folder, LIMIT, lambda: 1.0)
    for number in range(3):
        _run(journal, f"a-{number}", {"ok": True, "stdout": f'"what"\n{number}' * 9})
    journal.acknowledge(["a-0"])
    journal.close()
    file = folder / "journal-00000001"
    data, draw = file.read_bytes(), random.Random(seed)
    last = data.rindex(b"\n", 0, -1) + 1
    places = [draw.randrange(last), last - 1, data.index(b"\n"), draw.randrange(last, len(data))]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= draw.randint(1, 255)
        file.write_bytes(damaged)
        if place >= last:
            again = Journal(folder, LIMIT, lambda: 1.0)
            assert _unread(again) == ["a-0", "a-1", "a-2"]
            again.close()
        else:
            line = data.count(b"\n", 0, place) + 1
            with pytest.raises(StateError, match=rf"journal-00000001:{line}: a record is damaged"):
                Journal(folder, LIMIT, lambda: 1.0)


def test_a_second_process_is_refused(reopen: Callable[..., Journal], tmp_path: Path) -> None:
    reopen()
    program = (
        "import sys\nfrom fazai.agent.journal import Journal\nfrom fazai.errors import LockHeld\n"
        "try:\n    Journal(sys.argv[1], 1 << 20, lambda: 1.0)\nexcept LockHeld as error:\n    print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "journal")], capture_output=True, text=True, check=True
    )
    assert f"process {os.getpid()} uses this folder (one agent runs on a machine" in said.stdout


def test_the_lock_goes_with_the_process_that_was_killed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Journal(tmp_path / "journal", LIMIT, lambda: 1.0)
        os.kill(os.getpid(), 9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    Journal(tmp_path / "journal", LIMIT, lambda: 1.0).close()


def test_a_folder_that_others_may_look_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(0o755)
    with pytest.raises(StateError, match=r"others may look into the folder \(chmod 700"):
        Journal(tmp_path / "open", LIMIT, lambda: 1.0)
    with pytest.raises(LockHeld, match="another process"):
        _lock_twice(tmp_path / "twice")


def _lock_twice(folder: Path) -> None:
    journal = Journal(folder, LIMIT, lambda: 1.0)
    try:
        (folder / "lock").write_text("")
        Journal(folder, LIMIT, lambda: 1.0)
    finally:
        journal.close()


def test_files_are_the_agents_alone(reopen: Callable[..., Journal], tmp_path: Path) -> None:
    _run(reopen(), "a-1")
    folder = tmp_path / "journal"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
