"""POST /mcp: the tools by the Model Context Protocol over HTTP (SPEC.md, 2.7).

Each request stands alone, with its own token: there are no sessions, no streams and nothing to clean up,
and a token that is revoked is refused with the next call. The SDK is imported with the first request.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from fazai.compat.timeouts import deadline
from fazai.daemon.http.audit import RefusalLog
from fazai.daemon.http.auth import Principal, address_of
from fazai.daemon.http.refusal import Refusal
from fazai.daemon.http.routing import (
    NO_PAGE,
    SAFE,
    Receive,
    Route,
    RouteCall,
    Scope,
    Send,
    connection_of,
    identify,
    read_body,
    require_role,
)
from fazai.daemon.services import Services
from fazai.daemon.tools.answers import answer_call, tool_rows
from fazai.daemon.tools.routes import ended_with
from fazai.errors import FazaiError
from fazai.wire.base import WireError, parse_object
from fazai.wire.tools import ToolAnswer, ToolRow

#: Longer than any tool's own time.
_REQUEST_S = 660.0
_MISSING = "this daemon was installed without the extra `mcp`"


@dataclass(frozen=True, slots=True)
class _ClientTools:
    """The tools as the sender of one request may use them."""

    services: Services
    who: Principal
    address: str
    refusals: RefusalLog

    async def rows(self) -> Sequence[ToolRow]:
        return await tool_rows(self.services, self.who)

    async def call(self, name: str, args: Mapping[str, Any]) -> ToolAnswer:
        try:
            return await answer_call(self.services, self.who, name, dict(args))
        except WireError as error:
            self.refusals.note(f"POST /mcp {name[:200]}", self.address, error)
            raise
        except FazaiError:
            raise
        except Exception as error:  # noqa: BLE001 - a border: the SDK would tell the client what it is
            text = "".join(traceback.format_exception(error))
            self.services.log.say("error", f"/mcp: {text}", logger="fazai.daemon")
            raise Refusal("internal", "a fault of fazai; the log has more") from None


class McpApp:
    """Serves `/mcp`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._refusals = RefusalLog(services.log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        await services.guard.refresh()
        who = identify(services, scope)
        require_role(who, "viewer")
        if scope["method"] != "POST":  # there are no streams to GET, and no sessions to DELETE
            raise Refusal("method_not_allowed", "/mcp knows POST", headers=((b"allow", b"POST"),))
        sdk = await _load_sdk()
        connection = connection_of(scope)
        try:
            async with deadline(_REQUEST_S):
                body = await read_body(RouteCall(services, scope, receive, send, who, {}), ROUTE)
                _refuse_ambiguous(body)
                tools = _ClientTools(services, who, address_of(connection), self._refusals)
                with ended_with(connection):
                    await sdk.answer_http(tools, scope, _Replayed(body, receive), _guarded(send))
        except TimeoutError:
            raise Refusal("timeout", f"it took more than {_REQUEST_S:g} s") from None


async def _load_sdk() -> Any:
    """Return our side of the SDK; the first time it is read beside the loop. Raises Refusal(not_found)."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it logs what clients do wrong, as often as they do
    try:
        return await asyncio.to_thread(importlib.import_module, "fazai.service.mcp")
    except ModuleNotFoundError:
        raise Refusal("not_found", _MISSING, hint="see docs/mcp.md") from None


def _refuse_ambiguous(body: bytes) -> None:
    """Refuse a message that two readers would read as two. What is no JSON at all the SDK answers. Raises
    WireError(bad_request)."""
    try:
        parse_object(body, unique_names=True)
    except WireError as error:
        if error.code != "bad_json":
            raise


class _Replayed:
    """Hands out a body that was read, then what the connection still has to say."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._body is None:
            return await self._receive()  # deadline: McpApp
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _guarded(send: Send) -> Send:
    """Return a `send` that adds the headers which all answers have."""

    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *SAFE, NO_PAGE]}
        await send(message)  # deadline: the connection's, HttpConnection.pause_writing

    return guarded


ROUTE = Route(
    "POST",
    "/mcp",
    "The tools by the Model Context Protocol, one message a request.",
    raw=McpApp,
    codes=("bad_json", "bad_request", "too_large", "unsupported_media_type"),
)
