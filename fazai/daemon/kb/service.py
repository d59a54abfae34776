"""The knowledge base as a service of the daemon: add, search, show, verify, remove, export, import."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.kb.pages import Pages, read_pages
from fazai.kb.content import Content, excerpt, make_content
from fazai.kb.ranking import Ranked, rank_notes, weigh_words
from fazai.masking import make_mask
from fazai.store.notes import (
    AddedNote,
    Candidate,
    Note,
    NoteGraph,
    NoteStore,
    SearchBudget,
    WordStatistics,
    hash_content,
)
from fazai.wire.base import WireError
from fazai.wire.notes import NoteOrigin, NoteStatus

_PREFIX = "kb-"
_GRAPH_DEPTH, _GRAPH_NOTES = 6, 200
_LINKS = 64  # of one note
_PROMPT_HITS = 12
_PROMPT_NOTE_CHARS = 1500
_PAGE_BYTES = 2 << 20
_WARM_WORDS = 2000


@dataclass(frozen=True, slots=True)
class KbHit:
    """A note that was found. `excerpt` is the part of its text that is about the question."""

    note: Note
    score: float
    coverage: float
    excerpt: str
    contradicted: bool = False

    @property
    def status(self) -> NoteStatus:
        return self.note.status

    @property
    def citation(self) -> str:
        """The id by which answers cite it."""
        return note_name(self.note.id)

    def standing_text(self) -> str:
        """Return in words how far it is believed."""
        note = self.note
        standing = "verified by a person" if note.status == "verified" else f"unverified, {_BY[note.origin]}"
        return f"{standing}, contradicted by another note" if self.contradicted else standing

    def prompt_text(self) -> str:
        """Return the note as a prompt shows it, with a label that says how far it is believed."""
        text = f"{self.note.title}\n{self.excerpt}".replace("[kb-", "(kb-")  # it cannot pretend to be another
        return f"[{self.citation}] ({self.standing_text()}) {text}"


_BY: Mapping[NoteOrigin, str] = {
    "person": "written by a person",
    "model": "written by a model",
    "device": "written by a device",
    "import": "read from a file",
    "run": "noted by a run",
}


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome of adding a note: itself, whether it was new, how many secrets were taken out of it."""

    note: Note
    is_new: bool
    redacted: int


def note_name(id_: int) -> str:
    """Return the id of a note as people and answers write it."""
    return f"{_PREFIX}{id_}"


def parse_note_name(text: str) -> int:
    """Return the number of such an id. Raises Refusal(not_found)."""
    digits = text.removeprefix(_PREFIX)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise Refusal("not_found", f"there is no note {text[:64]!r}", hint="an id is such as kb-31")
    return int(digits)


