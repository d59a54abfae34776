"""Checks the notes and their index, and builds the index anew from the notes.

Damage of the two is told apart: notes that are not what was stored are lost, and come back from a backup; an
index that is not as the notes are is built anew.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fazai.store.notes import hash_content
from fazai.store.sqlite.notes.search import VERIFIED_WORD
from fazai.store.sqlite.notes.table import clean_word, fold_words, target_word

REINDEX_HINT = "build it anew with: fazai store reindex"
_SHOWN = 20
_BUSY_S = 30.0


def damaged_notes(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a sentence for each note that is not what was stored. Raises sqlite3.Error."""
    rows = connection.execute("SELECT id, title, text, tags, target, hash FROM notes ORDER BY id")
    count = 0
    for id_, title, text, tags, target, hash_ in rows:
        try:
            same = hash_content(title, text, json.loads(tags), target) == hash_
        except (ValueError, TypeError, AttributeError):
            same = False
        if not same:
            count += 1
            if count <= _SHOWN:
                yield f"note kb-{id_} is not what was stored"
    if count > _SHOWN:
        yield f"{count - _SHOWN} more notes are not what was stored"


def damaged_index(path: Path) -> list[str]:
    """Return a sentence for each part of the index that is not as the notes are. The file is opened to be
    written, as SQLite asks for that, and nothing is. All of it is one transaction: a note that is written
    between two looks would be damage. Raises sqlite3.Error."""
    found: list[str] = []
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("BEGIN IMMEDIATE")
        try:
            # rank 1: also against the table, which PRAGMA integrity_check does not look at
            connection.execute("INSERT INTO notes_index (notes_index, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            found.append(f"the index of notes is not as the notes are: {error}")
        words, totals = _count_all(connection)
        kept = dict(connection.execute("SELECT word, notes FROM note_words"))
        if kept != words:
            wrong = len({word for word in kept.keys() | words.keys() if kept.get(word) != words.get(word)})
            found.append(f"the counts of {wrong} words are not as the notes are")
        if connection.execute("SELECT notes, bytes, words FROM note_totals").fetchall() != [totals]:
            found.append("the totals of notes are not as the notes are")
        connection.execute("ROLLBACK")
    return found


def _count_all(connection: sqlite3.Connection) -> tuple[dict[str, int], tuple[int, int, int]]:
    words: Counter[str] = Counter()
    notes = size = length = 0
    for folded, bytes_, count in connection.execute("SELECT folded, bytes, length FROM notes"):
        words.update(set(folded.split()))
        notes, size, length = notes + 1, size + bytes_, length + count
    return dict(words), (notes, size, length)


def rebuild_index(
    connection: sqlite3.Connection, find_words: Callable[[str, str, Sequence[str], str], Sequence[str]]
) -> int:
    """Build index, words and totals anew from the notes, in the transaction that was begun for it; return how
    many notes there are. `find_words` finds the words of a note's title, text, tags and target. Raises
    sqlite3.Error, after which the connection is to be closed."""
    rows = connection.execute("SELECT id, title, text, tags, target, status FROM notes").fetchall()
    # what the triggers would take out of a damaged index may not be in it: it is emptied first
    connection.execute("INSERT INTO notes_index (notes_index) VALUES ('delete-all')")
    triggers = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'notes'"
    ).fetchall()
    for name, _ in triggers:
        connection.execute(f'DROP TRIGGER "{name}"')
    for id_, title, text, tags, target, status in rows:
        words = [clean_word(word) for word in find_words(title, text, json.loads(tags), target)]
        words += [target_word(target)] if target else []
        words += [VERIFIED_WORD] if status == "verified" else []
        connection.execute(
            "UPDATE notes SET folded = ?, length = ? WHERE id = ?", (fold_words(words), len(words), id_)
        )
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("INSERT INTO notes_index (notes_index) VALUES ('rebuild')")
    words_, totals = _count_all(connection)
    connection.execute("DELETE FROM note_words")
    connection.executemany("INSERT INTO note_words VALUES (?, ?)", words_.items())
    connection.execute("DELETE FROM note_totals")
    connection.execute("INSERT INTO note_totals VALUES (?, ?, ?)", totals)
    return len(rows)
