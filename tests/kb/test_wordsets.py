"""Sets of notes as numbers: sums over all notes at once are those of a loop over them, and sets follow what
is written while they are read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.store.sqlite.notes.wordsets import Change, Planes, WordSets, match_string

WEIGHTED = st.lists(st.tuples(st.sets(st.integers(1, 70)), st.integers(1, 63)), max_size=12)


def as_set(notes: set[int]) -> int:
    return sum(1 << note for note in notes)


@settings(deadline=None, derandomize=True)
@given(WEIGHTED, st.integers(1, 40), st.sets(st.integers(1, 70)))
def test_the_best_are_those_with_the_greatest_sums(
    weighted: list[tuple[set[int], int]], count: int, among: set[int]
) -> None:
    planes, sums = Planes(), Counter[int]()
    for notes, weight in weighted:
        planes.add(as_set(notes), weight)
        sums.update(dict.fromkeys(notes, weight))
    found = planes.best(count, as_set(among))
    wanted = sorted((note for note in sums if note in among), key=lambda note: (-sums[note], -note))[:count]
    assert sorted(found) == sorted(wanted)
    assert planes.all == as_set(set(sums))


def test_a_word_is_a_string_whatever_is_in_it() -> None:
    assert match_string('a"b" OR c') == '"a""b"" OR c"'


class Index:
    """Answers as the index; `meanwhile` happens after it was read."""

    def __init__(self, *notes: int) -> None:
        self.notes = set(notes)
        self.reads = 0
        self.meanwhile: Any = None

    def query(self, sql: str, params: tuple[Any, ...]) -> list[Any]:
        found = [(note,) for note in sorted(self.notes)]
        self.reads += 1
        if self.meanwhile is not None:
            self.meanwhile()
        return found


def test_a_set_follows_what_is_written() -> None:
    index = Index(1, 5)
    sets = WordSets(index.query, kept_from=0)
    assert sets.read("x", 2) == as_set({1, 5})
    sets.follow([Change(7, ("x", "y"), True), Change(1, ("x",), False), Change(9, ("y",), True)])
    assert sets.read("x", 2) == as_set({5, 7})
    assert index.reads == 1


def test_what_is_written_while_a_set_is_read_is_not_lost() -> None:
    index = Index(1)
    sets = WordSets(index.query, kept_from=0)
    index.meanwhile = lambda: sets.follow([Change(2, ("x",), True), Change(1, ("x",), False)])
    sets.read("x", 1)
    index.meanwhile = None
    assert sets.read("x", 1) == as_set({2})
    assert index.reads == 1


def test_a_set_that_missed_too_much_is_not_kept() -> None:
    index = Index(1)
    sets = WordSets(index.query, kept_from=0)
    index.meanwhile = lambda: sets.follow([Change(2, ("x",), True)] + [Change(3, ("y",), True)] * 5000)
    sets.read("x", 1)
    index.meanwhile, index.notes = None, {1, 2}
    assert sets.read("x", 2) == as_set({1, 2})
    assert index.reads == 2


def test_sets_of_rare_words_and_too_many_of_them_are_not_kept() -> None:
    index = Index(1)
    sets = WordSets(index.query, kept_bytes=150, kept_from=10)
    for word in ("a", "b", "c", "c", "rare", "rare"):
        sets.read(word, 1 if word == "rare" else 10)
    assert index.reads == 5
    sets.read("a", 10)
    assert index.reads == 6


def test_sets_that_grow_give_way() -> None:
    index = Index(1)
    sets = WordSets(index.query, kept_bytes=700, kept_from=0)
    for word in ("a", "b", "c"):
        sets.read(word, 1)
    sets.follow([Change(4000, ("c",), True)])
    sets.read("d", 1)
    assert index.reads == 4
    for word in ("c", "d"):
        sets.read(word, 1)
    assert index.reads == 4
    sets.read("a", 1)
    assert index.reads == 5
