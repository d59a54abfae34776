"""Texts with a line or a block in them, or without. Pure but for the time that patterns may take.

Lines end as the file's own do: the carriage return of a file with CRLF belongs to the line's end, is not
compared, and stands behind what is added.
"""

from __future__ import annotations

from collections.abc import Sequence

from fazai.providers.hosts.kinds.shared.matching import matching_lines


class InsertionPoint:
    """The place of something new: behind or before the last line that matches, or the beginning or end."""

    def __init__(self, after: str | None = None, before: str | None = None) -> None:
        self._after, self._before = after, before

    def index(self, lines: Sequence[str]) -> int:
        word = self._after or self._before
        if word == "BOF":
            return 0
        if word is None or word == "EOF":
            return len(lines)
        found = matching_lines(word, _without_endings(lines))
        if not found:
            return len(lines)
        return max(found) + 1 if self._after else max(found)


def with_line(text: str, line: str, regexp: str | None, place: InsertionPoint) -> str:
    """Replace the last line that matches, or is `line` already, by `line`; without one, add it.

    A line that was put there counts as a match, so that a file with several matches is as wanted once the
    last one was replaced."""
    lines, line = _text_lines(text), line.removesuffix("\r")
    bare = _without_endings(lines)
    matches = matching_lines(regexp, bare) if regexp else frozenset[int]()
    found = [number for number, each in enumerate(bare) if each == line or number in matches]
    if not found:
        lines.insert(place.index(lines), line + _line_ending(lines))
        return _join_lines(lines)
    last = found[-1]
    if bare[last] == line:
        return text
    lines[last] = line + lines[last][len(bare[last]) :]
    return _join_lines(lines)


def without_lines(text: str, line: str | None, regexp: str | None) -> str:
    """Remove all lines that match, or are `line`."""
    lines = _text_lines(text)
    bare = _without_endings(lines)
    line = line and line.removesuffix("\r")
    gone = matching_lines(regexp, bare) if regexp else {n for n, each in enumerate(bare) if each == line}
    kept = [each for number, each in enumerate(lines) if number not in gone]
    return text if len(kept) == len(lines) else _join_lines(kept)


def with_block(text: str, block: str, begin: str, end: str, place: InsertionPoint) -> str:
    """Replace what stands between the marks by the block; without marks, add block and marks."""
    lines = _text_lines(text)
    new = [begin, *_text_lines(block), end]
    if ending := _line_ending(lines):
        new = [each + ending for each in _without_endings(new)]
    span = _find_block(_without_endings(lines), begin, end)
    if span is None:
        index = place.index(lines)
        lines[index:index] = new
    elif lines[span] == new:
        return text
    else:
        lines[span] = new
    return _join_lines(lines)


def without_block(text: str, begin: str, end: str) -> str:
    lines = _text_lines(text)
    span = _find_block(_without_endings(lines), begin, end)
    if span is None:
        return text
    del lines[span]
    return _join_lines(lines)


def _find_block(lines: Sequence[str], begin: str, end: str) -> slice | None:
    """Find the last pair of marks, and what is between them: a mark of an end behind that belongs to
    nobody."""
    start, found = None, None
    for number, line in enumerate(lines):
        if line == begin:
            start = number
        elif line == end and start is not None:
            found, start = slice(start, number + 1), None
    return found


def _text_lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _without_endings(lines: Sequence[str]) -> list[str]:
    return [line.removesuffix("\r") for line in lines]


def _line_ending(lines: Sequence[str]) -> str:
    """Return the line end that most lines have: with a carriage return, or without."""
    return "\r" if 2 * sum(line.endswith("\r") for line in lines) > len(lines) else ""


def _join_lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
