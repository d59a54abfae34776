"""Sets of notes as whole numbers, one bit a note: those that have a word, and the best by the sum of weights.

The index (FTS5) says which notes have a word. For words of many notes the answer is kept in memory, at most
32 MiB of them, and brought up to date after each commit. Sums are kept as planes of bits, so that all notes
are added at once, as many as there are: 100,000 notes are 12.5 KB a word.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

_KEPT_BYTES = 32 << 20
_KEPT_FROM = 200  # notes that have a word, from which on its set is kept
_CHANGES = 4096  # of notes, which a set that is being read can catch up with
_WORD = "SELECT rowid FROM notes_index WHERE notes_index MATCH ?"

Query = Callable[[str, tuple[Any, ...]], list[Any]]


class Change(NamedTuple):
    """Words that a note has now (`present`), or has no more."""

    note: int
    words: tuple[str, ...]
    present: bool


def match_string(word: str) -> str:
    """Return a word as a string of FTS5: nothing in it is syntax there."""
    return '"' + word.replace('"', '""') + '"'


class WordSets:
    """The sets of notes that have a word. Read in several threads; changed in the writer's."""

    def __init__(self, query: Query, kept_bytes: int = _KEPT_BYTES, kept_from: int = _KEPT_FROM) -> None:
        self._query = query
        self._kept_bytes, self._kept_from = kept_bytes, kept_from
        self._bytes = 0
        self._lock = threading.Lock()
        self._sets: OrderedDict[str, int] = OrderedDict()
        self._changes: deque[tuple[int, Change]] = deque(maxlen=_CHANGES)
        self._number = 0

    def read(self, word: str, count: int) -> int:
        """Return the notes that have a word, which are about `count`. Raises StateError."""
        with self._lock:
            found = self._sets.get(word)
            if found is not None:
                self._sets.move_to_end(word)
                return found
            begun = self._number
        found = _set_of([row[0] for row in self._query(_WORD, (match_string(word),))])
        if count >= self._kept_from:
            self._keep(word, found, begun)
        return found

    def _keep(self, word: str, found: int, begun: int) -> None:
        """Keep a set with what changed since it was begun to be read; not where that is no longer known."""
        with self._lock:
            if self._number > begun and (not self._changes or self._changes[0][0] > begun + 1):
                return
            for number, change in self._changes:
                if number > begun and word in change.words:
                    found = _changed(found, change)
            self._put(word, found)
            while self._bytes > self._kept_bytes:
                self._bytes -= _size(self._sets.popitem(last=False)[1])

    def _put(self, word: str, found: int) -> None:
        before = self._sets.get(word)
        self._bytes += _size(found) - (_size(before) if before is not None else 0)
        self._sets[word] = found

    def follow(self, changes: Iterable[Change]) -> None:
        """Take over what a commit changed. Called by the writer."""
        with self._lock:
            for change in changes:
                self._number += 1
                self._changes.append((self._number, change))
                for word in change.words:
                    if word in self._sets:
                        self._put(word, _changed(self._sets[word], change))


def _set_of(ids: Sequence[int]) -> int:
    bits = bytearray((max(ids, default=0) >> 3) + 1)
    for id_ in ids:
        bits[id_ >> 3] |= 1 << (id_ & 7)
    return int.from_bytes(bits, "little")


def _size(found: int) -> int:
    return (found.bit_length() >> 3) + 64


def _changed(found: int, change: Change) -> int:
    bit = 1 << change.note
    return found | bit if change.present else found & ~bit


class Planes:
    """The sum of weights of each note, as a number in binary: plane 0 holds the lowest digit of all notes."""

    def __init__(self) -> None:
        self._planes: list[int] = []
        self.all = 0

    def add(self, notes: int, weight: int) -> None:
        """Add a weight to each of these notes."""
        self.all |= notes
        digit = 0
        while weight:
            if weight & 1:
                self._carry(notes, digit)
            weight >>= 1
            digit += 1

    def _carry(self, carry: int, digit: int) -> None:
        planes = self._planes
        while len(planes) < digit:
            planes.append(0)
        for at in range(digit, len(planes)):
            if not carry:
                return
            planes[at], carry = planes[at] ^ carry, planes[at] & carry
        if carry:
            planes.append(carry)

    def best(self, count: int, among: int) -> list[int]:
        """Return the notes with the greatest sums, about so many, of those `among` which they are looked for;
        of equal ones the newest."""
        sure, equal = 0, self.all & among
        for plane in reversed(self._planes):
            above = equal & plane
            found = sure.bit_count() + above.bit_count()
            if found > count:
                equal = above
            else:
                sure |= above
                equal ^= above
                if found == count:
                    return _newest(sure, count)
        return _newest(sure, count) + _newest(equal, count - sure.bit_count())


def _newest(notes: int, count: int) -> list[int]:
    """Return the notes of a set, the newest first, at most so many."""
    digits = bin(notes)[2:]
    found: list[int] = []
    at = digits.find("1")
    while at >= 0 and len(found) < count:
        found.append(len(digits) - 1 - at)
        at = digits.find("1", at + 1)
    return found
