"""Action `ask`: the model asks a person, and waits."""

from __future__ import annotations

from fazai.daemon.loop.turn import Turn, WantsAnswer
from fazai.wire.actions import AskAction


async def handle(turn: Turn, action: AskAction) -> WantsAnswer:
    """Let the session wait for an answer, from the terminal, the page or the API."""
    return WantsAnswer(action.question, action.options)
