"""Tries patterns of the allow-list out: what they admit beyond what was meant, and whether they ever end.

Only `agent check` does this. A text that fits is made from the parsed expression; where
that has parts that are not known here there is none, and less is said.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from fazai.policy.arguments import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: Texts that have nothing in common: what fits them all fits anything.
_ANYTHING = ("x", "/etc/shadow", "a b", "$(id)", "é", "https://evil.example/?a=1", "a;b|c&d", "A" * 100)
_PATHS = ("/etc/shadow", "/root/.ssh/id_ed25519", "/dev/sda", "/var/lib/x/y.z")
_ADDRESSES = ("https://evil.example/", "http://127.0.0.1:3120/")
_PUMP_LENGTHS = (24, 40, 400, 4000)
_SAMPLES_MAX = 32


def find_remarks(pattern: str) -> list[str]:
    """Return what a pattern admits that was hardly meant, in words that follow "this pattern"."""
    fits = compile_pattern(pattern).fullmatch
    if all(map(fits, _ANYTHING)):
        return ["admits anything"]
    found = []
    if all(map(fits, _PATHS)):
        found.append("admits every path")
    if all(map(fits, _ADDRESSES)):
        found.append("admits every address")
    if fits(""):
        found.append("admits an empty text")
    return found


def find_slow_text(pattern: str, cpu_s: float = 0.5) -> str | None:
    """Return words for a text on which the pattern takes longer than this much CPU time; None where no such
    text was found. Must be called in the main thread."""
    fits = compile_pattern(pattern).fullmatch
    previous = signal.signal(signal.SIGVTALRM, _stop)
    try:
        for start, pump in _make_pumps(pattern):
            for length in _PUMP_LENGTHS:
                signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
                fits(start + pump * (length // len(pump)) + "\x01")
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TooSlow:
        return f'"{start}{pump * 3}…", {length} characters'
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    return None


class _TooSlow(Exception):
    """The time for one text is over."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _TooSlow


def _make_pumps(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield beginnings of texts, each with a piece to repeat after it: of each repetition in the pattern what
    comes before it, and what it repeats."""
    items = _parse_pattern(pattern)
    seen: set[tuple[str, str]] = set()
    for index, item in enumerate(items):
        start = _sample(items[:index])
        for pump in _find_repeated(item):
            if pump and start is not None and (start, pump) not in seen and len(seen) < _SAMPLES_MAX:
                seen.add((start, pump))
                yield start, pump


def _parse_pattern(pattern: str) -> list[Any]:
    """Return the pieces of an expression, as Python's own parser tells them."""
    try:
        import re._parser as parser  # type: ignore[import-not-found,unused-ignore]
    except ImportError:  # before Python 3.11
        import sre_parse as parser  # type: ignore[no-redef,unused-ignore]
    return list(parser.parse(pattern, 256))  # re.ASCII


def _find_repeated(item: Any) -> Iterator[str]:
    """Yield texts for what is repeated without a low bound in this piece, the inner ones first."""
    name, argument = str(item[0]), item[1]
    if name.endswith("REPEAT"):
        _, most, body = argument
        for inner in body:
            yield from _find_repeated(inner)
        if int(most) > 16:
            for one in _branches(list(body)):
                text = _sample(one)
                if text:
                    yield text
    elif name == "SUBPATTERN":
        for inner in argument[-1]:
            yield from _find_repeated(inner)
    elif name == "BRANCH":
        for branch in argument[1]:
            for inner in branch:
                yield from _find_repeated(inner)


def _branches(items: list[Any]) -> list[list[Any]]:
    """Return the alternatives of a piece that is one group of them, else the piece."""
    if len(items) == 1 and str(items[0][0]) == "SUBPATTERN":
        return _branches(list(items[0][1][-1]))
    if len(items) == 1 and str(items[0][0]) == "BRANCH":
        return [list(branch) for branch in items[0][1][1]]
    return [items]


def _sample(items: list[Any]) -> str | None:
    """Return a short text that these pieces fit; None where a piece is not known here."""
    parts = [_sample_one(str(item[0]), item[1]) for item in items]
    return None if None in parts else "".join(part for part in parts if part is not None)


def _sample_one(name: str, argument: Any) -> str | None:
    if name == "LITERAL":
        return chr(argument)
    if name == "NOT_LITERAL":
        return "a" if argument != ord("a") else "b"
    if name == "ANY":
        return "a"
    if name == "IN":
        return _sample_class(argument)
    if name.endswith("REPEAT"):
        least, _, body = argument
        text = _sample(list(body))
        return None if text is None else text * max(int(least), 0)
    if name == "SUBPATTERN":
        return _sample(list(argument[-1]))
    if name == "BRANCH":
        return _sample(list(argument[1][0]))
    return "" if name == "AT" else None


def _sample_class(members: list[Any]) -> str | None:
    """Return a character of a class: the first that is tried and fits."""
    for character in "a0/A.-_ :@é":
        inside = any(_is_member(ord(character), str(name), argument) for name, argument in members)
        if inside != (str(members[0][0]) == "NEGATE"):
            return character
    first = next((argument for name, argument in members if str(name) in ("LITERAL", "RANGE")), None)
    return None if first is None else chr(first if isinstance(first, int) else first[0])


def _is_member(code: int, name: str, argument: Any) -> bool:
    if name == "LITERAL":
        return bool(code == argument)
    if name == "RANGE":
        return bool(argument[0] <= code <= argument[1])
    if name == "CATEGORY":
        character, category = chr(code), str(argument)
        found = (
            (category.endswith("DIGIT") and character in "0123456789")
            or (
                category.endswith("WORD")
                and (character.isalnum() or character == "_")
                and character.isascii()
            )
            or (category.endswith("SPACE") and character.isspace())
        )
        return bool(found) != ("NOT_" in category)
    return False
