"""The journal's bounds: bytes on the disk, ids, memory; what goes first, and what never goes."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fazai.agent.errors import Refused
from fazai.agent.journal import Journal
from fazai.agent.journal.index import Index, key_of
from fazai.agent.journal.records import fit_answer, pack_record
from fazai.errors import StateError

DAY = 24 * 3600
LIMIT = 256 * 1024
#: Without the room for rewriting one segment.
BUDGET = LIMIT - LIMIT // 16


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


def _run(journal: Journal, action_id: str, text: str = "") -> None:
    assert journal.begin(action_id, "d" * 64, "command.exec") is None
    journal.finish(action_id, {"ok": True, "action_id": action_id, "exit_code": 3, "stdout": text})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "lock")


def _texts(journal: Journal, ids: list[str]) -> list[int]:
    """Return how much text is left of each outcome, which are all there."""
    found = []
    for action_id in ids:
        answer = journal.begin(action_id, "d" * 64, "command.exec")
        assert answer is not None
        assert (answer["ok"], answer["exit_code"]) == (True, 3)
        assert answer.get("truncated", False) == (len(answer["stdout"]) < 5000)
        found.append(len(answer["stdout"]))
    return found


def _run_until_full(journal: Journal, ids: list[str], acked_from: int = 10_000) -> None:
    """Carry out short actions until one is refused; add their ids."""
    while True:
        action_id = f"a-{len(ids)}"
        _run(journal, action_id, "x" * 200)
        ids.append(action_id)
        if len(ids) > acked_from:
            journal.acknowledge([action_id])


def test_texts_of_acknowledged_outcomes_go_first_and_no_outcome(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", LIMIT, Clock())
    ids = [f"a-{number}" for number in range(120)]
    for number, action_id in enumerate(ids):
        _run(journal, action_id, "x" * 5000)
        if 10 <= number < 30:
            journal.acknowledge([action_id])
        assert _size(tmp_path / "j") <= BUDGET
        if number == 45:
            left = _texts(journal, ids[:46])
            assert set(left[:10]) == set(left[30:]) == {5000}
            assert 256 in left[10:30]
    left = _texts(journal, ids)
    assert left == sorted(left)  # of the unread ones the oldest
    assert (left[0], left[-1]) == (256, 5000)
    assert [action_id for action_id, _, _ in journal.unacknowledged()] == ids[:10] + ids[30:]
    journal.close()
    again = Journal(tmp_path / "j", LIMIT, Clock())
    assert _texts(again, ids) == left
    assert [action_id for action_id, _, _ in again.unacknowledged()] == ids[:10] + ids[30:]
    again.close()


def test_an_id_is_never_forgotten_early(tmp_path: Path) -> None:
    clock = Clock()
    journal = Journal(tmp_path / "j", LIMIT, clock)
    ids: list[str] = []
    with pytest.raises(Refused, match=r"the journal is full: it keeps \d+ actions \(the daemon has") as full:
        _run_until_full(journal, ids, 100)
    assert full.value.code == "overloaded"
    assert len(ids) > 300
    assert _size(tmp_path / "j") <= LIMIT
    clock.time += DAY - 5
    with pytest.raises(Refused, match="the journal is full"):
        journal.begin("b-1", "d" * 64, "command.exec")
    assert len(journal) == len(ids)
    clock.time += 10
    assert journal.begin("b-1", "d" * 64, "command.exec") is None
    assert [action_id for action_id, _, _ in journal.unacknowledged()] == ids[:100]
    assert len(journal) < len(ids)
    for action_id in ids[:100]:
        assert journal.begin(action_id, "d" * 64, "command.exec") is not None
    journal.close()


def test_room_comes_back_at_once_when_outcomes_are_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", LIMIT, Clock())
    ids: list[str] = []
    with pytest.raises(Refused, match="the journal is full"):
        _run_until_full(journal, ids)
    journal.acknowledge(ids)  # the outcomes are kept for a day all the same
    with pytest.raises(Refused, match="the journal is full"):
        journal.begin("b-1", "d" * 64, "command.exec")
    assert len(journal) == len(ids)
    journal.close()


def test_the_number_of_ids_is_bounded(tmp_path: Path) -> None:
    clock = Clock()
    journal = Journal(tmp_path / "j", LIMIT, clock, limit_ids=50)
    for number in range(50):
        _run(journal, f"a-{number}")
    journal.acknowledge([f"a-{number}" for number in range(25)])
    with pytest.raises(Refused, match="the journal is full: it keeps 50 actions"):
        journal.begin("b-1", "d" * 64, "command.exec")
    clock.time += DAY + 1
    _run(journal, "b-1")
    assert len(journal) == 26
    journal.close()


def test_a_clock_that_is_set_forgets_nothing_for_ever(tmp_path: Path) -> None:
    """What was acknowledged in 2096 counts from now on, once the clock is right again."""
    clock = Clock()
    journal = Journal(tmp_path / "j", LIMIT, clock, limit_ids=1)
    clock.time += 70 * 365 * DAY
    _run(journal, "a-1")
    journal.acknowledge(["a-1"])
    journal.close()
    clock.time -= 70 * 365 * DAY
    again = Journal(tmp_path / "j", LIMIT, clock, limit_ids=1)
    with pytest.raises(Refused, match="the journal is full"):
        again.begin("b-1", "d" * 64, "command.exec")
    clock.time += DAY + 1
    _run(again, "b-1")
    again.close()


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
def test_a_model_of_the_journal(tmp_path: Path, seed: int) -> None:
    """Random actions, acknowledgements, restarts and days, held against what must be known."""
    draw = random.Random(seed)
    clock = Clock()
    journal = Journal(tmp_path / "j", LIMIT, clock, limit_ids=400)
    known: dict[str, float | None] = {}  # when it was acknowledged
    for step in range(600 if seed < 2 else 3000):
        what = draw.random()
        if what < 0.55:
            action_id = f"a-{step}"
            try:
                _run(journal, action_id, "x" * int(draw.paretovariate(0.5) * 20 % 9000))
                known[action_id] = None
            except Refused as error:
                if error.code != "overloaded":
                    raise
        elif what < 0.9:
            unread = [action_id for action_id, acked in known.items() if acked is None]
            some = draw.sample(unread, min(len(unread), draw.randint(0, 6)))
            journal.acknowledge(some)
            known.update(dict.fromkeys(some, clock.time))
        elif what < 0.95:
            clock.time += draw.choice((60, 3600, DAY))
        else:
            journal.close()
            journal = Journal(tmp_path / "j", LIMIT, clock, limit_ids=400)
        assert _size(tmp_path / "j") <= BUDGET
        if step % 100 == 99:
            unread = [action_id for action_id, acked in known.items() if acked is None]
            assert sorted(action_id for action_id, _, _ in journal.unacknowledged()) == sorted(unread)
            for action_id, acked in known.items():
                if acked is None or acked > clock.time - DAY:
                    answer = journal.begin(action_id, "d" * 64, "command.exec")
                    assert answer is not None
                    assert (answer["action_id"], answer["exit_code"]) == (action_id, 3)
    journal.close()


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ({"ok": True, "exit_code": 0, "stdout": "x" * 9000}, {"ok": True, "exit_code": 0, "truncated": True}),
        ({"ok": False, "error": "e" * 90_000, "code": "timeout"}, {"ok": False, "code": "timeout"}),
        (
            {"ok": True, "action_id": "s-1", "result": {"done": ["file/x"], "output": "x" * 9000}},
            {"ok": True, "result": {"done": ["file/x"], "output": "x" * 1024}},
        ),
        (
            {"ok": True, "action_id": "s-1", "result": {"done": ["host.file/x"] * 1000}},
            {"ok": False, "action_id": "s-1", "code": "interrupted"},
        ),
    ],
)
def test_what_is_left_of_an_answer_that_is_too_long(answer: dict[str, Any], left: dict[str, Any]) -> None:
    import json

    packed = fit_answer(answer, 4096)
    assert len(packed) <= 4096
    found = json.loads(packed)
    assert {name: found[name] for name in left} == left


def test_an_answer_that_is_longer_than_a_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", LIMIT, Clock())
    _run(journal, "a-1", "\x00" * 400_000)
    answer = journal.begin("a-1", "d" * 64, "command.exec")
    assert answer == {
        "ok": True,
        "action_id": "a-1",
        "exit_code": 3,
        "stdout": "\x00" * 1024,
        "truncated": True,
    }
    journal.close()


def test_a_long_outcome_in_a_full_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", LIMIT, Clock())
    journal.begin("long", "d" * 64, "command.exec")
    with pytest.raises(Refused, match="the journal is full"):
        _run_until_full(journal, [])
    assert journal.finish("long", {"ok": True, "exit_code": 3, "stdout": "x" * 9000})
    answer = journal.begin("long", "d" * 64, "command.exec")
    assert answer == {"ok": True, "exit_code": 3, "stdout": "x" * 1024, "truncated": True}
    assert _size(tmp_path / "j") <= BUDGET
    journal.close()


def test_a_smaller_limit_than_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", 16 * LIMIT, Clock())
    ids = [f"a-{number}" for number in range(80)]
    for action_id in ids:
        _run(journal, action_id, "x" * 30_000)
    journal.close()
    again = Journal(tmp_path / "j", LIMIT, Clock())
    assert _size(tmp_path / "j") <= LIMIT
    assert {*_texts(again, ids)} <= {256, 30_000}
    again.close()
    with pytest.raises(StateError, match="the journal needs 131072 bytes at least"):
        Journal(tmp_path / "k", 1000, Clock())


def _measure(make: Callable[[], object]) -> int:
    tracemalloc.start()
    kept = make()
    size, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept is not None
    return size


@pytest.mark.slow
def test_what_a_hundred_thousand_ids_cost() -> None:
    def fill() -> Index:
        index = Index()
        for number in range(100_000):
            index.place(index.add(key_of(f"action-{number}")), 1, number, 300)
        return index

    assert _measure(fill) < 6_000_000


def test_an_index_finds_what_is_there_and_nothing_else() -> None:
    draw = random.Random(1)
    index, model = Index(), dict[int, int]()
    for step in range(20_000):
        key = key_of(str(draw.randrange(3000)))
        slot = index.find(key)
        assert (slot is not None) == (key in model)
        if slot is None:
            index.place(index.add(key), 1, step, 1)
            model[key] = step
        elif draw.random() < 0.6:
            index.forget(slot)
            del model[key]
        else:
            assert index.offset[slot] == model[key]
    assert len(index) == len(model)
    assert [index.key[slot] for slot in index.slots()] == list(model)


@pytest.mark.slow
def test_a_full_journal_is_opened(tmp_path: Path) -> None:
    """64 MiB with 100,000 ids: all are known, and what that takes is bounded."""
    folder = tmp_path / "j"
    folder.mkdir(0o700)
    number = 0
    for segment in range(1, 15):
        with (folder / f"journal-{segment:08}").open("wb") as file:
            (folder / f"journal-{segment:08}").chmod(0o600)
            while file.tell() < 4 * 1024 * 1024 - 700 and number < 100_000:
                head = {
                    "what": "outcome",
                    "id": f"action-{number}",
                    "method": "command.exec",
                    "digest": "d" * 64,
                }
                answer = b'{"ok":true,"exit_code":0,"stdout":"%s"}' % (b"x" * 360)
                file.write(pack_record({**head, "at": 1_800_000_000}, answer))
                number += 1
    tracemalloc.start()
    journal = Journal(folder, 64 * 1024 * 1024, Clock(), limit_ids=200_000)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(journal) == number > 90_000
    assert peak < 12_000_000
    assert journal.begin("action-77", "d" * 64, "command.exec") is not None
    journal.close()
