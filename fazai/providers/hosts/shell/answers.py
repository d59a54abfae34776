"""Reads what the script of `script.observe_script` prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from fazai.errors import DeviceError, Unreachable
from fazai.providers.hosts.shell.questions import (
    KEPT_BYTES,
    Answer,
    ContentOf,
    FileAt,
    Output,
    OutputOf,
    OverlongOutput,
    PathState,
    Question,
)
from fazai.providers.hosts.shell.script import number_paths
from fazai.providers.hosts.shell.walking import UNSAFE

_HASH: Final = re.compile(rb"\\?([0-9a-f]{64})(?:\s|$)")
_TYPES: Final[Mapping[int, str]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}
#: What `stat` of GNU says of a link: the two names in C's notation.
_LINK_TARGET: Final = re.compile(rb'"(?:[^"\\]|\\.)*" -> "((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2}|.)")
_ESCAPES: Final[Mapping[bytes, bytes]] = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip
#: A line of `stat`: the mode in hexadecimal, owner, group, size in bytes, the names of both, and perhaps
#: where a link leads.
_STAT: Final = re.compile(
    rb"(?P<mode>[0-9a-fA-F]{1,8}) (?P<uid>[0-9]{1,10}) (?P<gid>[0-9]{1,10}) (?P<size>[0-9]{1,19})"
    rb" (?P<user>[^/\t]*)/(?P<group>[^\t]*)(?:\t(?P<link>.*))?"
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
#: How many numbers each frame has behind its word (None: any).
_FRAME_NUMBERS: Final[Mapping[str, int | None]] = {
    "stat": None, "denied": None, "hash": None, "heads": None,
    "later": None, "unsafe": 1, "astray": 1, "shared": 1, "gone": 2, "real": 1,
    "link": 1, "place": 1, "text": 1, "out": 1, "got": 2, "exit": 2, "looked": 0,
}  # fmt: skip


def read_answers(questions: Sequence[Question], out: bytes, nonce: str, host: str) -> dict[Question, Answer]:
    """Return the answers, without those that must be asked for once more, each `alone`: they cannot be told
    from each other because a file changed while it was read, or the host's programs are unusual, or their
    paths are to be walked to. What was read in place of a hash also answers `ContentOf(path, KEPT_BYTES)`,
    for which kinds ask when it differs.

    Raises Unreachable when the output is not that of the script, DeviceError when files moved meanwhile.
    """
    reading = _AnswerReader(questions, host)
    try:
        for frame in out.split(b"\n" + nonce.encode() + b" ")[1:]:
            head, _, body = frame.partition(b"\n")
            reading.take_frame(head.decode("ascii", "replace").split(), body)
        return reading.build_answers()
    except _GarbledAnswer:
        raise Unreachable(
            "the answer of its shell cannot be understood",
            stage="answer",
            where=host,
            hint="the target needs a POSIX sh, stat and sha256sum (coreutils or busybox)",
        ) from None


class _GarbledAnswer(Exception):
    """Raised for output that is not the script's."""


class ReplacedMeanwhile(DeviceError):
    """A file went or came while several were looked at together, so that the answers cannot be told apart."""


