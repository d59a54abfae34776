"""Action `tool_spec`: the model names a parameterised program, which an admin approves before its first
use."""

from __future__ import annotations

from fazai.daemon.loop.turn import Told, Turn, WantsEffect
from fazai.daemon.tools.offered.custom import prepare_tool_spec
from fazai.daemon.tools.running import failure
from fazai.errors import FazaiError
from fazai.wire.actions import ToolSpecAction


async def handle(turn: Turn, action: ToolSpecAction) -> Told | WantsEffect:
    """Say what the tool would run."""
    try:
        return WantsEffect(await prepare_tool_spec(turn.call, action))
    except FazaiError as error:
        return Told(failure(error))
