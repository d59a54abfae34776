"""Action `observe`: the model says what it learned."""

from __future__ import annotations

from fazai.daemon.loop.turn import Told, Turn
from fazai.loop.tools import Observation
from fazai.timestamps import utc_now
from fazai.wire.actions import ObserveAction
from fazai.wire.events import ObserveEvent


async def handle(turn: Turn, action: ObserveAction) -> Told:
    """Show the remark to people."""
    event = ObserveEvent(timestamp=utc_now(), note=action.summary, action_id=turn.call.action_id)
    return Told(Observation(note="your remark was shown"), (event,))
