"""The abilities of a terminal: colours, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """The abilities of a stream. `live`: lines may be redrawn. `colour`: styles are shown, unless
    NO_COLOR, TERM or --color say no."""

    live: bool
    colour: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str], choice: str = "auto") -> Terminal:
        tty = stream.isatty()
        dumb = environ.get("TERM", "dumb") == "dumb"
        auto = tty and not dumb and not environ.get("NO_COLOR")
        colour = {"always": True, "never": False}.get(choice, auto)
        return cls(live=tty and not dumb, colour=colour)

    def paint(self, text: str, style: str) -> str:
        if not self.colour or style not in _CODES:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
