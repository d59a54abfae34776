"""Reading what the script of `script.observe_script` prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from fazai.errors import DeviceError, Unreachable
from fazai.hosts.questions import (
    KEPT_BYTES,
    Answer,
    ContentOf,
    FileAt,
    Output,
    OverlongOutput,
    PathState,
    Question,
    Shell,
)
from fazai.hosts.script import numbered
from fazai.hosts.walking import UNSAFE

__all__ = ["read_answers"]

_HASH: Final = re.compile(rb"\\?([0-9a-f]{64})(?:\s|$)")
_TYPES: Final[Mapping[int, str]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}
#: What `stat` of GNU says of a link: the two names in C's notation.
_LEADS: Final = re.compile(rb'"(?:[^"\\]|\\.)*" -> "((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2}|.)")
_ESCAPES: Final[Mapping[bytes, bytes]] = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip
#: Mode in hexadecimal, owner, group and size in bytes, and both names, as `stat` prints them.
_STAT: Final = re.compile(
    rb"([0-9a-fA-F]{1,8}) ([0-9]{1,10}) ([0-9]{1,10}) ([0-9]{1,19}) ([^/\t]*)/([^\t]*)(?:\t(.*))?"
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
#: How many numbers each frame has behind its word (None: any).
_NUMBERS: Final[Mapping[str, int | None]] = {
    "stat": None, "denied": None, "hash": None, "heads": None,
    "later": None, "unsafe": 1, "astray": 1, "shared": 1, "gone": 2, "real": 1,
    "link": 1, "place": 1, "text": 1, "out": 1, "got": 2, "exit": 2, "looked": 0,
}  # fmt: skip


def read_answers(questions: Sequence[Question], out: bytes, nonce: str, host: str) -> dict[Question, Answer]:
    """The answers. Without those that cannot be told from each other because a file changed while it was
    read, or the host's programs are unusual, or that are to be walked to: they are to be asked for once more,
    each `alone`. What was read
    in place of a hash also answers `ContentOf(path, KEPT_BYTES)`, for which kinds ask when it differs.

    Raises Unreachable when the output is not that of the script, DeviceError when files moved meanwhile.
    """
    reading = _Reading(questions, host)
    try:
        for frame in out.split(b"\n" + nonce.encode() + b" ")[1:]:
            head, _, body = frame.partition(b"\n")
            reading.frame(head.decode("ascii", "replace").split(), body)
        return reading.answers()
    except _Garbled:
        raise Unreachable(
            "the answer of its shell cannot be understood",
            stage="answer",
            where=host,
            hint="the target needs a POSIX sh, stat and sha256sum (coreutils or busybox)",
        ) from None


class _Garbled(Exception):
    """What was read is not what the script prints."""


class _Reading:
    def __init__(self, questions: Sequence[Question], host: str) -> None:
        self._questions = questions
        self._host = host
        self._paths = numbered(questions)
        self._names = list(self._paths)
        self._stats: dict[int, re.Match[bytes]] = {}
        self._denied: set[int] = set()
        self._links: dict[int, str] = {}
        self._places: dict[int, str] = {}  # where those stand that a link on their way leads elsewhere
        self._later: set[int] = set()  # those that are to be walked to
        self._unsafe: dict[int, str] = {}  # ways that cannot be trusted, and why
        self._astray: dict[int, str] = {}  # the same of where links lead
        self._shared: set[int] = set()
        self._real: dict[int, tuple[str, re.Match[bytes] | None]] = {}  # where links lead, and what is there
        self._hashes: dict[int, str] = {}
        self._texts: dict[int, bytes] = {}
        self._codes: dict[int, int] = {}
        self._outs: dict[int, bytes] = {}
        self._exits: dict[int, int] = {}
        self._mixed: set[int] = set()  # contents that were read, and cannot be told from each other
        self._ended = False

    def frame(self, head: Sequence[str], body: bytes) -> None:
        word, numbers = self._head(head)
        if word == "stat":
            self._stat(numbers, body)
        elif word == "denied":
            self._denied.update(numbers)
        elif word == "later":
            self._later.update(numbers)
        elif word in ("unsafe", "astray"):
            (self._unsafe if word == "unsafe" else self._astray)[numbers[0]] = _text(body)
        elif word == "shared":
            self._shared.update(numbers)
        elif word == "gone":
            self._stats.pop(numbers[0], None)
            self._denied.update(numbers[:1] * numbers[1])
        elif word == "real":
            self._really(numbers[0], body)
        elif word in ("link", "place"):
            (self._links if word == "link" else self._places)[numbers[0]] = _text(body.removesuffix(b"\n"))
        elif word == "hash":
            found = [m[1].decode() for m in map(_HASH.match, body.splitlines()) if m]
            if len(found) != len(numbers):
                raise self._moved()
            self._hashes.update(zip(numbers, found, strict=True))
        elif word == "heads":
            self._heads(numbers, body)
        elif word in ("text", "out"):
            (self._texts if word == "text" else self._outs)[numbers[0]] = body
        elif word in ("got", "exit"):
            (self._codes if word == "got" else self._exits)[numbers[0]] = numbers[1]
        elif word == "looked":
            self._ended = True

    def _head(self, head: Sequence[str]) -> tuple[str, list[int]]:
        """The word of a frame, and its numbers, each that of a path or a question that was asked for."""
        word = head[0] if head else ""
        if word not in _NUMBERS or not all(map(_NUMBER.fullmatch, head[1:])):
            raise _Garbled
        numbers = [int(text) for text in head[1:]]
        count = _NUMBERS[word]
        if count is not None and len(numbers) != count:
            raise _Garbled
        named = numbers if count is None else numbers[:1]
        most = len(self._questions) if word in ("out", "exit") else len(self._names)
        if any(number >= most for number in named):
            raise _Garbled
        return word, numbers

    def _stat(self, numbers: Sequence[int], body: bytes) -> None:
        lines = [line for line in body.splitlines() if line]
        if len(lines) != len(numbers):
            raise self._moved()
        for number, line in zip(numbers, lines, strict=True):
            found = _STAT.fullmatch(line)
            if found is None:
                raise _Garbled
            self._stats[number] = found
            if found[7] is not None and (leads := _LEADS.fullmatch(found[7])) is not None:
                self._links[number] = _unescaped(leads[1])

    def _really(self, number: int, body: bytes) -> None:
        """Where a link leads, behind a NUL that no name holds, and what is there."""
        name, _, line = body.partition(b"\0")
        found = _STAT.fullmatch(line.strip(b"\n")) if line.strip(b"\n") else None
        if line.strip(b"\n") and found is None:
            raise _Garbled
        self._real[number] = _text(name), found

    def _heads(self, numbers: Sequence[int], body: bytes) -> None:
        """Contents one behind the other, each behind its name. Each must be as long as `stat` said, and end
        where the next name begins: otherwise a file changed meanwhile."""
        found: dict[int, bytes] = {}
        place = 0
        for number in numbers:
            path = self._names[number].encode("utf-8", "surrogateescape")
            head = b"==> " + path + b" <==\n" if place == 0 else b"\n==> " + path + b" <==\n"
            if number not in self._stats:
                raise _Garbled
            begin = place + len(head)
            place = begin + int(self._stats[number][4])
            if body[begin - len(head) : begin] != head:
                place = -1
                break
            found[number] = body[begin:place]
        if place == len(body):
            self._texts.update(found)
            self._codes.update(dict.fromkeys(found, 0))
        else:
            self._mixed.update(numbers)

    def answers(self) -> dict[Question, Answer]:
        if not self._ended:
            raise _Garbled
        found: dict[Question, Answer] = {}
        for number, question in enumerate(self._questions):
            if isinstance(question, Shell):
                if number not in self._exits:
                    raise _Garbled
                out = self._outs.get(number, b"")
                overlong = len(out) > question.limit
                found[question] = (
                    OverlongOutput(question.limit) if overlong else Output(self._exits[number], out)
                )
            elif isinstance(question, FileAt):
                self._path(question, found)
            elif (path := self._paths[question.path]) not in self._mixed | self._later:
                found[question] = self._content(path, question.limit)
        return found

    def _content(self, number: int, limit: int) -> Output:
        """A content that is larger than was asked for is none."""
        if why := self._unsafe.get(number) or self._astray.get(number):
            return Output(UNSAFE, why.encode("utf-8", "surrogateescape"))
        out = self._texts.get(number, b"")
        if len(out) > limit or number not in self._codes:
            return Output(1, b"")
        return Output(self._codes[number], out)

    def _path(self, question: FileAt, found: dict[Question, Answer]) -> None:
        number = self._paths[question.path]
        if number in self._later:
            return
        stat = self._stats.get(number)
        unsafe, place = self._unsafe.get(number, ""), self._places.get(number, "")
        if stat is None:
            type_ = "denied" if number in self._denied else "missing"
            found[question] = PathState(type_, unsafe=unsafe, place=place)
            return
        state = self._state(number, stat)
        if (state.type == "link" and number not in self._links) or (
            question.hashed and number in self._mixed
        ):
            return
        if question.follow and state.type == "link":
            real, there = self._real.get(number, ("", None))
            state = PathState("missing") if there is None else self._state(number, there)
            state = replace(state, real=real)
            unsafe = unsafe or self._astray.get(number, "")
        if question.hashed and not state.sha256 and state.type == "file" and self._codes.get(number) == 0:
            sha256 = hashlib.sha256(self._texts.get(number, b"")).hexdigest()
            state = replace(state, sha256=sha256)
            found.setdefault(ContentOf(question.path, KEPT_BYTES), self._content(number, KEPT_BYTES))
        target, shared = self._links.get(number, ""), number in self._shared
        if target or unsafe or shared or place:
            state = replace(state, target=target, unsafe=unsafe, shared=shared, place=place)
        found[question] = state

    def _state(self, number: int, stat: re.Match[bytes]) -> PathState:
        mode = int(stat[1], 16)
        return PathState(
            type=_TYPES.get(mode & 0o170000, "other"),
            mode=mode & 0o7777,
            uid=int(stat[2]),
            gid=int(stat[3]),
            user=_text(stat[5]),
            group=_text(stat[6]),
            size=int(stat[4]),
            sha256=self._hashes.get(number, ""),
        )

    def _moved(self) -> DeviceError:
        return DeviceError(
            "a file was replaced while it was looked at", where=self._host, hint="run it again"
        )


def _unescaped(text: bytes) -> str:
    """A name out of C's notation."""

    def plain(match: re.Match[bytes]) -> bytes:
        found = match[1]
        return bytes((int(found, 8),)) if len(found) == 3 else _ESCAPES.get(found, found)

    return _text(_ESCAPE.sub(plain, text) if b"\\" in text else text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
