"""The daemon's relay, as far as a client sees it: a real WebSocket on a socket file, in a thread."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, unix_serve

from fazai.errors import FazaiError

__all__ = ["RelayServer"]

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class RelayServer:
    """Passes messages on to agents by their ids. `cut`: methods whose message is passed on, and whose answer
    nobody gets, as the connection ends then; `lost`: those that end with `agent_lost`."""

    def __init__(self, agents: Mapping[str, Answer]) -> None:
        self.agents = dict(agents)
        self.path = Path(tempfile.mkdtemp(prefix="fz-")) / "agents.sock"
        self.frames: list[dict[str, Any]] = []
        self.connections = 0
        self.cut: set[str] = set()
        self.lost: set[str] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    @property
    def url(self) -> str:
        return f"unix:{self.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with unix_serve(self._talk, str(self.path), max_size=None, close_timeout=1):
            self._ready.set()
            await self._stop.wait()

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        async with asyncio.TaskGroup() as group:
            async for data in connection:
                frame = json.loads(data)
                self.frames.append(frame)
                group.create_task(self._pass_on(connection, frame))

    async def _pass_on(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        agent, message = self.agents.get(frame["agent"]), frame["message"]
        said: dict[str, Any] = {"id": frame["id"]}
        if message["method"] == "cancel":
            said["answer"] = {"ok": True}
        elif agent is None:
            said.update(code="agent_unknown", error=f"there is no agent '{frame['agent']}'")
        else:
            try:
                said["answer"] = await agent(message)
            except FazaiError as error:
                said.update(code="agent_offline", error=error.message)
        if message["method"] in self.cut:
            await connection.close()
            return
        if message["method"] in self.lost:
            said = {"id": frame["id"], "code": "agent_lost", "error": "the connection ended while it ran"}
        await connection.send(json.dumps(said))
