"""Takes the events that reconcilers on this and other machines report of their runs (SPEC.md, 2.2).

An event's `sequence` is stored with it, so that after a restart the log itself says what a run has reported.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from fazai.daemon.events.announcer import Announcer, row_of
from fazai.daemon.http.auth import Principal
from fazai.daemon.http.refusal import Refusal
from fazai.ids import is_ulid
from fazai.outcome import ONCE_COMMANDS
from fazai.store.base import Run, TargetState
from fazai.store.daemon import DaemonStore
from fazai.timestamps import utc_now
from fazai.wire.base import WireError, convert_to
from fazai.wire.daemon import ReportAnswer, ReportBody, ReportedEvent
from fazai.wire.events import (
    ActivateEvent,
    ChangeEvent,
    EventBase,
    ExecLogEvent,
    LogEvent,
    OutcomeEvent,
    PlayEvent,
    RunEvent,
    TargetEvent,
    UndoEvent,
    event_type,
)

_TYPES: Mapping[str, type[EventBase]] = {
    str(of.__struct_config__.tag): of
    for of in (
        *(RunEvent, PlayEvent, TargetEvent, ChangeEvent, ActivateEvent, UndoEvent, OutcomeEvent, LogEvent),
        ExecLogEvent,
    )
}
_BAD_STATUSES = ("failed", "unreachable", "refused", "locked", "stale", "interrupted")
_KNOWN_RUNS = 1000
_IDS = frozenset(EventBase.__struct_fields__) - {"timestamp"}


class _StoredIds(msgspec.Struct):
    """The fields that are read again of a stored event of a run."""

    sequence: int = 0
    reported_by: str | None = None


class _ReportedRun:
    """A run that reports. `here`: it writes the daemon's own ledger itself. `owner`: who reported its first
    event."""

    def __init__(self) -> None:
        self.owner: str | None = None
        self.lock = asyncio.Lock()
        self.last = -1
        self.here = False


class Reports:
    """Stores what runs report, each event once, and keeps the ledger for runs of other machines."""

    def __init__(self, store: DaemonStore, announcer: Announcer) -> None:
        self._store, self._announcer = store, announcer
        self._runs: OrderedDict[str, _ReportedRun] = OrderedDict()

    async def accept(self, body: ReportBody, who: Principal, *, own: bool = False) -> ReportAnswer:
        """Store the events that are new; they are durable when it returns. `own`: the daemon started that
        run. Raises WireError (bad_request), Refusal(forbidden), StateError."""
        if not is_ulid(body.run_id):
            raise WireError(
                "bad_request", "`run_id`: expected a ULID", hint="26 letters, as fazai makes them"
            )
        _check_year(body.started, "`started`: ")
        events = [_read_event(body, number, one, who.name) for number, one in enumerate(body.events)]
        run = self._runs.setdefault(body.run_id, _ReportedRun())
        self._runs.move_to_end(body.run_id)
        async with run.lock:
            if run.last < 0:
                run.last = await self._look_up(run, body.run_id)
            await self._check_owner(run, body.run_id, who, own)
            if run.owner is None:
                await self._begin(body)
                run.owner = who.name
            fresh: list[EventBase] = []
            last = run.last
            for event in events:
                if (event.sequence or 0) > last:
                    last = event.sequence or 0
                    fresh.append(event)
            if fresh:
                await self._store.publish([row_of(event) for event in fresh])
                for event in filter(_is_bad, fresh):
                    self._announcer.write_log("error", event, "fazai.daemon.reports")
                run.last = last
                run.here = run.here or await self._is_here(body.run_id)
                if not run.here:
                    await self._to_ledger(body, fresh)
        while len(self._runs) > _KNOWN_RUNS:
            self._runs.popitem(last=False)
        return ReportAnswer(accepted=len(fresh), duplicates=len(events) - len(fresh))

    async def _check_owner(self, run: _ReportedRun, run_id: str, who: Principal, own: bool) -> None:
        """Refuse a report of a run that somebody else began. Raises Refusal(forbidden)."""
        if run.owner not in (None, who.name):
            raise Refusal("forbidden", f"run {run_id} is reported by another", hint="each run has its own id")
        if run.owner is not None or who.is_local or who.role == "admin":
            return
        if own or await self._is_here(run_id):
            raise Refusal("forbidden", f"run {run_id} was made on the daemon's own machine")

    async def _begin(self, body: ReportBody) -> None:
        began = body.started.timestamp()
        await self._store.ledger.run_begin(
            Run(body.run_id, body.command, body.sources, body.user, body.host, 0, began)
        )

    async def _is_here(self, run_id: str) -> bool:
        """Return whether the run is one of this machine. It may report before it has written that it began;
        what it does comes after that."""
        found = await self._store.ledger.find_run(run_id)
        return found is not None and found.pid != 0

    async def _look_up(self, run: _ReportedRun, run_id: str) -> int:
        """Return the highest sequence that is in the log, and note who reported it."""
        position = highest = 0
        while rows := await self._store.events_after(position, 1000, run_id):
            for row in rows:
                stored = msgspec.json.decode(row.data, type=_StoredIds)
                highest = max(highest, stored.sequence)
                run.owner = run.owner or stored.reported_by
            position = rows[-1].id
        return highest

    async def _to_ledger(self, body: ReportBody, events: Sequence[EventBase]) -> None:
        ledger, run_id = self._store.ledger, body.run_id
        for event in events:
            if isinstance(event, RunEvent):
                if event.state == "finished":
                    await ledger.run_end(run_id, event.exit_code or 0, event.totals or {})
                continue
            if isinstance(event, OutcomeEvent) and body.command not in ONCE_COMMANDS:
                ended = event.timestamp.timestamp()
                ledger.ended(event.target, TargetState(event.status, event.pending, run_id, ended))
            data: dict[str, Any] = msgspec.to_builtins(event)
            for name in ("type", *_IDS - {"action_id"}):
                data.pop(name, None)
            moment = event.timestamp.timestamp()
            data.pop("timestamp", None)
            ledger.event(run_id, moment, event_type(event), event.target or "", data)  # type: ignore[arg-type]


def _is_bad(event: EventBase) -> bool:
    """Return whether an operator should find the event in the daemon's log, too."""
    if isinstance(event, ChangeEvent):
        return event.status in ("failed", "undone", "refused")
    return isinstance(event, OutcomeEvent) and event.status in _BAD_STATUSES


