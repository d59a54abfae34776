"""Accepts the connections of one port at a pace that leaves the event loop to others (A1 of the field's
requirements): when a thousand agents come back at once, they wait in the kernel's queue, not in the loop.

Each connection is a WebSocket or an HTTP request, as its first bytes say.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fazai.errors import UsageError

_WEBSOCKETS = (b"GET /southbound ", b"GET /southbound/relay ")
_SHUTDOWN_S = 2.0  # of TLS

#: Makes the protocol of a connection by the path of its WebSocket; None: it is plain HTTP.
MakeProtocol = Callable[[str | None], asyncio.Protocol]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The pace at which connections are accepted: `at_once` in each `pause_s`, while fewer than `fresh` are
    in a TLS handshake that began less than `fresh_s` ago: a loop that has many answers to work off at a time
    answers nobody else meanwhile. `unfinished` may be without their first request, each for `head_s`."""

    at_once: int = 8
    pause_s: float = 0.02
    fresh: int = 16
    fresh_s: float = 1.0
    unfinished: int = 512
    head_s: float = 10.0


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse a loop on which a thousand TLS connections do not fit into memory. Raises UsageError."""
    if type(loop).__module__.partition(".")[0] != "uvloop":
        raise UsageError(
            f"the port for agents needs uvloop, and this event loop is {type(loop).__name__}",
            hint="asyncio's own keeps 256 KiB for each TLS connection; start it with: fazai daemon",
        )


class Acceptor:
    """Accepts the connections of one listening socket. `context` is asked for each connection, so that new
    files hold from the next one on; None: no TLS. `refused` is told the address and the reason where TLS
    failed."""

    def __init__(
        self,
        sock: socket.socket,
        make: MakeProtocol,
        pace: Callable[[], Pace],
        *,
        context: Callable[[], ssl.SSLContext] | None,
        refused: Callable[[str, ssl.SSLError], object],
    ) -> None:
        self._sock = sock
        self._make = make
        self._pace = pace
        self._context = context
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._opening: dict[asyncio.Task[None], float] = {}  # since when
        self._unsure: dict[FirstBytes, None] = {}
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._accept_some)

    @property
    def unfinished(self) -> int:
        """The number of connections that have not said what they are."""
        return len(self._opening) + len(self._unsure)

    def close(self) -> None:
        """Accept nothing more, and drop what is not open yet."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._opening:
            task.cancel()
        for one in list(self._unsure):
            one.drop()
        self._sock.close()

    def _accept_some(self) -> None:
        for _ in range(self._room()):
            try:
                conn, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # such as too many open files: some will be closed
                break
            conn.setblocking(False)
            task = self._loop.create_task(self._open(conn, _name_of(address)))
            self._opening[task] = self._loop.time()
            task.add_done_callback(self._opening.pop)
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(self._pace().pause_s, self._go_on)

    def _room(self) -> int:
        """Return how many connections may be accepted now. Handshakes that are slow do not hold up others."""
        pace = self._pace()
        begun_s = self._loop.time() - pace.fresh_s
        fresh = sum(since_s > begun_s for since_s in self._opening.values())
        return max(0, min(pace.at_once, pace.fresh - fresh, pace.unfinished - self.unfinished))

    def _go_on(self) -> None:
        self._loop.add_reader(self._sock, self._accept_some)

    async def _open(self, conn: socket.socket, address: str) -> None:
        context = self._context() if self._context is not None else None
        more = {} if context is None else {"ssl_shutdown_timeout": _SHUTDOWN_S}
        if conn.family != socket.AF_UNIX:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(
                lambda: FirstBytes(self._loop, self._make, self._unsure, self._pace().head_s),
                conn,
                ssl=context,
                ssl_handshake_timeout=self._pace().head_s if context is not None else None,
                **more,
            )
        except ssl.SSLError as error:
            self._refused(address, error)
        except OSError:  # it went away, or said nothing
            pass
        finally:
            with contextlib.suppress(OSError):
                if self._closed:
                    conn.close()


class FirstBytes(asyncio.Protocol):
    """Looks at the first bytes of a connection, and hands it to the protocol that they are for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: MakeProtocol,
        unsure: dict[FirstBytes, None],
        head_s: float,
    ) -> None:
        self._make = make
        self._unsure = unsure
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._deadline = loop.call_later(head_s, self.drop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._unsure[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def data_received(self, data: bytes) -> None:
        self._data += data
        path = _path_of(self._data)
        if path is None and any(start.startswith(self._data) for start in _WEBSOCKETS):
            return  # it may become either
        transport = self._transport
        assert transport is not None
        self._forget()
        protocol = self._make(path)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._data)

    def drop(self) -> None:
        """Cut off a connection that did not say what it is."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        self._deadline.cancel()
        self._unsure.pop(self, None)


def _path_of(data: bytes) -> str | None:
    for start in _WEBSOCKETS:
        if data.startswith(start):
            return start.split()[1].decode()
    return None


def _name_of(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) else "the local socket"
