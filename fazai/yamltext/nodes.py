"""The containers that a YAML text becomes, each with its places, and the text itself for error messages."""

from __future__ import annotations

import re
from array import array
from typing import Any

from fazai.errors import Mark

#: A place in one integer: the line above the column, both counted from 0 as libyaml does.
_COLUMN_BITS = 32
_COLUMN_MASK = (1 << _COLUMN_BITS) - 1

#: A line that may hold a secret is never quoted in an error; neither is one that is nested below such a key.
_TELLTALE = re.compile(
    r"pass(word|wd|phrase)?\b|passw|pwd|secret|token|credential|api[_-]?key|private|psk|shared[_-]?key|"
    r"\bkey\b|_key\b|auth|\$ANSIBLE_VAULT|BEGIN |://[^/\s]*@|[A-Za-z0-9+/=_-]{40,}|^\s*[0-9a-fA-F]{32,}\s*$",
    re.IGNORECASE,
)
#: `key:`, `- item`, a comment or a bracket: a line that does not continue the text above it.
_SHAPED = re.compile(r"""\s*(#|- |-$|\? |[{}\[\]]|[\w.@"'~<*&!-][^:]*:(\s|$))""")
_LOOK_BACK = 400
_EXCERPT_MAX = 160
_LINE_MAX = 4000  # nobody looks for secrets in a longer line; it counts as one


def pack_place(line: int, column: int) -> int:
    """Pack a place into one integer: two for every entry must stay cheap."""
    return line << _COLUMN_BITS | column


class UnsafeText(str):
    """Text that is never a template (`!unsafe`)."""

    __slots__ = ()


class SourceText:
    """One YAML text: its name, and its lines when an error wants to quote one."""

    __slots__ = ("_data", "_lines", "file")

    def __init__(self, file: str, data: bytes) -> None:
        self.file = file
        self._data = data
        self._lines: list[str] | None = None

    def mark(self, at: int) -> Mark:
        return Mark(self.file, (at >> _COLUMN_BITS) + 1, (at & _COLUMN_MASK) + 1)

    def excerpt(self, mark: Mark | None) -> str | None:
        """The line at `mark`, or None where it may hold a secret, is not ours or is too long to help."""
        if mark is None or mark.file != self.file or mark.line > len(lines := self._split_lines()):
            return None
        line = lines[mark.line - 1].rstrip()
        if len(line) > _EXCERPT_MAX or not line.isprintable() or self.may_hold_secret(mark):
            return None
        return line or None

    def line(self, mark: Mark) -> str:
        """The line at `mark`, whatever it holds; not for an error's text."""
        lines = self._split_lines()
        return lines[mark.line - 1] if mark.line <= len(lines) else ""

    def is_end(self, line: int) -> bool:
        """Tell whether there is nothing but blanks from `line` (counted from 0) on."""
        return not any(map(str.strip, self._split_lines()[line:]))

    def may_hold_secret(self, mark: Mark) -> bool:
        """Tell whether the line, or a line that it belongs below, looks as if a secret stood there.

        A line that is no `key:` or `- item` may be the rest of a text that began above it, at any indent.
        """
        lines, index = self._split_lines(), mark.line - 1
        if index >= len(lines) or len(lines[index]) > _LINE_MAX or _TELLTALE.search(lines[index]):
            return True
        indent = _indent_width(lines[index])
        loose = not _SHAPED.match(lines[index])
        for line in reversed(lines[max(0, index - _LOOK_BACK) : index]):
            if not line.strip() or not (loose or _indent_width(line) < indent):
                continue
            if len(line) > _LINE_MAX or _TELLTALE.search(line):
                return True
            indent = min(indent, _indent_width(line))
            loose = loose and not _SHAPED.match(line)
            if indent == 0 and not loose:
                return False
        return False

    def _split_lines(self) -> list[str]:
        if self._lines is None:
            text = self._data.decode("utf-8-sig", "replace")
            # at what libyaml calls a line break, and nothing else that splitlines() would cut at
            self._lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
        return self._lines


