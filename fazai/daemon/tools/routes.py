"""GET /tools, POST /tools/{name}: typed tools for everybody who is let in (SPEC.md, 2.7)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import Route, RouteCall
from fazai.daemon.http.server import HttpConnection
from fazai.daemon.tools.answers import answer_call, tool_rows
from fazai.wire.tools import ToolAnswer, ToolBody, ToolsAnswer


@Route("GET", "/tools", "The tools that may be called, and the schemas of their arguments.")
async def list_tools(call: RouteCall) -> ToolsAnswer:
    """List the tools, with the names of the fleet as it is now."""
    return ToolsAnswer(tools=await tool_rows(call.services, call.who))


@Route(
    "POST",
    "/tools/{name}",
    "Call a tool. One that only reads is run; of one that has an effect a proposal is made, which waits"
    " for an approval of its hash.",
    codes=("overloaded", "unavailable", "conflict", "device_error", "unknown_session"),
    timeout_s=None,  # the tool's own holds
)
async def call_tool(call: RouteCall, body: ToolBody) -> ToolAnswer:
    """Call a tool, until it answers, its time is over, or the client goes away."""
    with ended_with(call.connection):
        return await answer_call(call.services, call.who, call.path["name"], body.args, body.session_id)


@contextlib.contextmanager
def ended_with(connection: HttpConnection) -> Iterator[None]:
    """End what this task does when the client goes away, so that nothing works for nobody."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    def end() -> None:
        nonlocal gone
        gone = True
        task.cancel("the client went away")

    connection.on_lost = end
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise Refusal("bad_request", "the client went away") from None
    finally:
        connection.on_lost = None


ROUTES = (list_tools, call_tool)