class KnowledgeBase:
    """The knowledge base of one daemon. `secrets` returns the texts that must not be noted; to go through
    them may block."""

    def __init__(
        self,
        store: NoteStore,
        secrets: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.time,
        budget: SearchBudget | None = None,
    ) -> None:
        self._store, self._secrets, self._clock = store, secrets, clock
        self._budget = budget or SearchBudget()
        self._mask: tuple[frozenset[str], Callable[[str], str]] | None = None
        self._pages: asyncio.Task[Pages] | None = None

    async def add(
        self,
        title: str,
        text: str,
        *,
        origin: NoteOrigin,
        author: str,
        tags: Sequence[str] = (),
        source: str = "",
        target: str = "",
        session: str = "",
        run: str = "",
        parents: Sequence[str] = (),
        contradicts: Sequence[str] = (),
    ) -> Added:
        """Note something, unverified; secrets are taken out before it is written. `parents` and `contradicts`
        are ids of notes. Raises StateError, StoreFull, Refusal(not_found), WireError(bad_request)."""
        content, words = await self._make_content(title, text, tags, source, target)
        note = Note(
            title=content.title,
            text=content.text,
            hash=hash_content(content.title, content.text, content.tags, content.target),
            tags=content.tags,
            source=content.source,
            target=content.target,
            origin=origin,
            author=author,
            session=session,
            run=run,
            parents=await self._find_ids(parents[:_LINKS]),
            contradicts=await self._find_ids(contradicts[:_LINKS]),
            created=self._clock(),
            words=words,
        )
        added = await self._store.add(note)
        return Added(added.note, added.is_new, content.redacted)

    async def _make_content(
        self, title: str, text: str, tags: Sequence[str], source: str, target: str
    ) -> tuple[Content, tuple[str, ...]]:
        secrets = self._secrets()

        def make() -> tuple[Content, tuple[str, ...]]:
            mask = self._find_mask(secrets)
            content = make_content(title, text, tags=tags, source=source, target=target, mask=mask)
            return content, content.words()

        try:
            # deadline: none; a note is at most 64 KiB, and only files are read
            return await asyncio.to_thread(make)
        except ValueError as error:
            raise WireError("bad_request", str(error)) from None

    def _find_mask(self, secrets: Iterable[str]) -> Callable[[str], str]:
        texts = frozenset(secrets)
        if self._mask is None or self._mask[0] != texts:
            self._mask = (texts, make_mask(texts))
        return self._mask[1]

    async def _find_ids(self, names: Sequence[str]) -> tuple[int, ...]:
        ids = [parse_note_name(name) for name in names]
        known = {note.id for note in await self._store.get(ids)} if ids else set()
        for name, id_ in zip(names, ids, strict=True):
            if id_ not in known:
                raise Refusal("not_found", f"there is no note {name[:64]!r}")
        return tuple(ids)

    async def find_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of the ids that are of notes. Raises StateError."""
        known = {note.id for note in await self._store.get([parse_note_name(name) for name in names])}
        return tuple(name for name in names if parse_note_name(name) in known)

    async def search(self, query: str, *, limit: int = 10, target: str | None = None) -> list[KbHit]:
        """Return the notes that are nearest to a question in words, the best first; of a `target` alone."""
        weights = weigh_words(query)
        now = self._clock()

        def judge(candidates: Sequence[Candidate], counts: WordStatistics) -> list[Ranked]:
            return rank_notes(candidates, counts, weights, now=now, limit=limit)

        ranked = await self._store.search(list(weights), judge, target=target, budget=self._budget)
        notes = {note.id: note for note in await self._store.get([one.id for one in ranked])}
        words = list(weights)

        def make_hits() -> list[KbHit]:
            return [_hit(notes[one.id], one, words) for one in ranked if one.id in notes]

        # deadline: none; it computes for some milliseconds
        return await asyncio.to_thread(make_hits)

    async def notes_for_prompt(self, objective: str, budget_chars: int) -> list[KbHit]:
        """Return the best notes for an objective whose `prompt_text`s have at most so many characters
        together."""
        chosen = []
        for hit in await self.search(objective, limit=_PROMPT_HITS):
            length = len(hit.prompt_text()) + 1
            if length <= budget_chars:
                chosen.append(hit)
                budget_chars -= length
        return chosen

    async def show(self, name: str) -> tuple[Note, NoteGraph]:
        """Return a note, and what it was derived from and what was derived from it. Raises
        Refusal(not_found)."""
        id_ = parse_note_name(name)
        graph = await self._store.graph(id_, _GRAPH_DEPTH, _GRAPH_NOTES)
        if id_ not in graph.notes:
            raise Refusal("not_found", f"there is no note {name[:64]!r}", hint="see: GET /kb/search")
        return graph.notes[id_], graph

    async def verify(self, name: str, by: str) -> Note:
        """Mark a note as verified by a person. Raises Refusal(not_found)."""
        note = await self._store.verify(parse_note_name(name), by, self._clock())
        if note is None:
            raise Refusal("not_found", f"there is no note {name[:64]!r}", hint="see: GET /kb/search")
        return note

    async def remove(self, name: str) -> None:
        """Drop a note. Raises Refusal(not_found)."""
        if not await self._store.remove(parse_note_name(name)):
            raise Refusal("not_found", f"there is no note {name[:64]!r}", hint="see: GET /kb/search")

    async def export(self, after: int, limit: int) -> tuple[list[Note], Mapping[int, str]]:
        """Return notes after one, in order, and the hashes of those that they are linked to."""
        notes = await self._store.page(after, limit, _PAGE_BYTES)
        ids = {other for note in notes for other in (*note.parents, *note.contradicts)}
        return notes, {note.id: note.hash for note in await self._store.get(sorted(ids))}

    async def restore(self, given: Sequence[ExportedNote]) -> list[Added]:
        """Add notes with their status and where they are from, as they were exported. Raises StateError,
        StoreFull, after which others may be stored; WireError(bad_request), with none stored, for one whose
        hash is not that of its content and for one that is empty."""
        for one, _, _ in given:
            if one.hash != hash_content(one.title, one.text, one.tags, one.target):
                raise WireError("bad_request", "`hash`: it is not that of the note's content")
        secrets = self._secrets()

        def make_all() -> list[tuple[Note, int]]:
            mask = self._find_mask(secrets)
            return [_cleaned(number, one, mask) for number, (one, _, _) in enumerate(given)]

        # deadline: none; a body is bounded
        made = await asyncio.to_thread(make_all)
        added: dict[int, AddedNote] = {}
        alone = [number for number, (_, *links) in enumerate(given) if not any(links)]
        stored = await asyncio.gather(*(self._store.add(made[number][0]) for number in alone))
        added.update(zip(alone, stored, strict=True))
        for number, (_, parents, contradicts) in enumerate(given):
            if number not in added:  # what it is linked to came before it
                links = [await self._find_hashes(hashes) for hashes in (parents, contradicts)]
                note = replace(made[number][0], parents=links[0], contradicts=links[1])
                added[number] = await self._store.add(note)
        return [
            Added(added[number].note, added[number].is_new, redacted)
            for number, (_, redacted) in enumerate(made)
        ]

    async def _find_hashes(self, hashes: Sequence[str]) -> tuple[int, ...]:
        found = [await self._store.find_by_hash(hash_) for hash_ in hashes]
        return tuple(note.id for note in found if note is not None)

    async def pages(self) -> Pages:
        """Return the product's own documentation, which is read when it is first asked for."""
        if self._pages is None:
            self._pages = asyncio.get_running_loop().create_task(asyncio.to_thread(read_pages))
        return await asyncio.shield(self._pages)  # deadline: none; it reads files of the package

    async def warm(self) -> None:
        """Read ahead what searches need."""
        await self._store.warm(_WARM_WORDS)

    async def count(self) -> Mapping[str, int]:
        """Return the figures of the store (`NoteStore.count`)."""
        return await self._store.count()


