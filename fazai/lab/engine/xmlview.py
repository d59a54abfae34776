"""A configuration as XML text: for downloads, differences and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from fazai.lab.engine.config import SETTINGS, Item, State
from fazai.lab.engine.schema import Catalogue


def lines_of(state: State, catalogue: Catalogue) -> Iterator[str]:
    """Yield a configuration line by line, with two blanks a level."""
    yield '<?xml version="1.0"?>'
    yield "<opnsense>"
    for path in sorted(state):
        model = catalogue.items.get(path)
        tag = path if model is None else f"{model.model}.{model.inner}"
        opened = tag.split(".")
        for depth, part in enumerate(opened[:-1], 1):
            yield f"{'  ' * depth}<{part}>"
        indent = "  " * len(opened)
        for key, item in state[path].items():
            attribute = "" if key == SETTINGS else f' uuid="{escape(key)}"'
            yield f"{indent}<{opened[-1]}{attribute}>"
            yield from _field_lines(item, indent + "  ")
            yield f"{indent}</{opened[-1]}>"
        for depth in range(len(opened) - 1, 0, -1):
            yield f"{'  ' * depth}</{opened[depth - 1]}>"
    yield "</opnsense>"


def _field_lines(item: Item, indent: str) -> Iterator[str]:
    for name, value in item.items():
        if value:
            yield f"{indent}<{name}>{escape(value)}</{name}>"
        else:
            yield f"{indent}<{name}/>"
