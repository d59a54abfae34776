"""The process that reconciles: takes `state.*` of the agent's main process, one at a time, and answers.

Frames on the socket are as on the pipes of other actions: four bytes of length, big endian, and JSON. The
process ends when the other end is closed, when it was idle for a while, and on SIGTERM, which ends what runs
first.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.agent.state.policy import Policy
from fazai.agent.state.sessions import HeldSession
from fazai.compat.timeouts import deadline
from fazai.errors import FazaiError
from fazai.faults import no_fault
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.remote.values import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Protocol

    from fazai.agent.state.policy import ReconcileRules

    class Rules(ReconcileRules, Protocol):
        """`reconcile:` of agent.yml."""

        @property
        def hold_s(self) -> float: ...

    class Config(Protocol):
        """The part of agent.yml that this process needs."""

        @property
        def agent_id(self) -> str: ...
        @property
        def root(self) -> str: ...
        @property
        def own_files(self) -> Sequence[str]: ...
        @property
        def reconcile(self) -> Rules: ...


#: So many controllers at once; each has a shell.
MOST_SESSIONS: Final = 4
#: Seconds after which a session that only looked is closed, and after which the process ends without one.
IDLE_S: Final = 60.0
#: Seconds after which a session that wrote makes room for another one.
_GONE_S: Final = 120.0
#: The longest message, as the contract has it.
_MOST_BYTES: Final = 96 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
#: Seconds that a session has to end its shell.
_CLOSE_S: Final = 10.0


def serve_state(fd: int, config: Config, fault: Callable[[str], None] = no_fault) -> None:
    """Serve `state.*` on a socket until it is closed. To be called in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_StateServer(config, socket.socket(fileno=fd), fault).serve())


