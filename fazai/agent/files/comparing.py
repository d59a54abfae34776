"""Finds what differs between two lists of lines, in bounded time.

By E. Myers' greedy algorithm (1986), which is given up where the lists have too little in common.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Steps that are taken at most; beyond it what lies between the common ends counts as one difference.
_STEPS = 4_000_000
_DISTANCE = 1000


def find_changes(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Return what to replace, in order: lines `a` to `b` of `old` by lines `c` to `d` of `new`."""
    first, last_old, last_new = 0, len(old), len(new)
    while first < min(last_old, last_new) and old[first] == new[first]:
        first += 1
    while first < min(last_old, last_new) and old[last_old - 1] == new[last_new - 1]:
        last_old, last_new = last_old - 1, last_new - 1
    if first == last_old and first == last_new:
        return []
    whole = [(first, last_old, first, last_new)]
    if first in (last_old, last_new):
        return whole
    numbers: dict[str, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old[first:last_old]]
    b = [numbers.setdefault(line, len(numbers)) for line in new[first:last_new]]
    trace = _search(a, b, min(_DISTANCE, _STEPS // (len(a) + len(b))))
    return whole if trace is None else _changes(trace, len(a), len(b), first)


def _search(a: list[int], b: list[int], most: int) -> list[list[int]] | None:
    """Return how far each diagonal reaches with each number of differences; None where `most` are too few.

    Row `d` holds the diagonals `-d, -d + 2, …, d`; a diagonal is the place in `a` less that in `b`.
    """
    size_a, size_b = len(a), len(b)
    trace: list[list[int]] = []
    before = [0]
    for d in range(most + 1):
        row = []
        for place in range(d + 1):
            k = 2 * place - d
            if d == 0:
                x = 0
            elif place == 0 or (place < d and before[place - 1] < before[place]):
                x = before[place]  # one more of `b`
            else:
                x = before[place - 1] + 1  # one less of `a`
            y = x - k
            while x < size_a and y < size_b and a[x] == b[y]:
                x, y = x + 1, y + 1
            row.append(x)
            if x >= size_a and y >= size_b:
                trace.append(row)
                return trace
        trace.append(row)
        before = row
    return None


def _changes(trace: list[list[int]], x: int, y: int, first: int) -> list[tuple[int, int, int, int]]:
    """Walk back from the end of both lists and return what differs, with `first` added to all places."""
    found: list[tuple[int, int, int, int]] = []
    for d in range(len(trace) - 1, 0, -1):
        place, before = (x - y + d) // 2, trace[d - 1]
        if place == 0 or (place < d and before[place - 1] < before[place]):
            x = before[place]
            y = x - (2 * place - d + 1)
            change = (x, x, y, y + 1)
        else:
            x = before[place - 1]
            y = x - (2 * place - d - 1)
            change = (x, x + 1, y, y)
        if found and found[-1][0] == change[1] and found[-1][2] == change[3]:
            change = (change[0], found[-1][1], change[2], found.pop()[3])
        found.append(change)
    return [(a1 + first, a2 + first, b1 + first, b2 + first) for a1, a2, b1, b2 in reversed(found)]
