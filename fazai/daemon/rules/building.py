"""Builds the event rules of a daemon out of its services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from fazai.daemon.events.announcer import Announcer
from fazai.daemon.firewalls.poller import Firewalls
from fazai.daemon.loop.interface import ActionLoop
from fazai.daemon.policy.book import PolicyBook
from fazai.daemon.rules.book import RuleBook
from fazai.daemon.rules.keeper import EntryKeeper
from fazai.daemon.rules.own_addresses import OwnAddresses
from fazai.daemon.rules.service import EventRules
from fazai.daemon.runs.queue import RunQueue
from fazai.daemon.settings import DaemonSettings
from fazai.store.daemon import DaemonStore, StoredEvent


def build_event_rules(
    settings: DaemonSettings,
    store: DaemonStore,
    announcer: Announcer,
    run_queue: RunQueue,
    policy: PolicyBook,
    firewalls: Firewalls,
) -> EventRules:
    """Return the rules; they follow the events from now on. To be called on the daemon's loop."""
    jobs = {name: job.entries for name, job in run_queue.jobs.items()}
    book = RuleBook(settings.rules, jobs, announcer, required=settings.rules_required)
    keeper = EntryKeeper(store, run_queue, policy, book, announcer, settings.state)

    def addresses() -> Iterable[tuple[str, tuple[str, ...]]]:
        for one in firewalls.all():
            interfaces = one.vitals.interfaces if one.vitals is not None else ()
            yield one.firewall.base_url, tuple(text for each in interfaces for text in each.addresses)

    rules = EventRules(book, keeper, store.rules, announcer, OwnAddresses(addresses))
    loop = asyncio.get_running_loop()

    def published(events: list[StoredEvent]) -> None:
        """Hand events over to the loop. Called by the store's writer."""
        with contextlib.suppress(RuntimeError):  # the loop ended before the last commit
            loop.call_soon_threadsafe(rules.note_events, events)

    store.on_published(published)
    return rules


class SessionStarter:
    """Starts sessions of the action loop for rules."""

    def __init__(self, sessions: ActionLoop) -> None:
        self._sessions = sessions

    async def start_objective(self, text: str, rule_name: str) -> str:
        """Open a session of the rule, and begin. Raises Refusal, StateError."""
        by = f"rule:{rule_name}"
        session = await self._sessions.open(by, source="rule")
        await self._sessions.start(session, text, by)
        return session.session_id
