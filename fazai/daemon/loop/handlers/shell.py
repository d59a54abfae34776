"""Action `shell`: a program on a target, which only a person or a policy lets run. Never on the daemon."""

from __future__ import annotations

from fazai.daemon.loop.turn import Told, Turn, WantsEffect
from fazai.daemon.tools.offered.program import prepare_program
from fazai.daemon.tools.running import failure
from fazai.errors import FazaiError
from fazai.wire.actions import ShellAction


async def handle(turn: Turn, action: ShellAction) -> Told | WantsEffect:
    """Say what the program would be, and where."""
    try:
        return WantsEffect(await prepare_program(turn.call, action.target, action.argv))
    except FazaiError as error:
        return Told(failure(error), taints=True)
