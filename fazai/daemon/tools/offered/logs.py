"""Tool `logs.search`: the daemon's event log, the newest first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fazai.daemon.events.broadcaster import EventFilter
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.fitting import as_compact, cut_note, failed_observation, list_observation
from fazai.errors import spelling_hint
from fazai.loop.tools import Observation, Tool, ToolArgs
from fazai.store.daemon import DaemonStore, StoredEvent
from fazai.timestamps import timestamp, utc_now
from fazai.wire.base import WireError
from fazai.wire.events import EVENT_TYPES, Level

_BATCH = 1000
_MOST_SCANNED = 50_000
_TEXT = 300
#: Fields that a row has on its own, or that say nothing to a reader.
_COMMON = ("type", "timestamp", "target", "run_id", "sequence", "level", "agent_id", "session_id")
_DEPTH = 4


#: Described as one of them; the tool refuses others in its own words.
EventType = Annotated[str, Meta(max_length=32, extra_json_schema={"enum": ["", *EVENT_TYPES]})]


class LogsArgs(ToolArgs, frozen=True, kw_only=True):
    """Empty: any. `level`: log lines of this level and above. `text`: stands in the event, in any case.
    `minutes`: events of the last so many."""

    type: EventType = ""
    target: Annotated[str, Meta(max_length=256)] = ""
    level: Literal["", "debug", "info", "warning", "error", "critical"] = ""
    text: Annotated[str, Meta(max_length=100)] = ""
    minutes: Annotated[int, Meta(ge=1, le=43_200)] = 1440
    limit: Annotated[int, Meta(ge=1, le=200)] = 30


#: Without a type: all but what models write, which is no news to them.
_TOLD = frozenset(EVENT_TYPES) - {"token"}


@Tool("logs.search", "The daemon's event log, newest first: changes, outcomes, agents, log lines.")
async def search_logs(call: ToolCall, args: LogsArgs) -> Observation:
    """Return the newest events that match. At most 50,000 events are looked at."""
    if args.type and args.type not in EVENT_TYPES:
        hint = spelling_hint(args.type, EVENT_TYPES) or f"there are: {', '.join(sorted(EVENT_TYPES))}"
        return failed_observation(WireError("bad_query", f"there is no event {args.type[:32]!r}", hint=hint))
    level: Level | None = args.level or None
    wanted = EventFilter(
        types=frozenset((args.type,) if args.type else ("log",) if level else _TOLD),
        target=args.target or None,
        level=level,
    )
    since_us = int(utc_now().timestamp() * 1e6) - args.minutes * 60_000_000
    found, scanned, whole = await _search(call.services.store, wanted, args.text, since_us, args.limit)
    what = f"events of the last {args.minutes} minutes that match" + ("" if whole else " (there may be more)")
    rows = [_row(event) for event in found]
    shown = list_observation(what, rows, len(rows), beside={"scanned": scanned})
    # The loop's own events are looked at, too: their number grows where nothing else happens.
    return msgspec.structs.replace(shown, same_as=msgspec.json.encode([what, rows]).decode())


async def _search(
    store: DaemonStore, wanted: EventFilter, text: str, since_us: int, limit: int
) -> tuple[list[StoredEvent], int, bool]:
    """Return the newest events that match, how many were looked at, and whether those were all."""
    found: list[StoredEvent] = []
    needle = text.casefold()
    scanned = 0
    first, last = store.event_range()
    until = last + 1  # ids from here on were looked at
    while until > first and scanned < _MOST_SCANNED:
        begin = max(first, until - _BATCH)
        rows = [event for event in await store.events_after(begin - 1, _BATCH) if event.id < until]
        for event in reversed(rows):
            if event.time_us < since_us:
                return found, scanned, True
            scanned += 1
            if wanted.wants(event) and _has_text(event, needle):
                found.append(event)
                if len(found) == limit:
                    return found, scanned, False
        until = begin
        await asyncio.sleep(0)
    return found, scanned, until <= first


def _has_text(event: StoredEvent, needle: str) -> bool:
    return not needle or any(needle in text.casefold() for text in _texts(msgspec.json.decode(event.data)))


def _texts(value: Any, depth: int = 16) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one, depth - 1)


def _row(event: StoredEvent) -> dict[str, Any]:
    fields = msgspec.json.decode(event.data)
    rest = {name: value for name, value in fields.items() if name not in _COMMON}
    row = {
        "id": event.id,
        "time": timestamp(event.time_us / 1e6).isoformat(timespec="seconds"),
        "type": event.type,
        "target": event.target,
        "run": event.run,
        "agent": event.agent if event.target is None else None,
        "level": event.level,
        **_cut_texts(rest, _DEPTH),
    }
    compact: dict[str, Any] = as_compact(row)
    return compact


def _cut_texts(value: Any, depth: int) -> Any:
    """Return a value with short texts and lists, and no deeper than so."""
    if isinstance(value, str):
        return cut_note(value)[:_TEXT]
    if isinstance(value, dict):
        return {name[:64]: _cut_texts(one, depth - 1) for name, one in value.items()} if depth else "…"
    if isinstance(value, list):
        return [_cut_texts(one, depth - 1) for one in value[:20]] if depth else "…"
    return value


TOOLS = (search_logs,)
