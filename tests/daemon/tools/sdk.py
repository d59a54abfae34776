"""The SDK's own client, against `/mcp` and against a process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.daemon.live import PATIENCE_S, Live

T = TypeVar("T")
#: The protocol with a handshake, and the one in which each request stands alone.
ERAS = ("legacy", "auto")


@contextlib.asynccontextmanager
async def over_http(daemon: Live, bearer: str | None, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S, trust_env=False) as http:
        transport = streamable_http_client(f"{daemon.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@contextlib.asynccontextmanager
async def over_stdio(
    environ: dict[str, str], errors: Path, mode: str = "auto", **more: Any
) -> AsyncIterator[Client]:
    """A `fazai mcp` process of its own."""
    command = StdioServerParameters(command=sys.executable, args=["-m", "fazai", "mcp"], env=environ)
    with errors.open("a") as file:
        async with Client(stdio_client(command, errlog=file), mode=mode, **more) as client:
            yield client


def run(work: Callable[[], Awaitable[T]], seconds: float = PATIENCE_S) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work()

    try:
        return asyncio.run(bounded())
    except BaseExceptionGroup as group:  # the client's transports have groups of tasks, one in the other
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def texts(result: Any) -> list[str]:
    assert isinstance(result, types.CallToolResult)
    return [one.text for one in result.content if isinstance(one, types.TextContent)]
