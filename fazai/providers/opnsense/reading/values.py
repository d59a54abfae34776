"""Reads single values of an answer. Whatever a firewall wrote there, the result is a bounded value of the
wanted type, or None: unknown is never 0, and never false."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from fazai.providers.opnsense.api.answers import nonsense_error
from fazai.providers.opnsense.api.calls import ApiCall
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.masking import as_one_line

T = TypeVar("T")
Row = Mapping[str, Any]

MAX_TEXT = 200
#: Rows of one answer that are looked at, whatever the firewall sends.
MAX_ROWS = 50_000
_AT_ONCE = 50
_LAST_SECOND = 253_402_300_799  # of the year 9999
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([BKMGTP]?)")
_NUMBER = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)%?")


def text_at(row: Row, *names: str) -> str | None:
    """Return the first of these values that says something, as one short line."""
    for name in names:
        value = row.get(name)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                text = as_one_line(value)
            except ValueError:  # a number of thousands of digits
                continue
            if text:
                return cut_text(text)
    return None


def cut_text(text: str) -> str:
    """Return a text of at most MAX_TEXT characters."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def count_at(row: Row, name: str) -> int | None:
    """Return a count, however it is written."""
    return parse_count(row.get(name))


def parse_count(value: Any) -> int | None:
    """Parse a count; None for what is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return None
    return int(value)


def flag_at(row: Row, name: str) -> bool | None:
    """Return a yes or no: the API writes true, 1 and "1"."""
    value = row.get(name)
    if isinstance(value, bool):
        return value
    return {"1": True, "0": False, 1: True, 0: False}.get(value) if isinstance(value, (int, str)) else None


def time_at(row: Row, name: str) -> datetime | None:
    """Return a moment that is written as seconds since the epoch; 0 stands for never."""
    seconds = count_at(row, name)
    return datetime.fromtimestamp(seconds, UTC) if seconds and seconds <= _LAST_SECOND else None


def percent_at(row: Row, name: str) -> float | None:
    """Return a percentage such as `12.50%`."""
    value = row.get(name)
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 32 else None
    return float(found[1]) if found else None


def size_at(row: Row, name: str) -> int | None:
    """Return bytes that are written as `312K`, `25M` or `1.5G`."""
    value = row.get(name)
    found = _SIZE.fullmatch(value.strip().upper()) if isinstance(value, str) and len(value) <= 32 else None
    if found is None:
        return None
    size = float(found[1]) * 1024.0 ** "BKMGTP".index(found[2] or "B")
    return int(size) if math.isfinite(size) and size < 2**63 else None


def map_at(value: Any, *names: str) -> Row:
    """Return the map under a path of names; an empty one where there is none (PHP writes an empty map as a
    list)."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def rows_of(value: Any) -> Iterator[Row]:
    """Return the maps in a list, or in the values of a map; no more than MAX_ROWS are looked at."""
    listed: Iterable[Any] = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return (row for row in islice(listed, MAX_ROWS) if isinstance(row, dict))


async def first_rows(
    rows: Iterable[Row], parse: Callable[[Row], T | None], limit: int
) -> tuple[tuple[T, ...], int]:
    """Parse rows; return the first `limit` that are what they should be, and how many there are of them.
    Others have their turn in between."""
    kept: list[T] = []
    total = 0
    for number, row in enumerate(rows, 1):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        parsed = parse(row)
        if parsed is None:
            continue
        total += 1
        if len(kept) < limit:
            kept.append(parsed)
    return tuple(kept), total


async def search_rows(api: Api, path: str, limit: int, more: Row | None = None) -> tuple[list[Row], int]:
    """Search a list of the firewall: its first `limit` rows (-1: all), and how many it says there are. Raises
    as `Api.get`; Unreachable without rows."""
    body = {"current": 1, "rowCount": limit, "sort": {}, "searchPhrase": "", **(more or {})}
    answer = await api.call(ApiCall("POST", path, body))
    return listed_rows(answer, api.settings.target, path)


def listed_rows(answer: Any, target: str, path: str) -> tuple[list[Row], int]:
    """Return the rows of an answer to a search, and how many there are on the firewall. Raises Unreachable
    where it has none."""
    listed = answer.get("rows") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise nonsense_error(target, path, "an answer without rows")
    rows = list(rows_of(listed))
    return rows, max(parse_count(answer.get("total")) or 0, len(listed))
