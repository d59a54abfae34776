"""Runs a tool, whoever asks: the action loop, a client of the API, another assistant.

The arguments are read strictly, the names in them are the fleet's, the tool has its time, and what it found
is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fazai.compat.timeouts import deadline
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.tools.call import ToolCall
from fazai.daemon.tools.lists import fleet_lists
from fazai.errors import FazaiError, spelling_hint
from fazai.loop.argschema import lists_of, read_args
from fazai.loop.effects import Effect
from fazai.loop.tools import AnyTool, EffectTool, Observation, Tool, ToolArgs
from fazai.store.daemon import Role
from fazai.wire.base import MAX_BODY_BYTES
from fazai.wire.tools import dotless_name

MAX_DATA_BYTES = 256 * 1024
_SLACK_BYTES = 64  # what the last number may be longer than what was left for it
_PREPARE_S = 600.0
_NOTE_CHARS = 2000
_CITATIONS = 64


def find_tool(tools: tuple[AnyTool, ...], name: str) -> AnyTool:
    """Return the tool of this name, dots or not. Raises Refusal(not_found)."""
    found = next((tool for tool in tools if name in (tool.name, dotless_name(tool.name))), None)
    if found is None:
        hint = spelling_hint(name[:64], [tool.name for tool in tools]) or "see: GET /tools"
        raise Refusal("not_found", f"there is no tool {name[:64]!r}", hint=hint)
    return found


def role_for(tool: AnyTool) -> Role:
    """Return the role that a tool needs: a proposal is for those who may have it carried out."""
    return "operator" if tool.has_effect else "viewer"


def read_tool_args(call: ToolCall, tool: AnyTool, args: Any) -> ToolArgs:
    """Read the arguments of a call against the fleet as it is now. Raises WireError(bad_request)."""
    return read_args(tool.args, args, fleet_lists(call.services, lists_of(tool.args, required=False)))


async def observe(call: ToolCall, tool: Tool, args: ToolArgs) -> Observation:
    """Run a tool with arguments that were read, within its time."""
    assert tool.run is not None
    try:
        async with deadline(tool.timeout_s):
            return bound_observation(await tool.run(call, args))
    except TimeoutError:
        return Observation(note=f"{tool.name} took more than {tool.timeout_s:g} s", failed=True)
    except FazaiError as error:
        return failure(error)


async def prepare_effect(call: ToolCall, tool: EffectTool, args: ToolArgs) -> Effect:
    """Return what a tool with an effect would do; it only looks. Raises FazaiError."""
    assert tool.prepare is not None
    seconds = call_time_s(tool)
    try:
        async with deadline(seconds):
            effect = await tool.prepare(call, args)
    except TimeoutError:
        raise Refusal("timeout", f"{tool.name} took more than {seconds:g} s") from None
    if sum(len(msgspec.json.encode(change)) for change in effect.changes) > MAX_BODY_BYTES:
        text = f"it would make {len(effect.changes)} changes, more than can be shown at once"
        raise Refusal("too_large", text, hint="propose it for fewer targets")
    return effect


def call_time_s(tool: AnyTool) -> float:
    """Return how long a call may take. Of a tool with an effect it only prepares it."""
    return min(tool.timeout_s, _PREPARE_S) if tool.has_effect else tool.timeout_s


def failure(error: FazaiError) -> Observation:
    """Return the observation of an error."""
    return bound_observation(Observation(note=str(error), failed=True))


def bound_observation(found: Observation) -> Observation:
    """Return the observation with at most 256 KiB of JSON in `data`; where some is cut off, the note says
    so."""
    note = found.note if len(found.note) <= _NOTE_CHARS else found.note[: _NOTE_CHARS - 1] + "…"
    data = found.data
    size = len(msgspec.json.encode(data))
    if size > MAX_DATA_BYTES:
        data = _Cutter(MAX_DATA_BYTES - _SLACK_BYTES).cut(msgspec.to_builtins(data, str_keys=True))
        note += f" (only a part of the data is here: they have {size} bytes, the limit is {MAX_DATA_BYTES})"
    return Observation(
        note=note,
        data=data,
        citations=found.citations[:_CITATIONS],
        failed=found.failed,
        same_as=found.same_as,
    )


@dataclass(slots=True)
class _Cutter:
    """Cuts JSON to a size, from its end: `room` is what is left of it, in bytes."""

    room: int

    def cut(self, value: Any) -> Any:
        """Return as much of the value as there is room for."""
        if isinstance(value, dict):
            self.room -= 2
            found: dict[str, Any] = {}
            for name, one in value.items():
                cost = len(msgspec.json.encode(name)) + 2
                if self.room < cost + 8:
                    break
                self.room -= cost
                found[name] = self.cut(one)
            return found
        if isinstance(value, list):
            self.room -= 2
            items: list[Any] = []
            for one in value:
                if self.room < 8:
                    break
                self.room -= 1
                items.append(self.cut(one))
            return items
        if isinstance(value, str):
            return self._cut_text(value)
        self.room -= len(msgspec.json.encode(value))
        return value

    def _cut_text(self, text: str) -> str:
        size = len(msgspec.json.encode(text))
        while size > self.room and text:
            text = text[: min(len(text) - 1, len(text) * max(self.room, 0) // size)]
            size = len(msgspec.json.encode(text))
        self.room -= size
        return text
