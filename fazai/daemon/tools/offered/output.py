"""Tool `output.read`: more of an observation of which the model was shown a part (requirement B8)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fazai.daemon.tools.call import ToolCall
from fazai.errors import InputError
from fazai.loop.tools import Observation, Tool, ToolArgs

_RANGE_CHARS = 1500
OutputId = Annotated[str, Meta(max_length=20, pattern=r"\Ao-[0-9a-f]{1,16}\Z")]


class OutputArgs(ToolArgs, frozen=True, kw_only=True):
    """`output`: the id that stood with the observation; `offset`: the first character."""

    output: OutputId
    offset: Annotated[int, Meta(ge=0, le=100_000_000)] = 0


@Tool("output.read", "Shows more of an observation that was too long, from a character on.")
async def read_output(call: ToolCall, args: OutputArgs) -> Observation:
    """Return a range of an output of this session. Raises InputError."""
    if call.session_id is None:
        raise InputError("outputs belong to a session")
    data = await call.services.store.sessions.output(call.session_id, args.output)
    if data is None:
        raise InputError(f"there is no output {args.output}")
    text = data.decode("utf-8", "replace")
    shown = text[args.offset : args.offset + _RANGE_CHARS]
    end = args.offset + len(shown)
    return Observation(note=f"characters {args.offset} to {end} of {len(text)}", data=shown)


TOOLS = (read_output,)
