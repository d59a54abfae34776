"""One script that answers all questions, and the reading of what it prints.

Frames are lines that begin with a number of 128 random bits, made for this session: whatever bytes a file's
name or content holds, it cannot hold that line. Needs a POSIX `sh`, `stat` and `sha256sum` (GNU, busybox or
BSD); all paths are asked for with one `stat` and one hashing process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from fazai.errors import DeviceError
from fazai.hosts.questions import Answer, ContentOf, FileAt, Output, PathState, Question, Shell
from fazai.hosts.quoting import quoted

__all__ = ["PRELUDE", "observe_script", "read_answers"]

_BATCH: Final = 200  # paths for one process: their names must fit into its arguments

#: Definitions that every block may use. Each program that is started costs a host about a millisecond of CPU,
#: so what nearly every host has is tried first and what it is instead is asked afterwards.
#: `fz_x N PATH`: is there something? Otherwise N is missing or denied. `fz_get LIMIT FILE`: its content, one
#: byte more than the limit at most; where `head` counts no bytes, nothing when it is larger.
PRELUDE: Final = r"""
fz_lc=${LC_ALL-}; LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH
unset CDPATH ENV BASH_ENV IFS
fz_tmp=; fz_q() { [ -z "$fz_tmp" ] || rm -f "$fz_tmp"; }
trap fz_q EXIT; trap 'fz_q; exit 129' HUP; trap 'fz_q; exit 141' PIPE; trap 'fz_q; exit 143' TERM
fz_gnu() { stat -c %f / >/dev/null 2>&1; }
fz_stat() {
stat -c '%f %u %g %s %U/%G' "$@" 2>/dev/null || fz_gnu || stat -f '%Xp %u %g %z %Su/%Sg' "$@"
}
fz_own() { stat -c %u:%g "$1" 2>/dev/null || { ! fz_gnu && stat -f %u:%g "$1"; }; }
fz_get() {
head -c $(($1 + 1)) <"$2" 2>/dev/null && return
if printf x | head -c 1 >/dev/null 2>&1; then return 1; fi
[ $(wc -c <"$2") -le "$1" ] && cat "$2"
}
fz_hash() {
if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"
elif command -v sha256 >/dev/null 2>&1; then sha256 -r "$@"
else shasum -a 256 "$@"; fi
}
fz_x() {
[ -e "$2" ] || [ -h "$2" ] && { fz_i="$fz_i $1"; return 0; }
fz_d=${2%/*}
while [ -n "$fz_d" ] && [ ! -d "$fz_d" ]; do fz_d=${fz_d%/*}; done
[ -x "${fz_d:-/}" ] || fz_no="$fz_no $1"
return 1
}
fz_m() { printf '\n%s %s\n' "$fz_n" "$*"; }
fz_b() { fz_m begin; fz_m begin >&2; }
fz_e() { fz_m end "$1"; fz_m end "$1" >&2; }
"""


def observe_script(questions: Sequence[Question]) -> str:
    """The script whose output `read_answers` reads.

    The answers are collected into few large writes, as each one would be a packet for both ends. Not with a
    `Shell` question: what that leaves in the background would keep the collector waiting.
    """
    script = "\n".join(_parts(questions))
    if not questions or any(isinstance(question, Shell) for question in questions):
        return script
    return f"{{\n{script}\n}} | {{ dd ibs=65536 obs=65536 2>/dev/null || cat; }}"


def _parts(questions: Sequence[Question]) -> Iterator[str]:
    numbered = list(enumerate(questions))
    files = [(number, q) for number, q in numbered if isinstance(q, FileAt)]
    yield "fz_no="
    for batch in _batches(files):
        yield "set --; fz_i="
        yield from (f'fz_x {n} {quoted(q.path)} && set -- "$@" {quoted(q.path)}' for n, q in batch)
        yield 'fz_m stat "$fz_i"; [ $# = 0 ] || fz_stat "$@"'
    if files:
        yield 'fz_m denied "$fz_no"'
        for n, q in files:
            path = quoted(q.path)
            yield f"[ ! -h {path} ] || {{ fz_m link {n}; readlink {path}; }}"
    for batch in _batches([(n, q) for n, q in files if q.hashed]):
        yield from _hashes(batch)
    for n, question in numbered:
        if isinstance(question, ContentOf):
            path = quoted(question.path)
            yield (
                f"if [ -f {path} ] && [ -r {path} ]\n"
                f"then fz_m out {n}; fz_get {question.limit} {path}; fz_m exit {n} $?\n"
                f"else fz_m exit {n} 1; fi"
            )
        elif isinstance(question, Shell):
            yield f"fz_m out {n}\n(\n{question.script}\n) 2>&1\nfz_m exit {n} $?"


def _hashes(batch: Sequence[tuple[int, FileAt]]) -> Iterator[str]:
    yield "set --; fz_i="
    for n, q in batch:
        path = quoted(q.path)
        condition = f"[ ! -h {path} ] && [ -f {path} ] && [ -r {path} ]"
        if "\n" in q.path:  # its name would break the lines of the answer
            yield f"{condition} && {{ fz_m hash {n}; fz_hash <{path}; }}"
        else:
            yield f'{condition} && {{ set -- "$@" {path}; fz_i="$fz_i {n}"; }}'
    yield '[ $# = 0 ] || { fz_m hash "$fz_i"; fz_hash "$@"; }'


def _batches(items: Sequence[tuple[int, FileAt]]) -> Iterator[list[tuple[int, FileAt]]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


# -- reading --------------------------------------------------------------------------------------------

_HASH: Final = re.compile(rb"\\?([0-9a-f]{64})(?:\s|$)")
_TYPES: Final[Mapping[int, str]] = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}


def read_answers(questions: Sequence[Question], out: bytes, nonce: str, host: str) -> dict[Question, Answer]:
    """The answer to every question. Raises DeviceError when the output is not that of the script."""
    reading = _Reading(questions, host)
    for frame in out.split(b"\n" + nonce.encode() + b" ")[1:]:
        head, _, body = frame.partition(b"\n")
        reading.frame(head.decode("ascii", "replace").split(), body)
    return reading.answers()


class _Reading:
    def __init__(self, questions: Sequence[Question], host: str) -> None:
        self._questions = questions
        self._host = host
        self._stats: dict[int, list[str]] = {}
        self._denied: set[int] = set()
        self._links: dict[int, str] = {}
        self._hashes: dict[int, str] = {}
        self._outs: dict[int, bytes] = {}
        self._exits: dict[int, int] = {}

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
        elif word == "out":
            self._outs[numbers[0]] = body
        elif word == "exit":
            self._exits[numbers[0]] = numbers[1]

    def _stat(self, numbers: Sequence[int], body: bytes) -> None:
        lines = [line.split(" ", 4) for line in _text(body).splitlines() if line]
        if len(lines) != len(numbers) or any(len(line) != 5 for line in lines):
            raise self._moved()
        self._stats.update(zip(numbers, lines, strict=True))

    def answers(self) -> dict[Question, Answer]:
        found: dict[Question, Answer] = {}
        for number, question in enumerate(self._questions):
            if isinstance(question, FileAt):
                found[question] = self._path(number)
            elif number not in self._exits:
                raise self._garbled()
            else:
                found[question] = _output(question, self._exits[number], self._outs.get(number, b""))
        return found

    def _path(self, number: int) -> PathState:
        line = self._stats.get(number)
        if line is None:
            return PathState("denied" if number in self._denied else "missing")
        mode = int(line[0], 16)
        user, _, group = line[4].partition("/")
        return PathState(
            type=_TYPES.get(mode & 0o170000, "other"),
            mode=mode & 0o7777,
            uid=int(line[1]),
            gid=int(line[2]),
            user=user,
            group=group,
            size=int(line[3]),
            target=self._links.get(number, ""),
            sha256=self._hashes.get(number, ""),
        )

    def _moved(self) -> DeviceError:
        return DeviceError(
            f"{self._host}: a file was replaced while it was looked at", where=self._host, hint="run it again"
        )

    def _garbled(self) -> DeviceError:
        return DeviceError(
            f"{self._host}: the answer of its shell cannot be understood",
            where=self._host,
            hint="the target needs a POSIX sh, stat and sha256sum (coreutils or busybox)",
        )


def _output(question: Question, exit_code: int, out: bytes) -> Output:
    """What was printed; a content that is larger than was asked for is none."""
    too_large = isinstance(question, ContentOf) and len(out) > question.limit
    return Output(1, b"") if too_large else Output(exit_code, out)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
