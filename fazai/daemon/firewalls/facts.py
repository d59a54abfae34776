"""Reads from the runs' events which changes of a firewall are pending, and when one was last applied."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from fazai.daemon.firewalls.metrics import FirewallFigures
from fazai.errors import StateError
from fazai.outcome import ONCE_COMMANDS
from fazai.store.base import Store
from fazai.store.daemon import DaemonStore, StoredEvent

_RUNS_BACK = 20
_RUNS_KNOWN = 1000


class _Outcome(msgspec.Struct):
    """The fields of `run` and `outcome` events that are read."""

    state: str = ""
    command: str | None = None
    check: bool = False
    status: str = ""
    pending: int = 0


async def follow_runs(figures: FirewallFigures, store: DaemonStore) -> None:
    """Load what the latest runs left into `figures`, and subscribe to what is published from now on."""
    ledger = store.ledger
    checks: OrderedDict[str, bool] = OrderedDict()
    loop = asyncio.get_running_loop()
    turn, tasks = asyncio.Lock(), set[asyncio.Task[None]]()

    async def note(events: list[StoredEvent]) -> None:
        async with turn:  # in the order of their publication
            await _note_events(figures, ledger, checks, events)

    def begin_to_note(events: list[StoredEvent]) -> None:
        task = loop.create_task(note(events))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def published(events: list[StoredEvent]) -> None:
        """Hand runs and outcomes over to the loop. Called by the store's writer."""
        found = [event for event in events if event.type in ("run", "outcome")]
        if found:
            with contextlib.suppress(RuntimeError):  # the loop ended before the last commit
                loop.call_soon_threadsafe(begin_to_note, found)

    store.on_published(published)
    for name, facts in (await _read_latest_runs(ledger)).items():
        if not figures.has_run(name):  # else a run that reports now has the last word
            for at, check, fact in facts:
                figures.note_run(name, check=check, status=fact.status, pending=fact.pending, at=at)


async def _note_events(
    figures: FirewallFigures, ledger: Store, checks: OrderedDict[str, bool], events: Sequence[StoredEvent]
) -> None:
    for event in events:
        fact = msgspec.json.decode(event.data, type=_Outcome)
        run_id = event.run or ""
        if event.type == "run":
            checks[run_id] = fact.check or fact.command in ONCE_COMMANDS
            if len(checks) > _RUNS_KNOWN:
                checks.popitem(last=False)
        elif event.target is not None:
            if run_id not in checks:
                checks[run_id] = await _is_check(ledger, run_id)
            at = event.time_us / 1e6
            figures.note_run(
                event.target, check=checks[run_id], status=fact.status, pending=fact.pending, at=at
            )


async def _is_check(ledger: Store, run_id: str) -> bool:
    try:
        run = await ledger.find_run(run_id)
    except StateError:
        return True
    return run is None or run.command != "apply"


async def _read_latest_runs(ledger: Store) -> dict[str, list[tuple[float, bool, _Outcome]]]:
    """Return, by target, what the latest runs left there, the oldest first. Raises StateError."""
    found: dict[str, list[tuple[float, bool, _Outcome]]] = {}
    for run in reversed(await ledger.history(_RUNS_BACK)):
        for event in await ledger.events(run.run_id):
            if event["type"] == "outcome":
                fact = _Outcome(status=str(event.get("status", "")), pending=int(event.get("pending") or 0))
                at = float(event.get("time") or run.started)
                found.setdefault(str(event["target"]), []).append((at, run.command != "apply", fact))
    return found
