"""The product's own documentation, by sections, in memory: what research finds beside the notes.

The pages are `docs/*.md`: those of the source tree, else those that are installed with the package, in
`share/fazai/docs` of the environment.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import fazai
from fazai.errors import FazaiError
from fazai.kb.content import excerpt, words_of_note
from fazai.kb.ranking import rank_notes, weigh_words
from fazai.kb.reading import Section, read_sections
from fazai.store.notes import WordStatistics
from fazai.wire.notes import VERIFIED_STANDING

_INSTALLED = "share/fazai/docs/"
_EXCERPT_CHARS = 1500


@dataclass(frozen=True, slots=True)
class PageHit:
    """A section of a page. `place` is the page and the section's anchor, such as `docs/kb.md#secrets`."""

    title: str
    place: str
    excerpt: str
    score: float
    coverage: float


@dataclass(frozen=True, slots=True)
class _Entry:
    """A section as the ranking takes it (`kb.ranking.RankedNote`)."""

    id: int
    folded: str
    length: int
    standing: int = VERIFIED_STANDING
    time: float = 0.0
    contradicted: int = -1


class Pages:
    """The sections of the pages. Reading them takes about a second."""

    def __init__(self, files: list[Path]) -> None:
        self._sections = [section for file in files for section in _sections_of(file)]
        words = [words_of_note(one.title, one.text, (), "") for one in self._sections]
        self._entries = [
            _Entry(number, "".join([f" {word} " for word in found]), len(found))
            for number, found in enumerate(words)
        ]
        frequencies = Counter(word for found in words for word in set(found))
        self._counts = WordStatistics(dict(frequencies), len(words), sum(map(len, words)))

    def __len__(self) -> int:
        return len(self._sections)

    def search(self, query: str, limit: int) -> list[PageHit]:
        """Return the sections that are nearest to a question, the best first. 1,000 sections: some ms."""
        weights = weigh_words(query)
        found = rank_notes(self._entries, self._counts, weights, now=0.0, limit=limit)
        return [self._hit(self._sections[one.id], list(weights), one.score, one.coverage) for one in found]

    def _hit(self, section: Section, words: list[str], score: float, coverage: float) -> PageHit:
        text = excerpt(section.text, words, _EXCERPT_CHARS)
        return PageHit(section.title, section.source, text, round(score, 4), round(min(1.0, coverage), 3))


def find_pages(source: Path | None = None, distribution: str = "fazai") -> list[Path]:
    """Return the files of the pages: of the source tree that the package is in, or of what is installed; none
    where they are not there."""
    source = source or Path(fazai.__file__).parents[1]
    if (source / "pyproject.toml").is_file():
        return sorted((source / "docs").glob("*.md"))
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    named = (file for file in files if _INSTALLED in file.as_posix() and file.suffix == ".md")
    return sorted(path for path in (Path(str(file.locate())) for file in named) if path.is_file())


def _sections_of(file: Path) -> list[Section]:
    try:
        return read_sections(f"docs/{file.name}", file.read_bytes())
    except (OSError, FazaiError):
        return []


def read_pages() -> Pages:
    """Read the pages. Blocks."""
    return Pages(find_pages())
