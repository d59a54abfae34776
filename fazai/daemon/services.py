"""What the handlers of the daemon work with; built in `app.py`, handed down with every call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fazai.daemon.admission import Admission
from fazai.daemon.announce import Announcer
from fazai.daemon.drift import Drift
from fazai.daemon.guard import Guard
from fazai.daemon.hub import Hub
from fazai.daemon.ingest import Ingest
from fazai.daemon.lives import Lives
from fazai.daemon.opn_watch import Firewalls
from fazai.daemon.reports import Reports
from fazai.daemon.rundesk import RunDesk
from fazai.daemon.scheduler import Scheduler
from fazai.daemon.sessions import Sessions
from fazai.daemon.settings import Settings
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore

__all__ = ["Services"]


@dataclass(slots=True)
class Services:
    """One daemon. `stopping` is set once, when SIGTERM came; `ready` when the first request may come."""

    settings: Settings
    store: DaemonStore
    hub: Hub
    guard: Guard
    log: Log
    ingest: Ingest
    reports: Reports
    sessions: Sessions
    runs: RunDesk
    scheduler: Scheduler
    firewalls: Firewalls
    drift: Drift
    lives: Lives
    announcer: Announcer
    bodies: Admission  # bodies of requests that are being received, those of /ingest excepted
    started: float = field(default_factory=time.time)
    ready: bool = False
    stopping: bool = False
