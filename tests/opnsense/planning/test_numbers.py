"""Sequences at the edges of what there is: the first number, the last one, the bounds of a list.

Each case stands for a change of the code that no other test noticed (docs/testing.md, "Mutation checks").
"""

from __future__ import annotations

import pytest

from fazai.providers.opnsense.planning.ordering import LAST, assign_sequences, make_room


@pytest.mark.parametrize(
    ("current", "taken", "bounds", "numbers"),
    [
        ([1, None], [5], (0, None), [1, 3]),  # behind the item with the first number, before the foreign one
        ([1, None, 3], [], (0, None), [1, 2, 3]),  # a gap of one number
        ([7], [7], (7, None), [107]),  # on the number of the item that it is to stand behind
        ([7], [7], (0, 7), [3]),  # on the number of the item that it is to stand before
        ([None, None, None], [2, 3], (0, 6), [1, 4, 5]),  # all that is free
        ([None, None, None, None], [2, 3], (0, 6), None),
        ([None, None], [LAST - 1], (LAST - 3, None), [LAST - 2, LAST]),  # up to the last number of all
        ([None, None, None], [LAST - 1], (LAST - 3, None), None),
        ([None], [LAST], (LAST - 1, None), None),
    ],
)
def test_numbers_at_an_edge(
    current: list[int | None], taken: list[int], bounds: tuple[int, int | None], numbers: list[int] | None
) -> None:
    assert assign_sequences(current, taken, *bounds) == numbers


def test_two_that_are_pushed_behind_the_same_foreign_items_get_two_numbers() -> None:
    foreign = [101, *range(119, 138)]
    assert assign_sequences([100, None, None, None, None, 197], foreign) == [100, 138, 139, 158, 177, 197]


@pytest.mark.parametrize(
    ("count", "low", "behind", "taken", "expected"),
    [
        (2, 5, [6, 8, 40], [], ([15, 25], [35, 36, 40])),  # only those that stand in the way move
        (1, 5, [6, 30], [], ([15], [25, 30])),
        (2, 5, [6, 8, 40], [15, 26, 27, 39], ([16, 28], [38, 40, 41])),  # around what others have
        (1, 0, [30, 31], [], ([10], [30, 31])),  # high enough: they stay
        (1, 0, [], [], ([10], [])),
    ],
)
def test_room_is_made_by_moving_as_little_as_needed(
    count: int, low: int, behind: list[int], taken: list[int], expected: tuple[list[int], list[int]]
) -> None:
    assert make_room(count, low, behind, taken) == expected
