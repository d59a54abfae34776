"""Protocol of the store of notes: what was learned, and the index of words by which it is found.

The store knows no language: who adds a note brings the words by which it is found, and who asks brings words.
None of them is ever read as the syntax of a query. How near a note is, is judged by who asks (`Judge`), in a
thread of the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeVar

from fazai.wire.notes import NoteOrigin, NoteStatus, standing_of

T = TypeVar("T")


def hash_content(title: str, text: str, tags: Sequence[str], target: str) -> str:
    """Return the hash of a note's content: what two notes that are one have in common."""
    content = json.dumps([title, text, sorted(tags), target], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One note. `id` is 0 until it is stored. `hash` is that of its content, by which equal ones are one.

    `author` is who wrote it, as the daemon knows them; `source` where it is from, in words. `parents` are
    notes that it was derived from, `contradicts` those that it says to be wrong. `written` counts how often
    it was written, `last_written` when last. `words` are those by which it is found, with repetitions. Times
    are seconds since the epoch, UTC.
    """

    id: int = 0
    title: str
    text: str
    hash: str
    tags: tuple[str, ...] = ()
    source: str = ""
    target: str = ""
    origin: NoteOrigin
    author: str = ""
    session: str = ""
    run: str = ""
    parents: tuple[int, ...] = ()
    contradicts: tuple[int, ...] = ()
    status: NoteStatus = "unverified"
    created: float
    verified: float | None = None
    verified_by: str = ""
    written: int = 1
    last_written: float = 0.0
    words: tuple[str, ...] = ()

    @property
    def standing(self) -> int:
        """How far it is believed, as `standing_of`."""
        return standing_of(self.status, self.origin)

    @property
    def bytes(self) -> int:
        """How much of the room for notes it takes."""
        return len(self.title.encode()) + len(self.text.encode()) + 128


class AddedNote(NamedTuple):
    """`is_new`: False where the same content was there already, and this is that note now."""

    note: Note
    is_new: bool


class Candidate(NamedTuple):
    """A note that has some of the words that were asked for. `folded` holds all of its words, each between
    two spaces; `length` is how many they are. `time` is when it was written; of models and devices, first.
    `contradicted` is the standing of the strongest note that says it to be wrong, -1 where none does."""

    id: int
    folded: str
    length: int
    standing: int
    time: float
    contradicted: int


class WordStatistics(NamedTuple):
    """In how many notes each word stands that was asked for and stands in any; how many notes there are, and
    how many words they have in all."""

    frequencies: Mapping[str, int]
    notes: int
    words: int


#: Judges candidates, each once, in no order. Called in a thread of the store; it must not block.
Judge = Callable[[Sequence[Candidate], WordStatistics], T]


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """How many notes a search judges: the best by the weights of the words that they have, and of those that
    a person verified so many besides."""

    candidates: int = 160
    verified: int = 50


@dataclass(frozen=True, slots=True)
class NoteLimits:
    """Limits of what is kept. Over `notes` or `bytes` the weakest go, the oldest of them first: of models and
    devices, of runs, imported; what a person wrote or verified never goes by itself, and nothing is taken
    while only such notes are left. After `age_s` what models, devices and runs wrote goes, unless it was
    verified or written again."""

    notes: int = 100_000
    bytes: int = 256 << 20
    age_s: float = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class NoteGraph:
    """A note with what it was derived from, what was derived from it, what it contradicts and by what it is
    contradicted: notes by id, and edges of (from, to, relation) with `from` the later note."""

    notes: Mapping[int, Note] = field(default_factory=dict)
    edges: tuple[tuple[int, int, Literal["parent", "contradicts"]], ...] = ()


class NoteStore(Protocol):
    """The notes of a daemon. Every call may raise StateError (StoreFull where there is no room for a note);
    writes are durable when they return."""

    async def add(self, note: Note) -> AddedNote:
        """Store a note. Where one with the same hash is there, that one stays as it is, except that it counts
        the writing, and that the stronger status holds."""
        ...

    async def get(self, ids: Sequence[int]) -> list[Note]:
        """Return those of the notes that are there, in the order of the ids."""
        ...

    async def find_by_hash(self, hash_: str) -> Note | None: ...

    async def verify(self, id_: int, by: str, at: float) -> Note | None:
        """Mark a note as verified and return it; None where there is none. Verified before: nothing
        changes."""
        ...

    async def remove(self, id_: int) -> bool:
        """Drop a note; return whether it was there. Links to it stay, and lead to nothing."""
        ...

    async def search(
        self, words: Sequence[str], judge: Judge[T], *, target: str | None = None, budget: SearchBudget
    ) -> T:
        """Find notes that have some of the words (of a target alone), and return what `judge` makes of
        them."""
        ...

    async def warm(self, most: int) -> None:
        """Read ahead what the index has of the most frequent words, so that the first searches need not."""
        ...

    async def page(self, after: int, limit: int, size_bytes: int) -> list[Note]:
        """Return notes with a greater id, in order: at most `limit`, and no more once they have `size_bytes`
        together, but at least one where there is any."""
        ...

    async def graph(self, id_: int, depth: int, limit: int) -> NoteGraph:
        """Return what is linked to a note, over at most `depth` links, and at most `limit` notes."""
        ...

    async def count(self) -> Mapping[str, int]:
        """Return how many notes there are, by status and by origin (`verified`, `unverified`, `person`, …),
        and `notes`, `bytes`, `words`."""
        ...
