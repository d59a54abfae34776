"""Texts with a line or a block in them, or without. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Place", "with_block", "with_line", "without_block", "without_lines"]


class Place:
    """Where something new goes: behind or before the last line that matches, or to the beginning or end."""

    def __init__(self, after: str | None = None, before: str | None = None) -> None:
        self._after, self._before = after, before

    def index(self, lines: Sequence[str]) -> int:
        word = self._after or self._before
        if word == "BOF":
            return 0
        if word is None or word == "EOF":
            return len(lines)
        found = [number for number, line in enumerate(lines) if re.search(word, line)]
        if not found:
            return len(lines)
        return found[-1] + 1 if self._after else found[-1]


def with_line(text: str, line: str, regexp: str | None, place: Place) -> str:
    """The last line that matches becomes `line`; without one it is added, unless it is there already."""
    lines = _lines(text)
    found = [n for n, each in enumerate(lines) if re.search(regexp, each)] if regexp else []
    if found:
        if lines[found[-1]] == line:
            return text
        lines[found[-1]] = line
    elif line in lines:
        return text
    else:
        lines.insert(place.index(lines), line)
    return _text(lines)


def without_lines(text: str, line: str | None, regexp: str | None) -> str:
    """Without all lines that match, or are `line`."""
    lines = _lines(text)
    kept = [each for each in lines if not (re.search(regexp, each) if regexp else each == line)]
    return text if len(kept) == len(lines) else _text(kept)


def with_block(text: str, block: str, begin: str, end: str, place: Place) -> str:
    """What stands between the marks becomes the block; without marks, block and marks are added."""
    lines = _lines(text)
    new = [begin, *_lines(block), end]
    span = _span(lines, begin, end)
    if span is None:
        index = place.index(lines)
        lines[index:index] = new
    elif lines[span] == new:
        return text
    else:
        lines[span] = new
    return _text(lines)


def without_block(text: str, begin: str, end: str) -> str:
    lines = _lines(text)
    span = _span(lines, begin, end)
    if span is None:
        return text
    del lines[span]
    return _text(lines)


def _span(lines: Sequence[str], begin: str, end: str) -> slice | None:
    """The last pair of marks, and what is between them."""
    stops = [number for number, line in enumerate(lines) if line == end]
    for stop in reversed(stops):
        starts = [number for number, line in enumerate(lines[:stop]) if line == begin]
        if starts:
            return slice(starts[-1], stop + 1)
    return None


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
