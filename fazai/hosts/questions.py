"""What a kind may ask of a host, as values; the session asks all of them at once (`script`)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KEPT_BYTES", "Answer", "ContentOf", "FileAt", "Output", "PathState", "Question", "Shell"]

#: A larger file is not fetched to be shown, nor to be put back when a run is undone.
KEPT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileAt:
    """What is at a path; `hashed`: also the hash of its content; `follow`: where a link is, what it leads to."""

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
    """What a snippet of POSIX shell prints, and its exit code. The snippet changes nothing."""

    script: str


Question = FileAt | ContentOf | Shell


@dataclass(frozen=True, slots=True)
class PathState:
    """`type`: missing, denied (a folder above may not be entered), file, directory, link, other.

    `unsafe`: why the path cannot be trusted (`walking`), in a sentence; nothing of it is used then. `real`: of
    a link that was followed, where the file itself is (and `target` is the link's). `shared`: users other than
    root and who looked may change what stands there at any time."""

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


@dataclass(frozen=True, slots=True)
class Output:
    """Of a `Shell` question; of `ContentOf`: `exit` 0 and the content, 1 without one, `walking.UNSAFE` and why
    the path cannot be trusted."""

    exit: int
    out: bytes


Answer = PathState | Output
