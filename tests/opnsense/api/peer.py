"""A firewall that is none: a socket on loopback that says exactly what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from fazai.errors import FazaiError
from fazai.model import Secret
from fazai.providers.opnsense.api.budget import MIB, Budget
from fazai.providers.opnsense.api.calls import ApiSettings
from fazai.providers.opnsense.api.client import Api
from fazai.providers.opnsense.api.credentials import Credentials
from tests.opnsense.helpers import FakeClock

T = TypeVar("T")
Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]

KEY, SECRET = "kk+Kk/KEYKEYKEY/abc+def", "ss+Ss/SECRETSECRET/ghi+jkl"


def said(body: bytes, status: str = "200 OK", type_: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {type_}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def speaking(*parts: bytes) -> Speak:
    """Says these and then nothing more, and keeps the connection open."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.Event().wait()

    return speak


async def with_peer(
    speak: Speak, work: Callable[[Api], Awaitable[T]], *, budget: Budget | None = None, **settings: Any
) -> T:
    """Work with a client of this peer; what the peer still does afterwards is ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await speak(writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = {"timeout_s": 10.0, "retries": 0, "max_answer_bytes": MIB, **settings}
    scheme = made.pop("scheme", "http")
    api = Api(
        ApiSettings(
            target="fw-01",
            base_url=f"{scheme}://127.0.0.1:{port}",
            credentials=Credentials(Secret(KEY), Secret(SECRET)),
            verify_tls=False,
            **made,
        ),
        FakeClock(),
        budget,
    )
    try:
        return await work(api)
    finally:
        await api.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def error_of(work: Awaitable[Any]) -> FazaiError:
    """The error that this raises."""
    try:
        await work
    except FazaiError as error:
        return error
    raise AssertionError("nothing was raised")
