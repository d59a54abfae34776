"""Ranks notes by how near they are to a question and how far they are believed (SPEC.md, 2.5).

Nearness is BM25 over the words that the index knows. What counts against a note: that no person verified it,
that a machine wrote it, age, and that a note of at least its own standing says it to be wrong. What a machine
wrote never stands before a verified note that is about the question, however near it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fazai.kb.words import find_words
from fazai.wire.notes import VERIFIED_STANDING

_K1, _B = 1.2, 0.5
#: By standing (`wire.notes.standing_of`): a model's or a device's, a run's, imported, a person's, verified.
_BELIEF = (0.5, 0.7, 0.85, 0.9, 1.0)
_WRITTEN_BY_MACHINES = 1  # the standing up to which a machine wrote it
_ABOUT = 0.25  # the coverage from which on a note is about the question
_HALF_LIFE_S = 2 * 365 * 86400.0
_OLD = 0.6  # what age leaves at least
_CONTRADICTED = 0.4
_PART = 0.4  # what a part of an identifier counts of a word


class RankedNote(Protocol):
    """A note that has some of the words, as the store finds it (`store.notes.Candidate`)."""

    @property
    def id(self) -> int: ...
    @property
    def folded(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def standing(self) -> int: ...
    @property
    def time(self) -> float: ...
    @property
    def contradicted(self) -> int: ...


class CollectionCounts(Protocol):
    """Counts of all notes (`store.notes.WordStatistics`)."""

    @property
    def frequencies(self) -> Mapping[str, int]: ...
    @property
    def notes(self) -> int: ...
    @property
    def words(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """A note in its place. `coverage` is how much of the question it has, 0 to 1; rare words count more."""

    id: int
    score: float
    coverage: float
    standing: int
    contradicted: bool = False


def weigh_words(text: str) -> dict[str, float]:
    """Return the words of a question with what each counts; a part of an identifier counts less."""
    weights: dict[str, float] = {}
    whole = frozenset(part for run in text.split() for part in find_words(run)[:1])
    for word in find_words(text):
        weights[word] = 1.0 if word in whole or weights.get(word) == 1.0 else _PART
    return weights


def score_note(
    note: RankedNote, terms: Sequence[tuple[str, float]], average_length: float
) -> tuple[float, float]:
    """Return the nearness of a note (BM25), and the weight of the words that it has. `terms` are words
    between two spaces, with their weights."""
    score = covered = 0.0
    folded = note.folded
    saturation = _K1 * (1.0 - _B + _B * note.length / average_length)
    for needle, weight in terms:
        count = folded.count(needle)
        if count:
            score += weight * count * (_K1 + 1.0) / (count + saturation)
            covered += weight
    return score, covered


def make_terms(weights: Mapping[str, float], counts: CollectionCounts) -> list[tuple[str, float]]:
    """Return the words that stand in any note, each between two spaces, with what they tell: more, the fewer
    notes have them."""
    notes = counts.notes
    return [
        (f" {word} ", weight * math.log(1.0 + (notes - found + 0.5) / (found + 0.5)))
        for word, weight in weights.items()
        if (found := counts.frequencies.get(word, 0))
    ]


def rank_notes(
    notes: Iterable[RankedNote],
    counts: CollectionCounts,
    weights: Mapping[str, float],
    *,
    now: float,
    limit: int,
) -> list[Ranked]:
    """Return the notes that are nearest, the first one first."""
    terms = make_terms(weights, counts)
    whole = sum(weight for _, weight in terms) or 1.0
    average = counts.words / counts.notes if counts.notes else 1.0
    ranked = []
    for note in notes:
        score, covered = score_note(note, terms, average)
        if score > 0.0:
            contradicted = note.contradicted >= note.standing
            score *= _believe(note, now) * (_CONTRADICTED if contradicted else 1.0)
            ranked.append(Ranked(note.id, score, covered / whole, note.standing, contradicted))
    best = max(
        (
            one.score
            for one in ranked
            if one.standing == VERIFIED_STANDING and one.coverage >= _ABOUT and not one.contradicted
        ),
        default=math.inf,
    )

    def place(one: Ranked) -> tuple[float, int, int]:
        capped = min(one.score, best) if one.standing <= _WRITTEN_BY_MACHINES else one.score
        return -capped, -one.standing, one.id

    return sorted(ranked, key=place)[:limit]


def _believe(note: RankedNote, now: float) -> float:
    age_s = max(0.0, now - note.time)
    return _BELIEF[note.standing] * max(_OLD, math.exp2(-age_s / _HALF_LIFE_S))
