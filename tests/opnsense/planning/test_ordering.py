"""Sequences: the list's order, fewest moves, no duplicates, and rest on the second look."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.providers.opnsense.planning.ordering import LAST, assign_sequences, longest_rising

CASES: list[tuple[str, list[int | None], list[int], list[int]]] = [
    ("the first ones", [None, None, None], [], [100, 200, 300]),
    ("behind what others have", [None, None], [1, 2], [102, 202]),
    ("nothing to do", [5, 9, 12], [7], [5, 9, 12]),
    ("one in between", [100, None, 200], [], [100, 150, 200]),
    ("before the foreign item that follows", [100, None, 200], [150], [100, 125, 200]),
    ("at the end, before a foreign item", [100, None], [150], [100, 125]),
    ("at the end, no room before it", [100, None], [101], [100, 201]),
    ("no gap: one neighbour moves", [100, None, 101], [], [100, 200, 300]),
    ("at the top, where there is no number left", [None, 1, 500], [], [166, 333, 500]),
    ("one stands out of order", [100, 400, 200, 300], [], [100, 150, 200, 300]),
    ("turned around", [300, 200, 100], [], [33, 66, 100]),
    ("duplicates of ours", [100, 100, 100], [], [33, 66, 100]),
    ("over a foreign item when need be", [1, None, None, 5], [3], [1, 2, 4, 5]),
]


@pytest.mark.parametrize(
    ("current", "taken", "wanted"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_cases(current: list[int | None], taken: list[int], wanted: list[int]) -> None:
    assert assign_sequences(current, taken) == wanted


def test_more_items_than_numbers() -> None:
    assert assign_sequences([None] * 3, range(1, LAST - 1)) is None
    assert assign_sequences([None] * 2, range(1, LAST - 1)) == [LAST - 1, LAST]


def test_between_two_bounds() -> None:
    assert assign_sequences([None] * 4, [5], 3, 9) == [4, 6, 7, 8]
    assert assign_sequences([None] * 5, [5], 3, 9) is None
    assert assign_sequences([2, 6, 100], [], 3, 9) == [4, 6, 7]  # who stands outside comes in


PLACES = st.lists(st.integers(1, 60), unique=True, max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    PLACES,
    st.integers(0, 12),
    st.integers(0, 6),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 7, 15000]),
)
def test_what_holds(places: list[int], ours: int, new: int, chance: Random, wide: int) -> None:
    mine: list[int | None] = [place * wide for place in places[:ours]]
    taken = {place * wide for place in places[ours:]}
    current: list[int | None] = [*mine, *[None] * new]
    chance.shuffle(current)
    found = assign_sequences(current, taken)
    assert found is not None
    assert len(found) == len(current)
    assert all(first < second for first, second in pairwise(found))
    assert not set(found) & taken
    assert all(1 <= number <= LAST for number in found)
    assert assign_sequences(list(found), taken) == found


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 9), max_size=8))
def test_longest_rising_is_longest(values: list[int]) -> None:
    run = longest_rising(values)
    assert all(values[first] < values[second] for first, second in pairwise(run))
    longer = combinations(values, len(run) + 1)
    assert not any(all(first < second for first, second in pairwise(some)) for some in longer)


def test_only_what_must_moves() -> None:
    """One item taken to another place is one move, however long the list."""
    values: list[int | None] = [100 * (place + 1) for place in range(1000)]
    moved = [*values[:10], values[900], *values[10:900], *values[901:]]
    found = assign_sequences(moved, [])
    assert found is not None
    assert sum(one != other for one, other in zip(moved, found, strict=True)) == 1
