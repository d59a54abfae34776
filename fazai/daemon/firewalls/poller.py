"""Polls the firewalls in the background: spread over the interval, a bounded number at once, and less often
those that do not answer."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from fazai.compat.timeouts import deadline
from fazai.daemon.events.announcer import Announcer, row_of
from fazai.daemon.firewalls.metrics import FirewallFigures, PollRound
from fazai.daemon.firewalls.registry import (
    Firewall,
    KeyFiles,
    firewall_id,
    firewall_of_record,
    firewalls_of_inventory,
    inventory_files,
    resolve_lab_target,
)
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.runs.config import Polling
from fazai.daemon.settings import DaemonSettings
from fazai.errors import FazaiError, StateError
from fazai.model import Target
from fazai.providers.opnsense.api.budget import Budget
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.vitals import Vitals, read_vitals
from fazai.providers.opnsense.provider import OpnsenseProvider
from fazai.providers.opnsense.session import open_firewall_session
from fazai.service.log import Log
from fazai.service.prometheus import Family
from fazai.store.daemon import DaemonStore, FirewallRecord
from fazai.timestamps import utc_now
from fazai.wire.events import AgentEvent, Level
from fazai.wire.opn import OpnAddBody

T = TypeVar("T")

_DOWN_AFTER = 2  # rounds that failed: one lost answer is no outage
_AGAIN_S = 5.0  # the round that confirms it
_OPEN_AFTER = 3  # from then on the breaker is open, and the pauses grow
_LONGEST_S = 900.0
_INVENTORY_S = 30.0
_LOGGER = "fazai.daemon.opn"


def backoff_s(every_s: float, failures: int) -> float:
    """Return the pause after so many failed rounds in a row, in seconds and without jitter."""
    if failures == 0:
        return every_s
    if failures < _DOWN_AFTER:
        return min(_AGAIN_S, every_s)
    if failures < _OPEN_AFTER:
        return every_s
    return max(every_s, min(every_s * 2.0 ** min(failures - _OPEN_AFTER + 1, 20), _LONGEST_S))


@dataclass(slots=True)
class WatchedFirewall:
    """A firewall and what was last read of it. `up` None: not asked yet. Times are seconds since the epoch,
    but for `due_s`, which is monotonic. `asked`: requests and tools that ask it now."""

    firewall: Firewall
    record: FirewallRecord
    up: bool | None = None
    failures: int = 0
    vitals: Vitals | None = None
    took_s: float = 0.0
    due_s: float = 0.0
    round: asyncio.Task[None] | None = None
    last: FazaiError | None = None
    asked: int = 0


class Firewalls:
    """The registry of all firewalls, and the rounds in which they are read; used on the daemon's loop."""

    def __init__(self, settings: DaemonSettings, store: DaemonStore, log: Log) -> None:
        self._settings, self._store, self._log = settings, store, log
        self._announcer = Announcer(store, log)
        self.polling: Polling = settings.config.polling
        self._keys = KeyFiles(settings.secrets, uid=os.geteuid())
        self._watched: dict[str, WatchedFirewall] = {}
        self._gate = asyncio.Semaphore(self.polling.at_once)
        self._budget = Budget()
        self._files: object = None
        self._looked_s = float("-inf")
        self._changed = asyncio.Event()
        self._rounds: Counter[str] = Counter()
        self._chance = random.random
        self.figures = FirewallFigures()
        self.inventory_targets: tuple[str, ...] = ()  # firewalls and others, as it was last read

    async def load(self) -> None:
        """Watch the firewalls that were registered before. Raises StateError."""
        for record in await self._store.firewalls():
            if record.source == "api":
                self._watch(await asyncio.to_thread(firewall_of_record, record, self._keys), record)

    # -- the registry

    def all(self) -> list[WatchedFirewall]:
        """Return all firewalls, by name."""
        return sorted(self._watched.values(), key=lambda one: one.firewall.name)

    def get(self, id_: str) -> WatchedFirewall:
        """Return a firewall by its id. Raises Refusal(not_found)."""
        found = self._watched.get(id_)
        if found is None:
            raise Refusal("not_found", f"there is no firewall {id_[:64]!r}", hint="see: GET /opn/list")
        return found

    async def add(self, body: OpnAddBody) -> WatchedFirewall:
        """Register one, or give a registered one another key and other tags. Raises Refusal, SecretError."""
        id_ = firewall_id("api", body.name)
        if any(one.firewall.name == body.name and one.firewall.id != id_ for one in self._watched.values()):
            text = f"the inventory has a firewall {body.name!r}"
            raise Refusal("conflict", text, hint="choose another name")
        known = self._watched.get(id_)
        if known is not None and known.record.base_url != body.base_url:
            text = f"{body.name!r} is registered with another address"
            raise Refusal("conflict", text, hint=f"POST /opn/{id_}/remove first, or choose another name")
        now = time.time()
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
        return self._watch(await asyncio.to_thread(firewall_of_record, record, self._keys), record)

    def _check(self, body: OpnAddBody) -> None:
        """Refuse what the provider would refuse, before it is stored. Raises Refusal(bad_request)."""
        if not body.name.isprintable():
            raise Refusal("bad_request", "`name`: it has characters that cannot be shown")
        options = {
            "base_url": body.base_url,
            "verify_tls": body.verify_tls,
            "secret": {"api_key": body.api_key, "api_secret": body.api_secret},
        }
        problems = OpnsenseProvider().check(Target(body.name, "opnsense", "read", options))
        if problems:
            raise Refusal("bad_request", problems[0].message, hint=problems[0].hint)

    async def remove(self, id_: str) -> None:
        """Forget a registered firewall and its key. Raises Refusal (not_found, conflict)."""
        seen = self.get(id_)
        if seen.firewall.source == "inventory":
            raise Refusal("conflict", "this firewall is in the inventory", hint="take it out there")
        self._drop(id_)
        await self._store.delete_firewall(id_)
        await asyncio.to_thread(self._keys.remove, id_)

    def _watch(self, firewall: Firewall, record: FirewallRecord) -> WatchedFirewall:
        before = self._watched.get(firewall.id)
        if before is not None and before.firewall == firewall:
            return before
        self._drop(firewall.id)
        wait_s = self._chance() * self.polling.every_s if before is None else 0.0
        due_s = time.monotonic() + min(wait_s, self.polling.every_s)
        seen = self._watched[firewall.id] = WatchedFirewall(firewall, record, due_s=due_s)
        if before is not None:
            seen.up, seen.failures = before.up, before.failures
        self._changed.set()
        return seen

    def _drop(self, id_: str) -> None:
        seen = self._watched.pop(id_, None)
        if seen is not None and seen.round is not None:
            seen.round.cancel()

    async def read_inventory(self) -> None:
        """Take over the inventory's firewalls when its files changed. Never raises for an error in it: the
        firewalls that were known stay."""
        sources = self._settings.inventory
        self._looked_s = time.monotonic()
        files = await asyncio.to_thread(inventory_files, sources)
        if not sources or files == self._files:
            return
        self._files = files
        try:
            found, wrong, names = await asyncio.to_thread(
                firewalls_of_inventory, sources, dict(os.environ), self._settings.secrets
            )
        except FazaiError as error:
            text = f"the inventory is not used; it is read again when it changes: {error}"
            self._log.say("error", text, logger=_LOGGER)
            return
        for text in wrong:
            self._log.say("warning", f"not watched: {text}", logger=_LOGGER)
        self.inventory_targets = names
        await self._replace_inventory(found)

    async def _replace_inventory(self, found: list[Firewall]) -> None:
        names = {one.id for one in found}
        known = {one.id: one for one in await self._store.firewalls() if one.source == "inventory"}
        for id_ in [*(one for one in known if one not in names)]:
            self._drop(id_)
            await self._store.delete_firewall(id_)
        now = time.time()
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
            self._watch(one, record)

    # -- asking

    async def ask(self, seen: WatchedFirewall, work: Callable[[Api], Awaitable[T]]) -> T:
        """Open one session with a firewall, let `work` use it, and return its result. Raises FazaiError."""
        if seen.firewall.wrong is not None:
            raise FazaiError(seen.firewall.wrong)
        lab = self._settings.lab or self._settings.state / "lab"
        target = await asyncio.to_thread(resolve_lab_target, seen.firewall.target, lab)
        limits = {**dict.fromkeys(("timeout", "connect_timeout"), self.polling.timeout_s), "retries": 0}
        target = replace(target, options={**target.options, **limits})
        async with open_firewall_session(target, {}, budget=self._budget) as session:
            return await work(session.api)

    async def poll_now(self, seen: WatchedFirewall) -> WatchedFirewall:
        """Begin a round of reads, or join the one that goes on, and wait for its end. Never raises for the
        firewall's sake."""
        running = seen.round or self._begin_round(seen)
        await asyncio.wait([running])  # deadline: the request's, RouteEndpoint; the round has its own
        return seen

    def _begin_round(self, seen: WatchedFirewall) -> asyncio.Task[None]:
        seen.round = asyncio.get_running_loop().create_task(self._poll(seen))
        seen.round.add_done_callback(lambda task: self._poll_ended(seen, task))
        return seen.round

    def _poll_ended(self, seen: WatchedFirewall, task: asyncio.Task[None]) -> None:
        seen.round = None
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            seen.due_s = time.monotonic() + self.polling.every_s  # a defect must not spin
            self._log.say("error", f"{seen.firewall.name}: {error!r}", logger=_LOGGER)

    async def _poll(self, seen: WatchedFirewall) -> None:
        async with self._gate:
            began_s = time.monotonic()
            try:
                async with deadline(3 * self.polling.timeout_s):
                    vitals = await self.ask(seen, read_vitals)
            except TimeoutError:
                error: FazaiError | None = FazaiError(f"no answer within {3 * self.polling.timeout_s:g} s")
            except FazaiError as failed:
                error = failed
            else:
                error, seen.vitals = None, vitals
            seen.took_s = time.monotonic() - began_s
        await self._note_result(seen, error)

    async def _note_result(self, seen: WatchedFirewall, error: FazaiError | None) -> None:
        now, before = time.time(), seen.record
        self._rounds["good" if error is None else "failed"] += 1
        seen.failures = 0 if error is None else seen.failures + 1
        seen.last = error
        pause_s = backoff_s(self.polling.every_s, seen.failures)
        seen.due_s = time.monotonic() + pause_s * (0.9 + 0.2 * self._chance())
        if error is None:
            version = seen.vitals.version if seen.vitals is not None else None
            seen.record = replace(before, last_seen=now, last_error=None, last_error_at=None, version=version)
        else:
            seen.record = replace(before, last_error=error.message, last_error_at=now)
        up = error is None if error is None or seen.failures >= _DOWN_AFTER else seen.up
        turned = up is not seen.up and up is not None
        vitals = seen.vitals if error is None else None
        self.figures.put(PollRound(seen.firewall, up, vitals, seen.record.last_seen, seen.took_s))
        if turned or seen.record.version != before.version:
            await self._announce(seen, up, turned)

    async def _announce(self, seen: WatchedFirewall, up: bool | None, turned: bool) -> None:
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

    # -- in the background

    async def run(self) -> None:
        """Poll the firewalls that are due until it is cancelled."""
        try:
            while True:
                if time.monotonic() - self._looked_s >= _INVENTORY_S:
                    await self.read_inventory()
                self._start_due_polls()
                await self._wait_until_due()
        finally:
            for seen in self._watched.values():
                if seen.round is not None:
                    seen.round.cancel()

    def _start_due_polls(self) -> None:
        now_s = time.monotonic()
        for seen in self._watched.values():
            if seen.round is None and seen.due_s <= now_s:
                self._begin_round(seen)

    async def _wait_until_due(self) -> None:
        self._changed.clear()
        now_s = time.monotonic()
        due = [seen.due_s for seen in self._watched.values() if seen.round is None]
        wait_s = min([self._looked_s + _INVENTORY_S, *due], default=now_s + _INVENTORY_S) - now_s
        try:
            async with deadline(max(wait_s, 0.05)):  # wait_for() of 3.11 can swallow a cancellation
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0.05)  # what changes at once is looked at once

    def families(self) -> Iterable[Family]:
        """Return the metrics of the firewalls that are watched."""
        self.figures.keep_only(set(self._watched))
        return self.figures.families(self._rounds)


def _event(seen: WatchedFirewall, up: bool) -> AgentEvent:
    reason = "it answers again" if up else f"it does not answer: {seen.last.message if seen.last else ''}"
    return AgentEvent(
        timestamp=utc_now(),
        agent_id=seen.firewall.id,
        target=seen.firewall.name,
        state="observation" if up else "closing",
        reason=reason,
    )
