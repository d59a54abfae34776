"""Notes what runs did: a note for each target that a run changed, found different, or failed on.

The text of a note holds nothing of the run itself (neither its id nor its times), so that the same thing
happening again is the same note, which counts it. Converged targets leave none, nor do programs (`fazai
exec`) and files that are copied: their output is in the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fazai.daemon.kb.service import KnowledgeBase
from fazai.errors import FazaiError
from fazai.outcome import ONCE_COMMANDS
from fazai.report.lines import printable
from fazai.service.log import Log
from fazai.store.base import Store
from fazai.store.daemon import DaemonStore, StoredEvent

_LOGGER = "fazai.daemon.kb"
_RUNS, _TARGETS = 1000, 5000  # that are remembered until their outcome comes
_CHANGES, _FIELDS = 20, 12  # that a note tells
_VALUE_CHARS, _ERROR_CHARS = 200, 500
_WAITING = 5000  # events
_HOUR_S = 3600.0
_NOTES_PER_HOUR, _TARGETS_NOTES_PER_HOUR = 1000, 12

#: What happened, by the status of the outcome; others are no news.
_TITLES = {
    "changed": "changed",
    "pending": "differs from what is declared",
    "failed": "failed",
    "unreachable": "was not reached",
    "refused": "was refused",
}


class _Event(msgspec.Struct):
    """The fields of `run`, `change` and `outcome` events that are read."""

    command: str | None = None
    status: str = ""
    kind: str = ""
    identity: str = ""
    verb: str = ""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    error: str | None = None
    note: str | None = None
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reported_by: str | None = None


class RunNotes:
    """Collects the events of runs, and makes notes of their outcomes."""

    def __init__(
        self, kb: KnowledgeBase, ledger: Store, log: Log, clock: Callable[[], float] = time.monotonic
    ):
        self._kb, self._ledger, self._log, self._clock = kb, ledger, log, clock
        self._commands: OrderedDict[str, str] = OrderedDict()
        self._changes: OrderedDict[tuple[str, str], list[_Event]] = OrderedDict()
        self._noted: deque[float] = deque(maxlen=_NOTES_PER_HOUR)
        self._noted_of: OrderedDict[str, deque[float]] = OrderedDict()
        self.skipped = 0

    async def follow(self, store: DaemonStore) -> None:
        """Make notes of what is published from now on, for ever."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[StoredEvent] = asyncio.Queue(_WAITING)

        def take(events: list[StoredEvent]) -> None:
            for event in events:
                with contextlib.suppress(asyncio.QueueFull):
                    waiting.put_nowait(event)

        def published(events: list[StoredEvent]) -> None:
            """Hand events of runs over to the loop. Called by the store's writer."""
            found = [event for event in events if event.run and event.type in ("run", "change", "outcome")]
            if found:
                with contextlib.suppress(RuntimeError):  # the loop ended before the last commit
                    loop.call_soon_threadsafe(take, found)

        store.on_published(published)
        while True:
            event = await waiting.get()  # deadline: none, it waits for what happens
            try:
                await self.note(event)
            except FazaiError as error:
                self._log.say("warning", f"a run is not noted: {error}", logger=_LOGGER, run_id=event.run)

    async def note(self, event: StoredEvent) -> None:
        """Remember an event; of an outcome make a note, where it is one. Raises StateError."""
        run, target = event.run or "", event.target or ""
        try:
            found = msgspec.json.decode(event.data, type=_Event)
        except msgspec.MsgspecError:
            return
        if event.type == "run" and found.command is not None:
            _remember(self._commands, run, found.command, _RUNS)
        elif event.type == "change" and target:
            if (run, target) not in self._changes:
                _remember(self._changes, (run, target), [], _TARGETS)
            kept = self._changes[run, target]
            if len(kept) <= _CHANGES:
                kept.append(found)
        elif event.type == "outcome" and target:
            changes = self._changes.pop((run, target), [])
            if found.status in _TITLES and await self._is_noted(run) and self._has_room(target):
                await self._add(run, target, found, changes)

    async def _is_noted(self, run: str) -> bool:
        if run not in self._commands:
            known = await self._ledger.find_run(run)
            _remember(self._commands, run, known.command if known is not None else "", _RUNS)
        return self._commands[run] not in ONCE_COMMANDS

    def _has_room(self, target: str) -> bool:
        """Return whether one more note may be made this hour; the first that may not be is told."""
        now = self._clock()
        if target not in self._noted_of:
            _remember(self._noted_of, target, deque(maxlen=_TARGETS_NOTES_PER_HOUR), _TARGETS)
        for noted in (self._noted, self._noted_of[target]):
            if len(noted) == noted.maxlen and now - noted[0] < _HOUR_S:
                self.skipped += 1
                if self.skipped == 1:
                    self._log.say("warning", f"runs on {target} are not noted for an hour", logger=_LOGGER)
                return False
        self._noted.append(now)
        self._noted_of[target].append(now)
        self.skipped = 0
        return True

    async def _add(self, run: str, target: str, outcome: _Event, changes: Sequence[_Event]) -> None:
        lines = [line for change in changes[:_CHANGES] for line in _change_lines(change)]
        if len(changes) > _CHANGES:
            lines.append("and more changes")
        lines += [f"error: {_short(error, _ERROR_CHARS)}" for error in outcome.errors[:5]]
        lines += [f"note: {_short(note, _ERROR_CHARS)}" for note in outcome.notes[:5]]
        kinds = dict.fromkeys(change.kind for change in changes[:_CHANGES] if change.kind)
        command = self._commands.get(run) or "run"
        await self._kb.add(
            f"{target} {_TITLES[outcome.status]}"[:256],
            "\n".join(lines) or f"{command}: {outcome.status}",
            tags=[outcome.status, *kinds],
            source=f"fazai {command}",
            target=target,
            origin="run",
            author=outcome.reported_by or "fazai",
            run=run,
        )


def _remember(into: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    into[key] = value
    if len(into) > most:
        into.popitem(last=False)


def _change_lines(change: _Event) -> list[str]:
    """Describe a change: what it was, and each field before and after."""
    lines = [f"{change.verb} {change.kind} {_short(change.identity, _VALUE_CHARS)}: {change.status}"]
    names = [*dict.fromkeys((*change.before, *change.after))][:_FIELDS]
    for name in names:
        before, after = (
            _value_text(values[name]) if name in values else None for values in (change.before, change.after)
        )
        if before == after:
            continue
        if before is None:
            lines.append(f"  {name}: {after}")
        else:
            lines.append(f"  {name}: {before} -> {after if after is not None else '(gone)'}")
    lines += [f"  note: {_short(change.note, _ERROR_CHARS)}"] if change.note else []
    lines += [f"  error: {_short(change.error, _ERROR_CHARS)}"] if change.error else []
    return lines


def _value_text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _short(text, _VALUE_CHARS)


def _short(text: str, most: int) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
