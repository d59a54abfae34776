"""The way through an HTTP proxy: the method CONNECT, and from then on a connection as any other.

The proxy is the one that agent.yml names; no variable of the environment is read. It sees the daemon's name
and port, and the bytes of TLS, which it can neither read nor change.
"""

from __future__ import annotations

import base64
import os
import socket
import time

from fazai.agent.link.errors import LinkError
from fazai.agent.link.http import MAX_HEAD_BYTES, parse_head
from fazai.agent.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from fazai.agent.loop import Loop, Timer

#: What the proxy may take from the request to its answer: it dials the daemon in this time.
TUNNEL_S = 15.0
_MOST_BYTES = 4096
#: What a status means to the one who runs the agent.
_STATUSES = {
    403: "it does not allow that",
    404: "it does not know that host",
    405: "it allows no CONNECT",
    502: "it does not reach the daemon",
    503: "it does not reach the daemon",
    504: "the daemon did not answer it in time",
}


class Proxy:
    """An HTTP proxy. `credentials`: the file with `USER:PASSWORD`, where it wants such."""

    def __init__(self, host: str, port: int, credentials: str | None = None) -> None:
        self.host = host
        self.port = port
        self.credentials = credentials
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Tunnel:
    """The request to a proxy for a way to `authority`, and the reading of its answer."""

    def __init__(self, proxy: Proxy, authority: str) -> None:
        """Make the request. Raises LinkError where the proxy's credentials cannot be had."""
        self._proxy = proxy
        self._authority = authority
        self._head = bytearray()
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if proxy.credentials is not None:
            word = base64.b64encode(read_credentials(proxy.credentials)).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {word}")
        self.request = "\r\n".join([*lines, "", ""]).encode("ascii")

    def feed(self, data: bytes) -> bool:
        """Take what arrived; returns whether the way is open. Raises LinkError where it is not to be."""
        if not data:
            raise self.error("it closed the connection")
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if max(end, len(self._head) if end < 0 else 0) > MAX_HEAD_BYTES:
            raise self.error(f"the head of its answer is over {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        try:
            status, _, _ = parse_head(bytes(self._head[:end]))
        except LinkError as error:
            raise self.error(error.message, "is that an HTTP proxy?") from None
        if 200 <= status < 300:
            if len(self._head) > end + 4:  # a daemon says nothing before it was spoken to
                raise self.error("it says more than its answer", "is that an HTTP proxy?")
            return True
        if status == 407:
            given = self._proxy.credentials
            why = f"it does not take those in {given}" if given else "`proxy_credentials` names none"
            raise self.error(f"it wants a user and a password, and {why}")
        raise self.error(f"{_STATUSES.get(status, 'it refuses')} (status {status})")

    def error(self, reason: str, hint: str | None = None) -> LinkError:
        """Return the error for a way that does not open."""
        text = f"the proxy {self._proxy.authority} does not lead to {self._authority}: {reason}"
        return LinkError("connect", text, hint=hint)

    def late(self) -> LinkError:
        """Return the error for a proxy that does not answer."""
        return self.error(f"no answer within {TUNNEL_S:.0f} s")


def read_credentials(path: str) -> bytes:
    """Return `USER:PASSWORD` from a file that nobody else may read. Raises LinkError, which shows none of
    it."""
    try:
        # without O_NONBLOCK a pipe would be waited for
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = (file.read(_MOST_BYTES + 1) or b"").rstrip(b"\r\n")
    except OSError as error:
        raise LinkError(
            "connect", f"{path}: the credentials of the proxy cannot be read: {error.strerror}"
        ) from None
    if mode & 0o077:
        text = f"{path}: others may read the credentials of the proxy (mode {mode:04o})"
        raise LinkError("connect", text, hint=f"chmod 600 {path}")
    user, colon, _ = data.partition(b":")
    if not colon or not user or len(data) > _MOST_BYTES or any(byte < 32 or byte == 127 for byte in data):
        raise LinkError("connect", f"{path}: this is no line USER:PASSWORD, for the proxy")
    return data


class TunnelOpening:
    """One try to have a proxy open the way over a connected socket that does not block. Ends in one call of
    `on_open` or of `on_failed`; the socket is the caller's."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        tunnel: Tunnel,
        *,
        on_open: Callable[[], None],
        on_failed: Callable[[LinkError], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._tunnel = tunnel
        self._out = tunnel.request
        self._on_open = on_open
        self._on_failed = on_failed
        self._timer: Timer | None = loop.later(TUNNEL_S, lambda: self._fail(tunnel.late()))
        loop.watch(sock.fileno(), WRITE, self._on_ready)

    def stop(self) -> None:
        """End it without a call back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.forget(self._socket.fileno())

    def _fail(self, error: LinkError) -> None:
        self.stop()
        self._on_failed(error)

    def _on_ready(self, events: int) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out) :]
                if not self._out:
                    self._loop.watch(self._socket.fileno(), READ, self._on_ready)
                return
            is_open = self._tunnel.feed(self._socket.recv(MAX_HEAD_BYTES))
        except BlockingIOError:
            return
        except LinkError as error:
            self._fail(error)
            return
        except OSError as error:
            self._fail(self._tunnel.error(error.strerror or str(error)))
            return
        if is_open:
            self.stop()
            self._on_open()


def open_tunnel(sock: socket.socket, tunnel: Tunnel) -> None:
    """Have a proxy open the way over a connected socket. Blocks. Raises LinkError."""
    deadline, before = time.monotonic() + TUNNEL_S, sock.gettimeout()
    try:
        sock.settimeout(TUNNEL_S)
        sock.sendall(tunnel.request)
        is_open = False
        while not is_open:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise tunnel.late()
            sock.settimeout(left_s)
            is_open = tunnel.feed(sock.recv(MAX_HEAD_BYTES))
    except socket.timeout:
        raise tunnel.late() from None
    except OSError as error:
        raise tunnel.error(error.strerror or str(error)) from None
    sock.settimeout(before)
