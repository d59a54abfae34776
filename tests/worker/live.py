"""A worker's socket in this process, over the fake engine; and a client that speaks lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from fazai.service import systemd
from fazai.service.log import Log
from fazai.worker.bridge import NativeEngine, Options
from fazai.worker.chat import chat_of
from fazai.worker.grammars.masks import Masks
from fazai.worker.metrics import Metrics
from fazai.worker.server import ClientConnection, Worker
from fazai.worker.sessions import WorkerSessions

from .fake import FakeEngine, FakeMasks

_CONNECT = """
import socket, sys
made = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for each in made:
    each.connect(sys.argv[1])
with socket.socket(fileno=int(sys.argv[3])) as to:
    socket.send_fds(to, [b"x"], [each.fileno() for each in made])
"""


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(
                (message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n"
            )

    async def line(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            raw = await self.reader.readline()
        assert raw.endswith(b"\n"), raw
        return cast("dict[str, Any]", json.loads(raw))

    async def ask(self, message: Any) -> dict[str, Any]:
        self.send(message)
        return await self.line()

    async def session(self, **params: Any) -> str:
        return str((await self.ask({"type": "create_session", "params": params}))["session_id"])

    async def events(self) -> list[dict[str, Any]]:
        """Up to and with the stream's end."""
        found = [await self.line()]
        while found[-1].get("type") == "token":
            found.append(await self.line())
        return found

    def close(self) -> None:
        self.writer.close()


class Live:
    def __init__(
        self, path: Path, engine: FakeEngine, worker: Worker, masks: FakeMasks, idle_s: float
    ) -> None:
        self.path = path
        self.engine = engine
        self.worker = worker
        self.masks = masks
        self.idle_s = idle_s
        self.log = Log(path.with_name("log"))
        self.peers: list[Peer] = []

    def load(self) -> None:
        """What the worker does once its model is there."""
        self.worker.sessions = WorkerSessions(
            cast(NativeEngine, self.engine),
            cast(Masks, self.masks),
            chat_of(cast(NativeEngine, self.engine)),
            self.worker.metrics,
            idle_s=self.idle_s,
            clock=time.monotonic,
            log=self.log,
        )
        self.worker.model = "fake"
        self.worker.stats = self.engine.stats
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self.worker.sessions.on_ready)

    async def peer(self) -> Peer:
        self.peers.append(Peer(*await asyncio.open_unix_connection(str(self.path), limit=8 << 20)))
        return self.peers[-1]

    async def strangers(self, count: int) -> list[Peer]:
        """Connections that another process made."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-c", _CONNECT, str(self.path), str(count), str(theirs.fileno())]
            connecting = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
            assert await connecting.wait() == 0
            _, descriptors, _, _ = socket.recv_fds(ours, 1, count)
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            self.peers.append(Peer(*await asyncio.open_unix_connection(sock=sock, limit=8 << 20)))
        return self.peers[-count:]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - of another thread, or of the kernel
                await asyncio.sleep(0.002)

    @property
    def sessions(self) -> WorkerSessions:
        return self.worker.loaded_sessions()


@contextlib.asynccontextmanager
async def live(
    *, step_s: float = 0.0005, loaded: bool = True, idle_s: float = 60.0, **options: int
) -> AsyncIterator[Live]:
    """Options are those of bridge.Options."""
    settings = Options(**options)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gemma.sock")
        engine = FakeEngine(settings, step_s=step_s)
        worker = Worker(settings, Metrics())
        masks = FakeMasks()
        loop = asyncio.get_running_loop()
        made = Live(path, engine, worker, masks, idle_s)
        if loaded:
            made.load()
        server = await loop.create_unix_server(
            lambda: ClientConnection(worker), sock=systemd.listen(path), backlog=systemd.BACKLOG
        )
        try:
            yield made
        finally:
            server.close()
            for peer in made.peers:
                peer.close()
            for connection in list(worker.connections):
                connection.drop()
            await asyncio.sleep(0)
            loop.remove_reader(engine.fileno())
            engine.close()
            made.log.close()
