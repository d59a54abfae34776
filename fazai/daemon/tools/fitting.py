"""Makes observations that a model can read: rows up to a number of bytes, and a note that says what is left
out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from fazai.loop.tools import Observation
from fazai.wire.base import WireError

#: Of the JSON of one observation: what a small model's context can bear.
MOST_BYTES = 16_000
_NOTE_CHARACTERS = 600


def list_observation(
    what: str,
    rows: Sequence[Any],
    total: int,
    *,
    beside: Mapping[str, Any] | None = None,
    citations: tuple[str, ...] = (),
) -> Observation:
    """Return rows as far as they fit, under `rows`, with what stands beside them. `total` counts those that
    there are; `what` says in the plural what they are."""
    base = as_compact(beside or {})
    kept = fit_rows(rows, MOST_BYTES - len(msgspec.json.encode(base)))
    left = max(total, len(rows)) - len(kept)
    note = f"{max(total, len(rows))} {what}"
    if left:
        note += f"; the first {len(kept)} are shown, {left} are left out: ask more narrowly"
    return Observation(note=cut_note(note), data={**base, "rows": kept}, citations=citations)


def fit_rows(rows: Iterable[Any], most_bytes: int) -> list[Any]:
    """Return the first rows, compact, whose JSON has at most so many bytes."""
    kept: list[Any] = []
    size = 2
    for row in rows:
        compact = as_compact(row)
        size += len(msgspec.json.encode(compact)) + 1
        if size > most_bytes:
            break
        kept.append(compact)
    return kept


def as_compact(value: Any) -> Any:
    """Return plain values without what says nothing: null, and empty texts, lists and maps in a map."""
    value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        compact = {name: as_compact(one) for name, one in value.items()}
        return {name: one for name, one in compact.items() if one is not None and one not in ("", [], {})}
    if isinstance(value, (list, tuple)):
        return [as_compact(one) for one in value]
    return value


def failed_observation(error: WireError) -> Observation:
    """Return what a tool answers in place of what it could not read."""
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    return Observation(note=cut_note(text), failed=True)


def cut_note(text: str) -> str:
    """Return a note of one bounded line."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _NOTE_CHARACTERS else f"{line[: _NOTE_CHARACTERS - 1]}…"
