"""Section 5 of SPEC.md: one line of log."""

from __future__ import annotations

from fazai.wire.base import Ident, Label, Message, Timestamp
from fazai.wire.events import Level


class LogLine(Message, frozen=True, kw_only=True):
    """One line of the log of any process of fazai, as a JSON object; the ids where they apply."""

    timestamp: Timestamp
    level: Level
    logger: Label
    message: str
    agent_id: Ident | None = None
    session_id: Ident | None = None
    run_id: Ident | None = None
    action_id: Ident | None = None
    target: Label | None = None
