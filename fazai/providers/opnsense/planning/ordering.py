"""Sequences of ordered collections: fewest moves, no duplicates, foreign items stay where they are. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

FIRST, LAST = 1, 999_999
STEP = 100
ROOM = 10  # between items for which others had to make room


def longest_rising(values: Sequence[int]) -> list[int]:
    """Return the places of one longest strictly rising subsequence."""
    tails: list[int] = []  # the smallest last value of a rising run of each length
    ends: list[int] = []  # the place of that value
    before: list[int] = [-1] * len(values)
    for place, value in enumerate(values):
        length = bisect_left(tails, value)
        before[place] = ends[length - 1] if length else -1
        if length == len(tails):
            tails.append(value)
            ends.append(place)
        else:
            tails[length], ends[length] = value, place
    run: list[int] = []
    place = ends[-1] if ends else -1
    while place >= 0:
        run.append(place)
        place = before[place]
    return run[::-1]


def assign_sequences(
    current: Sequence[int | None], taken: Iterable[int], low: int = FIRST - 1, high: int | None = None
) -> list[int] | None:
    """Return a sequence for each item of a list, so that the list's order is the order on the firewall.

    `current` is what each item has now (None: it is new), `taken` what other items occupy. Items that can
    stay keep theirs; a run of others goes into the gap between its neighbours; where the gap is too small, as
    few neighbours as needed move along. All of them stand behind `low` and, where it is given, before `high`.
    Returns None when there are more items than numbers.
    """
    occupied = sorted(set(taken))
    if high is not None and _count_free(low, high, occupied) < len(current):
        return None
    inside = [v if v is not None and low < v and (high is None or v < high) else None for v in current]
    current = inside
    known = [place for place, value in enumerate(current) if value is not None]
    stays = {known[place] for place in longest_rising([value for value in current if value is not None])}
    result: list[int | None] = [value if place in stays else None for place, value in enumerate(current)]
    place = 0
    while place < len(result):
        if result[place] is not None:
            place += 1
            continue
        end = place
        while end < len(result) and result[end] is None:
            end += 1
        start, end, numbers = _fit_run(result, place, end, occupied, (low, high))
        if numbers is None:
            return None
        result[start:end] = numbers
        place = end
    return [value for value in result if value is not None]


def _fit_run(
    result: list[int | None], start: int, end: int, occupied: list[int], bounds: tuple[int, int | None]
) -> tuple[int, int, list[int] | None]:
    """Return numbers for result[start:end], grown over its neighbours (fewest first) until it fits.

    `bounds` are the numbers before the first of the list and behind the last one.
    """
    total = len(result)
    for more in range(total + 1):
        for left in range(more + 1):
            right = more - left
            if left > start or right > total - end:
                continue
            first, last = start - left, end + right
            while last < total and result[last] is None:
                last += 1  # a later run stands right behind: place it as well
            low = _value_before(result, first - 1, bounds[0])
            high = result[last] if last < total else bounds[1]
            numbers = _free_numbers(last - first, low, high, occupied)
            if numbers is not None:
                return first, last, numbers
    return start, end, None


def _value_before(result: list[int | None], place: int, otherwise: int) -> int:
    value = result[place] if place >= 0 else None
    return otherwise if value is None else value


def _count_free(low: int, high: int, occupied: list[int]) -> int:
    """Count the numbers between these two that nobody has."""
    return high - low - 1 - (bisect_left(occupied, high) - bisect_right(occupied, low))


def make_room(
    count: int, low: int, behind: Sequence[int], taken: Iterable[int]
) -> tuple[list[int], list[int]]:
    """Return sequences for `count` items behind `low`, and new ones for the foreign items `behind` them.

    It is for a place with too few free numbers. The foreign items keep their order, and their sequence where
    it is high enough; some room is left for items to come. `taken`: what nobody else may get.
    """
    others = set(taken)
    number = low

    def take(least: int) -> int:
        nonlocal number
        number = max(number + 1, least)
        while number in others:
            number += 1
        return number

    ours = [take(number + ROOM) for _ in range(count)]
    return ours, [take(max(had, number + ROOM) if not place else had) for place, had in enumerate(behind)]


def _free_numbers(count: int, low: int, high: int | None, occupied: list[int]) -> list[int] | None:
    """Return `count` free numbers between low and high, spread evenly; None when there are too few."""
    if high is None:
        return _append_numbers(count, low, occupied)
    ahead = bisect_right(occupied, low)
    nearest = occupied[ahead] if ahead < len(occupied) else high
    for ceiling in (min(high, nearest), high):  # rather before the next foreign item than spread around it
        room = ceiling - low - 1
        if room >= count:
            free = _spread_numbers(count, low, ceiling, occupied)
            if free is not None:
                return free
    return None


def _append_numbers(count: int, low: int, occupied: list[int]) -> list[int] | None:
    """Return numbers right behind our last item: before foreign items that follow it, if they fit there."""
    ahead = bisect_right(occupied, low)
    if low >= FIRST and ahead < len(occupied):
        between = _spread_numbers(count, low, occupied[ahead], occupied)
        if between is not None:
            return between
    base = max(low, occupied[-1] if occupied else 0)
    step = min(STEP, (LAST - base) // count)
    if step >= 1:
        return [base + step * (place + 1) for place in range(count)]
    return _spread_numbers(count, low, LAST + 1, occupied)


def _spread_numbers(count: int, low: int, high: int, occupied: list[int]) -> list[int] | None:
    inside = occupied[bisect_right(occupied, low) : bisect_left(occupied, high)]
    room = high - low - 1 - len(inside)
    if room < count:
        return None
    if not inside:
        width = high - low
        return [low + width * (place + 1) // (count + 1) for place in range(count)]
    taken = set(inside)
    if high - low > 4 * (count + len(inside)):
        width = high - low
        ideal = [low + width * (place + 1) // (count + 1) for place in range(count)]
        return _shift_to_free(ideal, taken, high)
    free = [number for number in range(low + 1, high) if number not in taken]
    return [free[room * (2 * place + 1) // (2 * count)] for place in range(count)]


def _shift_to_free(ideal: list[int], taken: set[int], high: int) -> list[int] | None:
    """Return each ideal number, or the next free one behind it."""
    found: list[int] = []
    last = 0
    for number in ideal:
        number = max(number, last + 1)
        while number in taken:
            number += 1
        if number >= high:
            return None
        found.append(number)
        last = number
    return found
