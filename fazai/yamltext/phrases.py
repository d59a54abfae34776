"""Explanations for libyaml's errors: one sentence and the next step."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    message: str
    hint: str | None = None


_TAB = Explanation("a tab stands where YAML takes spaces only", "indent with spaces")
_INDENT_HINT = "check the indentation of this line and of the one above"
_KNOWN: tuple[tuple[str, Explanation], ...] = (
    (
        "did not find expected whitespace or line break",
        Explanation("a blank is missing after the tag (!…)", "quote a text that starts with !"),
    ),
    (
        "did not find expected alphabetic or numeric character",
        Explanation("no name behind a & or *", "quote a text that starts with & or *"),
    ),
    (
        "mapping values are not allowed",
        Explanation("a ':' stands where no key can be", f'quote a text that holds ": "; {_INDENT_HINT}'),
    ),
    ("did not find expected key", Explanation("expected a key of the mapping here", _INDENT_HINT)),
    (
        "did not find expected '-' indicator",
        Explanation("expected '- ' for the next item of the list", _INDENT_HINT),
    ),
    ("could not find expected ':'", Explanation("this key has no ':'", "write `key: value`")),
    ("did not find expected ',' or '}'", Explanation("expected ',' or '}' in the { } mapping", None)),
    ("did not find expected ',' or ']'", Explanation("expected ',' or ']' in the [ ] list", None)),
    (
        "did not find expected <document start>",
        Explanation("expected `key: value` or the end of the file here", _INDENT_HINT),
    ),
    ("did not find expected node content", Explanation("expected a value here", None)),
    (
        "found undefined tag handle",
        Explanation("unknown tag", "the tags are !env, !file, !cmd, !vault and !unsafe"),
    ),
    (
        "found unknown escape character",
        Explanation('unknown \\ escape in a "…" text', "use '…', where \\ is an ordinary character"),
    ),
    ("found invalid Unicode character escape", Explanation("a \\u escape that is no character", None)),
    (
        "block sequence entries are not allowed",
        Explanation("a list item cannot stand here", "put the list on lines of its own"),
    ),
    ("block mapping", Explanation("a mapping cannot start here", _INDENT_HINT)),
    ("found incompatible YAML document", Explanation("this is not YAML 1.1", "leave the %YAML line away")),
    ("exceeded max nesting", Explanation("too many levels", None)),
)


def explain_problem(problem: str, context: str, line: str, column: int) -> Explanation:
    """Explain libyaml's `problem` (and `context`), which stands at `column` (from 0) of `line`."""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[column : column + 1] == "\t":
        return _TAB
    if "cannot start any token" in problem:
        character = line[column : column + 1]
        return Explanation(f"a value cannot start with '{character}'", f"quote it: '{character}…'")
    if re.match(r"\s*(- )?([\w.-]+:\s+)?\{\{", line):
        return Explanation("a template that is not quoted", 'write "{{ … }}" with the quotes')
    if "end of stream" in problem and "quoted scalar" in context:
        hint = "close it; ' inside '…' is written ''"
        return Explanation("the quote that opens here is never closed", hint)
    if "end of stream" in problem and "flow" in context:
        return Explanation(f"the {line[column : column + 1]} that opens here is never closed", "close it")
    if "did not find expected ',' or '}'" in problem and "[" in line[: column + 1]:
        hint = 'quote a name with a range: "fw-[01:20]"'
        return Explanation("a [ ends the name before it inside of { }", hint)
    for known, explanation in _KNOWN:
        if known in problem:
            return explanation
    text = " ".join(part for part in (problem, context) if part)
    return Explanation(text or "this is not YAML", _INDENT_HINT)


def find_bad_byte(data: bytes) -> tuple[int, int, str]:
    """Find the first byte that YAML does not have: line, column (from 0) and description."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
    else:
        found = re.search(
            r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]", text[1:]
        )
        if text[:1] == "\x00" or found is None:
            position, character = 0, text[:1]
        else:
            position, character = found.start() + 1, found.group()
        what = "a NUL byte" if character == "\x00" else f"the control character U+{ord(character or ' '):04X}"
        text = text[:position]
    lines = re.split(r"\r\n|[\r\n]", text)
    return len(lines) - 1, len(lines[-1]), what
