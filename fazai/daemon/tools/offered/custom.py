"""Tools that `tool_spec` named and an admin approved: an argv with places for parameters, run on a host.

Each use of one is a program, which needs an approval as any other; that the tool was approved only says
that it may be proposed by its name.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.offered.program import prepare_program
from fazai.errors import InputError
from fazai.loop.effects import Effect, EffectChange
from fazai.loop.tools import EffectTool, Observation, TargetName, ToolArgs
from fazai.store.sessions import ToolSpecRecord
from fazai.wire.actions import ToolSpecAction
from fazai.wire.tools import dotless_name

_NAME = re.compile(r"[a-z][a-z0-9_]{2,30}")
_PLACE = re.compile(r"\{([a-z][a-z0-9_]{0,30})\}")
_TOOL_KIND = "tool"
_MOST = 64  # tools of one's own
Parameter = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"\A[A-Za-z0-9._:/@%+=,-]+\Z")]


async def prepare_tool_spec(call: ToolCall, action: ToolSpecAction) -> Effect:
    """Return the making of a tool as an effect. Raises InputError, StateError."""
    if _NAME.fullmatch(action.name) is None:
        raise InputError(f"{action.name[:64]!r} is no name of a tool", hint="lower case, digits and _")
    await _refuse_taken(call, action.name)
    argv = action.argv
    if not argv or not argv[0].startswith("/"):
        raise InputError("`argv` begins with the program's absolute path")
    if _PLACE.search(argv[0]):
        raise InputError("the program itself is no parameter")
    change = EffectChange(
        target="fazai",
        kind=_TOOL_KIND,
        identity=action.name,
        verb="create",
        after={"argv": list(argv), "description": action.description or ""},
    )
    return Effect(
        tool="tool_spec",
        changes=(change,),
        base="",
        inventory="",
        policy=call.policy_generation,
        expires=time.time() + call.approval_ttl_s,
        free=True,
    )


async def _refuse_taken(call: ToolCall, name: str) -> None:
    """Refuse a name that another tool has, with dots or without. Raises InputError, StateError."""
    specs = await call.services.store.sessions.tool_specs()
    named = [*(tool.name for tool in call.services.tools), *(one.name for one in specs), "shell", "tool_spec"]
    if name in {dotless_name(one) for one in named}:
        raise InputError(f"there is a tool {name} already")


async def _keep_tool(call: ToolCall, effect: Effect) -> Observation:
    """Keep the tool; who approved it stands beside it."""
    change = effect.changes[0]
    await _refuse_taken(call, change.identity)  # another session's may have been approved meanwhile
    store = call.services.store.sessions
    if len(await store.tool_specs()) >= _MOST:
        raise Refusal("overloaded", f"there are {_MOST} tools of one's own", hint="remove one")
    record = ToolSpecRecord(
        name=change.identity,
        argv=tuple(change.after["argv"]),
        description=str(change.after["description"]),
        approved_by=call.approved_by,
        approved=time.time(),
        session_id=call.session_id or "",
    )
    await store.put_tool_spec(record)
    return Observation(note=f"the tool {record.name} can be used from now on; each use is approved by itself")


async def _settle_tool(call: ToolCall, effect: Effect) -> Observation:
    name, argv = effect.changes[0].identity, tuple(effect.changes[0].after["argv"])
    specs = await call.services.store.sessions.tool_specs()
    kept = any(one.name == name and one.argv == argv for one in specs)
    note = f"the tool {name} was kept" if kept else "it was interrupted before it was kept"
    return Observation(note=note, failed=not kept)


async def _no_direct_call(call: ToolCall, args: Any) -> Effect:
    raise Refusal("forbidden", "a tool is named by the action `tool_spec`")


TOOL_SPEC = EffectTool("tool_spec", "Makes a tool of one's own.", prepare=_no_direct_call, timeout_s=30.0)
TOOL_SPEC = TOOL_SPEC.carried_out_by(_keep_tool).settled_by(_settle_tool)


def custom_tools(records: Sequence[ToolSpecRecord]) -> tuple[EffectTool, ...]:
    """Return the tools of one's own as tools."""
    return tuple(_tool_of(record) for record in records)


@functools.lru_cache(maxsize=_MOST)
def _tool_of(record: ToolSpecRecord) -> EffectTool:
    places = sorted({name for word in record.argv for name in _PLACE.findall(word)} - {"target"})
    fields: list[Any] = [("target", TargetName), *((name, Parameter) for name in places)]
    made: Any = msgspec.defstruct(f"{record.name}_args", fields, bases=(ToolArgs,), frozen=True, kw_only=True)

    async def prepare(call: ToolCall, args: Any) -> Effect:
        values = {name: str(getattr(args, name)) for name in places}
        argv = [_PLACE.sub(lambda found: values.get(found[1], found[0]), word) for word in record.argv]
        wrong = [name for name, value in values.items() if value.startswith("-")]
        if wrong:
            raise InputError(f"`{wrong[0]}` begins with -, and would be an option")
        return await prepare_program(call, args.target, argv)

    summary = record.description or f"Runs {record.argv[0]} on a host."
    return EffectTool(record.name, summary, args=made, prepare=prepare, timeout_s=60.0)
