"""Listens to telemetry and events, and does what the event rules say, once."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from fazai.daemon.events.announcer import Announcer, log_event
from fazai.daemon.rules.book import LOGGER, RuleBook
from fazai.daemon.rules.keeper import EntryKeeper
from fazai.daemon.rules.own_addresses import OwnAddresses
from fazai.errors import FazaiError, StateError
from fazai.loop.prompt import fence
from fazai.rules.addresses import explain_protection, parse_address
from fazai.rules.matching import find_hits
from fazai.rules.values import EntryAction, EventRule, Firing, ObjectiveAction, RuleSet, Source
from fazai.rules.windows import MARKS_MAX, RuleWindows
from fazai.service.prometheus import Family, Metric
from fazai.store.daemon import NewSample, StoredEvent
from fazai.store.rules import Entry, RuleMark, RuleStore
from fazai.wire.events import Level

_QUEUE_MAX = 1000  # firings that wait to be carried out
_AGAIN_S = 5.0
_MARK_S = 30 * 86400.0
_NAME = re.compile(r"[A-Za-z0-9_.:@/+-]{1,64}")
_HITS = Metric("fazai_rule_hits_total", "counter", "What event rules meant, by rule.", ("rule",))
_FIRINGS = Metric(
    "fazai_rule_firings_total", "counter", "What became of rules that were to act.", ("result",)
)
_HELD_BACK = Metric(
    "fazai_rule_held_back_total", "counter", "Hits on which event rules would have acted but for `per_hour`."
)
_FORGOTTEN = Metric(
    "fazai_rule_groups_forgotten_total",
    "counter",
    "Groups that are counted no more because others came, as many as are counted at a time.",
)
_GROUPS = Metric("fazai_rule_groups", "gauge", "Groups that event rules count hits of at the moment.")


class ObjectiveStarter(Protocol):
    """Starts a session of the action loop for a rule. May raise FazaiError."""

    async def start_objective(self, text: str, rule_name: str) -> str:
        """Begin with an objective, and return the session's id."""
        ...


