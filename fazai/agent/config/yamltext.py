"""Reads the subset of YAML that agent.yml is written in, with the standard library alone.

Block mappings and lists by indentation, lists in brackets and mappings in braces on one line, plain and
quoted texts on one line, numbers, `true`/`yes`/`on` and their opposites, `null`, comments. What else YAML
has (anchors, aliases, tags, merge keys, several documents, texts over several lines, dates, octal and
sexagesimal numbers, keys that are no text, tabs) is refused with its line. Whatever is accepted means the
same to PyYAML's SafeLoader, which a property test holds. Size and depth are bounded.
"""

from __future__ import annotations

import re

from fazai.agent.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_KEY_MAX = 200  # YAML's own bound of a key on one line is 1024

_FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
#: Looks like something else than text to YAML: other numbers, dates, and what begins like them.
_AMBIGUOUS = re.compile(
    r"[-+]?\.?[0-9][0-9a-fA-FxXoO_:.+-]*|[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)|[0-9]{4}-[0-9].*|<<|="
)
#: Addresses and versions, of which YAML makes texts.
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+){2,}")
_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`")
_ESCAPES = {"\\": "\\", '"': '"', "/": "/", "n": "\n", "t": "\t", "r": "\r"}
_REASONS = {
    "&": "anchors are not read here",
    "*": "aliases are not read here; a text that begins with * stands in quotes",
    "!": "tags are not read here; a text that begins with ! stands in quotes",
    "|": "texts over several lines are not read here",
    ">": "texts over several lines are not read here",
    "%": "directives are not read here; a text that begins with % stands in quotes",
    "?": "a text that begins with ? stands in quotes",
    "@": "a text that begins with @ stands in quotes",
    "`": "a text that begins with ` stands in quotes",
}


class Node:
    """A value with its place: `value` is a text, number, truth value, None, a list of nodes, or a dict of
    text to node; `line` counts from 1, as does `key_line`, that of the key before the value."""

    __slots__ = ("key_line", "line", "value")

    def __init__(self, value: object, line: int) -> None:
        self.value = value
        self.line = line
        self.key_line = line


def plain_value(node: Node) -> object:
    """Return the value without places, as PyYAML would load it."""
    if isinstance(node.value, dict):
        return {key: plain_value(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain_value(child) for child in node.value]
    return node.value


def read_yaml(data: bytes, name: str) -> Node:
    """Read one document; `name` stands in errors. Raises ConfigError."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"it has {len(data)} bytes, {MAX_BYTES} are allowed", where=name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("this is not UTF-8", where=f"{name}:{line}") from None
    return _Reader(text[1:] if text.startswith("\ufeff") else text, name).document()


class _Line:
    """One line with content: its number, its indentation, its text without either."""

    __slots__ = ("indent", "number", "text")

    def __init__(self, number: int, indent: int, text: str) -> None:
        self.number = number
        self.indent = indent
        self.text = text


class _Reader:
    """Reads blocks by indentation; what stands on one line is left to _Scanner."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = self._split_lines(text)
        self._at = 0

    def document(self) -> Node:
        if not self._lines:
            return Node(None, 1)
        first = self._lines[0]
        node = self._block(first.indent, 1)
        if self._at < len(self._lines):
            raise self._error("this line is indented less than the first one", self._lines[self._at].number)
        return node

    def _split_lines(self, text: str) -> list[_Line]:
        lines = []
        for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
            found = _FORBIDDEN.search(raw)
            if found is not None:
                tab = found.group() == "\t"
                what = "a tab" if tab else f"the character U+{ord(found.group()):04X}"
                raise self._error(f"{what} is not allowed", number, "use spaces" if tab else None)
            stripped = raw.lstrip(" ")
            if not stripped or stripped.startswith("#"):
                continue
            if raw.startswith(("---", "...")):
                raise self._error("document marks are not read here", number)
            lines.append(_Line(number, len(raw) - len(stripped), stripped.rstrip(" ")))
        return lines

    def _error(self, message: str, line: int, hint: str | None = None) -> ConfigError:
        return ConfigError(message, where=f"{self._name}:{line}", hint=hint)

    def _peek(self) -> _Line | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _block(self, indent: int, depth: int) -> Node:
        """Read what begins at the current line, whose indentation is `indent`."""
        line = self._lines[self._at]
        if depth > MAX_DEPTH:
            raise self._error(f"it is nested more than {MAX_DEPTH} deep", line.number)
        if _is_item(line.text):
            return self._sequence(indent, depth)
        scanner = _Scanner(line, self._name)
        if scanner.starts_mapping():
            return self._mapping(indent, depth)
        node = scanner.whole_value(depth)
        self._at += 1
        self._refuse_continuation(line, indent - 1)
        return node

    def _sequence(self, indent: int, depth: int) -> Node:
        items: list[Node] = []
        first = self._lines[self._at].number
        while True:
            line = self._peek()
            if line is None or line.indent < indent or (line.indent == indent and not _is_item(line.text)):
                return Node(items, first)
            if line.indent > indent:
                raise self._error("this line is indented more than the list that it is in", line.number)
            rest = line.text[1:].lstrip(" ")
            if not rest or rest.startswith("#"):
                self._at += 1
                items.append(self._nested(line, indent, depth, False))
                continue
            if _is_item(rest):
                raise self._error("a list in a list stands in brackets, or on a line of its own", line.number)
            # The rest is read as if it stood on a line of its own, further in.
            inner = indent + len(line.text) - len(rest)
            self._lines[self._at] = _Line(line.number, inner, rest)
            items.append(self._block(inner, depth + 1))
            self._refuse_continuation(line, indent)

    def _mapping(self, indent: int, depth: int) -> Node:
        found: dict[str, Node] = {}
        first = self._lines[self._at].number
        while True:
            line = self._peek()
            if line is None or line.indent < indent:
                return Node(found, first)
            if line.indent > indent:
                raise self._error("this line is indented more than the keys that it is among", line.number)
            if _is_item(line.text):
                raise self._error("a list begins here among the keys of a mapping", line.number)
            scanner = _Scanner(line, self._name)
            key = scanner.key(found)
            self._at += 1
            if scanner.at_end():
                value = self._nested(line, indent, depth, True)
            else:
                value = scanner.whole_value(depth + 1)
                self._refuse_continuation(line, indent)
            value.key_line = line.number
            found[key] = value

    def _nested(self, line: _Line, indent: int, depth: int, list_beside: bool) -> Node:
        """Read what belongs to a key or a dash with nothing behind it; None where nothing does."""
        following = self._peek()
        if following is not None and (
            following.indent > indent
            or (list_beside and following.indent == indent and _is_item(following.text))
        ):
            return self._block(following.indent, depth + 1)
        return Node(None, line.number)

    def _refuse_continuation(self, line: _Line, indent: int) -> None:
        following = self._peek()
        if following is not None and following.indent > indent:
            raise self._error(
                f"this line belongs to nothing: line {line.number} has its value already",
                following.number,
                "a value stands on one line, in quotes where needed",
            )


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


class _Scanner:
    """Reads what stands on one line."""

    def __init__(self, line: _Line, name: str) -> None:
        self._text = line.text
        self._line = line.number
        self._name = name
        self._at = 0

    def _error(self, message: str, hint: str | None = None) -> ConfigError:
        return ConfigError(message, where=f"{self._name}:{self._line}", hint=hint)

    def _skip_spaces(self) -> None:
        while self._text[self._at : self._at + 1] == " ":
            self._at += 1

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def at_end(self) -> bool:
        """Tell whether nothing follows but a comment."""
        before = self._at
        self._skip_spaces()
        found = self._next() == "" or (self._next() == "#" and (self._at > before or before == 0))
        if not found:
            self._at = before
        return found

    def starts_mapping(self) -> bool:
        """Tell whether the line begins with a key and a colon."""
        if self._next() in ("[", "{"):
            return False
        if self._next() in ("'", '"'):
            self._quoted()
        else:
            self._plain(in_flow=False)
        self._skip_spaces()
        found = self._next() == ":"
        self._at = 0
        return found

    def key(self, known: dict[str, Node]) -> str:
        """Read a key and its colon."""
        key = self._key(in_flow=False)
        if key in known:
            raise self._error(f'"{key}" stands here twice', f"the first is in line {known[key].key_line}")
        return key

    def _key(self, in_flow: bool) -> str:
        begin = self._at
        if self._next() in ("[", "{"):
            raise self._error("a key is a text")
        value: object = self._quoted() if self._next() in ("'", '"') else self._resolve(self._plain(in_flow))
        if not isinstance(value, str):
            word = self._text[begin : self._at].strip()
            raise self._error(f"a key is a text, and `{word}` is none to YAML", "put it in quotes")
        if self._at - begin > _KEY_MAX:
            raise self._error(f"a key has at most {_KEY_MAX} characters")
        self._skip_spaces()
        if self._next() != ":":
            raise self._error(f'a colon is missing after "{value[:40]}"')
        self._at += 1
        if self._next() not in ("", " "):
            raise self._error("a space is missing after the colon")
        return value

    def whole_value(self, depth: int) -> Node:
        """Read the value that takes the rest of the line."""
        self._skip_spaces()
        node = self._value(depth, in_flow=False)
        if not self.at_end():
            rest = self._text[self._at :].strip()[:40]
            raise self._error(f"what follows the value is not understood: {rest}", "put the text in quotes")
        return node

    def _value(self, depth: int, in_flow: bool) -> Node:
        if depth > MAX_DEPTH:
            raise self._error(f"it is nested more than {MAX_DEPTH} deep")
        first = self._next()
        if first == "[":
            return self._flow_sequence(depth)
        if first == "{":
            return self._flow_mapping(depth)
        if first in ("'", '"') and first:
            return Node(self._quoted(), self._line)
        return Node(self._resolve(self._plain(in_flow)), self._line)

    def _flow_sequence(self, depth: int) -> Node:
        items: list[Node] = []
        self._at += 1
        while not self._closed("]", bool(items)):
            items.append(self._value(depth + 1, in_flow=True))
        return Node(items, self._line)

    def _flow_mapping(self, depth: int) -> Node:
        found: dict[str, Node] = {}
        self._at += 1
        while not self._closed("}", bool(found)):
            key = self._key(in_flow=True)
            if key in found:
                raise self._error(f'"{key}" stands here twice')
            self._skip_spaces()
            if self._next() in (",", "}"):
                raise self._error(f'"{key}" has no value')
            found[key] = self._value(depth + 1, in_flow=True)
        return Node(found, self._line)

    def _closed(self, bracket: str, needs_comma: bool) -> bool:
        """Step to the next entry of a list in brackets or a mapping in braces, or over its end."""
        self._skip_spaces()
        if needs_comma and self._next() == ",":
            self._at += 1
            self._skip_spaces()
        elif needs_comma and self._next() not in (bracket, ""):
            raise self._error(f"a comma or {bracket} is missing before: {self._text[self._at :][:40]}")
        if self._next() == bracket:
            self._at += 1
            return True
        if self._next() in ("", "#"):
            raise self._error(
                f"{bracket} is missing", "brackets and braces are closed on the line where they open"
            )
        return False

    def _quoted(self) -> str:
        quote = self._next()
        self._at += 1
        parts: list[str] = []
        while True:
            character = self._next()
            self._at += 1
            if character == "":
                raise self._error(
                    "the quotes are not closed", "a quoted text ends on the line where it begins"
                )
            if character == quote:
                if quote == "'" and self._next() == "'":
                    self._at += 1
                    parts.append("'")
                    continue
                return "".join(parts)
            parts.append(self._escape() if character == "\\" and quote == '"' else character)

    def _escape(self) -> str:
        code = self._next()
        self._at += 1
        if code in _ESCAPES and code:
            return _ESCAPES[code]
        length = {"x": 2, "u": 4}.get(code, 0)
        digits = self._text[self._at : self._at + length]
        if length and re.fullmatch(f"[0-9a-fA-F]{{{length}}}", digits):
            self._at += length
            character = chr(int(digits, 16))
            if not "\ud800" <= character <= "\udfff":
                return character
        raise self._error(
            f"\\{code} is not known in double quotes", "in single quotes a backslash is a backslash"
        )

    def _plain(self, in_flow: bool) -> str:
        """Read a text without quotes, up to a comment, a colon, or where in brackets the next sign."""
        text, begin = self._text, self._at
        first = text[begin : begin + 1]
        second = text[begin + 1 : begin + 2]
        if first in _INDICATORS and not (first == "-" and second not in ("", " ", *",[]{}")):
            reason = _REASONS.get(first, f"a text that begins with {first} stands in quotes")
            raise self._error(reason)
        at = begin
        while at < len(text):
            character = text[at]
            if character == ":" and text[at + 1 : at + 2] in ("", " "):
                break
            if character == "#" and text[at - 1] == " ":
                break
            if in_flow and character in ",[]{}":
                break
            if in_flow and (character == "?" or (character == ":" and text[at + 1] in ",[]{}")):
                raise self._error(f"a text with {character} stands in quotes in brackets")
            at += 1
        self._at = at
        while self._at > begin and text[self._at - 1] == " ":
            self._at -= 1
        return text[begin : self._at]

    def _resolve(self, text: str) -> object:
        """Tell a number, a truth value or nothing from a text, as YAML 1.1 does."""
        if text in _NULL:
            return None
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FRACTION.fullmatch(text):
            return float(text)
        if _AMBIGUOUS.fullmatch(text) and not _DOTTED.fullmatch(text):
            raise self._error(f"{text[:40]} may be read as a number, a date or a merge", "put it in quotes")
        return text
