"""The services that the handlers of the daemon use; built in `process.py`, handed down with every call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fazai.daemon.agent_states import AgentStates
from fazai.daemon.drift import Drift
from fazai.daemon.events.announcer import Announcer
from fazai.daemon.events.broadcaster import Broadcaster
from fazai.daemon.events.reports import Reports
from fazai.daemon.firewalls.poller import Firewalls
from fazai.daemon.gemma.sessions import AgentSessions
from fazai.daemon.http.auth import Guard
from fazai.daemon.ingest.admission import Admission
from fazai.daemon.ingest.pipeline import Ingest
from fazai.daemon.kb.service import KnowledgeBase
from fazai.daemon.loop.interface import ActionLoop
from fazai.daemon.notify.notifier import Notifier
from fazai.daemon.policy.book import PolicyBook
from fazai.daemon.probing.targets import ProbeTargets
from fazai.daemon.rules.service import EventRules
from fazai.daemon.runs.queue import RunQueue
from fazai.daemon.runs.scheduler import Scheduler
from fazai.daemon.settings import DaemonSettings
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.tools.slots import ToolSlots
from fazai.loop.tools import AnyTool
from fazai.service.log import Log
from fazai.store.daemon import DaemonStore


@dataclass(slots=True)
class Services:
    """The services of one daemon. `stopping` is set once, when SIGTERM came; `ready` when the first request
    may come."""

    settings: DaemonSettings
    store: DaemonStore
    broadcaster: Broadcaster
    guard: Guard
    log: Log
    ingest: Ingest
    reports: Reports
    sessions: AgentSessions
    run_queue: RunQueue
    scheduler: Scheduler
    firewalls: Firewalls
    drift: Drift
    agent_states: AgentStates
    probe_targets: ProbeTargets
    notifier: Notifier
    kb: KnowledgeBase
    announcer: Announcer
    policy: PolicyBook
    rules: EventRules
    southbound: Southbound | None  # remote agents, where their port is open
    bodies: Admission  # bodies of requests that are being received, those of /ingest excepted
    tools: tuple[AnyTool, ...] = ()  # those that may be called
    loop: ActionLoop = field(init=False)  # made of all of these
    tool_slots: ToolSlots = field(default_factory=ToolSlots)
    started: float = field(default_factory=time.time)
    ready: bool = False
    stopping: bool = False
