"""The relay of the daemon, through which agents are asked: one WebSocket for all sessions of a run.

A frame is `{"id": N, "agent": NAME, "message": {…}}`; its answer `{"id": N, "answer": {…}}`, or `{"id": N,
"error": …, "code": …}` where the agent could not be asked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import ssl
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fazai.compat.language import dataclass
from fazai.compat.timeouts import deadline
from fazai.config import SYSTEM_SOCKET, daemon_socket_path, is_loopback, named_state_folder
from fazai.errors import DeviceError, FazaiError, InputError, Refused, SecretError, Unreachable
from fazai.files import read_token_file

if TYPE_CHECKING:
    from typing import Self

    from websockets.asyncio.client import ClientConnection

_PATH: Final = "/southbound/relay"
_PORT: Final = 3121
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 2.0
#: A message of 64 MiB, as the contract has it, and what stands around it.
_MOST_BYTES: Final = 72 * 1024 * 1024
#: Codes with which the daemon says that an agent was not asked.
_NOT_SENT: Final = frozenset(("agent_unknown", "agent_offline", "overloaded", "unavailable"))
_OFFLINE: Final = "its log and STATE/status on that machine say more; when it is back: run it again"
_NO_DAEMON: Final = "start one with: fazai daemon; or FAZAI_AGENTS_URL=wss://HOST:3121 and FAZAI_TOKEN_FILE"


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """An address at which agents can be asked: a local socket, or a daemon over TLS with a token."""

    url: str
    socket: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None

    @property
    def name(self) -> str:
        return str(self.socket) if self.socket is not None else self.url


def find_relay(environ: Mapping[str, str], *, root: bool, url: str | None = None) -> RelayAddress:
    """Return the relay at `url`, else at FAZAI_AGENTS_URL (both with FAZAI_TOKEN_FILE and FAZAI_CA_FILE),
    else at the socket beside the local daemon's, which FAZAI_URL=unix:PATH may name. Raises InputError."""
    url = url or environ.get("FAZAI_AGENTS_URL")
    if url:
        return _parse_url(url, environ)
    daemon = environ.get("FAZAI_URL", "")
    if daemon.startswith("unix:"):  # no other daemon is asked in its place
        return RelayAddress(
            "ws://agents" + _PATH, socket=Path(daemon.removeprefix("unix:")).with_name("agents.sock")
        )
    paths = [daemon_socket_path(environ, root=root).with_name("agents.sock")]
    if named_state_folder(environ) is None:
        paths.append(SYSTEM_SOCKET.with_name("agents.sock"))
    usable = (path for path in paths if _is_usable(path))
    return RelayAddress("ws://agents" + _PATH, socket=next(usable, paths[0]))


