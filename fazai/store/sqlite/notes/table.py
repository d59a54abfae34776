"""The table of notes: what is written, what is read by id. It is the embedded `NoteStore`."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from fazai.errors import StoreFull
from fazai.store.notes import AddedNote, Judge, Note, NoteGraph, NoteLimits, NoteStore, SearchBudget
from fazai.store.sqlite.notes.search import VERIFIED_WORD, NoteSearch
from fazai.store.sqlite.notes.wordsets import Change, WordSets
from fazai.store.sqlite.readers import Readers
from fazai.store.sqlite.schema import escape_text
from fazai.store.sqlite.writer import GroupWriter, WriteHandler
from fazai.wire.notes import VERIFIED_STANDING

T = TypeVar("T")

_KEPT_BY_AGE = 2  # the standing from which on age alone drops nothing
_OF_PERSONS = 3  # the standing from which on nothing goes by itself
_TRIMMED = 200  # notes of one step
_MAX_WORDS = 50_000  # of one note
_COLUMNS = (
    "id, title, text, hash, tags, source, target, origin, author, session, run, status, created, verified,"
    " verified_by, written, last_written"
)
_INSERT = (
    "INSERT INTO notes (standing, created, last_written, length, bytes, folded, hash, status, origin, target,"
    " written, verified, verified_by, author, session, run, source, tags, title, text)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_LINKS: Mapping[str, Literal["parent", "contradicts"]] = {"parent": "parent", "contradicts": "contradicts"}
#: All that separates words in the index, beside white space: none of it can stand in one.
_NO_WORD = re.compile(r"[\x00-\x20\x7f!\"$()*,;<>?\[\\\]^`{|}]")


def target_word(target: str) -> str:
    """Return the word by which the notes of a target are found."""
    return f"=t={_NO_WORD.sub('_', target.casefold())}"[:128]


def clean_word(word: str) -> str:
    """Return a word as the index has it: one that holds nothing that would separate it there."""
    return _NO_WORD.sub("_", escape_text(word)).lstrip("=")


class NoteTable:
    """The notes of one daemon (`NoteStore`). The writer has the statements of a call in one transaction."""

    def __init__(self, writer: GroupWriter, readers: Readers, limits: NoteLimits) -> None:
        self._writer, self._readers, self._limits = writer, readers, limits
        self._search = NoteSearch(readers.query)
        self._handler = _NoteHandler(limits, self._search.sets)

    def trim(self, connection: sqlite3.Connection, now: float) -> bool:
        """Drop notes that are too old, in one transaction; return whether there may be more. Called by the
        writer, between its groups."""
        old = connection.execute(
            "SELECT id FROM notes WHERE standing < ? AND last_written < ?"
            " ORDER BY standing, last_written LIMIT ?",
            (_KEPT_BY_AGE, now - self._limits.age_s, _TRIMMED),
        ).fetchall()
        if not old:
            return False
        connection.execute("BEGIN IMMEDIATE")
        changes = remove_notes(connection, [row[0] for row in old])
        connection.execute("COMMIT")
        self._search.sets.follow(changes)
        return len(old) == _TRIMMED

    async def add(self, note: Note) -> AddedNote:
        added: AddedNote | None = await self._writer.write(self._handler, ("add", note), note.bytes)
        if added is None:
            raise StoreFull(
                "the knowledge base is full, and all that is in it is worth more than this note",
                hint="remove notes: fazai kb rm ID; or raise retention.notes",
            )
        return added

    async def get(self, ids: Sequence[int]) -> list[Note]:
        return await self._readers.run(self._read, list(ids))

    async def find_by_hash(self, hash_: str) -> Note | None:
        found = await self._readers.run(self._read_where, "hash = ?", (hash_,))
        return found[0] if found else None

    async def verify(self, id_: int, by: str, at: float) -> Note | None:
        note: Note | None = await self._writer.write(self._handler, ("verify", (id_, by, at)))
        return note

    async def remove(self, id_: int) -> bool:
        removed: bool = await self._writer.write(self._handler, ("remove", id_))
        return removed

    async def search(
        self, words: Sequence[str], judge: Judge[T], *, target: str | None = None, budget: SearchBudget
    ) -> T:
        cleaned = [clean_word(word) for word in words]
        within = target_word(target) if target is not None else None
        return await self._readers.run(self._search.find, cleaned, within, budget, judge)

    async def warm(self, most: int) -> None:
        await self._readers.run(self._search.warm, most)

    async def page(self, after: int, limit: int, size_bytes: int) -> list[Note]:
        return await self._readers.run(self._read_page, after, limit, size_bytes)

    async def graph(self, id_: int, depth: int, limit: int) -> NoteGraph:
        return await self._readers.run(self._read_graph, id_, depth, limit)

    async def count(self) -> Mapping[str, int]:
        return await self._readers.run(self._count)

    # -- in a thread that reads

    def _read(self, ids: Sequence[int]) -> list[Note]:
        wanted = [id_ for id_ in dict.fromkeys(ids) if 0 < id_ < 2**63]
        marks = ", ".join("?" * len(wanted))
        found = {note.id: note for note in self._read_where(f"id IN ({marks})", tuple(wanted))}
        return [found[id_] for id_ in wanted if id_ in found]

    def _read_where(self, condition: str, params: tuple[Any, ...]) -> list[Note]:
        rows = self._readers.query(f"SELECT {_COLUMNS} FROM notes WHERE {condition}", params)  # noqa: S608
        links: dict[int, list[tuple[int, str]]] = {row[0]: [] for row in rows}
        marks = ", ".join(str(id_) for id_ in links)
        for note, other, relation in self._readers.query(
            f"SELECT note, other, relation FROM note_links WHERE note IN ({marks}) ORDER BY other"  # noqa: S608
        ):
            links[note].append((other, relation))
        return [_note_of(row, links[row[0]]) for row in rows]

    def _read_page(self, after: int, limit: int, size_bytes: int) -> list[Note]:
        ids: list[int] = []
        size = 0
        for id_, length in self._readers.query(
            "SELECT id, bytes FROM notes WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ):
            size += length
            if ids and size > size_bytes:
                break
            ids.append(id_)
        return self._read(ids)

    def _read_graph(self, id_: int, depth: int, limit: int) -> NoteGraph:
        seen, fresh = {id_}, {id_}
        edges: dict[tuple[int, int, str], None] = {}
        for _ in range(depth):
            marks = ", ".join(map(str, fresh))
            rows = self._readers.query(
                f"SELECT note, other, relation FROM note_links WHERE note IN ({marks})"  # noqa: S608
                f" UNION SELECT note, other, relation FROM note_links WHERE other IN ({marks})"
                " ORDER BY 1, 2 LIMIT ?",
                (limit * 4,),
            )
            fresh = set()
            for note, other, relation in rows:
                for each in (note, other):
                    if each not in seen and len(seen) < limit:
                        seen.add(each)
                        fresh.add(each)
                if note in seen and other in seen:
                    edges[note, other, relation] = None
            if not fresh:
                break
        notes = {note.id: note for note in self._read(sorted(seen))}
        return NoteGraph(notes, tuple((note, other, _LINKS[how]) for note, other, how in edges))

    def _count(self) -> Mapping[str, int]:
        ((notes, size, words),) = self._readers.query("SELECT notes, bytes, words FROM note_totals")
        counted: Counter[str] = Counter()
        for status, origin, count in self._readers.query(
            "SELECT status, origin, count(*) FROM notes GROUP BY standing, status, origin"
        ):
            counted[status] += count
            counted[origin] += count
        return {**counted, "notes": notes, "bytes": size, "words": words}


class _NoteHandler(WriteHandler):
    """Handler of writes of notes: a payload is what to do, and with what."""

    def __init__(self, limits: NoteLimits, sets: WordSets) -> None:
        self._limits, self._sets = limits, sets
        self._changes: list[Change] = []

    def committed(self) -> None:
        self._sets.follow(self._changes)
        self._changes = []

    def abandoned(self) -> None:
        self._changes = []

    def apply(self, connection: sqlite3.Connection, payloads: Sequence[tuple[str, Any]]) -> list[Any]:
        return [getattr(self, f"_{what}")(connection, value) for what, value in payloads]

    def _add(self, connection: sqlite3.Connection, note: Note) -> AddedNote | None:
        row = connection.execute("SELECT id FROM notes WHERE hash = ?", (note.hash,)).fetchone()
        if row is not None:
            return AddedNote(self._merge(connection, _read_one(connection, row[0]), note), False)
        if not self._make_room(connection, note):
            return None
        words = [clean_word(word) for word in note.words[:_MAX_WORDS]]
        if note.target:
            words.append(target_word(note.target))
        if note.status == "verified":
            words.append(VERIFIED_WORD)
        values = _row_of(note, words)
        id_ = connection.execute(_INSERT, values).lastrowid
        assert id_ is not None
        self._count_words(connection, id_, words, 1)
        for relation, others in (("parent", note.parents), ("contradicts", note.contradicts)):
            connection.executemany(
                "INSERT OR IGNORE INTO note_links VALUES (?, ?, ?)",
                [(id_, other, relation) for other in others if other != id_],
            )
        return AddedNote(_read_one(connection, id_), True)

    def _merge(self, connection: sqlite3.Connection, kept: Note, note: Note) -> Note:
        """Count that a note was written again. The stronger status holds; who it is from never changes."""
        connection.execute(
            "UPDATE notes SET written = min(written + ?, 1 << 53), last_written = max(last_written, ?)"
            " WHERE id = ?",
            (note.written, note.last_written or note.created, kept.id),
        )
        if note.status == "verified" and kept.status != "verified":
            self._mark_verified(connection, kept, note.verified_by, note.verified or note.created)
        return _read_one(connection, kept.id)

    def _verify(self, connection: sqlite3.Connection, asked: tuple[int, str, float]) -> Note | None:
        id_, by, at = asked
        if connection.execute("SELECT 1 FROM notes WHERE id = ?", (id_,)).fetchone() is None:
            return None
        note = _read_one(connection, id_)
        if note.status != "verified":
            self._mark_verified(connection, note, by, at)
        return _read_one(connection, id_)

    def _mark_verified(self, connection: sqlite3.Connection, note: Note, by: str, at: float) -> None:
        connection.execute(
            "UPDATE notes SET status = 'verified', standing = ?, verified = ?, verified_by = ?,"
            " folded = folded || ?, length = length + 1 WHERE id = ?",
            (VERIFIED_STANDING, at, escape_text(by), f" {VERIFIED_WORD} ", note.id),
        )
        self._count_words(connection, note.id, [VERIFIED_WORD], 1)

    def _remove(self, connection: sqlite3.Connection, id_: int) -> bool:
        removed = remove_notes(connection, [id_])
        self._changes += removed
        return bool(removed)

    def _count_words(self, connection: sqlite3.Connection, id_: int, words: Sequence[str], step: int) -> None:
        _count_words(connection, words, step)
        self._changes.append(Change(id_, tuple(dict.fromkeys(words)), True))

    def _make_room(self, connection: sqlite3.Connection, note: Note) -> bool:
        """Drop the weakest notes, the oldest first, until there is room for one more; False where those that
        are left are stronger than it, or a person's."""
        limits = self._limits
        while True:
            notes, size = connection.execute("SELECT notes, bytes FROM note_totals").fetchone()
            if notes < limits.notes and size + note.bytes <= limits.bytes:
                return True
            weakest = connection.execute(
                "SELECT id FROM notes WHERE standing <= ? ORDER BY standing, last_written LIMIT 1",
                (min(note.standing, _OF_PERSONS - 1),),
            ).fetchone()
            if weakest is None and note.standing >= _OF_PERSONS:
                weakest = connection.execute(
                    "SELECT id FROM notes WHERE standing < ? ORDER BY standing, last_written LIMIT 1",
                    (_OF_PERSONS,),
                ).fetchone()
            if weakest is None:
                return False
            self._changes += remove_notes(connection, [weakest[0]])