class EventRules:
    """The rules of one daemon at work, on its event loop."""

    def __init__(
        self,
        book: RuleBook,
        keeper: EntryKeeper,
        store: RuleStore,
        announcer: Announcer,
        own: OwnAddresses,
        *,
        starter: ObjectiveStarter | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.book, self.keeper, self.starter = book, keeper, starter
        self._store, self._announcer, self._own, self._now = store, announcer, own, now
        self._windows = RuleWindows()
        self._queue: deque[Firing] = deque()
        self._came = asyncio.Event()
        self._generation = ""  # of the rules that hits are counted for
        self._needed: tuple[str, list[tuple[bytes, ...]]] = ("", [])
        self._hits: Counter[str] = Counter()
        self._results: Counter[str] = Counter(dict.fromkeys(("done", "refused", "failed", "lost"), 0))

    async def load(self) -> None:
        """Read what was done before, and write the files of the jobs. Raises StateError."""
        marks = await self._store.rule_marks(self._now() - _MARK_S, MARKS_MAX)
        self._windows.restore(marks)
        await self.keeper.load()

    # -- what comes

    def note_sample(self, sample: NewSample) -> None:
        """Look at a record of telemetry that was accepted. It is decoded only where a rule could mean it."""
        rules = self._current_rules()
        if not rules.rules or not self._may_mean(rules, sample.body):
            return
        try:
            record = msgspec.json.decode(sample.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self._note(rules, "telemetry", "telemetry", record, sample.time_us / 1e6)

    def _current_rules(self) -> RuleSet:
        """Return the rules; what was counted for those that are gone is dropped. A file that is broken for a
        while costs no counts."""
        rules = self.book.rules
        if rules.generation != self._generation and rules.broken is None:
            self._generation = rules.generation
            self._windows.forget_rules(rule.name for rule in rules.rules)
        return rules

    def _may_mean(self, rules: RuleSet, body: bytes) -> bool:
        """Return whether a record has the fields that some rule asks for, as they are usually written: most
        records are not decoded for nothing."""
        if self._needed[0] != rules.generation:
            self._needed = (
                rules.generation,
                [_needed(rule) for rule in rules.rules if rule.source == "telemetry"],
            )
        return any(all(name in body for name in names) for names in self._needed[1])

    def note_events(self, events: Sequence[StoredEvent]) -> None:
        """Look at events that were published. Those of the rules themselves mean nothing."""
        rules = self._current_rules()
        types = {type_ for rule in rules.rules if rule.source == "event" for type_ in rule.types}
        every = any(rule.source == "event" and not rule.types for rule in rules.rules)
        if not types and not every:
            return
        for event in events:
            if every or event.type in types:
                record = msgspec.json.decode(event.data)
                if record.get("logger") != LOGGER:
                    self._note(rules, "event", event.type, record, event.time_us / 1e6)

    def _note(
        self, rules: RuleSet, source: Source, type_: str, record: Mapping[str, Any], time_s: float
    ) -> None:
        now = self._now()
        if not isinstance(record, dict):
            return
        for hit in find_hits(rules.rules, source, type_, record, time_s):
            self._hits[hit.rule.name] += 1
            firing = self._windows.note(hit, now)
            if firing is None:
                continue
            if len(self._queue) >= _QUEUE_MAX:
                self._results["lost"] += 1
            else:
                self._queue.append(firing)
                self._came.set()

    # -- what is done

    async def run(self) -> None:
        """Carry out what rules are to do, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keeper.run())
            group.create_task(self._act_all())

    async def _act_all(self) -> None:
        while True:
            await self._came.wait()  # deadline: none, it waits for something to do
            self._came.clear()
            while self._queue:
                try:
                    self._results[await self._act(self._queue[0])] += 1
                except StateError as error:
                    self._say("error", f"what event rules are to do has to wait: {error}")
                    await asyncio.sleep(_AGAIN_S)
                    continue
                self._queue.popleft()

    async def _act(self, firing: Firing) -> str:
        """Do what a rule says, and return what became of it. Raises StateError."""
        if isinstance(firing.rule.then, EntryAction):
            return await self._put_entry(firing, firing.rule.then)
        return await self._start_objective(firing, firing.rule.then)

    async def _put_entry(self, firing: Firing, action: EntryAction) -> str:
        address = parse_address(firing.group)
        if address is None:
            return self._refuse(firing, "it is no address")
        rules = self.book.rules
        own = await self._own.find()
        reason = explain_protection(address, never=rules.never, own=own, private=action.private)
        if reason is not None:
            return self._refuse(firing, reason)
        now = self._now()
        until = now + action.for_s
        entry = Entry(action.job, action.alias, str(address), now, until, firing.rule.name, firing.why)
        if not await self._store.put_entry(entry, action.most):
            return self._refuse(firing, f"{action.alias} has {action.most} entries already")
        await self._mark(firing)
        self._say("warning", f"{address} is to be in {action.alias} for {action.for_s:g} s: {firing.why}")
        self.keeper.wake()
        return "done"

    async def _start_objective(self, firing: Firing, action: ObjectiveAction) -> str:
        """Start a session, at most once whatever comes of it. Raises StateError where it was not tried."""
        rule = firing.rule.name
        if self.starter is None:
            return self._refuse(firing, "this daemon starts no objectives")
        await self._mark(firing)  # first: what is not known to have begun is not begun twice
        text = action.text.format(group=_quote_group(firing.group), count=firing.count, rule=rule)
        try:
            session_id = await self.starter.start_objective(text, rule)
        except FazaiError as error:  # also StateError: some of it may have begun, and would begin again
            self._say("error", f"the rule {rule} could start no objective: {error}")
            return "failed"
        self._say("info", f"the rule {rule} started the session {session_id}: {firing.why}")
        return "done"

    async def _mark(self, firing: Firing) -> None:
        await self._store.put_rule_mark(RuleMark(firing.rule.name, firing.group, firing.time), _MARK_S)

    def _refuse(self, firing: Firing, reason: str) -> str:
        self._say("warning", f"the rule {firing.rule.name} does nothing about {firing.group!r}: {reason}")
        return "refused"

    def _say(self, level: Level, text: str) -> None:
        self._announcer.say(level, log_event(level, text, LOGGER), LOGGER)

    def families(self) -> Iterable[Family]:
        """Return the metrics of the rules."""
        yield _HITS.by_label(self._hits)
        yield _FIRINGS.by_label(self._results)
        yield _HELD_BACK.single(self._windows.held_back)
        yield _FORGOTTEN.single(self._windows.forgotten)
        yield _GROUPS.single(self._windows.sizes["groups"])


def _quote_group(group: str) -> str:
    """Return a group as an objective names it: devices and hosts write what it is, so that anything but a
    name or an address stands within a mark."""
    if not group or _NAME.fullmatch(group) is not None:
        return group
    return f"\n{fence(group, secrets.token_hex(4))}\n"


def _needed(rule: EventRule) -> tuple[bytes, ...]:
    """Return the names of fields, in quotes, that each record has which the rule means."""
    paths = [path.keys for path in (rule.each, rule.group_by) if path is not None]
    paths += [one.path for one in rule.where if one.operator != "exists"]
    names = {key for keys in paths for key in keys}
    return tuple(f'"{name}"'.encode() for name in sorted(names) if name.isascii() and name.isprintable())
