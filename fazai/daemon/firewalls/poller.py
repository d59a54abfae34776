"""Watches the firewalls in the background: each in its turn, spread over the interval, some at once, and
seldom those that do not answer."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fazai.daemon.events.announcer import Announcer, row_of, utc_now
from fazai.daemon.firewalls.metrics import Known, lines
from fazai.daemon.firewalls.registry import (
    Firewall,
    KeyFiles,
    firewall_id,
    inventory_files,
    of_inventory,
    of_record,
    reachable,
)
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.config import Polling
from fazai.daemon.settings import Settings
from fazai.errors import FazaiError, StateError
from fazai.providers.opnsense.api.budget import Budget
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.vitals import Vitals, read_vitals
from fazai.providers.opnsense.provider import OpnsenseProvider
from fazai.providers.opnsense.session import open_session
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore, FirewallRecord
from fazai.wire.events import AgentEvent, Level
from fazai.wire.opn import OpnAddBody

__all__ = ["Firewalls", "Seen", "backoff_s"]

T = TypeVar("T")

_DOWN_AFTER = 2  # rounds that failed: one lost answer is no outage
_AGAIN_S = 5.0  # the round that confirms it
_OPEN_AFTER = 3  # from then on the breaker is open, and the pauses grow
_LONGEST_S = 900.0
_INVENTORY_S = 30.0
_LOGGER = "fazai.daemon.opn"


def backoff_s(every_s: float, failures: int) -> float:
    """The pause after so many failed rounds in a row; without jitter."""
    if failures == 0:
        return every_s
    if failures < _DOWN_AFTER:
        return min(_AGAIN_S, every_s)
    if failures < _OPEN_AFTER:
        return every_s
    return max(every_s, min(every_s * 2.0 ** min(failures - _OPEN_AFTER + 1, 20), _LONGEST_S))


@dataclass(slots=True)
class Seen:
    """What is known of one firewall. `up` None: not asked yet. Times are seconds since the epoch."""

    firewall: Firewall
    record: FirewallRecord
    up: bool | None = None
    failures: int = 0
    vitals: Vitals | None = None
    took_s: float = 0.0
    due_s: float = 0.0
    round: asyncio.Task[None] | None = None
    last: FazaiError | None = None


@dataclass(slots=True)
class _Clock:
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


class Firewalls:
    """One for the daemon; everything happens on its loop."""

    def __init__(self, settings: Settings, store: DaemonStore, log: Log) -> None:
        self._settings, self._store, self._log = settings, store, log
        self._announcer = Announcer(store, log)
        self.polling: Polling = settings.config.polling
        self._keys = KeyFiles(settings.secrets, uid=os.geteuid())
        self._clock = _Clock()
        self._seen: dict[str, Seen] = {}
        self._gate = asyncio.Semaphore(self.polling.at_once)
        self._budget = Budget()
        self._files: object = None
        self._looked_s = float("-inf")
        self._changed = asyncio.Event()
        self._rounds: Counter[str] = Counter()
        self._known = Known()
        for record in store.firewalls():
            if record.source == "api":
                self._take(of_record(record, self._keys), record)

    # -- the registry

    def all(self) -> list[Seen]:
        return sorted(self._seen.values(), key=lambda one: one.firewall.name)

    def get(self, id_: str) -> Seen:
        """Raises Refusal(not_found)."""
        found = self._seen.get(id_)
        if found is None:
            raise Refusal("not_found", f"there is no firewall {id_[:64]!r}", hint="see: GET /opn/list")
        return found

    async def add(self, body: OpnAddBody) -> Seen:
        """Register one, or give a registered one another key and other tags. Raises Refusal, SecretError."""
        id_ = firewall_id("api", body.name)
        other = next(
            (o for o in self._seen.values() if o.firewall.name == body.name and o.firewall.id != id_), None
        )
        if other is not None:
            raise Refusal(
                "conflict", f"the inventory has a firewall {body.name!r}", hint="choose another name"
            )
        known = self._seen.get(id_)
        if known is not None and known.record.base_url != body.base_url:
            text = f"{body.name!r} is registered with another address"
            raise Refusal("conflict", text, hint=f"POST /opn/{id_}/remove first, or choose another name")
        now = self._clock.now()
        record = FirewallRecord(
            id=id_,
            name=body.name,
            base_url=body.base_url,
            verify_tls=body.verify_tls,
            created=known.record.created if known is not None else now,
            updated=now,
            tags=body.tags,
        )
        self._check(body)
        await asyncio.to_thread(self._keys.write, id_, body.api_key, body.api_secret)
        await self._store.put_firewall(record)
        return self._take(await asyncio.to_thread(of_record, record, self._keys), record)

    def _check(self, body: OpnAddBody) -> None:
        """What the provider would refuse is not even stored. Raises Refusal(bad_request)."""
        if not body.name.isprintable():
            raise Refusal("bad_request", "`name`: it has characters that cannot be shown")
        options = {
            "base_url": body.base_url,
            "verify_tls": body.verify_tls,
            "secret": {"api_key": body.api_key, "api_secret": body.api_secret},
        }
        from fazai.model import Target

        problems = OpnsenseProvider().check(Target(body.name, "opnsense", "read", options))
        if problems:
            raise Refusal("bad_request", problems[0].message, hint=problems[0].hint)

    async def remove(self, id_: str) -> None:
        """Raises Refusal (not_found, conflict)."""
        seen = self.get(id_)
        if seen.firewall.source == "inventory":
            raise Refusal("conflict", "this firewall is in the inventory", hint="take it out there")
        self._drop(id_)
        await self._store.delete_firewall(id_)
        await asyncio.to_thread(self._keys.remove, id_)

    def _take(self, firewall: Firewall, record: FirewallRecord) -> Seen:
        before = self._seen.get(firewall.id)
        if before is not None and before.firewall == firewall:
            return before
        self._drop(firewall.id)
        wait_s = self._clock.chance() * self.polling.every_s if before is None else 0.0
        due_s = self._clock.monotonic() + min(wait_s, self.polling.every_s)
        seen = self._seen[firewall.id] = Seen(firewall, record, due_s=due_s)
        if before is not None:
            seen.up, seen.failures = before.up, before.failures
        self._changed.set()
        return seen

    def _drop(self, id_: str) -> None:
        seen = self._seen.pop(id_, None)
        if seen is not None and seen.round is not None:
            seen.round.cancel()

    async def read_inventory(self) -> None:
        """Take over the inventory's firewalls when its files changed. Never raises for what is wrong in
        it: the ones that were known stay."""
        sources = self._settings.inventory
        self._looked_s = self._clock.monotonic()
        files = await asyncio.to_thread(inventory_files, sources)
        if not sources or files == self._files:
            return
        self._files = files
        try:
            found, wrong = await asyncio.to_thread(
                of_inventory, sources, dict(os.environ), self._settings.secrets
            )
        except FazaiError as error:
            self._log.say(
                "error",
                f"the inventory is not used; it is read again when it changes: {error}",
                logger=_LOGGER,
            )
            return
        for text in wrong:
            self._log.say("warning", f"not watched: {text}", logger=_LOGGER)
        await self._replace_inventory(found)

    async def _replace_inventory(self, found: list[Firewall]) -> None:
        names = {one.id for one in found}
        known = {one.id: one for one in self._store.firewalls() if one.source == "inventory"}
        for id_ in [*(one for one in known if one not in names)]:
            self._drop(id_)
            await self._store.delete_firewall(id_)
        now = self._clock.now()
        for one in found:
            record = known.get(one.id) or FirewallRecord(
                one.id, one.name, one.base_url, one.verify_tls, now, now, one.tags, "inventory"
            )
            if (record.base_url, record.verify_tls, record.tags) != (one.base_url, one.verify_tls, one.tags):
                record = replace(
                    record, base_url=one.base_url, verify_tls=one.verify_tls, tags=one.tags, updated=now
                )
            if record != known.get(one.id):
                await self._store.put_firewall(record)
            self._take(one, record)

    # -- asking

    async def ask(self, seen: Seen, work: Callable[[Api], Awaitable[T]]) -> T:
        """One conversation with a firewall. Raises FazaiError."""
        if seen.firewall.wrong is not None:
            raise FazaiError(seen.firewall.wrong)
        target = await asyncio.to_thread(reachable, seen.firewall.target, self._lab())
        limit_s = self.polling.timeout_s
        options: Mapping[str, Any] = {
            **target.options,
            "timeout": limit_s,
            "connect_timeout": limit_s,
            "retries": 0,
        }
        session = open_session(replace(target, options=options), {}, budget=self._budget)
        async with session:
            return await work(session.api)

    def _lab(self) -> Any:
        return self._settings.lab or self._settings.state / "lab"

    async def look(self, seen: Seen) -> Seen:
        """A round now, or the one that goes on. Never raises for the firewall's sake."""
        if seen.round is None:
            seen.round = asyncio.get_running_loop().create_task(self._round(seen))
            seen.round.add_done_callback(lambda task: self._round_ended(seen, task))
        await asyncio.wait([seen.round])  # deadline: the request's, Endpoint; the round has its own
        return seen

    def _round_ended(self, seen: Seen, task: asyncio.Task[None]) -> None:
        seen.round = None
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            seen.due_s = self._clock.monotonic() + self.polling.every_s  # a defect must not spin
            self._log.say("error", f"{seen.firewall.name}: {error!r}", logger=_LOGGER)

    async def _round(self, seen: Seen) -> None:
        async with self._gate:
            began_s = self._clock.monotonic()
            try:
                async with asyncio.timeout(3 * self.polling.timeout_s):
                    vitals = await self.ask(seen, read_vitals)
            except TimeoutError:
                error: FazaiError | None = FazaiError(f"no answer within {3 * self.polling.timeout_s:g} s")
            except FazaiError as failed:
                error = failed
            else:
                error, seen.vitals = None, vitals
            seen.took_s = self._clock.monotonic() - began_s
        await self._note(seen, error)

    async def _note(self, seen: Seen, error: FazaiError | None) -> None:
        now, before = self._clock.now(), seen.record
        self._rounds["good" if error is None else "failed"] += 1
        seen.failures = 0 if error is None else seen.failures + 1
        seen.last = error
        pause_s = backoff_s(self.polling.every_s, seen.failures)
        seen.due_s = self._clock.monotonic() + pause_s * (0.9 + 0.2 * self._clock.chance())
        if error is None:
            version = seen.vitals.version if seen.vitals is not None else None
            seen.record = replace(before, last_seen=now, last_error=None, last_error_at=None, version=version)
        else:
            seen.record = replace(before, last_error=error.message, last_error_at=now)
        up = error is None if error is None or seen.failures >= _DOWN_AFTER else seen.up
        turned = up is not seen.up and up is not None
        self._known.put(
            seen.firewall, up, seen.vitals if error is None else None, seen.record.last_seen, seen.took_s
        )
        if turned or seen.record.version != before.version:
            await self._tell(seen, up, turned)

    async def _tell(self, seen: Seen, up: bool | None, turned: bool) -> None:
        first, seen.up = seen.up is None, up
        try:
            await self._store.put_firewall(seen.record)
            if turned and not (first and up):
                level: Level = "info" if up else "warning"
                event = _event(seen, bool(up))
                self._announcer.write_log(level, event, _LOGGER)
                await self._store.publish([row_of(event, level)])
        except StateError as error:
            self._log.say("error", str(error), logger=_LOGGER)

    # -- the part

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                if self._clock.monotonic() - self._looked_s >= _INVENTORY_S:
                    await self.read_inventory()
                self._begin_rounds()
                await self._until_due()
        finally:
            for seen in self._seen.values():
                if seen.round is not None:
                    seen.round.cancel()

    def _begin_rounds(self) -> None:
        now_s = self._clock.monotonic()
        for seen in self._seen.values():
            if seen.round is None and seen.due_s <= now_s:
                seen.round = asyncio.get_running_loop().create_task(self._round(seen))
                seen.round.add_done_callback(lambda task, seen=seen: self._round_ended(seen, task))  # type: ignore[misc]

    async def _until_due(self) -> None:
        self._changed.clear()
        now_s = self._clock.monotonic()
        due = [seen.due_s for seen in self._seen.values() if seen.round is None]
        wait_s = min([self._looked_s + _INVENTORY_S, *due], default=now_s + _INVENTORY_S) - now_s
        try:
            async with asyncio.timeout(max(wait_s, 0.05)):  # wait_for() of 3.11 can swallow a cancellation
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0.05)  # what changes at once is looked at once

    def metrics(self) -> Iterable[str]:
        """For /metrics."""
        self._known.keep(set(self._seen))
        yield from lines(self._known, self._rounds)

    @property
    def known(self) -> Known:
        return self._known


def _event(seen: Seen, up: bool) -> AgentEvent:
    reason = "it answers again" if up else f"it does not answer: {seen.last.message if seen.last else ''}"
    return AgentEvent(
        timestamp=utc_now(),
        agent_id=seen.firewall.id,
        target=seen.firewall.name,
        state="observation" if up else "closing",
        reason=reason,
    )
