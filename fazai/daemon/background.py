"""The tasks that run beside the requests for as long as the daemon does.

Each is cancelled when the daemon stops. One that ends with an error ends the daemon, so that systemd starts
it again: half a daemon is worse than none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

from fazai.daemon import agent_states, drift
from fazai.daemon.events import revocation
from fazai.daemon.firewalls.facts import follow_runs
from fazai.daemon.firewalls.poller import Firewalls
from fazai.daemon.http import token_expiry
from fazai.daemon.ingest.pipeline import Ingest
from fazai.daemon.kb.incidents import RunNotes
from fazai.daemon.kb.service import KnowledgeBase
from fazai.daemon.runs import scheduler
from fazai.daemon.services import Services
from fazai.errors import StateError
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore

_LOOK_S = 0.5


def background_tasks(services: Services) -> list[Coroutine[Any, Any, None]]:
    """Return the coroutine of each task; a new task adds itself with one line here."""
    limits = services.settings.limits
    return [
        _watch_store(services.store),
        _report_silent_hosts(services.ingest, services.log),
        revocation.end_revoked_streams(services.broadcaster, services.guard),
        token_expiry.warn_of_expiry(services.guard, services.announcer),
        agent_states.watch_worker(
            services.agent_states, services.sessions.client, services.settings.gemma_socket
        ),
        drift.follow_ledger(services.drift, services.log),
        scheduler.run_schedule(services.scheduler, services.run_queue, limits.runs_stop_s),
        services.notifier.run(),
        services.rules.run(),
        _poll_firewalls(services.firewalls, services.store),
        RunNotes(services.kb, services.store.ledger, services.log).follow(services.store),
        _warm_notes(services.kb),
    ]


async def _watch_store(store: DaemonStore) -> None:
    """Check that the store can still write, and end, and the daemon with it, when it cannot. Raises
    StateError."""
    while True:
        store.check_alive()
        await asyncio.sleep(_LOOK_S)


async def _report_silent_hosts(ingest: Ingest, log: Log) -> None:
    """Announce which hosts stopped reporting."""
    await ingest.run(partial(log.say, "error", logger="fazai.daemon.ingest"), asyncio.sleep)


async def _poll_firewalls(firewalls: Firewalls, store: DaemonStore) -> None:
    await follow_runs(firewalls.figures, store)
    await firewalls.run()


async def _warm_notes(kb: KnowledgeBase) -> None:
    """Read ahead what searches of notes need; where that fails, the first ones take longer."""
    with contextlib.suppress(StateError):
        await kb.warm()
