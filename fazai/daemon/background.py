"""The background tasks: what runs beside the requests for as long as the daemon does.

A task is an async function of the services; it is cancelled when the daemon stops. One that ends with an
error ends the daemon, so that systemd starts it again: half a daemon is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fazai.daemon import agent_states, drift, system
from fazai.daemon.events import sse
from fazai.daemon.firewalls import routes as firewalls
from fazai.daemon.http import token_expiry
from fazai.daemon.ingest import routes as ingest
from fazai.daemon.runs import scheduler
from fazai.daemon.services import Services

__all__ = ["BACKGROUND_TASKS", "BackgroundTask"]

BackgroundTask = Callable[[Services], Coroutine[Any, Any, None]]

BACKGROUND_TASKS: tuple[BackgroundTask, ...] = (
    system.watch_store,
    ingest.sweep,
    sse.watch,
    token_expiry.watch,
    agent_states.watch,
    drift.follow,
    scheduler.keep,
    firewalls.watch,
)