def _is_usable(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False


def _parse_url(url: str, environ: Mapping[str, str]) -> RelayAddress:
    if url.startswith("unix:"):
        return RelayAddress("ws://agents" + _PATH, socket=Path(url[len("unix:") :]))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORT
    except ValueError:
        host = ""
    if "@" in url:  # no word of it is shown: a password may stand there
        raise InputError("a daemon's address has no user and no password", hint="FAZAI_TOKEN_FILE")
    if not host or not url.startswith(("wss://", "ws://")):
        raise InputError(f"{url!r} is no address of agents", hint="wss://HOST:3121, or unix:/PATH")
    if url.startswith("ws://") and not is_loopback(host):
        raise InputError(f"a token goes to {url} in the clear", hint="use wss://")
    shown = f"[{host}]" if ":" in host else host
    file, ca = environ.get("FAZAI_TOKEN_FILE"), environ.get("FAZAI_CA_FILE")
    address = f"{parts.scheme}://{shown}:{port}{parts.path if parts.path not in ('', '/') else _PATH}"
    return RelayAddress(address, token_file=Path(file) if file else None, ca=Path(ca) if ca else None)


class AgentRelay:
    """A connection to the relay, made with the first request and again after it was lost.

    Use as an async context manager; `request` may be called by many tasks at once.
    """

    def __init__(self, address: RelayAddress) -> None:
        self.address = address
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reader, self._reader = self._reader, None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()  # deadline: its close_timeout
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})  # deadline: it was cancelled

    async def request(self, agent: str, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a message to an agent and return its answer.

        Raises Unreachable: with the stage `connect` where it was not sent, else where nobody knows what
        became of it; Refused where the agent does not do such things; DeviceError where the daemon does not
        take it.
        """
        found = await self._exchange({"agent": agent, "message": message}, agent, timeout_s)
        answer = found.get("answer")
        if isinstance(answer, dict):
            return answer
        raise _refusal(agent, found)

    async def list_agents(self, timeout_s: float) -> list[Any]:
        """Return the rows of the daemon's registry."""
        found = await self._exchange({"list": True}, self.address.name, timeout_s)
        answer = found.get("answer")
        rows = answer.get("agents") if isinstance(answer, dict) else answer
        if not isinstance(rows, list):
            raise _refusal(self.address.name, found)
        return rows

    async def _exchange(self, frame: Mapping[str, Any], where: str, timeout_s: float) -> Mapping[str, Any]:
        connection = await self._connected(where)
        number = next(self._numbers)
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[number] = waiting
        try:
            async with deadline(timeout_s):
                await connection.send(_encode({"id": number, **frame}))
                return await waiting
        except TimeoutError:
            await self._cancel(connection, frame)
            text = f"{where}: no answer through the daemon within {timeout_s:g} s"
            raise Unreachable(text, stage="answer", where=where, hint="a larger timeout:") from None
        except asyncio.CancelledError:
            await self._cancel(connection, frame)
            raise
        except _closed_error():
            raise _lost(where) from None
        finally:
            del self._open[number]
            if waiting.done() and not waiting.cancelled():
                waiting.exception()

    async def _cancel(self, connection: ClientConnection, frame: Mapping[str, Any]) -> None:
        """Have the agent end what nobody waits for any more."""
        message = frame.get("message")
        if not isinstance(message, Mapping) or "action_id" not in message:
            return
        ending = {"method": "cancel", "action_id": message["action_id"]}
        number = next(self._numbers)
        with suppress(TimeoutError, _closed_error()):
            async with deadline(_CLOSE_S):
                await connection.send(_encode({"id": number, "agent": frame["agent"], "message": ending}))

    # -- the connection ---------------------------------------------------------------------------------

    async def _connected(self, where: str) -> ClientConnection:
        async with self._lock:
            if self._connection is None:
                self._connection = await self._connect(where)
                self._reader = asyncio.ensure_future(self._read(self._connection))
            return self._connection

    async def _connect(self, where: str) -> ClientConnection:
        from websockets.asyncio.client import connect, unix_connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        address = self.address
        settings: dict[str, Any] = {
            "compression": None,
            "open_timeout": _CONNECT_S,
            "close_timeout": _CLOSE_S,
            "max_size": _MOST_BYTES,
            "max_queue": None,
            "write_limit": 1 << 20,
        }
        try:
            if address.socket is not None:
                return await unix_connect(
                    str(address.socket), address.url, **settings
                )  # deadline: open_timeout
            settings["proxy"] = None
            if address.token_file is not None:
                token = read_token_file(address.token_file)
                settings["additional_headers"] = {"Authorization": f"Bearer {token}"}
            if address.url.startswith("wss:"):
                settings["ssl"] = _tls_context(address)
            return await connect(address.url, **settings)  # deadline: open_timeout
        except InvalidStatus as error:
            said = error.response.body.decode("utf-8", "replace").strip()[:300] if error.response.body else ""
            text = f"the daemon at {address.name} does not let us ask agents: {said or error}"
            raise Refused(text, where=where, hint="FAZAI_TOKEN_FILE: a token of the role operator") from None
        except (OSError, TimeoutError, WebSocketException, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            text = f"no daemon to ask agents through at {address.name}: {why}"
            raise Unreachable(text, stage="connect", where=where, hint=_NO_DAEMON) from None

    async def _read(self, connection: ClientConnection) -> None:
        """Give answers to those who wait for them, until the connection ends."""
        try:
            while True:
                self._take(await connection.recv())  # deadline: none, it lives as long as the run
        except _closed_error():
            pass
        finally:
            if self._connection is connection:
                self._connection = None
            for waiting in self._open.values():
                if not waiting.done():
                    waiting.set_exception(_lost("the daemon"))

    def _take(self, data: str | bytes) -> None:
        try:
            frame = json.loads(data)
        except (ValueError, RecursionError):  # the daemon hands on what the agent says, and names its request
            begin = _FRAME_BEGIN.match(str(data[:64]))
            frame = {"id": int(begin.group(1)), **_UNREADABLE} if begin is not None else None
        number = frame.get("id") if isinstance(frame, dict) else None
        waiting = self._open.get(number) if isinstance(number, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)


#: How the daemon begins a frame.
_FRAME_BEGIN = re.compile(r'\{"id":([0-9]{1,15}),')
_UNREADABLE = {"code": "bad_json", "error": "the agent's answer is no JSON, or is nested too deeply"}


class Relays:
    """The connections of this process: one for each place and event loop, as long as somebody uses it."""

    def __init__(self) -> None:
        self._shared: dict[tuple[asyncio.AbstractEventLoop, RelayAddress], tuple[AgentRelay, int]] = {}

    @asynccontextmanager
    async def use(self, address: RelayAddress) -> AsyncIterator[AgentRelay]:
        """Use a connection together with others; the last one closes it."""
        key = (asyncio.get_running_loop(), address)
        relay, users = self._shared.get(key) or (AgentRelay(address), 0)
        self._shared[key] = relay, users + 1
        try:
            yield relay
        finally:
            relay, users = self._shared[key]
            self._shared[key] = relay, users - 1
            if users == 1:
                del self._shared[key]
                await relay.__aexit__(None, None, None)


def _encode(frame: Mapping[str, Any]) -> str:
    return json.dumps(frame, separators=(",", ":"))


def _closed_error() -> type[Exception]:
    from websockets.exceptions import ConnectionClosed

    return ConnectionClosed


def _lost(where: str) -> Unreachable:
    text = "the connection to the daemon was lost"
    return Unreachable(text, stage="read", where=where, hint="run it again: it looks first")


def _refusal(agent: str, frame: Mapping[str, Any]) -> FazaiError:
    """Return the error for a frame that is no answer."""
    code, text = str(frame.get("code")), str(frame.get("error") or "the daemon does not say why")[:2000]
    hint: str | None
    if code == "agent_unknown":
        hint = "was it enrolled by this name (fazai pki list), and did it ever connect?"
        return Unreachable(f"no agent: {text}", stage="connect", where=agent, hint=hint)
    if code in _NOT_SENT:
        hint = _OFFLINE if code == "agent_offline" else None
        return Unreachable(f"the agent cannot be asked: {text}", stage="connect", where=agent, hint=hint)
    if code in ("unknown_method", "forbidden", "unauthorized", "not_allowed"):
        return Refused(f"the agent cannot be asked for that: {text}", where=agent)
    if code in ("agent_lost", "timeout"):
        stage = "read" if code == "agent_lost" else "answer"
        return Unreachable(f"the agent was lost: {text}", stage=stage, where=agent)
    return DeviceError(f"the daemon does not pass it on ({code}): {text}", where=agent)


def _tls_context(address: RelayAddress) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(address.ca) if address.ca else None)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or "no certificate is in it"
        raise SecretError(f"it cannot be used: {why}", where=str(address.ca), hint="FAZAI_CA_FILE") from None