def _indent_width(line: str) -> int:
    return len(line) - len(line.lstrip())


class YamlMap(dict[str, Any]):
    """A mapping with string keys that knows its places. To be read, not to be changed."""

    __slots__ = ("_at", "_index", "_places", "_source")

    def __init__(self, source: SourceText, at: int) -> None:
        self._source = source
        self._at = at
        self._index: dict[str, int] | None = None  # key -> number of the entry, once somebody asks
        self._places = array("Q")  # for each entry, in order: the place of the key, the place of the value

    def mark(self, key: str | None = None) -> Mark:
        """Return the start of the mapping; for a key, the place of its value, or of the key if that is
        lines above."""
        if key is None:
            return self._source.mark(self._at)
        key_at, value_at = self._find_entry(key)
        same_line = key_at >> _COLUMN_BITS == value_at >> _COLUMN_BITS
        return self._source.mark(value_at if same_line else key_at)

    def key_mark(self, key: str) -> Mark:
        """Return the place of the key itself."""
        return self._source.mark(self._find_entry(key)[0])

    def excerpt(self, key: str | None = None) -> str | None:
        """The line of `mark(key)`, for an error; None where it may hold a secret."""
        return self._source.excerpt(self.mark(key))

    @property
    def source(self) -> SourceText:
        return self._source

    def without(self, *keys: str) -> YamlMap:
        """A copy that leaves these keys out; what stays keeps its place."""
        copy = YamlMap(self._source, self._at)
        for index, (key, value) in enumerate(self.items()):
            if key not in keys:
                copy[key] = value
                copy._places.extend(self._places[2 * index : 2 * index + 2])
        return copy

    def renamed(self, key: str, name: str, value: Any = None) -> YamlMap:
        """A mapping of one entry, `name: value`, that stands where `key` has its text, or else at `key`."""
        copy = YamlMap(self._source, self._at)
        copy[name] = value
        key_at, value_at = self._find_entry(key)
        at = value_at if isinstance(self.get(key), str) else key_at
        copy._places.extend((at, at))
        return copy

    def put(self, key: str, value: Any, at: int) -> None:
        """Set an entry that stands at `at`, to make a mapping of something else than YAML."""
        if key in self:
            number = list(self).index(key)
            self._places[2 * number] = self._places[2 * number + 1] = at
        else:
            self._places.extend((at, at))
        self[key] = value

    def _find_entry(self, key: str) -> tuple[int, int]:
        if self._index is None or len(self._index) != len(self):
            self._index = {known: number for number, known in enumerate(self)}
        number = self._index.get(key)
        if number is None or 2 * number + 1 >= len(self._places):
            return self._at, self._at
        return self._places[2 * number], self._places[2 * number + 1]


class YamlList(list[Any]):
    """A sequence that knows its places. To be read, not to be changed."""

    __slots__ = ("_at", "_places", "_source")

    def __init__(self, source: SourceText, at: int) -> None:
        self._source = source
        self._at = at
        self._places = array("Q")

    def mark(self, index: int | None = None) -> Mark:
        """Return the place of the sequence, or of its item number `index`."""
        if index is None or not -len(self._places) <= index < len(self._places):
            return self._source.mark(self._at)
        return self._source.mark(self._places[index])

    def excerpt(self, index: int | None = None) -> str | None:
        """The line of `mark(index)`, for an error; None where it may hold a secret."""
        return self._source.excerpt(self.mark(index))

    @property
    def source(self) -> SourceText:
        return self._source

    def position(self, index: int) -> int:
        """The place of an item, as `put` takes it."""
        return self._places[index] if index < len(self._places) else self._at

    def put(self, value: Any, at: int) -> None:
        """Add an item that stands at `at`, as `YamlMap.put`."""
        self.append(value)
        self._places.append(at)
