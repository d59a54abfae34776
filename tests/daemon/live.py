"""A daemon in a thread of this process: real sockets, a real file, its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from fazai.daemon.http.tokens import hash_of, new_token
from fazai.daemon.process import Daemon
from fazai.daemon.services import Services
from fazai.daemon.settings import DaemonSettings
from fazai.daemon.southbound.trust import AgentTrust
from fazai.service.log import Log
from fazai.store.daemon import NewEvent, Role, StoreLimits, Token
from fazai.store.sqlite.daemon import SqliteDaemonStore
from fazai.store.sqlite.tokens import TokenFile
from fazai.wire.base import encode
from fazai.wire.events import Event, event_type
from tests.contract import SseFrame, decode_sse

#: For what has to happen, however busy the machine is: only what never happens takes so long.
PATIENCE_S = 60.0

#: What takes a second at most, on a machine that has other things to do, too.
BUSY_S = 10.0


def until(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Waits for a condition of another thread or process."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@contextlib.contextmanager
def own_port() -> Iterator[int]:
    """A port of loopback on which a daemon can listen again and again: nobody else is given it meanwhile. (A
    socket that is bound and does not listen keeps the kernel from handing its port out.)"""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def settings(folder: Path, **more: Any) -> DaemonSettings:
    """A daemon in `folder`, on a port of its own, which knows nothing of what else runs on this machine."""
    return DaemonSettings(
        state=folder / "state",
        secrets=folder / "secrets",
        port=more.pop("listen_port", 0),
        gemma_socket=more.pop("gemma_socket", folder / "no-worker.sock"),
        log_file=folder / "daemon.log",
        policy=more.pop("policy", folder / "policy.yml"),
        rules=more.pop("rules", folder / "rules.yml"),
        **more,
    )


def token(folder: Path, name: str, role: Role, **more: Any) -> str:
    """A new token of the daemon in `folder`, running or not."""
    text = new_token()
    TokenFile(folder / "state").put(Token(hash_of(text), name, role, time.time(), **more))
    return text


@dataclass
class Live:
    """A daemon that runs."""

    daemon: Daemon
    loop: asyncio.AbstractEventLoop
    folder: Path
    scheme: str

    @property
    def services(self) -> Services:
        assert self.daemon.services is not None
        return self.daemon.services

    @property
    def port(self) -> int:
        return self.daemon.addresses[0][1]

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, bearer: str | None = None, **more: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        if self.scheme == "http":
            more.setdefault("verify", False)  # else the authorities are loaded: 0.03 s of CPU for each client
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False, **more)

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs on the daemon's loop; the result of a coroutine is waited for."""

        async def run() -> Any:
            found = function()
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE_S)

    def publish(self, *events: Event) -> list[int]:
        """Through the store, as every part of the daemon does."""
        rows = [
            NewEvent(
                event_type(event),
                encode(event),
                target=getattr(event, "target", None),
                run=getattr(event, "run_id", None),
                session=event.session_id,
                agent=event.agent_id,
                level=getattr(event, "level", None),
            )
            for event in events
        ]
        store = self.services.store
        ids: list[int] = self.call(lambda: store.publish(rows))
        return ids

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()


@contextlib.contextmanager
def live(
    folder: Path,
    store_limits: StoreLimits | None = None,
    trust: AgentTrust | None = None,
    **more: Any,
) -> Iterator[Live]:
    asked = settings(folder, **more)
    log = Log(asked.log_file, logger="fazai.daemon")
    made: list[Live] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    async def run() -> None:
        daemon = Daemon(asked, log, trust)
        scheme = "https" if asked.tls_cert else "http"
        made.append(Live(daemon, asyncio.get_running_loop(), folder, scheme))
        await daemon.run(lambda state: SqliteDaemonStore(state, store_limits), ready=ready.set)

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:  # noqa: BLE001 - raised again by the test
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made and thread.is_alive():
            made[0].loop.call_soon_threadsafe(made[0].daemon.stop)
        thread.join(PATIENCE_S)
        log.close()
    if failed:
        raise failed[0]


class Events:
    """A stream of events as a client reads it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.lines: list[str] = []  # comments, retry, and the id before the first event
        self._frames = self._read()

    def _read(self) -> Iterator[SseFrame]:
        block: list[str] = []
        for line in self.answer.iter_lines():
            if line.startswith((":", "retry:")):
                self.lines.append(line)
            elif line:
                block.append(line)
            elif len(block) == 1 and block[0].startswith("id:"):
                self.lines.append(block.pop())
            elif block:
                yield decode_sse("\n".join(block).encode())
                block = []

    def next(self) -> SseFrame:
        return next(self._frames)

    def take(self, count: int) -> list[SseFrame]:
        return [self.next() for _ in range(count)]

    def rest(self) -> list[SseFrame]:
        """Until the daemon ends the stream."""
        return list(self._frames)


@contextlib.contextmanager
def stream(client: httpx.Client, query: str = "", **headers: str) -> Iterator[Events]:
    """GET /events; the stream follows live (or replays) once this returns."""
    with client.stream("GET", f"/events{query}", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield Events(answer)
