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
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fazai.compat.language import dataclass
from fazai.compat.timeouts import deadline
from fazai.compat.websocket import FrameError
from fazai.config import SYSTEM_SOCKET, daemon_socket_path, is_loopback, named_state_folder
from fazai.errors import (
    Cancelled,
    DeviceError,
    FazaiError,
    InputError,
    NotAvailable,
    Refused,
    SecretError,
    Unreachable,
)
from fazai.files import read_token_file
from fazai.providers.hosts.remote.asking import SharedMessages

if TYPE_CHECKING:
    from typing import Self

    from fazai.providers.hosts.remote.connection import RelayConnection

_PATH: Final = "/southbound/relay"
_PORT: Final = 3121
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 2.0
#: A message of 64 MiB, as the contract has it, and what stands around it.
_MOST_BYTES: Final = 72 * 1024 * 1024
#: Lists of resources of which the JSON is kept.
_LISTS: Final = 64
_SENT_BYTES: Final = 64 * 1024 * 1024
#: Codes with which the daemon says that an agent was not asked.
_NOT_SENT: Final = frozenset(("agent_unknown", "agent_offline", "overloaded", "unavailable"))
_OFFLINE: Final = "its log and STATE/status on that machine say more; when it is back: run it again"
_BUSY: Final = "it is busy: run it again when it has done what waits; fazai agents list"
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
        return _parse_url(url, environ.get("FAZAI_TOKEN_FILE"), environ.get("FAZAI_CA_FILE"))
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


@lru_cache(maxsize=16)
def _parse_url(url: str, token_file: str | None, ca: str | None) -> RelayAddress:
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
    address = f"{parts.scheme}://{shown}:{port}{parts.path if parts.path not in ('', '/') else _PATH}"
    return RelayAddress(
        address, token_file=Path(token_file) if token_file else None, ca=Path(ca) if ca else None
    )


