"""Action `use_tool`: a typed tool is called; one with an effect only says what it would do."""

from __future__ import annotations

from fazai.daemon.loop.turn import Told, Turn, WantsEffect
from fazai.daemon.tools.running import failure, find_tool, observe, prepare_effect, read_tool_args
from fazai.errors import FazaiError
from fazai.loop.tools import EffectTool
from fazai.timestamps import utc_now
from fazai.wire.actions import UseToolAction
from fazai.wire.events import ObserveEvent


async def handle(turn: Turn, action: UseToolAction) -> Told | WantsEffect:
    """Call the tool, or prepare its effect. What is refused is an observation that says so."""
    taints = False
    try:
        tool = find_tool(turn.tools, action.name)
        taints = tool.taints
        args = read_tool_args(turn.call, tool, action.args or {})
        if isinstance(tool, EffectTool):
            return WantsEffect(await prepare_effect(turn.call, tool, args))
        observation = await observe(turn.call, tool, args)
    except FazaiError as error:
        observation = failure(error)
    event = ObserveEvent(timestamp=utc_now(), note=observation.note, action_id=turn.call.action_id)
    return Told(observation, (event,), taints)