def _read_event(body: ReportBody, number: int, one: ReportedEvent, by: str) -> EventBase:
    """Return a reported event as it is stored. Raises WireError."""
    kind = one.event.get("type")
    of = _TYPES.get(kind) if isinstance(kind, str) else None
    if of is None:
        raise WireError(
            "bad_request",
            f"`events[{number}].event.type`: {str(kind)[:64]!r} is nothing that a run reports",
            hint=f"one of: {', '.join(_TYPES)}",
        )
    if one.event.get("run_id", body.run_id) != body.run_id:
        raise WireError("bad_request", f"`events[{number}].event.run_id`: it is of another run")
    values = {
        "timestamp": utc_now().isoformat(),
        **one.event,
        "run_id": body.run_id,
        "sequence": one.sequence,
        "reported_by": by,
    }
    place = f"`events[{number}].event`: "
    try:
        event = convert_to(values, of)
    except WireError as error:
        text = error.message
        raise WireError(error.code, place + text.replace("`", ""), hint=error.hint) from None
    _check_year(event.timestamp, place)
    return event


def _check_year(moment: datetime | None, place: str) -> None:
    """Refuse a moment that cannot be shown everywhere in UTC. Raises WireError."""
    if moment is not None and not 1970 < moment.year < 9999:
        raise WireError("bad_request", f"{place}timestamp: the year {moment.year} is none of a run")
