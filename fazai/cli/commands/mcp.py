"""fazai mcp"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fazai.errors import ExitCode, FazaiError, Unreachable, UsageError

if TYPE_CHECKING:
    import httpx

    from fazai.wire.base import AnswerMessage
    from fazai.wire.tools import ToolAnswer, ToolRow

    A = TypeVar("A", bound=AnswerMessage)

#: A tool's own time is at most ten minutes; who waits longer waits for nobody.
_ANSWER_S = 660.0
_CONNECT_S = 10.0
_AT_ONCE = 8  # the daemon refuses more than 16 of one client
_WAITING = 1000
_LOOK_S = 2.0  # for a daemon that is away
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_JSON = {"content-type": "application/json"}


@click.command(
    "mcp",
    epilog="\b\nExamples:\n  fazai mcp                          what an assistant starts; not for a terminal"
    "\n  FAZAI_URL=https://fazai.example:3120 FAZAI_TOKEN_FILE=~/.fazai-token fazai mcp",
)
@click.option("--url", help="https://HOST:3120 or unix:PATH. [default: $FAZAI_URL, else the local socket]")
def mcp_command(url: str | None) -> None:
    """Offer the daemon's tools to an assistant (Model Context Protocol, on standard input and output).

    It can do what its token can do at the daemon, and no more. Tools that change something make proposals,
    which a person approves elsewhere.
    """
    try:
        import mcp  # noqa: F401 - is it there at all?
    except ModuleNotFoundError:
        raise UsageError(_MISSING, hint=_INSTALL) from None
    if sys.stdin.isatty():
        click.echo("an assistant starts this, and speaks to it: see docs/mcp.md; Ctrl-C ends it", err=True)
    # A thread waits for input, and nothing else ends that; there is nothing to tidy up.
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
    try:
        asyncio.run(_serve(url))
    finally:
        signal.signal(signal.SIGINT, before)


_MISSING = "the extra `mcp` is not installed here"
_INSTALL = "pip install 'fazai[mcp]', see docs/mcp.md"


async def _serve(url: str | None) -> None:
    from mcp.server.lowlevel import NotificationOptions
    from mcp.server.stdio import stdio_server

    from fazai.service.mcp import build_server

    source = _DaemonTools(url)
    server = build_server(source, source.tell_when_back)
    told = server.create_initialization_options(NotificationOptions(tools_changed=True))
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, told)
    finally:
        source.stop_watching()
        await source.close()


@dataclass
class _DaemonTools:
    """The tools of the daemon, which is looked for at each call until it is found: an assistant may be
    started before it."""

    url: str | None
    _client: httpx.AsyncClient | None = None
    _name: str = ""
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _waiting: int = 0
    _watch: asyncio.Task[None] | None = None

    async def rows(self) -> Sequence[ToolRow]:
        """Return the tools. Raises FazaiError."""
        from fazai.wire.tools import ToolsAnswer

        return (await self._ask("GET", "/tools", None, ToolsAnswer)).tools

    async def call(self, name: str, args: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool. Raises FazaiError."""
        from fazai.wire.base import WireError
        from fazai.wire.tools import ToolAnswer

        if _NAME.fullmatch(name) is None:  # it becomes a part of a path
            raise WireError("not_found", f"there is no tool {name[:64]!r}")
        return await self._ask("POST", f"/tools/{name}", {"args": args}, ToolAnswer)

    def tell_when_back(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Let the client list the tools again once there are some: many list them once, at their start."""
        self.stop_watching()
        self._watch = asyncio.get_running_loop().create_task(self._watch_daemon(tell))

    def stop_watching(self) -> None:
        """Look no more for a daemon that is away."""
        if self._watch is not None:
            self._watch.cancel()

    async def _watch_daemon(self, tell: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(FazaiError):
                await self.rows()
                break
        await tell()

    async def close(self) -> None:
        """Let go of the connections to the daemon; the next call looks for it again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()  # deadline: none is needed, it only closes sockets

    async def _ask(self, method: str, path: str, body: Any, of: type[A]) -> A:
        from fazai.wire.base import WireError

        if self._waiting >= _WAITING:
            raise WireError("overloaded", f"{_WAITING} calls wait already", hint="call fewer at once")
        self._waiting += 1
        try:
            async with self._gate:
                return await self._ask_now(method, path, body, of)
        finally:
            self._waiting -= 1

    async def _ask_now(self, method: str, path: str, body: Any, of: type[A]) -> A:
        import httpx

        from fazai.wire.base import ErrorAnswer, WireError, decode_answer

        content = _encoded(body) if body is not None else None
        client = await self._open_client()
        waits = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        try:
            answer = await client.request(method, path, content=content, headers=_JSON, timeout=waits)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError):
                await self.close()  # it may come back elsewhere
            text = f"the daemon does not answer: {error or type(error).__name__}"
            raise Unreachable(
                text, stage="connect", where=self._name, hint="is it running? fazai daemon"
            ) from None
        if answer.status_code == 401:
            await self.close()  # there may be a new token in the file
        found = decode_answer(answer.content, of)
        if isinstance(found, ErrorAnswer):
            raise WireError(found.code or "internal", found.error)
        return found

    async def _open_client(self) -> httpx.AsyncClient:
        """Return the client for the daemon. Raises InputError where none is known, SecretError."""
        if self._client is None:
            import httpx

            from fazai.cli.clients import require_daemon

            place = require_daemon(os.environ, self.url)
            verify = place.verify()
            transport = (
                httpx.AsyncHTTPTransport(uds=str(place.socket), verify=verify) if place.socket else None
            )
            self._client = httpx.AsyncClient(transport=transport, verify=verify, **place.options())
            self._name = place.name
        return self._client


def _encoded(body: Any) -> bytes:
    """Return a body as JSON. Raises WireError(too_large), before the daemon has to refuse it."""
    import msgspec

    from fazai.wire.base import MAX_BODY_BYTES, WireError

    found = msgspec.json.encode(body)
    if len(found) > MAX_BODY_BYTES:
        raise WireError("too_large", f"the arguments have {len(found)} bytes, the limit is {MAX_BODY_BYTES}")
    return found
