"""Questions of a session to the daemon's registry of remote agents for the kinds of hosts."""

from __future__ import annotations

import json
from typing import Any

from fazai.errors import FazaiError, NotAvailable
from fazai.model import AgentRegistry
from fazai.providers.hosts.kind import Block
from fazai.providers.hosts.shell.questions import Output, RegisteredAgent


async def find_agent(agents: AgentRegistry, question: RegisteredAgent) -> Output:
    """Return the answer to a question for an agent's row."""
    found: dict[str, Any]
    try:
        found = {"row": await agents.find(question.agent_id)}  # deadline: the registry's
    except FazaiError as error:
        found = {"unasked": error.message}
    return Output(0, json.dumps(found).encode())


async def prepare(agents: AgentRegistry | None, block: Block, where: Any) -> str:
    """Do what a block needs of the registry before it is run; returns the token that it gets, or an empty
    text. Raises FazaiError."""
    if not block.enrols and not block.revokes:
        return ""
    if agents is None:
        text = f"there is no CA here that knows {block.enrols or block.revokes}"
        raise NotAvailable(text, where=where, hint="run it where the daemon's state is")
    if block.revokes:
        await agents.revoke(block.revokes)  # deadline: the registry's
    return (await agents.enrol(block.enrols)).reveal() if block.enrols else ""  # deadline: the registry's
