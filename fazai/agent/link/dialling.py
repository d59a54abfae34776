"""Reaching the daemon: addresses, names, connections, and how long to wait before the next try."""

from __future__ import annotations

import errno
import os
import socket

from fazai.agent.children import Child
from fazai.agent.errors import Refused
from fazai.agent.link.errors import LinkError
from fazai.agent.link.proxy import Proxy, Tunnel, TunnelOpening
from fazai.agent.link.tls import TlsStream
from fazai.agent.loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any

    from fazai.agent.children import LifePipe
    from fazai.agent.config.settings import DaemonAddress, ProxyAddress
    from fazai.agent.loop import Loop, Timer

DEFAULT_PORT = 3121
RESOLVE_S = 5.0
CONNECT_S = 10.0
BACKOFF_FIRST_S = 1.0
BACKOFF_CAP_S = 60.0
STABLE_S = 60.0
_MAX_ADDRESSES = 8


class Address:
    """An address at which a daemon listens: `scheme` is `wss` or `https`; `proxy`: through which it is
    reached."""

    def __init__(self, scheme: str, host: str, port: int, proxy: Proxy | None = None) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.proxy = proxy
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"{scheme}://{self.authority}"
        self.path = "/southbound"

    @property
    def dialled(self) -> tuple[str, int]:
        """The host and port that the machine connects to itself."""
        return (self.host, self.port) if self.proxy is None else (self.proxy.host, self.proxy.port)

    def unreached(self, reason: str) -> LinkError:
        """Return the error for a connection that does not come about."""
        what = self.authority if self.proxy is None else f"the proxy {self.proxy.authority}"
        return LinkError("connect", f"{what} is not reached: {reason}")


def make_address(daemon: DaemonAddress, proxy: ProxyAddress | None) -> Address:
    """Return an address of the configuration, with the configuration's proxy."""
    return Address(daemon.scheme, daemon.host, daemon.port, make_proxy(proxy))


def make_proxy(proxy: ProxyAddress | None) -> Proxy | None:
    """Return the proxy of the configuration as what opens the way."""
    return None if proxy is None else Proxy(proxy.host, proxy.port, proxy.credentials)


def parse_address(url: str, proxy: Proxy | None = None) -> Address:
    """Return the address that a URL names. Raises LinkError."""
    scheme, separator, host = url.rstrip("/").partition("://")
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, str(DEFAULT_PORT)
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    usable = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536
    if not separator or scheme not in ("wss", "https") or not name or not usable or set(name) & set("/@?# "):
        raise LinkError("connect", f'"{url}" names no daemon', hint="wss://HOST:3121 or https://HOST:3121")
    return Address(scheme, name, int(port), proxy)


class Backoff:
    """The time to wait before the next try: anything from nothing to a bound that doubles with each failure
    up to a minute, so that a thousand agents do not come at once. It starts over only after a connection
    that lasted a minute."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._since: float | None = None

    def connected(self, now: float) -> None:
        """A connection stands."""
        self._since = now

    def next_delay(self, now: float) -> float:
        """A try failed, or a connection ended: return the seconds to wait."""
        since, self._since = self._since, None
        if since is not None and now - since >= STABLE_S:
            self._failures = 0
        bound = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * (1 << min(self._failures, 10)))
        self._failures += 1
        return self._random() * bound


def resolve(host: str, port: int) -> dict[str, Any]:
    """Return a host's addresses, in a form that fits through a pipe. Blocks. Raises Refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused("resolve", f"the name {host} is not known: {error.strerror or error}") from None
    return {"addresses": [[int(family), list(where)] for family, _, _, _, where in found[:_MAX_ADDRESSES]]}


def read_literal(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    """Return the address that a host's name is itself, if it is one."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(int(family), (host, port))]
    return []


class Opening:
    """One try to open a TLS connection: the name, each of its addresses, the handshake. Ends in one call of
    `on_open` with the stream or of `on_failed`."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        address: Address,
        make_context: Callable[[], ssl.SSLContext],
        *,
        on_open: Callable[[TlsStream], None],
        on_failed: Callable[[LinkError], None],
        resolve: Callable[[str, int], dict[str, Any]] = resolve,
    ) -> None:
        self._loop = loop
        self._address = address
        self._make_context = make_context
        self._on_open = on_open
        self._on_failed = on_failed
        self._child: Child | None = None
        self._socket: socket.socket | None = None
        self._stream: TlsStream | None = None
        self._timer: Timer | None = None
        self._tunnel: TunnelOpening | None = None
        self._left = read_literal(*address.dialled)
        self._done = False
        if self._left:
            self._timer = loop.later(0, self._connect_next)
        else:
            self._child = Child(
                loop,
                life,
                lambda: resolve(*address.dialled),
                self._resolved,
                deadline_s=RESOLVE_S,
            )

    def abandon(self) -> None:
        """Give it up without a call back."""
        self._done = True
        if self._child is not None:
            self._child.end()
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.abort()
        self._drop_socket()

    def _fail(self, error: LinkError) -> None:
        if not self._done:
            self._done = True
            self._drop_socket()
            self._on_failed(error)

    def _resolved(self, answer: dict[str, Any] | None, reason: str) -> None:
        overdue = self._child is not None and self._child.overdue
        self._child = None
        if self._done:
            return
        if answer is None or "addresses" not in answer:
            host = self._address.dialled[0]
            message = f"the name {host} cannot be resolved: {reason}"
            if overdue:
                message = f"the name {host} was not resolved within {RESOLVE_S:.0f} s"
            elif answer is not None:
                message = str(answer.get("error"))
            self._fail(LinkError("resolve", message))
            return
        self._left = [(int(family), tuple(where)) for family, where in answer["addresses"]]
        self._connect_next()

    def _connect_next(self) -> None:
        family, where = self._left.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex(where)
        except OSError as error:
            self._refused(error.strerror or str(error))
            return
        if code not in (0, errno.EINPROGRESS):
            self._refused(os.strerror(code))
            return
        self._timer = self._loop.later(
            CONNECT_S, lambda: self._refused(f"no answer within {CONNECT_S:.0f} s")
        )
        self._loop.watch(self._socket.fileno(), WRITE, self._on_connected)

    def _refused(self, reason: str) -> None:
        self._drop_socket()
        if self._left and not self._done:
            self._connect_next()
            return
        self._fail(self._address.unreached(reason))

    def _on_connected(self, events: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refused(os.strerror(code))
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.forget(self._socket.fileno())
        if self._address.proxy is None:
            self._begin_tls()
            return
        try:
            tunnel = Tunnel(self._address.proxy, self._address.authority)
        except LinkError as error:
            self._fail(error)
            return
        self._tunnel = TunnelOpening(
            self._loop, self._socket, tunnel, on_open=self._begin_tls, on_failed=self._fail
        )

    def _begin_tls(self) -> None:
        sock, self._socket, self._tunnel = self._socket, None, None
        assert sock is not None
        try:
            context = self._make_context()
            self._stream = TlsStream(
                self._loop, sock, context, self._address.host, on_open=self._opened, on_lost=self._fail
            )
        except LinkError as error:
            sock.close()
            self._fail(error)
        except (OSError, ValueError) as error:
            sock.close()
            self._fail(self._address.unreached(str(error)))

    def _opened(self) -> None:
        if not self._done and self._stream is not None:
            self._done = True
            self._on_open(self._stream)

    def _drop_socket(self) -> None:
        if self._tunnel is not None:
            self._tunnel.stop()
            self._tunnel = None
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
