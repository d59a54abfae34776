"""Templates that only put names into text (`fw-{{ site }}.{{ net.domain }}`), without Jinja2.

They are most of all templates there are. Everything that is not plainly one of them, and everything that goes
wrong here, is left to Jinja2: what this module does answer, Jinja2 would have answered in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from fazai.model import Secret
from fazai.template.filters.base import TEXT_MAX
from fazai.template.limits import TEMPLATE_MAX, Rendering

#: The result of a template that only Jinja2 can render.
LATER: Final = object()
#: The result of a search for a variable that is not there; a simple template leaves that to Jinja2, too.
MISSING: Final = LATER

_NAME: Final = r"[A-Za-z][A-Za-z0-9_]*"
_EXPRESSION: Final = re.compile(r"\{\{[ \t\n]*(" + _NAME + r"(?:\." + _NAME + r")*)[ \t\n]*\}\}")
#: Where an expression, a statement or a comment begins.
_BEGIN: Final = re.compile(r"\{[{%#]")
_RESERVED: Final = (
    "true false none True False None not and or in is if else elif for recursive range dict namespace lookup"
    " query q omit self"
)
_WORDS: Final = frozenset(_RESERVED.split())
#: `{{ x.items }}` is the method of a mapping in Jinja2, whatever keys the mapping has.
_MAPPING_METHODS: Final = frozenset(name for name in dir(dict) if not name.startswith("_"))

DottedName = tuple[str, ...]


class SimpleTemplate:
    """A template of texts and dotted names, which ends with so many line ends."""

    __slots__ = ("_newlines", "_parts")

    def __init__(self, parts: tuple[str | DottedName, ...], newlines: int) -> None:
        self._parts = parts
        self._newlines = newlines

    def render(self, find: Callable[[str, Rendering], Any], rendering: Rendering) -> Any:
        """The value, or LATER."""
        parts = self._parts
        if len(parts) == 1:
            value = _look_up(parts[0], find, rendering)  # type: ignore[arg-type]
            return end_lines(value, self._newlines) if type(value) is str else value
        texts: list[str] = []
        secret = False
        for part in parts:
            value = part if type(part) is str else _look_up(part, find, rendering)  # type: ignore[arg-type]
            if type(value) is str:
                texts.append(value)
            elif type(value) is int or type(value) is bool or type(value) is float:
                texts.append(str(value))
            elif isinstance(value, Secret):
                secret = rendering.tainted = True
                texts.append(value.reveal())
            elif value is not None:
                return LATER
        text = "".join(texts)
        if len(text) > TEXT_MAX:
            return LATER
        return end_lines(Secret(text) if secret else text, self._newlines)


def count_newlines(text: str) -> int:
    """Count the line ends that a text ends with."""
    return len(text) - len(text.rstrip("\n"))


def end_lines(text: str | Secret, newlines: int) -> str | Secret:
    """Return the text with at least so many line ends, those of its template, as in Ansible."""
    if newlines == 0:
        return text
    plain = text.reveal() if isinstance(text, Secret) else text
    missing = "\n" * (newlines - count_newlines(plain))
    if not missing:
        return text
    return Secret(plain + missing) if isinstance(text, Secret) else plain + missing


def _look_up(path: DottedName, find: Callable[[str, Rendering], Any], rendering: Rendering) -> Any:
    value = find(path[0], rendering)
    for key in path[1:]:
        if not isinstance(value, dict) or key not in value or key in _MAPPING_METHODS:
            return LATER
        value = value[key]
    return value


def parse_simple(text: str) -> SimpleTemplate | None:
    """Parse a template; None when Jinja2 has to do it."""
    if len(text) > TEMPLATE_MAX or "\r" in text:
        return None
    pieces = _EXPRESSION.split(text[:-1] if text.endswith("\n") else text)  # one line end is Jinja2's to drop
    parts: list[str | DottedName] = []
    for index, piece in enumerate(pieces):
        if index % 2:
            path = tuple(piece.split("."))
            if path[0] in _WORDS:
                return None
            parts.append(path)
        elif _BEGIN.search(piece) or (piece.endswith("{") and index + 1 < len(pieces)):
            return None
        elif piece:
            parts.append(piece)
    if not any(type(part) is tuple for part in parts):
        return None
    return SimpleTemplate(tuple(parts), count_newlines(text))
