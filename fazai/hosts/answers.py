"""Reading what the script of `script.observe_script` prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from fazai.errors import DeviceError
from fazai.hosts.questions import KEPT_BYTES, Answer, ContentOf, FileAt, Output, PathState, Question, Shell
from fazai.hosts.script import numbered

__all__ = ["read_answers"]

_HASH: Final = re.compile(rb"\\?([0-9a-f]{64})(?:\s|$)")
_TYPES: Final[Mapping[int, str]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}
#: What `stat` of GNU says of a link: the two names in C's notation.
_LEADS: Final = re.compile(r'"(?:[^"\\]|\\.)*" -> "((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)")
_ESCAPES: Final[Mapping[str, str]] = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip


def read_answers(questions: Sequence[Question], out: bytes, nonce: str, host: str) -> dict[Question, Answer]:
    """The answers. Without those that cannot be told from each other because a file changed while it was
    read, or the host's programs are unusual: they are to be asked for once more, each `alone`. What was read
    in place of a hash also answers `ContentOf(path, KEPT_BYTES)`, for which kinds ask when it differs.

    Raises DeviceError when the output is not that of the script.
    """
    reading = _Reading(questions, host)
    for frame in out.split(b"\n" + nonce.encode() + b" ")[1:]:
        head, _, body = frame.partition(b"\n")
        reading.frame(head.decode("ascii", "replace").split(), body)
    return reading.answers()


class _Reading:
    def __init__(self, questions: Sequence[Question], host: str) -> None:
        self._questions = questions
        self._host = host
        self._paths = numbered(questions)
        self._names = list(self._paths)
        self._stats: dict[int, list[str]] = {}
        self._denied: set[int] = set()
        self._links: dict[int, str] = {}
        self._hashes: dict[int, str] = {}
        self._texts: dict[int, bytes] = {}
        self._codes: dict[int, int] = {}
        self._outs: dict[int, bytes] = {}
        self._exits: dict[int, int] = {}
        self._mixed: set[int] = set()  # contents that were read, and cannot be told from each other
        self._ended = False

    def frame(self, head: Sequence[str], body: bytes) -> None:
        try:
            word, numbers = head[0], [int(text) for text in head[1:]]
        except (ValueError, IndexError):
            raise self._garbled() from None
        if word == "stat":
            self._stat(numbers, body)
        elif word == "denied":
            self._denied.update(numbers)
        elif word == "link":
            self._links[numbers[0]] = _text(body.removesuffix(b"\n"))
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

    def _stat(self, numbers: Sequence[int], body: bytes) -> None:
        lines = [line.split(" ", 4) for line in _text(body).splitlines() if line]
        if len(lines) != len(numbers) or any(len(line) != 5 for line in lines):
            raise self._moved()
        for number, line in zip(numbers, lines, strict=True):
            line[4], _, name = line[4].partition("\t")
            self._stats[number] = line
            if (leads := _LEADS.fullmatch(name)) is not None:
                self._links[number] = _unescaped(leads[1])

    def _heads(self, numbers: Sequence[int], body: bytes) -> None:
        """Contents one behind the other, each behind its name. Each must be as long as `stat` said, and end
        where the next name begins: otherwise a file changed meanwhile."""
        found: dict[int, bytes] = {}
        place = 0
        for number in numbers:
            path = self._names[number].encode("utf-8", "surrogateescape")
            head = b"==> " + path + b" <==\n" if place == 0 else b"\n==> " + path + b" <==\n"
            begin = place + len(head)
            place = begin + int(self._stats[number][3])
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
            raise self._garbled()
        found: dict[Question, Answer] = {}
        for number, question in enumerate(self._questions):
            if isinstance(question, Shell):
                if number not in self._exits:
                    raise self._garbled()
                found[question] = Output(self._exits[number], self._outs.get(number, b""))
            elif isinstance(question, FileAt):
                self._path(question, found)
            elif (path := self._paths[question.path]) not in self._mixed:
                found[question] = self._content(path, question.limit)
        return found

    def _content(self, number: int, limit: int) -> Output:
        """A content that is larger than was asked for is none."""
        out = self._texts.get(number, b"")
        if len(out) > limit or number not in self._codes:
            return Output(1, b"")
        return Output(self._codes[number], out)

    def _path(self, question: FileAt, found: dict[Question, Answer]) -> None:
        number = self._paths[question.path]
        line = self._stats.get(number)
        if line is None:
            found[question] = PathState("denied" if number in self._denied else "missing")
            return
        mode = int(line[0], 16)
        kind = _TYPES.get(mode & 0o170000, "other")
        if (kind == "link" and number not in self._links) or (question.hashed and number in self._mixed):
            return
        sha256 = self._hashes.get(number, "")
        if question.hashed and not sha256 and kind == "file" and self._codes.get(number) == 0:
            sha256 = hashlib.sha256(self._texts[number]).hexdigest()
            found.setdefault(ContentOf(question.path, KEPT_BYTES), self._content(number, KEPT_BYTES))
        user, _, group = line[4].partition("/")
        found[question] = PathState(
            type=kind,
            mode=mode & 0o7777,
            uid=int(line[1]),
            gid=int(line[2]),
            user=user,
            group=group,
            size=int(line[3]),
            target=self._links.get(number, ""),
            sha256=sha256,
        )

    def _moved(self) -> DeviceError:
        return DeviceError(
            "a file was replaced while it was looked at", where=self._host, hint="run it again"
        )

    def _garbled(self) -> DeviceError:
        return DeviceError(
            "the answer of its shell cannot be understood",
            where=self._host,
            hint="the target needs a POSIX sh, stat and sha256sum (coreutils or busybox)",
        )


def _unescaped(text: str) -> str:
    """A name out of C's notation."""
    if "\\" not in text:
        return text

    def plain(match: re.Match[str]) -> str:
        found = match[1]
        return chr(int(found, 8)) if found[0] in "01234567" else _ESCAPES.get(found, found)

    return _text(_ESCAPE.sub(plain, text).encode("latin-1"))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
