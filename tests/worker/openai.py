"""A server that speaks as an OpenAI-compatible endpoint does; what it answers is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

__all__ = ["Completions", "chunk", "completions"]


def chunk(text: str = "", ended: str | None = None, **more: Any) -> str:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": ended}
    return "data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice], **more})


class Completions:
    """`lines` are the stream's; `status` and `body` instead of it; `hangs`: it does not end what it began."""

    def __init__(self, pieces: Sequence[str]) -> None:
        used = {"prompt_tokens": 9, "completion_tokens": len(pieces), "total_tokens": 9 + len(pieces)}
        self.lines = [
            *(chunk(piece) for piece in pieces),
            chunk(ended="stop"),
            "data: " + json.dumps({"choices": [], "usage": used}),
            "data: [DONE]",
        ]
        self.status = 200
        self.body = b""
        self.hangs = False
        self.left = asyncio.Event()
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        assert first == "POST /v1/chat/completions HTTP/1.1"
        head = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.keys += [head["authorization"]] if "authorization" in head else []
        self.asked.append(json.loads(await reader.readexactly(int(head["content-length"]))))
        kind = "text/event-stream" if self.status == 200 else "application/json"
        writer.write(
            f"HTTP/1.1 {self.status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write("\n\n".join(self.lines).encode() + b"\n\n" if self.status == 200 else self.body)
        try:
            with contextlib.suppress(ConnectionError):  # who has enough goes
                await writer.drain()
            if self.hangs:
                await reader.read()  # until the client goes
                self.left.set()
            writer.close()
        except asyncio.CancelledError:  # the test is over
            writer.transport.abort()
            raise


@contextlib.asynccontextmanager
async def completions(pieces: Sequence[str]) -> AsyncIterator[Completions]:
    found = Completions(pieces)
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        server.close()
