"""What a kind may ask of a host, as values; the session asks all of them at once (`script`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from fazai.errors import DeviceError

__all__ = [
    "KEPT_BYTES",
    "SAID_BYTES",
    "Answer",
    "AnswerTooLong",
    "ContentOf",
    "FileAt",
    "Output",
    "OverlongOutput",
    "PathState",
    "Question",
    "Shell",
    "answer_bytes",
]

#: A larger file is not fetched to be shown, nor to be put back when a run is undone.
KEPT_BYTES = 256 * 1024
#: What a snippet may print, unless its question says otherwise: more is cut off on the host.
SAID_BYTES = 1024 * 1024
#: Frames, states and the target of a link (4096 bytes, each as four characters) for one path.
_PATH_BYTES = 20 * 1024
#: Small files that are read in place of their hash.
_READ_BYTES = 128 * 1024
#: What one look may bring, however much is asked for.
_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileAt:
    """What is at a path; `hashed`: also the hash of its content; `follow`: of a link, what it leads to."""

    path: str
    hashed: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True)
class ContentOf:
    """The content of the file at a path, or where a link there leads, if it has at most so many bytes."""

    path: str
    limit: int


@dataclass(frozen=True, slots=True)
class Shell:
    """What a snippet of POSIX shell prints (at most `limit` bytes), and its exit code. The snippet changes
    nothing."""

    script: str
    limit: int = SAID_BYTES


Question = FileAt | ContentOf | Shell


@dataclass(frozen=True, slots=True)
class PathState:
    """`type`: missing, denied (a folder above may not be entered), file, directory, link, other.

    `unsafe`: why the path cannot be trusted (`walking`), in a sentence; nothing of it is used then. `real`:
    of a link that was followed, where the file itself is (and `target` is the link's). `shared`: users other
    than root and who looked may change what stands there at any time. `place`: where the name stands, if that
    is another folder than its path says, as a link leads there."""

    type: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    size: int = 0
    target: str = ""
    sha256: str = ""  # empty where it was not asked for, is no file or cannot be read
    real: str = ""
    unsafe: str = ""
    shared: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """Of a `Shell` question; of `ContentOf`: `exit` 0 and the content, 1 without one, `walking.UNSAFE` and
    why the path cannot be trusted."""

    exit: int
    out: bytes


class AnswerTooLong(DeviceError):
    """The host said more than a question may be answered with; raised where the answer is used."""


class OverlongOutput(Output):
    """Stands for an answer that was cut off: using any part of it raises AnswerTooLong."""

    def __init__(self, limit: int) -> None:
        object.__setattr__(self, "_limit", limit)

    def _refuse(self) -> NoReturn:
        limit: int = object.__getattribute__(self, "_limit")
        raise AnswerTooLong(
            f"the host said more than {limit / 2**20:g} MiB in answer to one question",
            hint="a file or list there is larger than it can be in earnest: look at it",
        )

    @property
    def exit(self) -> int:
        self._refuse()

    @property
    def out(self) -> bytes:
        self._refuse()


Answer = PathState | Output


def answer_bytes(questions: Sequence[Question]) -> int:
    """The most that a host can have to say in answer to these questions, all frames included."""
    limits = (q.limit if isinstance(q, ContentOf | Shell) else 0 for q in questions)
    return min(_MOST_BYTES, _READ_BYTES + sum(limit + _PATH_BYTES for limit in limits))
