"""Questions that a kind may ask of a host, and their answers, as values. The session asks all of them at once
(`script`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, Union

from fazai.compat.language import dataclass
from fazai.errors import DeviceError

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
    """Ask for the state of a path; `hashed`: with the hash of the content; `follow`: of a link, that of its
    target."""

    path: str
    hashed: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True)
class ContentOf:
    """Ask for the content of the file at a path, or where a link there leads, if it has at most so many
    bytes."""

    path: str
    limit: int


@dataclass(frozen=True, slots=True)
class OutputOf:
    """Ask for the output of a snippet of POSIX shell (at most `limit` bytes), and its exit code. The snippet
    changes nothing."""

    script: str
    limit: int = SAID_BYTES


@dataclass(frozen=True, slots=True)
class RegisteredAgent(OutputOf):
    """Ask the daemon for the registry's row of a remote agent. The output is JSON: `row` (null: it has none),
    or `unasked`: why the daemon could not be asked. Where a session has no registry, the host says so."""

    script: str = """echo '{"unasked": "there is no daemon to be asked"}'"""
    agent_id: str = ""


Question = Union[FileAt, ContentOf, OutputOf]


@dataclass(frozen=True, slots=True)
class PathState:
    """The state of a path. `type`: missing, denied (a folder above may not be entered), file, directory,
    link, other. Sizes are bytes.

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

    @property
    def noun(self) -> str:
        """The type as a noun in a sentence."""
        return "special file" if self.type == "other" else self.type


@dataclass(frozen=True, slots=True)
class Output:
    """The answer to an `OutputOf`, or to a `ContentOf`: then `exit` is 0 with the content, 1 without one, and
    `walking.UNSAFE` with why the path cannot be trusted."""

    exit: int
    out: bytes

    @property
    def text(self) -> str:
        """The output for people, and for patterns of ours: what is no UTF-8 is replaced."""
        return self.out.decode("utf-8", "replace")


class AnswerTooLong(DeviceError):
    """Raised where an answer is used that was longer than its question allows."""


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


Answer = Union[PathState, Output]


def find_output(answers: Mapping[Question, Answer], question: ContentOf | OutputOf) -> Output:
    """Return the answer to a question for output."""
    answer = answers[question]
    assert isinstance(answer, Output)
    return answer


def answer_bytes(questions: Sequence[Question]) -> int:
    """Return the most bytes that the answer to these questions can have, all frames included."""
    limits = (q.limit if isinstance(q, (ContentOf, OutputOf)) else 0 for q in questions)
    return min(_MOST_BYTES, _READ_BYTES + sum(limit + _PATH_BYTES for limit in limits))
