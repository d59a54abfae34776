"""Rejects regular expressions with catastrophic backtracking (ReDoS).

Python's `re` backtracks and has no timeout. A pattern is read here as far as that takes: which of its
repetitions can match the same characters as what follows them. One such repetition inside of another takes
exponential time, and is refused; `k` of them one after the other take about n**k (and n times that where the
pattern can start anywhere), and bound the length of the text. Repetitions that are bounded multiply by their
bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from fazai.template.filters.base import FilterError

#: Characters that a regular expression is applied to.
SUBJECT_MAX: Final = 64 * 1024
PATTERN_MAX: Final = 2_000
_STEPS_MAX: Final = 20_000_000
_MANY: Final = 16  # a repetition of more than this many times counts as unbounded
_ITEMS_MAX: Final = 1_000

_OTHERS: Final = "é中Ω ſ𝒳\x85"
_ALL: Final = (1 << 129) - 1
_QUANTIFIER: Final = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")


@dataclass(slots=True)
class _PatternItem:
    """A piece of a sequence: what it can start with, how often it comes (`most` None: without bound)."""

    mask: int
    least: int = 1
    most: int | None = 1
    branches: list[list[_PatternItem]] = field(default_factory=list)  # of a group

    @property
    def unbounded(self) -> bool:
        return self.most is None or self.most > _MANY

    @property
    def varies(self) -> bool:
        return self.least != self.most


def check_pattern(pattern: str, length: int) -> None:
    """Refuse a pattern that could take too long on a text of this length. Raises FilterError."""
    if length > SUBJECT_MAX:
        raise FilterError(f"a regular expression is applied to at most {SUBJECT_MAX} characters")
    if len(pattern) > PATTERN_MAX:
        raise FilterError(f"a regular expression has at most {PATTERN_MAX} characters")
    power, factor = _estimate_cost(pattern)
    if (power > 1 or factor > 1) and factor * max(length, 1) ** power > _STEPS_MAX:
        raise FilterError(
            f"this regular expression could take too long on {length} characters",
            "anchor it with ^, and say [^,]+ rather than .* where a separator follows",
        )


@lru_cache(maxsize=256)
def _estimate_cost(pattern: str) -> tuple[int, int]:
    """Estimate the exponent and the factor: about factor * length ** exponent steps. Raises FilterError."""
    branches = _PatternReader(pattern).branches()
    costs = [_count_ways(branch, []) for branch in branches]
    anchored = pattern.startswith(("^", r"\A")) and len(branches) == 1
    each_start = not anchored and any(_open_ended(branch) for branch in branches)
    power = max(1, *(power for power, _ in costs)) + each_start
    return power, max(factor for _, factor in costs)


def _open_ended(items: list[_PatternItem]) -> bool:
    """Tell whether a long repetition can be followed by a failure: then each start costs its length."""
    for index, item in enumerate(items):
        if item.unbounded and index < len(items) - 1:
            return True
        if any(_open_ended(branch) for branch in item.branches):
            return True
    return False


def _count_ways(items: list[_PatternItem], after: list[_PatternItem]) -> tuple[int, int]:
    """Count the ways in which the sequence can match: exponent of the length, and factor. Raises
    FilterError."""
    power, factor = 0, 1
    for index, item in enumerate(items):
        rest = items[index + 1 :] + after
        if item.branches:
            if item.unbounded:
                _check_nested(item)
            inner = [_count_ways(branch, rest) for branch in item.branches]
            power += max(each for each, _ in inner)
            factor *= max(each for _, each in inner) * _count_overlaps(item.branches)
        if item.varies and item.mask & _first_characters(rest):
            if item.unbounded:
                power += 1
            else:
                factor *= 1 + (item.most or 0) - item.least
        if factor > _STEPS_MAX:
            return power, factor
    return power, factor


def _count_overlaps(branches: list[list[_PatternItem]]) -> int:
    """Count the alternatives that can start alike."""
    masks = [_first_characters(branch) for branch in branches]
    return max(sum(1 for other in masks if other & mask) or 1 for mask in masks)


def _check_nested(group: _PatternItem) -> None:
    """Refuse a repeated group in which something can match in two ways. Raises FilterError."""
    starts = 0
    for branch in group.branches:
        first = _first_characters(branch)
        if len(group.branches) > 1 and starts & first:
            raise _nested_error()
        starts |= first
    for branch in group.branches:
        for index, item in enumerate(branch):
            following = _first_characters([*branch[index + 1 :], _PatternItem(starts)])
            if item.varies and item.mask & following:
                raise _nested_error()
            if item.branches:
                if item.unbounded:
                    _check_nested(item)
                inner = _PatternItem(
                    item.mask, 1, 1, [[*each, _PatternItem(following)] for each in item.branches]
                )
                _check_nested(inner)


def _nested_error() -> FilterError:
    return FilterError(
        "this regular expression repeats something that repeats itself, which could take forever",
        "write it without nested repetition, such as (a+)+ or (a|ab)*",
    )


def _first_characters(items: list[_PatternItem]) -> int:
    """Return the characters that the sequence can start with, as a mask."""
    mask = 0
    for item in items:
        mask |= item.mask
        if item.least:
            return mask
    return mask


class _PatternReader:
    """Parses a pattern into items; refuses what it does not know."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._items = 0

    def branches(self) -> list[list[_PatternItem]]:
        found = self._parse_alternatives()
        if self._at < len(self._pattern):
            raise FilterError("this is not a regular expression: unbalanced )")
        return found

    def _parse_alternatives(self) -> list[list[_PatternItem]]:
        branches: list[list[_PatternItem]] = [[]]
        while self._at < len(self._pattern) and self._pattern[self._at] != ")":
            if self._pattern[self._at] == "|":
                self._at += 1
                branches.append([])
                continue
            item = self._parse_piece()
            self._items += 1
            if self._items > _ITEMS_MAX:
                raise FilterError("this regular expression is too long")
            if item is not None:
                branches[-1].append(self._parse_quantifier(item))
        return branches

    def _parse_piece(self) -> _PatternItem | None:
        pattern, at = self._pattern, self._at
        character = pattern[at]
        if character == "(":
            return self._parse_group()
        if character in "^$":
            self._at += 1
            return None
        if character == "\\":
            return self._parse_escape()
        end = self._find_class_end() if character == "[" else at + 1
        self._at = end
        return _PatternItem(_character_mask(pattern[at:end]))

    def _parse_escape(self) -> _PatternItem | None:
        pattern, at = self._pattern, self._at
        code = pattern[at + 1 : at + 2]
        if code and code in "AbBZ":
            self._at += 2
            return None
        if code.isdigit():
            self._at += 2
            return _PatternItem(_ALL, 0)  # what a group matched, once more
        sizes = {"x": 4, "u": 6, "U": 10}
        end = at + sizes.get(code, 2)
        if code == "N":
            end = pattern.find("}", at) + 1
        self._at = max(end, at + 2)
        return _PatternItem(_character_mask(pattern[at : self._at]))

    def _find_class_end(self) -> int:
        pattern, at = self._pattern, self._at + 1
        if pattern[at : at + 1] == "^":
            at += 1
        if pattern[at : at + 1] == "]":
            at += 1
        while at < len(pattern) and pattern[at] != "]":
            at += 2 if pattern[at] == "\\" else 1
        return at + 1

    def _parse_group(self) -> _PatternItem | None:
        self._depth += 1
        if self._depth > 20:
            raise FilterError("this regular expression is nested too deeply")
        self._at += 1
        look = self._parse_group_head()
        branches = self._parse_alternatives()
        self._at += 1
        self._depth -= 1
        mask = 0
        for branch in branches:
            mask |= _first_characters(branch)
        empty = look or any(all(not item.least for item in branch) for branch in branches)
        return _PatternItem(mask, 0 if empty else 1, 1, branches)

    def _parse_group_head(self) -> bool:
        """Read `?:` and its like; tells whether the group looks around without taking anything."""
        rest = self._pattern[self._at :]
        found = re.match(r"\?(?:P<\w+>|:|>|=|!|<=|<!|[aiLmsu]+(?:-[imsx]+)?:)", rest)
        if found:
            self._at += found.end()
            return found.group() in ("?=", "?!", "?<=", "?<!")
        inline = re.match(r"\?[aiLmsu]+(?=\))|\?P=\w+(?=\))|\?#[^)]*(?=\))", rest)
        if inline:
            self._at += inline.end()
            return not inline.group().startswith("?P=")
        if rest.startswith("?"):
            raise FilterError("this kind of group is not available in a regular expression")
        return False

    def _parse_quantifier(self, item: _PatternItem) -> _PatternItem:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if not found or found.group() == "{}":
            return item
        self._at = found.end()
        if self._pattern[self._at : self._at + 1] in ("?", "+"):  # lazy; possessive
            self._at += 1
        least, most = _repetition_bounds(found)
        if item.branches and most is not None and 1 < most <= _MANY:
            # a few times: as if it were written out
            return _PatternItem(
                item.mask, min(item.least, least), 1, [branch * most for branch in item.branches]
            )
        return _PatternItem(item.mask, min(item.least, least), most, item.branches)


def _repetition_bounds(found: re.Match[str]) -> tuple[int, int | None]:
    sign = found.group()
    if sign in ("*", "+", "?"):
        return (1 if sign == "+" else 0), (1 if sign == "?" else None)
    least = int(found[1] or 0)
    if not found[2]:
        return least, least
    return least, int(found[3]) if found[3] else None


@lru_cache(maxsize=512)
def _character_mask(atom: str) -> int:
    """The ASCII characters that an atom matches, one bit each; one more bit for all the others."""
    try:
        match = re.compile(atom, re.IGNORECASE | re.DOTALL).match
    except re.error as error:
        raise FilterError(f"this is not a regular expression: {error.msg}") from None
    except RecursionError:
        raise FilterError("this regular expression is nested too deeply") from None
    mask = sum(1 << code for code in range(128) if match(chr(code)))
    if any(map(match, _OTHERS)) or not atom.isascii() or atom[:2] in ("\\u", "\\U", "\\N", "\\x"):
        mask |= 1 << 128
    return mask