def _hit(note: Note, one: Ranked, words: Sequence[str]) -> KbHit:
    part = excerpt(note.text, words, _PROMPT_NOTE_CHARS)
    return KbHit(note, round(one.score, 4), round(min(1.0, one.coverage), 3), part, one.contradicted)


def _cleaned(number: int, given: Note, mask: Callable[[str], str]) -> tuple[Note, int]:
    """Return an exported note without secrets, and how many it had; `number` says which of them it is. Raises
    WireError(bad_request) for an empty one."""
    try:
        content = make_content(
            given.title, given.text, tags=given.tags, source=given.source, target=given.target, mask=mask
        )
    except ValueError as error:
        raise WireError("bad_request", f"`notes[{number}]`: {error}") from None
    values: dict[str, Any] = {name: getattr(content, name) for name in ("title", "text", "tags", "target")}
    kept = {name: getattr(given, name) for name in _KEPT}
    note = Note(**values, **kept, hash=hash_content(**values), source=content.source, words=content.words())
    return note, content.redacted


#: A note as it was exported, and the hashes of those that it was derived from and that it contradicts.
ExportedNote = tuple[Note, Sequence[str], Sequence[str]]

#: Fields of an exported note that are taken as they are.
_KEPT = (
    *("origin", "author", "session", "run", "status", "created", "verified", "verified_by"),
    *("written", "last_written"),
)
