"""Follows the published events, makes notices of them, and carries each to its channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import Announcer, log_event
from fazai.daemon.notify.config import Channel, NotifyConfig
from fazai.daemon.notify.matching import (
    SUBJECTS,
    Draft,
    judge_run,
    may_matter,
    read_effect,
    read_rest,
    read_run_end,
    read_silence,
)
from fazai.daemon.notify.outbox import Entry, Outbox
from fazai.daemon.runs.queue import RunQueue
from fazai.errors import FazaiError, StateError
from fazai.notify.message import SUBJECT_CHARACTERS, DeliveryError, Notice, NoticeKind, make_line, make_lines
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore, StoredEvent
from fazai.wire.events import Level

_LOGGER = "fazai.daemon.notify"
_LOOK_S = 15.0  # at the quiet time, and at a wall clock that jumped
_RECORD_S = 60.0  # for the daemon to note the end of a run that has told of it
_CAUGHT_UP_US = 3_600_000_000  # what happened while the daemon was away is told if it is not older
_PAGE = 1000
_MOST_BUFFERED = 10_000
_MOST_EFFECTS = 256  # that were shown, and of which it may yet be said that they wait
_STOP_S = 0.5


class Notifier:
    """Tells people what happened. Without a channel it does nothing. Used on the daemon's loop."""

    def __init__(
        self,
        config: NotifyConfig,
        store: DaemonStore,
        run_queue: RunQueue,
        announcer: Announcer,
        log: Log,
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config, self._store, self._run_queue = config, store, run_queue
        self._announcer, self._log, self._now = announcer, log, now
        self.outbox = Outbox(config, chance, os.urandom)
        self._buffer: list[StoredEvent] = []
        self._effects: dict[str, str] = {}
        self._followed = 0
        self._came = asyncio.Event()
        self._wakes = {name: asyncio.Event() for name in config.subscriptions}

    # -- in the background

    async def run(self) -> None:
        """Follow the events and deliver, until it is cancelled. Raises StateError where what was stored
        cannot be read."""
        if not self._config.subscriptions:
            return
        await self._load()
        async with asyncio.TaskGroup() as group:
            for name, one in self._config.subscriptions.items():
                group.create_task(self._deliver_all(name, one.channel))
            group.create_task(self._gather_all())
            group.create_task(self._keep_time())

    async def _load(self) -> None:
        values, followed = await self._store.notices()
        lost = self.outbox.load(values)
        for entry, name in lost:
            self._report_dead(entry, name)
        await self._save([entry for entry, _ in lost])
        self._follow_events()
        self._followed = followed if followed is not None else self._store.event_range()[1]
        await self._catch_up()

    def _follow_events(self) -> None:
        loop = asyncio.get_running_loop()

        def published(events: list[StoredEvent]) -> None:
            """Hand events over to the loop. Called by the store's writer."""
            found = [event for event in events if may_matter(event)]
            if found:
                with contextlib.suppress(RuntimeError):  # the loop ended before the last commit
                    loop.call_soon_threadsafe(self._note, found)

        self._store.on_published(published)

    def _note(self, events: Sequence[StoredEvent]) -> None:
        known = {event.id for event in self._buffer}
        self._buffer += [event for event in events if event.id not in known]
        if (over := len(self._buffer) - _MOST_BUFFERED) > 0:
            del self._buffer[:over]
            self._log.say("error", f"{over} events are told to nobody: too many came at once", logger=_LOGGER)
        self._came.set()

    async def _catch_up(self) -> None:
        """Look at what was published while nobody followed, if it is not too old."""
        first = await self._store.event_id_at(int(self._now() * 1e6) - _CAUGHT_UP_US)
        after = max(self._followed, first)
        while page := await self._store.events_after(after, _PAGE):
            self._note([event for event in page if may_matter(event)])
            after = page[-1].id
        if not self._buffer:
            self._came.clear()

    async def _gather_all(self) -> None:
        """Make notices of what came, `gather_s` after the first of it."""
        while True:
            await self._came.wait()  # deadline: none, an event is waited for
            await asyncio.sleep(self._config.gather_s)
            self._came.clear()
            try:
                left = await self._make_notices()
            except StateError as error:
                self._log.say("error", f"notices cannot be made: {error}", logger=_LOGGER)
                left = True
            if left:
                self._came.set()
                await asyncio.sleep(1.0)

    async def _make_notices(self) -> bool:
        """Make notices of the events that are buffered; return whether some have to wait. Raises
        StateError."""
        events, later, drafts = list(self._buffer), list[StoredEvent](), list[Draft]()
        for event in events:
            found = await self._draft(event)
            if found is None:
                later.append(event)
            else:
                drafts += found
        await self._save(self._group(drafts))
        done = {event.id for event in events} - {event.id for event in later}
        self._buffer = [event for event in self._buffer if event.id not in done]
        await self._remember(min((event.id for event in self._buffer), default=max(done, default=0) + 1) - 1)
        return bool(later)

    async def _draft(self, event: StoredEvent) -> list[Draft] | None:
        """Return what an event is worth; None where the daemon has not noted yet what it tells of."""
        if event.type == "agent":
            silence = read_silence(event)
            return [silence] if silence is not None else []
        if event.type in ("action", "done"):
            return self._draft_of_session(event)
        end = read_run_end(event)
        if end is None or event.run is None:
            return []
        record = self._run_queue.records.get(event.run)
        if record is not None and record.finished is None and self._now() - event.time_us / 1e6 < _RECORD_S:
            return None
        told = await self._store.ledger.events(event.run)
        outcomes = [one for one in told if one["type"] == "outcome"]
        return judge_run(event.run, end, record, self._run_queue.jobs, outcomes)

    def _draft_of_session(self, event: StoredEvent) -> list[Draft]:
        """Return what an event of the action loop is worth; an effect is shown before it is said to wait."""
        effect = read_effect(event)
        if effect is not None:
            self._effects[effect.action_id] = effect.summary
            if len(self._effects) > _MOST_EFFECTS:
                del self._effects[next(iter(self._effects))]
            return []
        rest = read_rest(event, self._effects)
        return [rest] if rest is not None else []

    def _group(self, drafts: Sequence[Draft]) -> list[Entry]:
        """Address what is new of the drafts, one notice for each kind."""
        now = self._now()
        kinds: dict[NoticeKind, dict[str, Draft]] = {}
        for draft in drafts:
            if not self.outbox.was_told(draft.key, now):
                kinds.setdefault(draft.kind, {})[draft.key] = draft
        entries: list[Entry] = []
        for kind, found in kinds.items():
            notice = self._make_notice(kind, list(found.values()), now)
            entries += self.outbox.add(notice, tuple(found))
        return entries

    def _make_notice(self, kind: NoticeKind, found: Sequence[Draft], now: float) -> Notice:
        alone = found[0] if len(found) == 1 else None
        subject = alone.line if alone else SUBJECTS[kind].format(count=len(found))
        shown = [] if alone and len(alone.line) <= SUBJECT_CHARACTERS else [one.line for one in found]
        return Notice(
            id=self.outbox.new_id(now),
            kind=kind,
            subject=make_line(subject, SUBJECT_CHARACTERS),
            lines=make_lines(shown),
            time=now,
            urgent=kind in self._config.urgent,
            target=alone.target if alone else None,
            run_id=alone.run_id if alone else None,
            session_id=alone.session_id if alone else None,
            action_id=alone.action_id if alone else None,
        )

    async def _keep_time(self) -> None:
        """Look at the quiet time, forget what is old, and remember how far the events were followed."""
        last = self._followed
        while True:
            now = self._now()
            try:
                await self._save(self.outbox.release(now))
                dropped, lost = self.outbox.trim(now)
                for entry, name in lost:
                    self._report_dead(entry, name)
                if dropped:
                    await self._store.delete_notices(dropped)
                if not self._buffer:  # of what was published before the last look nothing is on its way here
                    await self._remember(last)
                last = self._store.event_range()[1]
            except StateError as error:
                self._log.say("error", f"notices are not stored: {error}", logger=_LOGGER)
            await asyncio.sleep(_LOOK_S)

    async def _remember(self, followed: int) -> None:
        if followed > self._followed:
            self._followed = followed
            await self._store.put_notices({}, followed)

    async def _save(self, entries: Sequence[Entry]) -> None:
        """Store entries, and wake those that deliver them."""
        if entries:
            rows = {one.notice.id: msgspec.json.encode(one) for one in entries}
            await self._store.put_notices(rows)
        for wake in self._wakes.values():
            wake.set()

    # -- one channel

    async def _deliver_all(self, name: str, channel: Channel) -> None:
        wake = self._wakes[name]
        while True:
            wake.clear()
            entry, wait_s = self.outbox.next_for(name, self._now())
            if entry is not None:
                attempt = asyncio.ensure_future(self._deliver(name, channel, entry))
                try:
                    await asyncio.shield(attempt)
                except asyncio.CancelledError:  # the daemon stops: one that is under way may yet end well
                    await asyncio.wait([attempt], timeout=_STOP_S)
                    attempt.cancel()
                    raise
                continue
            with contextlib.suppress(TimeoutError):
                async with deadline(min(wait_s if wait_s is not None else _LOOK_S, _LOOK_S)):
                    await wake.wait()

    async def _deliver(self, name: str, channel: Channel, entry: Entry) -> None:
        """Try once to deliver, and store what became of it."""
        notice = entry.notice
        try:
            remark = await channel.send(notice)  # deadline: the channel's own, `timeout_s`
        except FazaiError as error:
            permanent = isinstance(error, DeliveryError) and error.permanent
            again_s = error.again_s if isinstance(error, DeliveryError) else None
            changed = self.outbox.mark_failed(
                entry, name, str(error), self._now(), permanent=permanent, again_s=again_s
            )
            self._say_failure(name, changed)
        else:
            changed = self.outbox.mark_sent(entry, name)
            if remark is not None:
                self._say("warning", f"notice {notice.id} by {name}: {remark}")
        try:
            await self._save([changed])
        except StateError as error:
            self._log.say("error", f"notices are not stored: {error}", logger=_LOGGER)

    def _say_failure(self, name: str, entry: Entry) -> None:
        one = entry.deliveries[name]
        if one.state == "dead":
            self._report_dead(entry, name)
        elif one.attempts == 1:  # further ones tell nothing new
            self._say("warning", f"notice {entry.notice.id} is not delivered by {name} yet: {one.error}")

    def _report_dead(self, entry: Entry, name: str) -> None:
        """Write what a channel gave up to the log and the events, with what it said: nobody else was told."""
        one = entry.deliveries[name]
        why = one.error or "there are too many"
        what = f"notice {entry.notice.id} is given up by {name} after {one.attempts} attempts"
        self._say("error", f"{what}: {why}; it said: {entry.notice.subject}")

    def _say(self, level: Level, text: str) -> None:
        self._announcer.say(level, log_event(level, make_line(text, 1000), _LOGGER), _LOGGER)