class _AnswerReader:
    """Collects the frames of one look by the numbers of their paths and questions, and builds the answers."""

    def __init__(self, questions: Sequence[Question], host: str) -> None:
        self._questions = questions
        self._host = host
        self._paths = number_paths(questions)
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

    def take_frame(self, head: Sequence[str], body: bytes) -> None:
        word, numbers = self._read_head(head)
        if word == "stat":
            self._take_stats(numbers, body)
        elif word == "denied":
            self._denied.update(numbers)
        elif word == "later":
            self._later.update(numbers)
        elif word in ("unsafe", "astray"):
            (self._unsafe if word == "unsafe" else self._astray)[numbers[0]] = _decode_name(body)
        elif word == "shared":
            self._shared.update(numbers)
        elif word == "gone":
            self._stats.pop(numbers[0], None)
            self._denied.update(numbers[:1] * numbers[1])
        elif word == "real":
            self._take_link_end(numbers[0], body)
        elif word in ("link", "place"):
            named = self._links if word == "link" else self._places
            named[numbers[0]] = _decode_name(body.removesuffix(b"\n"))
        elif word == "hash":
            found = [m[1].decode() for m in map(_HASH.match, body.splitlines()) if m]
            if len(found) != len(numbers):
                raise self._replaced_error()
            self._hashes.update(zip(numbers, found, strict=True))
        elif word == "heads":
            self._take_contents(numbers, body)
        elif word in ("text", "out"):
            (self._texts if word == "text" else self._outs)[numbers[0]] = body
        elif word in ("got", "exit"):
            (self._codes if word == "got" else self._exits)[numbers[0]] = numbers[1]
        elif word == "looked":
            self._ended = True

    def _read_head(self, head: Sequence[str]) -> tuple[str, list[int]]:
        """Return the word of a frame, and its numbers, each that of a path or a question that was asked
        for."""
        word = head[0] if head else ""
        if word not in _FRAME_NUMBERS or not all(map(_NUMBER.fullmatch, head[1:])):
            raise _GarbledAnswer
        numbers = [int(text) for text in head[1:]]
        count = _FRAME_NUMBERS[word]
        if count is not None and len(numbers) != count:
            raise _GarbledAnswer
        named = numbers if count is None else numbers[:1]
        most = len(self._questions) if word in ("out", "exit") else len(self._names)
        if any(number >= most for number in named):
            raise _GarbledAnswer
        return word, numbers

    def _take_stats(self, numbers: Sequence[int], body: bytes) -> None:
        lines = [line for line in body.splitlines() if line]
        if len(lines) != len(numbers):
            raise self._replaced_error()
        for number, line in zip(numbers, lines, strict=True):
            found = _STAT.fullmatch(line)
            if found is None:
                raise _GarbledAnswer
            self._stats[number] = found
            if found["link"] is not None and (leads := _LINK_TARGET.fullmatch(found["link"])) is not None:
                self._links[number] = _unescape_name(leads[1])

    def _take_link_end(self, number: int, body: bytes) -> None:
        """Take the path that a link leads to and, behind a NUL that no name holds, what is there."""
        name, _, line = body.partition(b"\0")
        found = _STAT.fullmatch(line.strip(b"\n")) if line.strip(b"\n") else None
        if line.strip(b"\n") and found is None:
            raise _GarbledAnswer
        self._real[number] = _decode_name(name), found

    def _take_contents(self, numbers: Sequence[int], body: bytes) -> None:
        """Take contents one behind the other, each behind its name. Each must be as long as `stat` said, and
        end where the next name begins: otherwise a file changed meanwhile."""
        found: dict[int, bytes] = {}
        place = 0
        for number in numbers:
            path = self._names[number].encode("utf-8", "surrogateescape")
            head = b"==> " + path + b" <==\n" if place == 0 else b"\n==> " + path + b" <==\n"
            if number not in self._stats:
                raise _GarbledAnswer
            begin = place + len(head)
            place = begin + int(self._stats[number]["size"])
            if body[begin - len(head) : begin] != head:
                place = -1
                break
            found[number] = body[begin:place]
        if place == len(body):
            self._texts.update(found)
            self._codes.update(dict.fromkeys(found, 0))
        else:
            self._mixed.update(numbers)

    def build_answers(self) -> dict[Question, Answer]:
        if not self._ended:
            raise _GarbledAnswer
        found: dict[Question, Answer] = {}
        for number, question in enumerate(self._questions):
            if isinstance(question, OutputOf):
                if number not in self._exits:
                    raise _GarbledAnswer
                out = self._outs.get(number, b"")
                overlong = len(out) > question.limit
                found[question] = (
                    OverlongOutput(question.limit) if overlong else Output(self._exits[number], out)
                )
            elif isinstance(question, FileAt):
                self._add_path_answer(question, found)
            elif (path := self._paths[question.path]) not in self._mixed | self._later:
                found[question] = self._content_answer(path, question.limit)
        return found

    def _content_answer(self, number: int, limit: int) -> Output:
        """Return a content; one that is larger than was asked for counts as none."""
        if why := self._unsafe.get(number) or self._astray.get(number):
            return Output(UNSAFE, why.encode("utf-8", "surrogateescape"))
        out = self._texts.get(number, b"")
        if len(out) > limit or number not in self._codes:
            return Output(1, b"")
        return Output(self._codes[number], out)

    def _add_path_answer(self, question: FileAt, found: dict[Question, Answer]) -> None:
        number = self._paths[question.path]
        if number in self._later:
            return
        stat = self._stats.get(number)
        unsafe, place = self._unsafe.get(number, ""), self._places.get(number, "")
        if stat is None:
            type_ = "denied" if number in self._denied else "missing"
            found[question] = PathState(type_, unsafe=unsafe, place=place)
            return
        state = self._path_state(number, stat)
        if (state.type == "link" and number not in self._links) or (
            question.hashed and number in self._mixed
        ):
            return
        if question.follow and state.type == "link":
            real, there = self._real.get(number, ("", None))
            state = PathState("missing") if there is None else self._path_state(number, there)
            state = replace(state, real=real)
            unsafe = unsafe or self._astray.get(number, "")
        if question.hashed and not state.sha256 and state.type == "file" and self._codes.get(number) == 0:
            sha256 = hashlib.sha256(self._texts.get(number, b"")).hexdigest()
            state = replace(state, sha256=sha256)
            found.setdefault(ContentOf(question.path, KEPT_BYTES), self._content_answer(number, KEPT_BYTES))
        target, shared = self._links.get(number, ""), number in self._shared
        if target or unsafe or shared or place:
            state = replace(state, target=target, unsafe=unsafe, shared=shared, place=place)
        found[question] = state

    def _path_state(self, number: int, stat: re.Match[bytes]) -> PathState:
        mode = int(stat["mode"], 16)
        return PathState(
            type=_TYPES.get(mode & 0o170000, "other"),
            mode=mode & 0o7777,
            uid=int(stat["uid"]),
            gid=int(stat["gid"]),
            user=_decode_name(stat["user"]),
            group=_decode_name(stat["group"]),
            size=int(stat["size"]),
            sha256=self._hashes.get(number, ""),
        )

    def _replaced_error(self) -> ReplacedMeanwhile:
        return ReplacedMeanwhile(
            "a file was replaced while it was looked at", where=self._host, hint="run it again"
        )


def _unescape_name(text: bytes) -> str:
    """Decode a name in C's notation."""

    def plain(match: re.Match[bytes]) -> bytes:
        found = match[1]
        return bytes((int(found, 8),)) if len(found) == 3 else _ESCAPES.get(found, found)

    return _decode_name(_ESCAPE.sub(plain, text) if b"\\" in text else text)


def _decode_name(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def whole_number(text: str) -> int | None:
    """Return the number that the text is; None for anything else.

    `str.isdigit` also takes "²", `int` takes "1_0", and neither minds a million digits.
    """
    return int(text) if _DIGITS.fullmatch(text) else None
