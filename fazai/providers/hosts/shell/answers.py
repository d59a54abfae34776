"""Reads what the script of `script.observe_script` prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from fazai.compat.language import dataclass, zip_equal
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


@dataclass(slots=True)
class _PathFacts:
    """The facts that frames tell of one path; those that one word says have its name."""

    stat: re.Match[bytes] | None = None
    denied: bool = False
    later: bool = False  # it is to be walked to
    shared: bool = False
    unsafe: str = ""  # why the way there cannot be trusted
    astray: str = ""  # the same of where a link there leads
    link: str | None = None  # the target of a link
    place: str = ""  # where it stands, if a link on its way leads elsewhere
    real: tuple[str, re.Match[bytes] | None] = ("", None)  # where a link leads, and what is there
    sha256: str = ""
    text: bytes = b""
    code: int | None = None  # of the program that read the text
    mixed: bool = False  # the text was read, and cannot be told from others

    def state_of(self, stat: re.Match[bytes], *, hashed: bool) -> PathState:
        """Return the state that a line of `stat` says; `hashed`: with the hash of a text that was read in
        its place."""
        mode, sha256 = int(stat["mode"], 16), self.sha256
        type_ = _TYPES.get(mode & 0o170000, "other")
        if hashed and not sha256 and type_ == "file" and self.code == 0:
            sha256 = hashlib.sha256(self.text).hexdigest()
        return PathState(
            type=type_,
            mode=mode & 0o7777,
            uid=int(stat["uid"]),
            gid=int(stat["gid"]),
            user=_decode_name(stat["user"]),
            group=_decode_name(stat["group"]),
            size=int(stat["size"]),
            sha256=sha256,
        )

    def content(self, limit: int) -> Output:
        """Return the content; one that is larger than was asked for counts as none."""
        if why := self.unsafe or self.astray:
            return Output(UNSAFE, why.encode("utf-8", "surrogateescape"))
        if len(self.text) > limit or self.code is None:
            return Output(1, b"")
        return Output(self.code, self.text)


class _AnswerReader:
    """Collects the frames of one look by the numbers of their paths and questions, and builds the answers."""

    def __init__(self, questions: Sequence[Question], host: str) -> None:
        self._questions = questions
        self._host = host
        self._paths = {path: _PathFacts() for path in number_paths(questions)}
        self._numbered = list(self._paths.items())
        self._outs: dict[int, bytes] = {}
        self._exits: dict[int, int] = {}
        self._ended = False

    def take_frame(self, head: Sequence[str], body: bytes) -> None:
        word, numbers = self._read_head(head)
        if word == "looked":
            self._ended = True
        elif word == "out":
            self._outs[numbers[0]] = body
        elif word == "exit":
            self._exits[numbers[0]] = numbers[1]
        elif word == "heads":
            self._take_contents([self._numbered[number] for number in numbers], body)
        elif word in ("gone", "got"):
            facts = self._numbered[numbers[0]][1]
            if word == "got":
                facts.code = numbers[1]
            else:
                facts.stat, facts.denied = None, facts.denied or numbers[1] > 0
        else:
            self._take_facts(word, [self._numbered[number][1] for number in numbers], body)

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
        most = len(self._questions) if word in ("out", "exit") else len(self._numbered)
        if any(number >= most for number in named):
            raise _GarbledAnswer
        return word, numbers

    def _take_facts(self, word: str, facts: Sequence[_PathFacts], body: bytes) -> None:
        if word in ("denied", "later", "shared"):
            for each in facts:
                setattr(each, word, True)
        elif word in ("stat", "hash"):
            self._take_lines(word, facts, body.splitlines())
        elif word == "text":
            facts[0].text = body
        elif (
            word == "real"
        ):  # the path that a link leads to and, behind a NUL that no name holds, what is there
            name, _, line = body.partition(b"\0")
            there = line.strip(b"\n")
            facts[0].real = _decode_name(name), _parse_stat(there) if there else None
        else:  # unsafe, astray, link, place
            setattr(
                facts[0], word, _decode_name(body.removesuffix(b"\n") if word in ("link", "place") else body)
            )

    def _take_lines(self, word: str, facts: Sequence[_PathFacts], lines: Sequence[bytes]) -> None:
        """Take a line of `stat`, or of a program for hashes, for each path."""
        lines = [line for line in lines if (line if word == "stat" else _HASH.match(line))]
        if len(lines) != len(facts):
            raise self._replaced_error()
        for each, line in zip_equal(facts, lines):
            if word == "hash":
                each.sha256 = line.lstrip(b"\\")[:64].decode()
                continue
            each.stat = _parse_stat(line)
            if each.stat["link"] is not None and (leads := _LINK_TARGET.fullmatch(each.stat["link"])):
                each.link = _unescape_name(leads[1])

    def _take_contents(self, paths: Sequence[tuple[str, _PathFacts]], body: bytes) -> None:
        """Take contents one behind the other, each behind its name. Each must be as long as `stat` said, and
        end where the next name begins: otherwise a file changed meanwhile."""
        texts: list[bytes] = []
        place = 0
        for path, facts in paths:
            name = path.encode("utf-8", "surrogateescape")
            head = b"==> " + name + b" <==\n" if place == 0 else b"\n==> " + name + b" <==\n"
            if facts.stat is None:
                raise _GarbledAnswer
            begin = place + len(head)
            place = begin + int(facts.stat["size"])
            if body[begin - len(head) : begin] != head:
                place = -1
                break
            texts.append(body[begin:place])
        if place == len(body):
            for (_, facts), text in zip_equal(paths, texts):
                facts.text, facts.code = text, 0
        else:
            for _, facts in paths:
                facts.mixed = True

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
                continue
            facts = self._paths[question.path]
            if isinstance(question, ContentOf):
                if not (facts.mixed or facts.later):
                    found[question] = facts.content(question.limit)
            elif not facts.later and (state := _answer_of_path(question, facts)) is not None:
                found[question] = state
                if question.hashed and not facts.sha256 and state.sha256:  # by what was read in its place
                    found.setdefault(ContentOf(question.path, KEPT_BYTES), facts.content(KEPT_BYTES))
        return found

    def _replaced_error(self) -> ReplacedMeanwhile:
        return ReplacedMeanwhile(
            "a file was replaced while it was looked at", where=self._host, hint="run it again"
        )


def _answer_of_path(question: FileAt, facts: _PathFacts) -> PathState | None:
    """Return the state of a path, or None where it must be asked for once more."""
    if facts.stat is None:
        return PathState("denied" if facts.denied else "missing", unsafe=facts.unsafe, place=facts.place)
    state, unsafe = facts.state_of(facts.stat, hashed=question.hashed), facts.unsafe
    if (state.type == "link" and facts.link is None) or (question.hashed and facts.mixed):
        return None
    if question.follow and state.type == "link":
        real, there = facts.real
        found = PathState("missing") if there is None else facts.state_of(there, hashed=question.hashed)
        state = replace(found, real=real)
        unsafe = unsafe or facts.astray
    if facts.link or unsafe or facts.shared or facts.place:
        state = replace(state, target=facts.link or "", unsafe=unsafe, shared=facts.shared, place=facts.place)
    return state


def _parse_stat(line: bytes) -> re.Match[bytes]:
    found = _STAT.fullmatch(line)
    if found is None:
        raise _GarbledAnswer
    return found


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
