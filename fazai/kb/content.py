"""Brings what is to be noted into its one form: without secrets and control characters, within bounds."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fazai.kb.words import find_words
from fazai.masking.redaction import redact_text

MAX_TITLE, MAX_TEXT, MAX_TAGS, MAX_SOURCE, MAX_NAME = 256, 65_536, 64, 1024, 256
_TITLE_COUNTS, _TAG_COUNTS = 3, 2  # as often as a word of the text


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a note. `redacted` counts the secrets that were taken out."""

    title: str
    text: str
    tags: tuple[str, ...]
    source: str
    target: str
    redacted: int = 0

    def words(self) -> tuple[str, ...]:
        """Return the words by which it is found."""
        return words_of_note(self.title, self.text, self.tags, self.target)


def words_of_note(title: str, text: str, tags: Sequence[str], target: str) -> tuple[str, ...]:
    """Return the words by which a note is found: those of the title and the tags count more."""
    head = find_words(title) * _TITLE_COUNTS + find_words(" ".join(tags)) * _TAG_COUNTS
    return (*head, *find_words(target), *find_words(text))


def make_content(
    title: str,
    text: str,
    *,
    tags: Sequence[str] = (),
    source: str = "",
    target: str = "",
    mask: Callable[[str], str] = lambda text: text,
) -> Content:
    """Return the content of a note; `mask` takes the secrets out that are known. Making it of what it made
    changes nothing. Raises ValueError for a note without a title or a text."""
    redacted = 0

    def clean(value: str, most: int, lines: bool = False) -> str:
        nonlocal redacted
        masked, count = redact_text(mask(tidy_text(value, lines=lines)))
        redacted += count + (masked.count("***") > value.count("***") and not count)
        return masked[:most].strip()

    found = Content(
        title=clean(title, MAX_TITLE),
        text=clean(text, MAX_TEXT, lines=True),
        tags=tuple(sorted({tag for tag in (clean(tag, MAX_NAME) for tag in tags[:MAX_TAGS]) if tag})),
        source=clean(source, MAX_SOURCE),
        target=clean(target, MAX_NAME),
    )
    if not found.title or not found.text:
        raise ValueError("a note has a title and a text")
    return Content(found.title, found.text, found.tags, found.source, found.target, redacted)


def tidy_text(text: str, *, lines: bool) -> str:
    """Return a text as it is kept: composed characters, no control characters but, with `lines`, line ends
    and tabs; what is no UTF-8 is shown as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode()
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    if text.isprintable():
        return text.strip()
    kept = "\n\t" if lines else ""
    return "".join([c if c.isprintable() or c in kept else " " for c in text]).strip()


def excerpt(text: str, words: Sequence[str], most: int) -> str:
    """Return the part of a text with most of these words, at most so many characters, at whole lines where
    that is possible."""
    if len(text) <= most:
        return text
    wanted = frozenset(words)
    lines = text.splitlines()
    scores = [len(wanted.intersection(find_words(line))) for line in lines]
    first = at = start = size = score = 0
    best, best_score = (0, 0), -1
    for number, line in enumerate(lines):
        size, score = size + len(line) + 1, score + scores[number]
        while size > most and first < number:
            size, score = size - len(lines[first]) - 1, score - scores[first]
            start += len(lines[first]) + 1
            first += 1
        at += len(line) + 1
        if score > best_score:
            best, best_score = (start, at), score
    begin, end = best[0], min(best[0] + most, len(text))
    return ("… " if begin else "") + text[begin:end].strip() + (" …" if end < len(text) else "")
