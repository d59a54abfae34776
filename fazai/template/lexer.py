r"""Backslashes in the texts of expressions, as Ansible has them.

In the templates of YAML files they stand for themselves, so that `regex_replace('\d+', '\1')` is written as
it is meant. In a condition, and in a template file, they escape, as in Python, where they make sense as an
escape, and stand for themselves otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jinja2.lexer import Lexer

_ESCAPES: Final = re.compile(
    r"\\(?:[\\'\"abfnrtv\n]|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\})|\\"
)


class BackslashLexer(Lexer):
    """Jinja2's lexer. `escapes` is set while a condition or a template file is read."""

    escapes = False

    def tokeniter(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> Iterator[tuple[int, str, str]]:
        for line, token, text in super().tokeniter(source, name, filename, state):
            if token == "string" and "\\" in text:  # noqa: S105 - a token of Jinja2's
                quote, inner = text[0], text[1:-1]
                inner = _ESCAPES.sub(_keep_escape, inner) if self.escapes else inner.replace("\\", "\\\\")
                yield line, token, quote + inner + quote
            else:
                yield line, token, text


def _keep_escape(found: re.Match[str]) -> str:
    return "\\\\" if found.group() == "\\" else found.group()
