"""A notification as a value, its text for people, and how a delivery fails."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from fazai.errors import FazaiError

NoticeKind = Literal["drift", "failed_run", "silent_host", "approval_waits", "loop_stuck", "digest", "test"]
#: What a channel can be limited to; the others belong to no event.
EVENT_KINDS: tuple[str, ...] = get_args(NoticeKind)[:5]

SUBJECT_CHARACTERS = 200
_LINE_CHARACTERS = 500
_LINES = 50


class Notice(Struct, frozen=True, kw_only=True):
    """One message. `subject` is one line; `lines` are the rest, each for itself; `time` is in seconds since
    the epoch. The ids name what it is about, where that is one thing."""

    id: str
    kind: NoticeKind
    subject: str
    time: float
    lines: tuple[str, ...] = ()
    urgent: bool = False
    target: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    action_id: str | None = None

    @property
    def text(self) -> str:
        """The whole message as text: the subject, then the lines."""
        return "\n".join((self.subject, *self.lines))


def make_line(text: str, most: int = _LINE_CHARACTERS) -> str:
    """Return a text of anybody as one line: without control characters, and cut."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def make_lines(texts: list[str], most: int = _LINES) -> tuple[str, ...]:
    """Return texts as lines; of too many the first, and how many more there are."""
    lines = tuple(map(make_line, texts[:most]))
    return (*lines, f"… and {len(texts) - most} more") if len(texts) > most else lines


class DeliveryError(FazaiError):
    """A message that was not delivered. `permanent`: it is no use to try again. `again_s`: the receiver asks
    to wait for so long."""

    def __init__(self, message: str, *, permanent: bool = False, again_s: float | None = None) -> None:
        super().__init__(message)
        self.permanent, self.again_s = permanent, again_s
