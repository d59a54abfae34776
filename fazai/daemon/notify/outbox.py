"""The outbox: which notices are on their way to which channel, and what was told before. Pure: the caller
tells the time, writes what changed to the store, and sends.

A notice is stored before it is sent, and marked after: a crash between the two sends it twice, never not at
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fazai.daemon.notify.config import NotifyConfig
from fazai.ids import ulid
from fazai.notify.message import Notice, make_lines
from fazai.timestamps import timestamp

LONGEST_PAUSE_S = 3600.0
MOST_NOTICES = 1000

State = Literal["waiting", "held", "sent", "merged", "dead"]
_OPEN = ("waiting", "held")


class Delivery(Struct, frozen=True):
    """A notice's way to one channel. `held`: until the quiet time ends; `merged`: it went with others in one
    message; `dead`: given up. `since` is when it could first be sent, `due` when it is tried next, in seconds
    since the epoch."""

    state: State = "waiting"
    attempts: int = 0
    since: float = 0.0
    due: float = 0.0
    error: str | None = None


class Entry(Struct, frozen=True):
    """A notice with its deliveries. `keys` say what it told, so that it is not told again too soon."""

    notice: Notice
    keys: tuple[str, ...]
    deliveries: dict[str, Delivery]

    @property
    def is_open(self) -> bool:
        return any(one.state in _OPEN for one in self.deliveries.values())


class Outbox:
    """All notices that are not yet delivered or were told a while ago. Each call that changes something
    returns the entries to be stored."""

    def __init__(
        self, config: NotifyConfig, chance: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        """`chance` returns a number from 0 to 1, `random` so many bytes."""
        self._config, self._chance, self._random = config, chance, random
        self._entries: dict[str, Entry] = {}
        self._told: dict[str, float] = {}

    def load(self, values: Iterable[bytes]) -> list[tuple[Entry, str]]:
        """Take over what was stored; return the entries that a channel was to get which is no longer
        configured, each with the channel's name."""
        lost = []
        for value in values:
            try:
                entry = msgspec.json.decode(value, type=Entry)
            except msgspec.DecodeError:  # of a release that knows other kinds
                continue
            gone = {
                name: replace(one, state="dead", error="the channel is no longer configured")
                for name, one in entry.deliveries.items()
                if one.state in _OPEN and name not in self._config.subscriptions
            }
            if gone:
                entry = replace(entry, deliveries={**entry.deliveries, **gone})
                lost += [(entry, name) for name in gone]
            self._put(entry)
        return lost

    def _put(self, entry: Entry) -> Entry:
        self._entries[entry.notice.id] = entry
        for key in entry.keys:
            self._told[key] = max(entry.notice.time, self._told.get(key, 0.0))
        return entry

    def new_id(self, now: float) -> str:
        return ulid(int(now * 1000), self._random(10))

    def was_told(self, key: str, now: float) -> bool:
        """Return whether the same thing was told a short while ago. A time in the future is no reason: the
        clock was set back."""
        told = self._told.get(key)
        return told is not None and 0 <= now - told < self._config.again_s

    def add(self, notice: Notice, keys: Sequence[str]) -> list[Entry]:
        """Address a notice to the channels that get its kind."""
        quiet = self._is_quiet(notice.time) and not notice.urgent
        delivery = Delivery("held" if quiet else "waiting", since=notice.time, due=notice.time)
        names = [name for name, one in self._config.subscriptions.items() if notice.kind in one.kinds]
        return [self._put(Entry(notice, tuple(keys), dict.fromkeys(names, delivery)))] if names else []

    def _is_quiet(self, now: float) -> bool:
        return self._config.quiet is not None and self._config.quiet.holds_at(timestamp(now))

    def release(self, now: float) -> list[Entry]:
        """Let go what was held, once it is quiet no more: for each channel as one message; hold what still
        waits when it becomes quiet."""
        if self._is_quiet(now):
            return [
                self._move(entry, name, replace(one, state="held"))
                for entry, name, one in self._in("waiting")
                if not entry.notice.urgent
            ]
        changed: dict[str, Entry] = {}
        held: dict[str, list[Entry]] = {}
        for entry, name, _ in self._in("held"):
            held.setdefault(name, []).append(entry)
        for name, entries in held.items():
            if len(entries) == 1:
                again = replace(entries[0].deliveries[name], state="waiting", since=now, due=now)
                entry = self._move(entries[0], name, again)
                changed[entry.notice.id] = entry
                continue
            digest = self._put(Entry(self._digest(entries, now), (), {name: Delivery(since=now, due=now)}))
            changed[digest.notice.id] = digest
            for one in entries:
                entry = self._move(self._entries[one.notice.id], name, Delivery("merged"))
                changed[entry.notice.id] = entry
        return list(changed.values())

    def _digest(self, entries: Sequence[Entry], now: float) -> Notice:
        notices = sorted((entry.notice for entry in entries), key=lambda one: one.time)
        texts = [
            f"{timestamp(one.time):%Y-%m-%d %H:%M}Z {text}"
            for one in notices
            for text in ((one.subject,) if len(one.lines) <= 1 else (one.subject, *one.lines))
        ]
        return Notice(
            id=self.new_id(now),
            kind="digest",
            subject=f"{len(notices)} notices of the quiet time",
            lines=make_lines(texts),
            time=now,
        )

    def _in(self, state: State) -> list[tuple[Entry, str, Delivery]]:
        return [
            (entry, name, one)
            for entry in self._entries.values()
            for name, one in entry.deliveries.items()
            if one.state == state
        ]

    def _move(self, entry: Entry, name: str, delivery: Delivery) -> Entry:
        newest = self._newest(entry)
        return self._put(replace(newest, deliveries={**newest.deliveries, name: delivery}))

    def _newest(self, entry: Entry) -> Entry:
        """Return an entry as it is now; as it was where it was trimmed while it was delivered."""
        return self._entries.get(entry.notice.id, entry)

    # -- one channel

    def next_for(self, channel: str, now: float) -> tuple[Entry | None, float | None]:
        """Return the notice that is due for a channel, the oldest first, and otherwise in how many seconds
        one is; None: none waits. A clock that was set back makes nothing wait longer than a pause."""
        waiting = [(one.due, entry) for entry, name, one in self._in("waiting") if name == channel]
        if not waiting:
            return None, None
        due, entry = min(waiting, key=lambda found: (found[0], found[1].notice.id))
        wait_s = due - now
        if wait_s <= 0 or wait_s > 2 * LONGEST_PAUSE_S:
            return entry, 0.0
        return None, wait_s

    def mark_sent(self, entry: Entry, channel: str) -> Entry:
        """Note that a notice was delivered."""
        before = self._newest(entry).deliveries[channel]
        return self._move(entry, channel, Delivery("sent", before.attempts + 1))

    def mark_failed(
        self, entry: Entry, channel: str, error: str, now: float, *, permanent: bool, again_s: float | None
    ) -> Entry:
        """Note that a notice was not delivered: it is tried again after a pause that grows, or given up."""
        before = self._newest(entry).deliveries[channel]
        attempts = before.attempts + 1
        pause_s = min(self._config.first_pause_s * 2.0 ** min(attempts - 1, 20), LONGEST_PAUSE_S)
        pause_s = max(pause_s * (0.5 + self._chance()), min(again_s or 0.0, LONGEST_PAUSE_S))
        over = permanent or now - before.since >= self._config.give_up_s
        state: State = "dead" if over else "waiting"
        return self._move(entry, channel, Delivery(state, attempts, before.since, now + pause_s, error))

    def trim(self, now: float) -> tuple[list[str], list[tuple[Entry, str]]]:
        """Forget what is delivered and was told long ago, and of too many notices the oldest. Return the ids
        of what is dropped, and the entries among it that a channel did not get, with the channel's name."""
        old = [
            id_
            for id_, entry in self._entries.items()
            if not entry.is_open and not 0 <= now - entry.notice.time < self._config.again_s
        ]
        over = len(self._entries) - len(old) - MOST_NOTICES
        if over > 0:
            left = self._entries.keys() - old
            old += sorted(left, key=lambda id_: (self._entries[id_].is_open, id_))[:over]
        dropped = [self._entries.pop(id_) for id_ in old]
        for key, told in list(self._told.items()):
            if not 0 <= now - told < self._config.again_s:
                del self._told[key]
        return old, [
            (entry, name) for entry in dropped for name, one in entry.deliveries.items() if one.state in _OPEN
        ]
