"""Tools as clients of the daemon see them: the list, and the answer to a call."""

from __future__ import annotations

from typing import Any

import msgspec

from fazai.daemon.http.auth import Principal
from fazai.daemon.http.routing import require_role
from fazai.daemon.services import Services
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.lists import fleet_lists
from fazai.daemon.tools.offered.custom import custom_tools
from fazai.daemon.tools.running import (
    call_time_s,
    find_tool,
    observe,
    prepare_effect,
    read_tool_args,
    role_for,
)
from fazai.loop.argschema import args_schema
from fazai.loop.effects import Effect
from fazai.loop.tools import AnyTool, EffectTool
from fazai.timestamps import timestamp
from fazai.wire.tools import ToolAnswer, ToolChange, ToolObservation, ToolProposal, ToolRow


async def all_tools(services: Services) -> tuple[AnyTool, ...]:
    """Return the tools of the table, and those that an admin approved (`tool_spec`). Raises StateError."""
    return (*services.tools, *custom_tools(await services.store.sessions.tool_specs()))


async def tool_rows(services: Services, who: Principal) -> tuple[ToolRow, ...]:
    """Return all tools, with the names of the fleet as it is now in the schemas of their arguments. Raises
    StateError."""
    names = fleet_lists(services)
    return tuple(
        ToolRow(
            name=tool.name,
            summary=tool.summary,
            has_effect=tool.has_effect,
            allowed=who.has_role(role_for(tool)),
            untrusted=tool.taints,
            timeout_s=call_time_s(tool),
            args=args_schema(tool.args, names, notes=True),
        )
        for tool in await all_tools(services)
    )


async def answer_call(
    services: Services, who: Principal, name: str, args: Any, session_id: str | None = None
) -> ToolAnswer:
    """Call a tool for a client: run one that only reads; of one that has an effect make a proposal. Raises
    FazaiError for a call that is refused; what the tool itself cannot do is an observation."""
    tool = find_tool(await all_tools(services), name)
    require_role(who, role_for(tool))
    if session_id is not None:
        services.loop.find_own(session_id, who)
    call = ToolCall(services, who, session_id)
    with services.tool_slots.hold(who.name):
        read = read_tool_args(call, tool, args)
        if isinstance(tool, EffectTool):
            return ToolAnswer(proposal=await _propose(call, await prepare_effect(call, tool, read)))
        return _observed(tool, await observe(call, tool, read))


def _observed(tool: AnyTool, found: Any) -> ToolAnswer:
    return ToolAnswer(
        observation=ToolObservation(
            note=found.note,
            data=found.data,
            citations=found.citations,
            failed=found.failed,
            untrusted=tool.taints,
        )
    )


async def _propose(call: ToolCall, effect: Effect) -> ToolProposal:
    changes = msgspec.convert(msgspec.to_builtins(effect.changes), tuple[ToolChange, ...])
    made = await call.services.loop.propose(effect, call.who, call.session_id)
    return ToolProposal(
        tool=effect.tool,
        session_id=made.session_id,
        action_id=made.action_id,
        plan_hash=made.plan_hash,
        expires=timestamp(made.expires),
        changes=changes,
    )