def remove_notes(connection: sqlite3.Connection, ids: Iterable[int]) -> list[Change]:
    """Drop notes with what the index has of them; return what that changed. What they say of others goes with
    them."""
    changes = []
    for id_ in ids:
        row = connection.execute("SELECT folded FROM notes WHERE id = ?", (id_,)).fetchone()
        if row is None:
            continue
        words = tuple(dict.fromkeys(row[0].split()))
        _count_words(connection, words, -1)
        connection.execute("DELETE FROM note_links WHERE note = ?", (id_,))
        connection.execute("DELETE FROM notes WHERE id = ?", (id_,))
        changes.append(Change(id_, words, False))
    return changes


def _count_words(connection: sqlite3.Connection, words: Iterable[str], step: int) -> None:
    """Count one note more, or one less, for each of the words."""
    distinct = [(word, step, step) for word in dict.fromkeys(words)]
    connection.executemany(
        "INSERT INTO note_words VALUES (?, ?) ON CONFLICT (word) DO UPDATE SET notes = notes + ?", distinct
    )
    if step < 0:
        connection.executemany(
            "DELETE FROM note_words WHERE word = ? AND notes <= 0", [(word,) for word, _, _ in distinct]
        )


def _row_of(note: Note, words: Sequence[str]) -> tuple[Any, ...]:
    texts = (note.author, note.session, note.run, note.source, json.dumps(note.tags), note.title, note.text)
    return (
        *(note.standing, note.created, note.last_written or note.created, len(words), note.bytes),
        *(fold_words(words), note.hash, note.status, note.origin, escape_text(note.target), note.written),
        *(note.verified, escape_text(note.verified_by), *map(escape_text, texts)),
    )


def fold_words(words: Iterable[str]) -> str:
    """Return words as the index takes them, each between two spaces of its own."""
    return "".join([f" {word} " for word in words])


def _read_one(connection: sqlite3.Connection, id_: int) -> Note:
    row = connection.execute(f"SELECT {_COLUMNS} FROM notes WHERE id = ?", (id_,)).fetchone()  # noqa: S608
    links = connection.execute(
        "SELECT other, relation FROM note_links WHERE note = ? ORDER BY other", (id_,)
    ).fetchall()
    return _note_of(row, links)


def _note_of(row: Sequence[Any], links: Iterable[tuple[int, str]]) -> Note:
    names = _COLUMNS.replace(" ", "").split(",")
    values = dict(zip(names, row, strict=True))
    kinds: dict[str, list[int]] = {"parent": [], "contradicts": []}
    for other, relation in links:
        kinds[relation].append(other)
    values["tags"] = tuple(json.loads(values["tags"]))
    return Note(**values, parents=tuple(kinds["parent"]), contradicts=tuple(kinds["contradicts"]))


def _fits_protocol(table: NoteTable) -> NoteStore:
    """Let the type checker compare the two."""
    return table
