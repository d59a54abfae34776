"""Patterns of names: targets, identities, kinds. A pattern fits the whole of a name, never its beginning."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

#: What `*` and `?` stand for in a rule that allows: printable ASCII without the slash. A look-alike from
#: another alphabet, a control character or a further folder fits no wildcard.
_ONE = "[ -.0-~]"
_LENGTH_MAX = 4096


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A name, in which `*` stands for any number of characters and `?` for one. Letters count as they are
    written."""

    text: str

    @property
    def is_wide(self) -> bool:
        """True where it says nothing: `*`, `?*`."""
        return not self.text.strip("*?")

    def fits(self, name: str) -> bool:
        """Return whether a rule that allows means this name; in doubt it does not."""
        if name == self.text and "*" not in name and "?" not in name:
            return True
        if len(name) > _LENGTH_MAX or ".." in re.split(r"[/=:,\s]", name):
            return False
        return _compile(self.text).fullmatch(name) is not None

    def could_mean(self, name: str) -> bool:
        """Return whether a rule that denies means this name; in doubt it does: `*` stands for any text, and
        letters count alike whatever their case and width."""
        wanted = _compile_wide(fold(self.text))
        return any(wanted.fullmatch(each) is not None for each in {fold(name), fold(tidy_path(name))})


def fold(text: str) -> str:
    """Return a text in which letters that look alike by their case or width are the same."""
    return unicodedata.normalize("NFKC", text).casefold()


def tidy_path(text: str) -> str:
    """Return a path without `//`, `/./` and `/../`; another text as it is."""
    return posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text


@lru_cache(maxsize=1024)
def _compile(text: str) -> re.Pattern[str]:
    parts = [{"*": f"{_ONE}*", "?": _ONE}.get(part) or re.escape(part) for part in re.split(r"([*?])", text)]
    return re.compile("".join(parts))


@lru_cache(maxsize=1024)
def _compile_wide(text: str) -> re.Pattern[str]:
    parts = [{"*": ".*", "?": "."}.get(part) or re.escape(part) for part in re.split(r"([*?])", text)]
    return re.compile("".join(parts), re.DOTALL)
