"""Action `done`: the model says that the objective is reached."""

from __future__ import annotations

from fazai.daemon.loop.turn import Finish, Turn
from fazai.wire.actions import DoneAction


async def handle(turn: Turn, action: DoneAction) -> Finish:
    """End the objective with the model's result."""
    return Finish(action.result)
