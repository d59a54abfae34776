"""What runs beside the requests, for as long as the daemon does. A new part adds itself with one line here.

A part is an async function of the services; it is cancelled when the daemon stops. One that ends with an
error ends the daemon, so that systemd starts it again: half a daemon is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fazai.daemon import agent_states as lives
from fazai.daemon import drift, system
from fazai.daemon.events import sse as stream
from fazai.daemon.firewalls import routes as opn
from fazai.daemon.http import token_expiry as tokenwatch
from fazai.daemon.ingest import routes as telemetry
from fazai.daemon.runs import scheduler
from fazai.daemon.services import Services

__all__ = ["PARTS", "Part"]

Part = Callable[[Services], Coroutine[Any, Any, None]]

PARTS: tuple[Part, ...] = (
    system.watch_store,
    telemetry.sweep,
    stream.watch,
    tokenwatch.watch,
    lives.watch,
    drift.follow,
    scheduler.keep,
    opn.watch,
)
