"""Takes the fields of a mapping one by one, each with its check; gathers every mistake with its line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fazai.agent.config.yamltext import Node
from fazai.agent.errors import ConfigError
from fazai.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TEXT_MAX = 4096


class Mistakes:
    """The mistakes that were found in one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors: list[ConfigError] = []

    def add(self, line: int, message: str, hint: str | None = None, meant: str | None = None) -> None:
        """Remember one mistake."""
        self.errors.append(ConfigError(message, where=f"{self.name}:{line}", hint=hint, meant=meant))


class Fields:
    """A mapping of the file whose keys are known; what is wrong is remembered and replaced by a default."""

    def __init__(self, node: Node, title: str, known: Iterable[str], mistakes: Mistakes) -> None:
        self.line = node.line
        self.mistakes = mistakes
        self._title = title
        self._nodes: dict[str, Node] = {}
        if not isinstance(node.value, dict):
            mistakes.add(node.line, f"{title} must be a mapping, not {describe(node)}")
            return
        names = list(known)
        for key, child in node.value.items():
            if key in names:
                self._nodes[key] = child
            else:
                meant = did_you_mean(key, names)
                hint = None if meant else f"known: {', '.join(names)}"
                mistakes.add(child.key_line, f'{title} has no setting "{key[:80]}"', hint, meant)

    def node(self, key: str) -> Node | None:
        """Return the value's node, None where the key is absent or has no value."""
        found = self._nodes.get(key)
        return None if found is None or found.value is None else found

    def line_of(self, key: str) -> int:
        """Return the line of a key, or that of the mapping where the key is absent."""
        found = self._nodes.get(key)
        return found.key_line if found is not None else self.line

    def wrong(self, key: str, message: str, hint: str | None = None) -> None:
        """Remember a mistake at a key."""
        self.mistakes.add(self.line_of(key), message, hint)

    def missing(self, key: str) -> None:
        """Remember that a key that must be there is not."""
        self.mistakes.add(self.line, f"{self._title} needs `{key}`")

    def text(self, key: str, default: str = "", *, pattern: str | None = None, what: str = "a text") -> str:
        """Return a text that matches the pattern as a whole."""
        node = self.node(key)
        return default if node is None else self.text_of(node, key, default, pattern=pattern, what=what)

    def text_of(
        self, node: Node, key: str, default: str = "", *, pattern: str | None = None, what: str = "a text"
    ) -> str:
        """Return the text of a node below `key`."""
        value = node.value
        if not isinstance(value, str):
            hint = "put it in quotes" if isinstance(value, (bool, int, float)) else None
            self.mistakes.add(node.line, f"`{key}` must be {what}, not {describe(node)}", hint)
        elif not value or len(value) > _TEXT_MAX or "\0" in value:
            self.mistakes.add(node.line, f"`{key}` must be {what} of 1 to {_TEXT_MAX} characters without NUL")
        elif pattern is not None and not re.fullmatch(pattern, value):
            self.mistakes.add(node.line, f'`{key}` must be {what}, not "{value[:80]}"')
        else:
            return value
        return default

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """Return a whole number between two bounds."""
        node = self.node(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.mistakes.add(
                node.line, f"`{key}` must be a whole number from {least} to {most}, not {describe(node)}"
            )
            return default
        return value

    def fraction(self, key: str, default: float, least: float, most: float) -> float:
        """Return a number between two bounds."""
        node = self.node(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self.mistakes.add(
                node.line, f"`{key}` must be a number from {least:g} to {most:g}, not {describe(node)}"
            )
            return default
        return float(value)

    def switch(self, key: str, default: bool = False) -> bool:
        """Return a truth value."""
        node = self.node(key)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.mistakes.add(node.line, f"`{key}` must be true or false, not {describe(node)}")
            return default
        return node.value

    def items(self, key: str) -> Iterator[Node]:
        """Yield the entries of a list."""
        node = self.node(key)
        if node is None:
            return
        if not isinstance(node.value, list):
            self.mistakes.add(node.line, f"`{key}` must be a list, not {describe(node)}")
            return
        yield from node.value

    def texts(self, key: str, *, pattern: str | None = None, what: str = "a text") -> tuple[str, ...]:
        """Return the texts of a list, each of which matches the pattern as a whole."""
        found = [self.text_of(node, key, pattern=pattern, what=what) for node in self.items(key)]
        return tuple(text for text in found if text)

    def paths(self, key: str) -> tuple[str, ...]:
        """Return a list of absolute paths."""
        found = [self.path_of(node, key) for node in self.items(key)]
        return tuple(path for path in found if path)

    def path(self, key: str, default: str = "") -> str:
        """Return an absolute path."""
        node = self.node(key)
        return default if node is None else self.path_of(node, key) or default

    def path_of(self, node: Node, key: str) -> str:
        """Return the absolute path of a node; empty where it is none."""
        path = self.text_of(node, key, what="an absolute path")
        if not path:
            return ""
        if not path.startswith("/"):
            self.mistakes.add(node.line, f'`{key}` must be an absolute path, not "{path[:80]}"')
            return ""
        if any(part in (".", "..") for part in path.split("/")) or "//" in path:
            self.mistakes.add(node.line, f'`{key}` must be a path without ".", ".." and "//": "{path[:80]}"')
            return ""
        return path.rstrip("/") or "/"

    def mapping(self, key: str, known: Iterable[str]) -> Fields | None:
        """Return the fields of a mapping below `key`, None where it is absent."""
        node = self.node(key)
        return None if node is None else Fields(node, f"`{key}`", known, self.mistakes)


def describe(node: Node) -> str:
    """Return words for a value that is not what was expected."""
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f'"{value[:80]}"' if isinstance(value, str) else str(value)
