"""Writes what happened as one line of the log and one event, both with the ids that the event carries."""

from __future__ import annotations

from fazai.service.log import Log
from fazai.store.daemon import DaemonStore, NewEvent
from fazai.timestamps import utc_now
from fazai.wire.actions import ActionBase
from fazai.wire.base import encode
from fazai.wire.events import AgentEvent, ChangeEvent, EventBase, Level, LogEvent, OutcomeEvent, event_type

#: The logger of who did what: approvals, starts, refusals, keys, tokens.
AUDIT = "fazai.audit"

_IDS = ("agent_id", "session_id", "run_id", "action_id", "target")


def row_of(event: EventBase | ActionBase, level: Level | None = None) -> NewEvent:
    """Return the event as the event log stores it: what streams filter by comes from its own fields."""
    return NewEvent(
        event_type(event),  # type: ignore[arg-type]  # of a class of the union
        encode(event),
        target=getattr(event, "target", None),
        run=getattr(event, "run_id", None),
        session=event.session_id,
        agent=event.agent_id,
        level=event.level if isinstance(event, LogEvent) else level,
    )


def log_event(level: Level, message: str, logger: str, **ids: str | None) -> LogEvent:
    """Return a `log` event of this moment."""
    return LogEvent(timestamp=utc_now(), level=level, message=message, logger=logger, **ids)  # type: ignore[arg-type]


class Announcer:
    """Writes to the log of the process and to the event log. Used on the daemon's event loop."""

    def __init__(self, store: DaemonStore, log: Log) -> None:
        self._store, self._log = store, log

    def write_log(self, level: Level, event: EventBase, logger: str) -> None:
        """Write the event as a line of the log alone."""
        ids = {name: getattr(event, name) for name in _IDS}
        self._log.say(level, _sentence(event), logger=logger, **ids)

    def say(self, level: Level, event: EventBase, logger: str) -> None:
        """Write the event as a line of the log, and publish it without waiting for the disk."""
        self.write_log(level, event, logger)
        self._store.publish_soon([row_of(event, level)])


def _sentence(event: EventBase) -> str:
    if isinstance(event, LogEvent):
        return event.message
    if isinstance(event, ChangeEvent):
        why = f": {event.error}" if event.error else ""
        return f"{event.verb} of {event.kind} {event.identity} on {event.target} is {event.status}{why}"
    if isinstance(event, OutcomeEvent):
        return f"{event.target} is {event.status}{': ' if event.errors else ''}{'; '.join(event.errors)}"
    if isinstance(event, AgentEvent):
        return f"{event.target or event.agent_id} is in {event.state}: {event.reason or 'no reason is known'}"
    return event_type(event)  # type: ignore[arg-type]
