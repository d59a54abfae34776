"""Servers on loopback: TCP with or without TLS, and a DNS server that answers what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from fazai.lab.server.tls import LabAuthority

_UDP_BYTES = 1232
T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
#: From name and type to records (as texts), a code, bytes to be sent as they are, or nothing.
Answers = Callable[[str, str], "list[str] | dns.rcode.Rcode | bytes | None"]


@contextlib.asynccontextmanager
async def serve_tcp(
    handle: Handler, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """A server on a port of its own; what its handlers still do at the end is cut off."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(carry_out(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def server_context(authority: LabAuthority, variant: str = "valid") -> ssl.SSLContext:
    """TLS of a server whose certificate is valid, expired, wrong_host or self_signed."""
    key, certificate = authority.server(variant)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(key + certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def answer_http(*pieces: bytes) -> Handler:
    """A handler that reads the head of one request and sends these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return handle


@contextlib.contextmanager
def in_a_thread(serving: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """What serves runs in a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(_enter(serving), loop).result(60)
        asyncio.run_coroutine_threadsafe(_leave(serving), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _enter(serving: AbstractAsyncContextManager[T]) -> T:
    return await serving.__aenter__()


async def _leave(serving: AbstractAsyncContextManager[T]) -> None:
    await serving.__aexit__(None, None, None)


class _DnsProtocol(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers, asked: list[str]) -> None:
        self._answers, self._asked = answers, asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found = _answer_dns(data, self._answers, self._asked)
        if found is not None:
            whole = (
                found
                if isinstance(found, bytes)
                else found.to_wire(max_size=_UDP_BYTES, prefer_truncation=True)
            )
            self._transport.sendto(whole, addr)


def _answer_dns(data: bytes, answers: Answers, asked: list[str]) -> dns.message.Message | bytes | None:
    query = dns.message.from_wire(data)
    (question,) = query.question
    name, type_ = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
    asked.append(f"{name} {type_}")
    found = answers(name, type_)
    if found is None or isinstance(found, bytes):
        return None if found is None else data[:2] + found
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    if isinstance(found, dns.rcode.Rcode):
        response.set_rcode(found)
    elif found:
        response.answer.append(dns.rrset.from_text(question.name, 300, "IN", type_, *found))
    return response


@contextlib.asynccontextmanager
async def serve_dns(answers: Answers) -> AsyncIterator[tuple[int, list[str]]]:
    """A DNS server; yields its port, and what it was asked. What is too long for UDP comes by TCP."""
    asked: list[str] = []

    async def answer_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        found = _answer_dns(await reader.readexactly(size), answers, asked)
        asked[-1] += " by TCP"
        if isinstance(found, dns.message.Message):
            whole = found.to_wire(max_size=65535)
            writer.write(len(whole).to_bytes(2) + whole)
            await writer.drain()
        await reader.read()

    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        while True:  # until a port is free for both
            tries = await stack.enter_async_context(contextlib.AsyncExitStack())
            port = await tries.enter_async_context(serve_tcp(answer_stream))
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _DnsProtocol(answers, asked), local_addr=("127.0.0.1", port)
                )
            except OSError:
                await tries.aclose()
                continue
            stack.callback(transport.close)
            yield port, asked
            return
