"""deploy/grafana: every dashboard is one by the types that are made from Grafana's own schema. A field that
Grafana does not know, or of another type, is ignored by it or breaks the import: here it fails."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

BOARDS = sorted((Path(__file__).parents[2] / "deploy/grafana").glob("*.json"))


def faults(text: str) -> list[str]:
    """What Grafana would not understand, with its path."""
    register_default_plugins()
    given: Any = json.loads(text)
    try:
        read = Dashboard.from_json(given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"dashboard: {error!r}"]
    written: Any = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*_lost(given, written, "dashboard"), *_unlike(read, Dashboard, "dashboard")]


def _lost(given: Any, written: Any, where: str) -> Iterator[str]:
    """What came and is not there any more: the schema has no such field."""
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            if name in written:
                yield from _lost(value, written[name], f"{where}.{name}")
            elif value is not None:
                yield f"{where}.{name}: there is no such field"
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for number, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from _lost(one, other, f"{where}[{number}]")
    elif given != written:
        yield f"{where}: {given!r} is read as {written!r}"


def _unlike(value: Any, hint: Any, where: str) -> Iterator[str]:
    """What is not of the type that the schema gives it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        sorts = [one for one in typing.get_args(hint) if (one is type(None)) == (value is None)]
        tries = [list(_unlike(value, one, where)) for one in sorts or typing.get_args(hint)]
        yield from min(tries, key=len)
    elif origin is typing.Literal:
        if value not in typing.get_args(hint):
            yield f"{where}: {value!r} is none of {typing.get_args(hint)}"
    elif origin is list and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _unlike(one, typing.get_args(hint)[0], f"{where}[{number}]")
    elif origin is dict and isinstance(value, dict):
        for name, one in value.items():
            yield from _unlike(one, typing.get_args(hint)[1], f"{where}.{name}")
    elif isinstance(hint, type) and hasattr(hint, "from_json") and isinstance(value, dict):
        read = hint.from_json(value)  # not all are read to their depth
        yield from _lost(value, json.loads(json.dumps(read, cls=JSONEncoder)), where)
        yield from _unlike(read, hint, where)
    elif hasattr(value, "to_json"):
        for name, one in typing.get_type_hints(type(value)).items():
            yield from _unlike(getattr(value, name), one, f"{where}.{name}")
    elif not _is_a(value, hint):
        yield f"{where}: {value!r} is no {getattr(hint, '__name__', hint)}"


def _is_a(value: Any, hint: Any) -> bool:
    if hint in (object, Any):
        return True
    if isinstance(value, bool) or value is None:
        return hint is type(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [one.value for one in hint]
    return isinstance(value, (int, float) if hint is float else typing.get_origin(hint) or hint)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.name)
def test_grafana_understands_every_field(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ('"graphTooltip": 1', '"graphTooltip": 7', "7"),
        ('"graphTooltip": 1', '"graphToolTip": 1', "graphToolTip: there is no such field"),
        ('"refresh": "30s"', '"refresh": 30', "refresh"),
        ('"legendFormat": ""', '"legend": ""', "legend: there is no such field"),
        ('"colorMode": "value"', '"colorMode": "values"', "values"),
        ('"w": 4', '"w": "4"', "grid_pos.w"),
        ('"fields": ""', '"fields": []', "fields"),
    ],
)
def test_what_it_would_not_understand_is_found(before: str, after: str, wrong: str) -> None:
    text = BOARDS[0].read_text()
    assert before in text
    found = faults(text.replace(before, after, 1))
    assert any(wrong in one for one in found), found
