"""Searching and paging: the same for every collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from fazai.lab.box import ActionCall
from fazai.lab.engine.config import Item
from fazai.lab.engine.names import natural_key

_ENCODER = msgspec.json.Encoder()


class SearchRow:
    """One row of a search: its values, and, made when first needed, its JSON and its searchable text."""

    def __init__(self, data: dict[str, Any], key: Any = None) -> None:
        self.data = data
        self.key = key

    @cached_property
    def raw(self) -> msgspec.Raw:
        return msgspec.Raw(_ENCODER.encode(self.data))

    @cached_property
    def text(self) -> str:
        """The searchable text; where a field has a label it is the label, not the stored value."""
        values = [
            str(self.data.get(f"%{name}", value))
            for name, value in self.data.items()
            if not isinstance(value, (list, dict)) and not name.startswith("%")
        ]
        return "\x00".join(values).lower()


class RowCache:
    """The rows of one collection; a row lives as long as its item and what its labels depend on."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Item, SearchRow]] = {}
        self._on: tuple[object, ...] = ()

    def rows(
        self,
        items: Mapping[str, Item],
        depends: tuple[object, ...],
        maker: Callable[[], Callable[[str, Item], SearchRow]],
    ) -> list[SearchRow]:
        """Return the rows in the order of the items; ask for the maker only when one has to be made."""
        if len(depends) != len(self._on) or any(a is not b for a, b in zip(depends, self._on, strict=True)):
            self._rows, self._on = {}, depends
        old, fresh, result, make = self._rows, {}, [], None
        for uuid, item in items.items():
            found = old.get(uuid)
            if found is None or found[0] is not item:
                make = make or maker()
                found = (item, make(uuid, item))
            fresh[uuid] = found
            result.append(found[1])
        self._rows = fresh
        return result


def _to_number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _column_key(name: str) -> Callable[[SearchRow], Any]:
    return lambda row: natural_key(str(row.data.get(name, "")))


def select_page(
    call: ActionCall, rows: Sequence[SearchRow], *, searched: bool = True
) -> tuple[list[SearchRow], int, int]:
    """Return the rows of one page, the number of matches, the page's number. `searched`: by the words of the
    request."""
    phrase = call.argument("searchPhrase") if searched else None
    found = list(rows)
    if isinstance(phrase, str) and phrase.strip():
        words = phrase.lower().split()
        found = [row for row in found if all(word in row.text for word in words)]
    order = call.body.get("sort")
    if isinstance(order, Mapping):
        for name, direction in reversed(list(order.items())):
            found.sort(key=_column_key(name), reverse=direction == "desc")
    total = len(found)
    current = _to_number(call.argument("current"), 1)
    count = _to_number(call.argument("rowCount"), -1)
    if count >= 0:
        start = (max(current, 1) - 1) * count
        found = found[start : start + count]
    return found, total, current


def grid_answer(call: ActionCall, rows: Sequence[SearchRow]) -> dict[str, Any]:
    """Return the envelope of a search in a model."""
    found, total, current = select_page(call, rows)
    return {"rows": [row.raw for row in found], "rowCount": len(found), "total": total, "current": current}


def recordset_answer(call: ActionCall, rows: Iterable[SearchRow]) -> dict[str, Any]:
    """Return the envelope of a search in a list that is no model."""
    found, total, current = select_page(call, list(rows))
    return {"total": total, "rowCount": len(found), "current": current, "rows": [row.raw for row in found]}


def make_rows(values: Iterable[Mapping[str, Any]]) -> list[SearchRow]:
    return [SearchRow(dict(value)) for value in values]
