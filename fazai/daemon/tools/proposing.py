"""The proposal that becomes of an effect which a tool prepared; it waits for an approval of its hash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proposal:
    """An effect that was shown and waits; `expires` in seconds since the epoch."""

    session_id: str
    action_id: str
    plan_hash: str
    expires: float
