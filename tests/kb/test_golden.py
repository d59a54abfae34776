"""Recall over the golden set: 120 questions of operations in Portuguese, with and without accents, and in
English (`golden/questions.jsonl`), each about one of the notes (`golden/notes.jsonl`). The sections of the
product's own pages stand between the notes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fazai.daemon.kb.service import KnowledgeBase
from fazai.kb.reading import read_sections
from fazai.store.factory import open_daemon_store
from fazai.store.notes import NoteStore

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
SORTS = ("pt-BR", "pt-BR without accents", "en", "identifier")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


async def fill(kb: KnowledgeBase) -> dict[str, str]:
    """Adds notes and pages, and returns the keys of the notes by their id."""
    keys = {}
    for row in rows("notes.jsonl"):
        key = row.pop("key")
        added = await kb.add(**row, origin="person", author="token:night")
        keys[f"kb-{added.note.id}"] = key
    for page in sorted(ROOT.glob("docs/*.md")):
        for section in read_sections(page.name, page.read_bytes()):
            await kb.add(section.title, section.text, source=section.source, origin="person", author="docs")
    return keys


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[dict[str, Any], list[str]]]]:
    """Each question with the keys of the five notes that were found, the best first."""
    with contextlib.closing(open_daemon_store(tmp_path_factory.mktemp("golden"))) as store:

        async def ask() -> list[tuple[dict[str, Any], list[str]]]:
            notes: NoteStore = store.notes
            kb = KnowledgeBase(notes, lambda: ())
            keys = await fill(kb)
            return [
                (
                    row,
                    [
                        keys.get(hit.citation, hit.note.title)
                        for hit in await kb.search(row["question"], limit=5)
                    ],
                )
                for row in rows("questions.jsonl")
            ]

        yield asyncio.run(ask())


def test_there_are_questions_of_every_sort() -> None:
    found = rows("questions.jsonl")
    assert len(found) == 120
    assert {row["sort"] for row in found} == set(SORTS)
    assert {row["note"] for row in found} <= {row["key"] for row in rows("notes.jsonl")}
    assert len({row["question"] for row in found}) == 120
    plain = [row["question"] for row in found if row["sort"] == "pt-BR without accents"]
    assert all(text.isascii() for text in plain)


@pytest.mark.parametrize("sort", SORTS[:3])
def test_nine_of_ten_are_among_the_first_five(
    sort: str, places: list[tuple[dict[str, Any], list[str]]]
) -> None:
    asked = [(row, found) for row, found in places if row["sort"] == sort]
    missed = [(row["question"], found) for row, found in asked if row["note"] not in found]
    assert len(missed) <= 0.1 * len(asked), missed


def test_identifiers_come_first(places: list[tuple[dict[str, Any], list[str]]]) -> None:
    asked = [(row, found) for row, found in places if row["sort"] == "identifier"]
    assert [(row["question"], found) for row, found in asked if found[:1] != [row["note"]]] == []
