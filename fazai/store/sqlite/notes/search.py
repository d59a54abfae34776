"""Searches the notes (docs/adr/0040-notes-as-bits.md).

The index answers which notes have a word. All words of a question are added up at once for all notes, so that
a frequent one counts for what it tells; the best are then judged by their own words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from fazai.store.notes import Candidate, Judge, SearchBudget, WordStatistics
from fazai.store.sqlite.notes.wordsets import Planes, Query, WordSets

T = TypeVar("T")

#: A word of the store's own, which no text has.
VERIFIED_WORD = "=s=verified"

_MAX_ASKED = 128  # different words of one question
_HEAVIEST = 63  # the whole number that stands for the weight of the rarest word
_CANDIDATES = (
    "SELECT id, folded, length, standing, iif(standing = 0, created, last_written),"
    " coalesce((SELECT max(other.standing) FROM note_links JOIN notes AS other ON other.id = note_links.note"
    " WHERE note_links.other = notes.id AND relation = 'contradicts'), -1)"
    " FROM notes WHERE id IN ({})"
)


class NoteSearch:
    """Searches notes; to be called in a thread that reads."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self.sets = WordSets(query)

    def find(self, words: Sequence[str], within: str | None, budget: SearchBudget, judge: Judge[T]) -> T:
        """Return what `judge` makes of the notes that have some of the words, and `within` where it is
        given."""
        asked = list(dict.fromkeys(word for word in words if word))[:_MAX_ASKED]
        statistics = self._read_statistics([*asked, VERIFIED_WORD, *([within] if within else [])])
        counts = statistics.frequencies
        known = [word for word in asked if counts.get(word, 0) > 0]
        if not known or (within is not None and within not in counts):
            return judge([], statistics)
        planes = self._add_up(known, statistics)
        among = planes.all if within is None else self.sets.read(within, counts[within])
        best = planes.best(budget.candidates, among)
        # what a person verified is judged however many others are nearer
        if 0 < counts.get(VERIFIED_WORD, 0) < statistics.notes:
            verified = self.sets.read(VERIFIED_WORD, counts[VERIFIED_WORD])
            best = list({*best, *planes.best(budget.verified, among & verified)})
        rows = self._query(_CANDIDATES.format(", ".join(map(str, best))), ())
        return judge([Candidate(*row) for row in rows], statistics)

    def _add_up(self, words: Sequence[str], statistics: WordStatistics) -> Planes:
        weights = {word: weight_of(word, statistics) for word in words}
        heaviest = max(weights.values()) or 1.0
        planes = Planes()
        for word, weight in weights.items():
            notes = self.sets.read(word, statistics.frequencies[word])
            planes.add(notes, max(1, round(weight / heaviest * _HEAVIEST)))
        return planes

    def _read_statistics(self, words: Sequence[str]) -> WordStatistics:
        marks = ", ".join("?" * len(words))
        counts = self._query(f"SELECT word, notes FROM note_words WHERE word IN ({marks})", tuple(words))  # noqa: S608
        ((notes, total),) = self._query("SELECT notes, words FROM note_totals", ())
        return WordStatistics(dict(counts), notes, total)

    def warm(self, most: int) -> None:
        """Read the sets of the most frequent words, so that the first questions need not."""
        for word, count in self._query(
            "SELECT word, notes FROM note_words WHERE notes >= 200 ORDER BY notes DESC LIMIT ?", (most,)
        ):
            self.sets.read(word, count)


def weight_of(word: str, statistics: WordStatistics) -> float:
    """Return how much a word tells: less, the more notes have it (the idf of BM25)."""
    count = statistics.frequencies.get(word, 0)
    return math.log(1.0 + (statistics.notes - count + 0.5) / (count + 0.5))
