"""Probe of a TCP port: does it accept, and what does it say first?"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from fazai.compat.timeouts import deadline
from fazai.probes.reach import Anywhere, Endpoint, Reach, find_endpoints
from fazai.probes.result import (
    ProbeResult,
    Stopwatch,
    check_port,
    check_timeout,
    clean_text,
    describe_failure,
)

_BANNER_BYTES = 1024
_BANNER_S = 2.0


async def probe_tcp(
    host: str,
    port: int,
    *,
    timeout_s: float = 5.0,
    banner: bool = False,
    family: int | None = None,
    reach: Reach | None = None,
) -> ProbeResult:
    """Connect to a port; with `banner` read what the server says by itself. Raises InputError, Refused."""
    check_port(port)
    target, facts = f"{host}:{port}", dict[str, Any](port=port)
    endpoints: list[Endpoint] = []
    try:
        async with deadline(check_timeout(timeout_s)):
            endpoints = await find_endpoints(host, port, reach or Anywhere(), family)
            async with connect_first(endpoints, port) as link:
                if banner:
                    facts["banner"] = await _read_banner(link.reader, timeout_s)
    except OSError as error:
        facts["tried"] = [str(one.address) for one in endpoints]
        return ProbeResult(
            probe="tcp",
            target=target,
            ok=False,
            why=f"it is not open: {describe_failure(error)}",
            facts=facts,
        )
    return ProbeResult(
        probe="tcp",
        target=target,
        ok=True,
        why="it is open",
        latency_ms=link.took_ms,
        address=str(link.endpoint.address),
        facts=facts,
    )


async def _read_banner(reader: asyncio.StreamReader, timeout_s: float) -> str:
    """Return what the server says within a while; "" where it waits for the client, or hangs up."""
    with contextlib.suppress(TimeoutError, OSError):
        async with deadline(min(_BANNER_S, timeout_s / 2)):
            return clean_text(await reader.read(_BANNER_BYTES))
    return ""


class Link:
    """A connection that was made, to which of the endpoints, and how long that took."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: Endpoint, took_ms: float
    ) -> None:
        self.reader, self.writer = reader, writer
        self.endpoint, self.took_ms = endpoint, took_ms


@contextlib.asynccontextmanager
async def connect_first(
    endpoints: list[Endpoint], port: int, context: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[Link]:
    """Connect to the first of the endpoints that accepts, with TLS where there is a context, and cut the
    connection at the end. The caller's deadline holds; each endpoint but the last has its share of it. Raises
    OSError."""
    failed: OSError = OSError("it has no address")
    for left, endpoint in reversed(list(enumerate(reversed(endpoints)))):
        watch = Stopwatch()
        try:
            async with deadline(_share_s(left)):
                reader, writer = await asyncio.open_connection(
                    str(endpoint.address),
                    port,
                    limit=_BANNER_BYTES,
                    ssl=context,
                    server_hostname=(name or endpoint.name) if context is not None else None,
                )
        except ssl.SSLError:
            raise  # it was reached; another address has the same certificate
        except OSError as error:  # TimeoutError is one
            failed = error
            continue
        link = Link(reader, writer, endpoint, watch.read_ms())
        try:
            yield link
        finally:
            writer.transport.abort()  # a polite end would wait for the server's
        return
    raise failed


def _share_s(left: int) -> float:
    """Return the seconds of an endpoint after which so many others are `left`; the last has all there is."""
    return 60.0 if left == 0 else 2.0
