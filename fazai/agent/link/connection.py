"""A connection to the daemon that carries messages: over a WebSocket here, over signed HTTP in `longpoll`."""

from __future__ import annotations

from fazai.agent.link.dialling import Opening
from fazai.agent.link.errors import LinkError
from fazai.agent.link.http import ResponseReader
from fazai.compat import websocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from fazai.agent.children import LifePipe
    from fazai.agent.link.dialling import Address
    from fazai.agent.link.tls import TlsStream
    from fazai.agent.loop import Loop, Timer

UPGRADE_S = 10.0
#: A long message is cut into parts only as fast as they leave.
_HIGH_WATER_BYTES = 262_144


class Link:
    """A connection, as the one who serves uses it. It calls back: `on_message` with each message,
    `on_life` at each sign of life, `on_lost` once."""

    on_message: Callable[[bytes], None]
    on_life: Callable[[], None]
    on_lost: Callable[[LinkError], None]

    def send(self, message: bytes) -> None:
        """Send one message."""
        raise NotImplementedError

    def send_parts(self, parts: Iterator[bytes], on_sent: Callable[[], None]) -> None:
        """Send several messages as there is room, then call back."""
        raise NotImplementedError

    def ping(self) -> None:
        """Ask for a sign of life."""
        raise NotImplementedError

    def expect(self, limit_bytes: int, heartbeat_s: float) -> None:
        """The daemon let the agent in: take messages up to a size, and signs of life as often."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        """End the connection, without a call back."""
        raise NotImplementedError


class WebSocketLink(Link):
    """Messages over a WebSocket that stands."""

    def __init__(self, stream: TlsStream, limit_bytes: int) -> None:
        self._stream = stream
        self._frames = websocket.FrameReader(limit_bytes)
        self._parts: list[tuple[Iterator[bytes], Callable[[], None]]] = []
        stream.on_data = self.feed
        stream.on_lost = self._lost
        stream.on_drained = self._send_more

    def expect(self, limit_bytes: int, heartbeat_s: float) -> None:
        """Take messages up to a size."""
        self._frames.limit_bytes = limit_bytes

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._stream.write(websocket.build_text(message))

    def send_parts(self, parts: Iterator[bytes], on_sent: Callable[[], None]) -> None:
        """Send several messages as there is room, then call back."""
        self._parts.append((parts, on_sent))
        self._send_more()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._stream.write(websocket.build_frame(websocket.PING, b""))

    def close(self, code: int, reason: str) -> None:
        """Say why, and end the connection."""
        self._parts.clear()
        self._stream.write(websocket.build_close(code, reason))
        self._stream.close()

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""
        self.on_life()
        try:
            events = self._frames.feed(data)
        except websocket.FrameError as error:
            self.close(error.code, error.message)
            self.on_lost(LinkError("protocol", f"the daemon broke the protocol: {error.message}"))
            return
        for event in events:
            if event.kind == websocket.TEXT:
                self.on_message(event.data)
            elif event.kind == websocket.PING:
                self._stream.write(websocket.build_frame(websocket.PONG, event.data))
            elif event.kind == websocket.CLOSE:
                self._closed(event)

    def _closed(self, event: websocket.Event) -> None:
        self.close(1000 if event.code == websocket.NO_STATUS else event.code, "")
        self.on_lost(explain_close(event.code, event.data.decode()))

    def _lost(self, error: LinkError) -> None:
        self._parts.clear()
        self.on_lost(error)

    def _send_more(self) -> None:
        while self._parts and self._stream.waiting_bytes < _HIGH_WATER_BYTES:
            parts, on_sent = self._parts[0]
            message = next(parts, None)
            if message is None:
                self._parts.pop(0)
                on_sent()
            else:
                self._stream.write(websocket.build_text(message))


def explain_close(code: int, reason: str) -> LinkError:
    """Return why the daemon closed the connection. A refusal says `CODE: sentence`."""
    name, colon, sentence = reason.partition(": ")
    if code == websocket.POLICY and colon and name.replace("_", "").isalpha():
        return LinkError(name, sentence)
    shown = f": {reason}" if reason else ""
    return LinkError("closed", f"the daemon closed the connection with {code}{shown}")


class WebSocketOpening:
    """One try to open a WebSocket to the daemon."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        address: Address,
        make_context: Callable[[], ssl.SSLContext],
        *,
        limit_bytes: int,
        on_open: Callable[[WebSocketLink], None],
        on_failed: Callable[[LinkError], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._limit_bytes = limit_bytes
        self._on_open = on_open
        self._on_failed = on_failed
        self._key = websocket.new_key()
        self._response = ResponseReader()
        self._stream: TlsStream | None = None
        self._timer: Timer | None = None
        self._opening = Opening(
            loop, life, address, make_context, on_open=self._upgrade, on_failed=self._on_failed
        )

    def abandon(self) -> None:
        """Give it up without a call back."""
        self._opening.abandon()
        self._stop()
        if self._stream is not None:
            self._stream.abort()

    def _upgrade(self, stream: TlsStream) -> None:
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_lost = self._fail
        self._timer = self._loop.later(UPGRADE_S, self._time_out)
        stream.write(websocket.upgrade_request(self._address.authority, self._address.path, self._key))

    def _time_out(self) -> None:
        self._fail(LinkError("timeout", f"{self._address.authority} did not open a WebSocket in time"))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: LinkError) -> None:
        self._stop()
        if self._stream is not None:
            self._stream.abort()
        self._on_failed(error)

    def _on_data(self, data: bytes) -> None:
        assert self._stream is not None
        try:
            response = self._response.feed(data)
            if response is None:
                return
            if response.status != 101:
                raise explain_refusal(response.status, response.body, self._address.authority)
            websocket.check_upgrade(response.status, response.headers, self._key)
        except LinkError as error:
            self._fail(error)
            return
        except websocket.FrameError as error:
            self._fail(LinkError("protocol", error.message))
            return
        self._stop()
        link = WebSocketLink(self._stream, self._limit_bytes)
        self._on_open(link)
        if response.rest:
            link.feed(response.rest)


def explain_refusal(status: int, body: bytes, where: str) -> LinkError:
    """Return what an HTTP answer other than the expected one means."""
    from fazai.agent.errors import Refused
    from fazai.agent.messages import read_message

    try:
        found = read_message(body)
    except Refused:
        found = {}
    code, error = found.get("code"), found.get("error")
    shown = error if isinstance(error, str) else f"status {status}"
    return LinkError(code[:64] if isinstance(code, str) else "protocol", f"{where} refused: {shown}"[:500])