class AgentRelay:
    """A connection to the relay, made with the first request and again after it was lost.

    Use as an async context manager; `request` may be called by many tasks at once. `ping_s`: how often a
    daemon that says nothing is pinged.
    """

    def __init__(self, address: RelayAddress, *, ping_s: float = 20.0) -> None:
        self.address = address
        self._ping_s = ping_s
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._connection: RelayConnection | None = None
        self._encoded: dict[int, tuple[object, str]] = {}  # lists of resources that many are asked about
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(_CLOSE_S)

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
        number = next(self._numbers)
        data = self._encode({"id": number, **frame})
        if len(data) > _SENT_BYTES:  # the daemon would end the connection of all
            text = (
                f"a message of {len(data) >> 20} MiB is longer than an agent takes ({_SENT_BYTES >> 20} MiB)"
            )
            hint = "a file of up to 47 MiB fits; a larger one: host.download, or over SSH"
            raise NotAvailable(text, where=where, hint=hint)
        connection = await self._connected(where)
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[number] = waiting
        try:
            async with deadline(timeout_s):
                await connection.send(data)
                return await waiting
        except TimeoutError:
            await self._cancel(connection, frame)
            text = f"{where}: no answer through the daemon within {timeout_s:g} s"
            raise Unreachable(text, stage="answer", where=where, hint="a larger timeout:") from None
        except asyncio.CancelledError:
            await self._cancel(connection, frame)
            raise
        except ConnectionError:
            raise _lost(where) from None
        finally:
            del self._open[number]
            if waiting.done() and not waiting.cancelled():
                waiting.exception()

    async def _cancel(self, connection: RelayConnection, frame: Mapping[str, Any]) -> None:
        """Have the agent end what nobody waits for any more."""
        message = frame.get("message")
        if not isinstance(message, Mapping) or "action_id" not in message:
            return
        ending = {"method": "cancel", "action_id": message["action_id"]}
        number = next(self._numbers)
        with suppress(TimeoutError, ConnectionError):
            async with deadline(_CLOSE_S):
                question = {"id": number, "agent": frame["agent"], "message": ending}
                await connection.send(self._encode(question))

    def _encode(self, frame: Mapping[str, Any]) -> bytes:
        """Return a frame as JSON. A list of resources that was sent before is not encoded again."""
        message = frame.get("message")
        resources = message.get("resources") if isinstance(message, Mapping) else None
        if not resources or not isinstance(message, Mapping):
            return _ENCODER.encode(frame).encode()
        known = self._encoded.get(id(resources))
        if known is None:
            known = self._encoded[id(resources)] = resources, _ENCODER.encode(resources)
            if len(self._encoded) > _LISTS:
                del self._encoded[next(iter(self._encoded))]
        rest = {name: value for name, value in message.items() if name != "resources"}
        text = _ENCODER.encode({**frame, "message": rest})
        return f'{text[:-2]},"resources":{known[1]}}}}}'.encode()

    # -- the connection ---------------------------------------------------------------------------------

    async def _connected(self, where: str) -> RelayConnection:
        if self._connection is not None:
            return self._connection
        async with self._lock:
            if self._connection is None:
                self._connection = await self._connect(where)
            return self._connection

    async def _connect(self, where: str) -> RelayConnection:
        from fazai.providers.hosts.remote.connection import RelayConnection, UpgradeRefused

        address, loop = self.address, asyncio.get_running_loop()
        parts = urlsplit(address.url)
        made = RelayConnection(_MOST_BYTES, self._take, lambda: self._lose(made), self._ping_s)
        headers = []
        if address.token_file is not None:
            headers.append(f"Authorization: Bearer {read_token_file(address.token_file)}")
        context = _tls_context(address) if parts.scheme == "wss" else None
        try:
            async with deadline(_CONNECT_S):
                if address.socket is not None:
                    await loop.create_unix_connection(lambda: made, str(address.socket))
                else:
                    host, port = str(parts.hostname), parts.port or _PORT
                    await loop.create_connection(lambda: made, host, port, ssl=context)
                await made.open(parts.netloc, parts.path, *headers)
        except UpgradeRefused as refused:
            text = f"the daemon at {address.name} does not let us ask agents: {refused}"
            raise Refused(text, where=where, hint="FAZAI_TOKEN_FILE: a token of the role operator") from None
        except (OSError, TimeoutError, FrameError) as error:
            why = getattr(error, "strerror", None) or str(error) or f"no answer within {_CONNECT_S:g} s"
            made.abort()
            text = f"no daemon to ask agents through at {address.name}: {why}"
            raise Unreachable(text, stage="connect", where=where, hint=_NO_DAEMON) from None
        return made

    def _lose(self, connection: RelayConnection) -> None:
        """Tell all who wait that the connection has ended."""
        if self._connection is connection:
            self._connection = None
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(_lost("the daemon"))

    def _take(self, data: bytes) -> None:
        """Give an answer to who waits for it."""
        try:
            frame = json.loads(data)
        except (ValueError, RecursionError):  # the daemon hands on what the agent says, and names its request
            begin = _FRAME_BEGIN.match(data[:64])
            frame = {"id": int(begin.group(1)), **_UNREADABLE} if begin is not None else None
        number = frame.get("id") if isinstance(frame, dict) else None
        waiting = self._open.get(number) if isinstance(number, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
#: How the daemon begins a frame.
_FRAME_BEGIN = re.compile(rb'\{"id":([0-9]{1,15}),')
_UNREADABLE = {"code": "bad_json", "error": "the agent's answer is no JSON, or is nested too deeply"}


class Relays:
    """The connections of this process: one for each place and event loop, as long as somebody uses it.
    `shared`: what their users have in common meanwhile."""

    def __init__(self) -> None:
        self.shared = SharedMessages()
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
                if not self._shared:
                    self.shared = SharedMessages()
                await relay.__aexit__(None, None, None)


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
        hint = _OFFLINE if code == "agent_offline" else _BUSY if code == "overloaded" else None
        return Unreachable(f"the agent cannot be asked: {text}", stage="connect", where=agent, hint=hint)
    if code == "cancelled":
        return Cancelled(f"it was taken back before it was sent: {text}", where=agent)
    if code in ("unknown_method", "forbidden", "unauthorized", "not_allowed"):
        hint = (
            "its own agent.yml says what it does (reconcile:, files:); there: fazai agent check, then SIGHUP"
        )
        return Refused(f"the agent cannot be asked for that: {text}", where=agent, hint=hint)
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
