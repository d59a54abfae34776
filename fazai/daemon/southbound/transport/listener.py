"""The port for agents and the local socket for those who ask them: what listens, and what each connection
becomes."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from websockets.http11 import Request

from fazai.daemon.http.server import HttpListener
from fazai.daemon.runs.config import AgentsConfig
from fazai.daemon.southbound.relay import make_relay
from fazai.daemon.southbound.service import Southbound
from fazai.daemon.southbound.session import AgentSession
from fazai.daemon.southbound.transport.acceptor import Acceptor, MakeProtocol, Pace, check_loop
from fazai.daemon.southbound.transport.websocket import WebSocketConnection, Work
from fazai.daemon.southbound.trust import tls_sentence
from fazai.service import systemd
from fazai.wire.base import MAX_PAYLOAD_BYTES, WireError

_STRANGERS = 512  # WebSockets before their hello
_BACKLOG = 4096  # agents that come back at once wait there


class WebSocketLink:
    """A WebSocket of an agent, and the session that it carries."""

    protocol: Literal["websocket", "http"] = "websocket"
    signed_by: str | None = None

    def __init__(self, south: Southbound, pace: Pace) -> None:
        loop = asyncio.get_running_loop()
        self._south = south
        self._loop = loop
        self._hello_s = pace.head_s
        self._deadline: asyncio.TimerHandle | None = None
        self._session: AgentSession | None = None
        self.connection = WebSocketConnection(loop, self, MAX_PAYLOAD_BYTES)
        self.address = ""
        self.certificate: bytes | None = None

    # -- as a receiver

    async def open(self, request: Request) -> tuple[int, str] | None:
        """Accept whoever comes, as hello says more; not too many who have not said it."""
        strangers = sum(not session.is_greeted for session in self._south.sessions)
        if strangers >= _STRANGERS:
            return 503, f"overloaded: {strangers} connections have not said hello yet"
        self.address = str((self.connection.transport_info("peername") or ("the local socket",))[0])
        found = self.connection.transport_info("ssl_object")
        self.certificate = found.getpeercert(True) if found is not None else None
        self._session = AgentSession(self._south.session_parts, self)
        self._south.sessions.add(self._session)
        self._deadline = self._loop.call_later(self._hello_s, self._check_greeted)
        return None

    def receive(self, message: bytes) -> Work | None:
        """Take a message."""
        assert self._session is not None
        return self._session.receive(message)

    def lose(self, reason: str) -> None:
        """Note that the connection has ended."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._session is not None:
            self._south.sessions.discard(self._session)
            self._session.lose(reason)

    def fail(self, error: BaseException) -> None:
        """Note a defect of ours."""
        self._south.report(f"a message of an agent at {self.address}: {error!r}")

    def _check_greeted(self) -> None:
        if self._session is not None and not self._session.is_greeted:
            self._session.end(WireError("timeout", f"no hello came in {self._hello_s:g} s"))

    # -- as a link

    @property
    def silent_since_s(self) -> float | None:
        """The loop's time of the last byte; None while it is not read."""
        return None if self.connection.is_held else self.connection.heard_s

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.connection.send(message)

    def reply(self, message: bytes) -> None:
        """Send an answer."""
        self.connection.send(message)

    async def answers_ping(self, timeout_s: float) -> float | None:
        """Return how long the agent took to answer a ping; None where it does not."""
        return await self.connection.answers_ping(timeout_s)

    def close(self, code: int, reason: str) -> None:
        """Close the connection with a reason."""
        self.connection.close(code, reason)

    def abort(self, reason: str) -> None:
        """Cut it off."""
        self.connection.abort(reason)


class AgentListener:
    """Listens for agents and their clients. `make_http` returns the protocol of a connection that is no
    WebSocket. `pace` may be set anew."""

    def __init__(
        self,
        south: Southbound,
        make_http: Callable[[HttpListener], asyncio.Protocol],
        pace: Pace | None = None,
    ) -> None:
        check_loop(asyncio.get_running_loop())
        self._south = south
        self._make_http = make_http
        self.pace = pace or Pace()
        self._acceptors: list[Acceptor] = []
        self._path: Path | None = None

    def open(self, config: AgentsConfig) -> list[tuple[str, int]]:
        """Listen on the port and on the local socket; return the addresses. Raises InputError."""
        self._south.trust.listener_context()  # wrong files are said before anything listens
        addresses = []
        if config.socket is not None:
            self._listen(systemd.listen(config.socket, "daemon"), self._make_local)
            self._path = config.socket
        for sock in systemd.bind(config.host, config.port, "--agents-host and --agents-port"):
            sock.listen(_BACKLOG)
            http = HttpListener(sock)
            http.loopback = False  # nobody is trusted here for being on this machine
            self._listen(sock, functools.partial(self._make, http), self._south.trust.listener_context)
            addresses.append((http.address, http.port))
        return addresses

    def _listen(
        self,
        sock: socket.socket,
        make: MakeProtocol,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._acceptors.append(
            Acceptor(sock, make, lambda: self.pace, context=context, refused=self._tls_refused)
        )

    def close(self) -> None:
        """Accept nothing more."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _make(self, http: HttpListener, path: str | None) -> asyncio.Protocol:
        if path is None:
            return self._make_http(http)
        if path == "/southbound":
            return WebSocketLink(self._south, self.pace).connection
        return make_relay(self._south.relay_parts, local=False)

    def _make_local(self, path: str | None) -> asyncio.Protocol:
        return make_relay(self._south.relay_parts, local=True)

    def _tls_refused(self, address: str, error: ssl.SSLError) -> None:
        """Announce a certificate that TLS refused, here or there; what else fails in TLS is no agent."""
        sentence = tls_sentence(error)
        if sentence is not None:
            self._south.registry.refusals["bad_certificate"] += 1
            self._south.registry.note_refusal(None, address, WireError("bad_certificate", sentence))
