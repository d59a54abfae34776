"""Action `plan`: the model says what it intends."""

from __future__ import annotations

from fazai.daemon.loop.turn import Told, Turn
from fazai.loop.tools import Observation
from fazai.timestamps import utc_now
from fazai.wire.actions import PlanAction
from fazai.wire.events import PlanEvent


async def handle(turn: Turn, action: PlanAction) -> Told:
    """Show the steps to people."""
    event = PlanEvent(timestamp=utc_now(), steps=action.steps)
    return Told(Observation(note=f"your {len(action.steps)} steps were shown"), (event,))
