"""The knowledge base with 100,000 notes: how long a search takes, and how much of the whole ranking it finds.

    python -m bench.kb [--notes 100000] [--queries 200]

The words of the notes are drawn by Zipf's law, four of ten from the stop words of both languages. A question
has 8 to 20 words, as an objective of the loop has: half of it from one note, the rest from all words; a third
of the questions has no note in mind. The whole ranking is that of `kb.ranking` over every note. Beside it
stand bm25() of FTS5 over the same index and, where it is installed, tantivy (`pip install tantivy`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fazai.kb.content import words_of_note
from fazai.kb.ranking import rank_notes, weigh_words
from fazai.kb.stopwords import STOP_WORDS
from fazai.store.factory import open_daemon_store
from fazai.store.notes import Candidate, Note, NoteStore, SearchBudget, WordStatistics, hash_content

NOTES, QUERIES, WORDS, TOP = 100_000, 200, 66, 5
_VOCABULARY = 60_000
_SYLLABLES = [a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "ar", "en", "is", "or")]
_NOW = 1_790_000_000.0

Times = list[tuple[float, float]]  # wall and CPU, ms
Answers = Sequence[Sequence[int]]


class Corpus:
    """Notes and questions, the same for the same seed."""

    def __init__(self, seed: int = 3120) -> None:
        self._chance = random.Random(seed)
        syllables = self._chance.sample(_SYLLABLES, len(_SYLLABLES))
        words = ("".join(parts) for parts in itertools.product(syllables, repeat=3))
        self._words = list(itertools.islice(words, _VOCABULARY))
        self._chance.shuffle(self._words)
        self._stops = sorted(STOP_WORDS)
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, _VOCABULARY + 1)))
        self._stop_weights = list(itertools.accumulate(1 / rank for rank in range(1, len(self._stops) + 1)))

    def draw(self, count: int) -> list[str]:
        """Return words of a text."""
        content = self._chance.choices(self._words, cum_weights=self._weights, k=count)
        stops = self._chance.choices(self._stops, cum_weights=self._stop_weights, k=count)
        return [
            stop if self._chance.random() < 0.4 else word for word, stop in zip(content, stops, strict=True)
        ]

    def notes(self, count: int) -> Iterator[tuple[str, str]]:
        """Yield titles and texts."""
        for number in range(count):
            length = max(8, int(self._chance.gauss(WORDS, 20)))
            host = f"fw-{number % 5000:04d}"
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            yield " ".join([*self.draw(4), host]), " ".join([*self.draw(length), address])

    def question(self, text: str | None) -> str:
        """Return a question, about a note's text or about none."""
        count = self._chance.randint(8, 20)
        if text is None:
            return " ".join(self.draw(count))
        of_note = self._chance.choices(text.split()[:-1], k=count // 2)
        return " ".join([*of_note, *self.draw(count - count // 2)])


def _note(title: str, text: str) -> Note:
    return Note(
        title=title,
        text=text,
        hash=hash_content(title, text, (), ""),
        origin="import",
        created=_NOW,
        words=words_of_note(title, text, (), ""),
    )


async def _fill(store: NoteStore, corpus: Corpus, count: int) -> list[str]:
    texts = []
    batch: list[Note] = []
    for title, text in corpus.notes(count):
        texts.append(text)
        batch.append(_note(title, text))
        if len(batch) == 2000:
            await asyncio.gather(*(store.add(note) for note in batch))
            batch = []
    await asyncio.gather(*(store.add(note) for note in batch))
    return texts


async def _search(store: NoteStore, question: str, budget: SearchBudget) -> list[int]:
    weights = weigh_words(question)

    def judge(candidates: Sequence[Candidate], counts: WordStatistics) -> list[int]:
        return [one.id for one in rank_notes(candidates, counts, weights, now=_NOW, limit=TOP)]

    found: list[int] = await store.search(list(weights), judge, budget=budget)
    await store.get(found)
    return found


def _whole_ranking(notes: Sequence[Candidate], counts: WordStatistics, question: str) -> list[int]:
    return [one.id for one in rank_notes(notes, counts, weigh_words(question), now=_NOW, limit=TOP)]


def _timed(work: Callable[[str], Sequence[int]], questions: Sequence[str]) -> tuple[Times, Answers]:
    times, answers = [], []
    for question in questions:
        begun, used = time.perf_counter(), time.process_time()
        answers.append(work(question))
        times.append(((time.perf_counter() - begun) * 1000, (time.process_time() - used) * 1000))
    return times, answers


def _row(name: str, times: Times, answers: Answers, best: Answers, top: int = TOP) -> str:
    shared = [
        len(set(one[:top]) & set(other[:top])) / len(other[:top])
        for one, other in zip(answers, best, strict=True)
        if other
    ]
    wall, cpu = sorted(one for one, _ in times), sorted(one for _, one in times)
    p99 = min(len(times) - 1, int(len(times) * 0.99))
    return (
        f"| {name} | {statistics.median(cpu):.1f} | {cpu[p99]:.1f} | {statistics.median(wall):.1f}"
        f" | {wall[p99]:.1f} | {statistics.mean(shared):.3f} (@{top}) |"
    )


def _bm25(path: Path) -> Callable[[str], list[int]]:
    connection = sqlite3.connect(path)

    def search(question: str) -> list[int]:
        match = " OR ".join(f'"{word}"' for word in weigh_words(question))
        rows = connection.execute(
            "SELECT rowid FROM notes_index WHERE notes_index MATCH ? ORDER BY rank LIMIT ?", (match, TOP)
        )
        return [row[0] for row in rows]

    return search


def _tantivy(folder: Path, notes: Sequence[Candidate]) -> Callable[[str], list[int]]:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("id", stored=True)
    builder.add_text_field("words", stored=False, tokenizer_name="whitespace")
    schema = builder.build()
    index = tantivy.Index(schema, path=str(folder))
    writer = index.writer(256 << 20, 1)
    for note in notes:
        writer.add_document(tantivy.Document(id=note.id, words=" ".join(note.folded.split())))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(question: str) -> list[int]:
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "words", word))
            for word in weigh_words(question)
        ]
        hits = searcher.search(tantivy.Query.boolean_query(terms), TOP).hits
        return [searcher.doc(address)["id"][0] for _, address in hits]

    return search


def main(count: int = NOTES, queries: int = QUERIES) -> list[str]:
    corpus = Corpus()
    rows = [
        f"| {count} notes, ms a search | CPU, median | CPU, p99 | wall, median | wall, p99 | recall |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        state = Path(folder, "state")
        with contextlib.closing(open_daemon_store(state)) as store:
            begun = time.perf_counter()
            texts = runner.run(_fill(store.notes, corpus, count))
            took_s = time.perf_counter() - begun
            chance = random.Random(1)
            questions = [
                corpus.question(chance.choice(texts) if number % 3 else None) for number in range(queries)
            ]
            file = next(state.glob("*.sqlite3"))
            notes, counts = _read_all(file)
            best = [_whole_ranking(notes, counts, question) for question in questions]

            def ours(question: str) -> list[int]:
                return runner.run(_search(store.notes, question, SearchBudget()))

            for question in questions[:20]:
                ours(question)
            rows.append(_row("fazai", *_timed(ours, questions), best))
            hosts = [f"why is fw-{number % 5000:04d} slow" for number in range(0, 5000, 100)]
            whole = [_whole_ranking(notes, counts, question) for question in hosts]
            rows.append(_row("fazai, one identifier", *_timed(ours, hosts), whole, 1))
            rows += _peers(file, Path(folder), notes, questions, best)
            size = file.stat().st_size / 2**20
        rows.append(
            f"\nAdded in {took_s:.0f} s ({took_s / count * 1e6:.0f} µs a note); the file has {size:.0f} MiB."
        )
    return rows


def _read_all(file: Path) -> tuple[list[Candidate], WordStatistics]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT id, folded, length, standing, created, -1 FROM notes")
        notes = [Candidate(*row) for row in rows]
        frequencies = dict(connection.execute("SELECT word, notes FROM note_words"))
        ((total, words),) = connection.execute("SELECT notes, words FROM note_totals")
    return notes, WordStatistics(frequencies, total, words)


def _peers(
    file: Path,
    folder: Path,
    notes: Sequence[Candidate],
    questions: Sequence[str],
    best: Answers,
) -> list[str]:
    few = slice(0, 20)
    rows = [_row("FTS5, bm25() of all words (20 questions)", *_timed(_bm25(file), questions[few]), best[few])]
    try:
        (folder / "tantivy").mkdir()
        search: Any = _tantivy(folder / "tantivy", notes)
    except ImportError:
        return rows
    return [*rows, _row("tantivy, all words", *_timed(search, questions), best)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--notes", type=int, default=NOTES)
    parser.add_argument("--queries", type=int, default=QUERIES)
    given = parser.parse_args()
    print("\n".join(main(given.notes, given.queries)))