class _StateServer:
    """The sessions, and the request that runs."""

    def __init__(self, config: Config, sock: socket.socket, fault: Callable[[str], None]) -> None:
        self._config, self._sock, self._fault = config, sock, fault
        self._root = config.root.rstrip("/")
        self._kinds = {name: kind for name, kind in load_host_kinds().items() if kind.by_agent}
        self._policy = Policy(config.reconcile, self._kinds, self._root, config.own_files)
        self._sessions: dict[str, HeldSession] = {}
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._ending = False

    async def serve(self) -> None:
        """Answer requests until the socket is closed, nothing came for long, or SIGTERM."""
        reader, writer = await asyncio.open_unix_connection(sock=self._sock)  # deadline: it is connected
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        self._read_on(reader)
        try:
            while not self._ending:
                request = await self._next_request()
                if request is None:
                    return
                self._read_on(reader)
                answer = await self._answer_while_connected(request, reader)
                writer.write(_frame(answer))
                await writer.drain()  # deadline: the other end reads, or is closed
        finally:
            self._reading.cancel()
            await self._close_all()
            writer.close()

    def _read_on(self, reader: asyncio.StreamReader) -> None:
        self._reading = asyncio.ensure_future(_read_frame(reader))

    def _terminate(self) -> None:
        self._ending = True
        if self._running is not None:
            self._running.cancel()
        else:
            self._reading.cancel()

    async def _next_request(self) -> dict[str, Any] | None:
        """Wait for a request, and close meanwhile what is not used any more. None: no more come."""
        while True:
            done, _ = await asyncio.wait({self._reading}, timeout=IDLE_S / 4)
            if done:
                return None if self._reading.cancelled() else self._reading.result()
            now_s = time.monotonic()
            for name, held in list(self._sessions.items()):
                limit_s = self._config.reconcile.hold_s if held.wrote else IDLE_S
                if now_s - held.used_s > limit_s:
                    await self._close(name)
            if not self._sessions:  # what was sent until now is still read; who sends later is told at once
                self._sock.shutdown(socket.SHUT_RD)

    async def _answer_while_connected(
        self, request: Mapping[str, Any], reader: asyncio.StreamReader
    ) -> dict[str, Any]:
        """Answer a request, which `cancel` and the end of the connection end. Another one waits its turn."""
        running = self._running = asyncio.ensure_future(self._answer(request))
        try:
            while True:
                both = {running, self._reading}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)  # deadline: the request's
                if running.done() or self._reading.cancelled():
                    break
                frame = self._reading.result()
                if frame is not None and frame.get("method") != "cancel":
                    break
                if frame is None or frame.get("action_id") == request.get("action_id"):
                    running.cancel()
                if frame is None:
                    break
                self._read_on(reader)
            return await running
        finally:
            self._running = None

    # -- requests ---------------------------------------------------------------------------------------

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request, whatever happens."""
        name = str(request.get("session"))
        said: dict[str, Any] = {"ok": True, "action_id": request.get("action_id")}
        try:
            timeout_s = float(request["timeout"]) / 1000 if "timeout" in request else IDLE_S
            async with deadline(timeout_s):
                said.update(await self._carry_out(name, request, timeout_s))
            return said
        except asyncio.CancelledError:
            await self._close(name, busy=True)
            return _failure(said, "cancelled", "it was ended before it was done")
        except TimeoutError:
            await self._close(name, busy=True)
            return _failure(said, "timeout", f"no answer within {timeout_s:g} s")
        except Refused as refused:
            return _failure(said, refused.code, refused.message, refused.hint)
        except Malformed as error:
            return _failure(said, "bad_request", str(error))
        except FazaiError as error:
            return _failure(said, "internal", error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - the border: a defect must not end the other sessions
            await self._close(name, busy=True)
            return _failure(said, "internal", f"defect in the agent: {type(error).__name__}")

    async def _carry_out(self, name: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        method = request.get("method")
        if method == "state.close":
            await self._close(name)
            return {}
        self._policy.check_mode(writes=method == "state.apply")
        held = self._sessions.get(name)
        if method == "state.observe":
            held = held or await self._open(name)
            held.used_s = time.monotonic()
            return {"observation": await held.observe(request, timeout_s)}
        if method != "state.apply":
            raise Malformed("an unknown method")
        if held is None:
            raise Refused("not_found", "the agent does not know this session any more", "look again")
        try:
            self._fault("effect.started")
            result = await held.apply(request.get("step"))
            self._fault("effect.done")
            return {"result": result}
        finally:
            held.used_s = time.monotonic()

    async def _open(self, name: str) -> HeldSession:
        """Make a session. One that only looked makes room, the one that was not used for longest first; one
        that wrote only when its controller seems to be gone."""
        if len(self._sessions) >= MOST_SESSIONS:
            old_s = time.monotonic() - _GONE_S
            idle = [
                (bool(held.wrote), held.used_s, other)
                for other, held in self._sessions.items()
                if not held.wrote or held.used_s < old_s
            ]
            if not idle:
                raise Refused("overloaded", f"{MOST_SESSIONS} controllers are at work here", "run it again")
            await self._close(min(idle)[2])
        self._sessions[name] = HeldSession(self._config.agent_id, self._kinds, self._policy, self._root)
        return self._sessions[name]

    async def _close(self, name: str, *, busy: bool = False) -> None:
        held = self._sessions.pop(name, None)
        if held is not None:
            with suppress(FazaiError, OSError, TimeoutError):
                async with deadline(_CLOSE_S):
                    await held.close(busy=busy)

    async def _close_all(self) -> None:
        for name in list(self._sessions):
            await self._close(name)


def _failure(said: dict[str, Any], code: str, text: str, hint: str | None = None) -> dict[str, Any]:
    return {**said, "ok": False, "code": code, "error": text, **({"hint": hint} if hint else {})}


def _frame(answer: Mapping[str, Any]) -> bytes:
    data = json.dumps(answer, separators=(",", ":")).encode()
    return _LENGTH.pack(len(data)) + data


async def _read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Read one request; None at the end."""
    try:
        head = await reader.readexactly(_LENGTH.size)  # deadline: `_StateServer._next_request`
        (size,) = _LENGTH.unpack(head)
        if size > _MOST_BYTES:
            return None
        found = json.loads(await reader.readexactly(size))  # deadline: the main process writes it at once
    except (asyncio.IncompleteReadError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
