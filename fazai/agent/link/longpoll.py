"""Signed HTTP as a connection: what the agent says is posted, and what it is asked is waited for with a
request that stays open. For machines whose way out lets no WebSocket through.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time

from fazai.agent.link.connection import Link, explain_refusal
from fazai.agent.link.dialling import Opening
from fazai.agent.link.errors import LinkError
from fazai.agent.link.http import ResponseReader, build_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from fazai.agent.children import LifePipe
    from fazai.agent.link.dialling import Address
    from fazai.agent.link.http import Response
    from fazai.agent.link.tls import TlsStream
    from fazai.agent.loop import Loop, Timer

POST_S = 40.0
LONGEST_POLL_S = 25.0
#: Beyond what a poll waits for by itself.
_POLL_GRACE_S = 15.0
#: As many posts wait for their turn; a long answer is cut into parts only as fast as they leave.
_MOST_WAITING = 8


def read_signing_key(path: str) -> bytes:
    """Return the key in a file that nobody else may read. Raises LinkError."""
    from fazai.agent.link.keys import check_private

    check_private(path)
    with open(path, "rb") as file:
        key = file.read(4097).rstrip(b"\r\n")
    if not 16 <= len(key) <= 4096:
        raise LinkError("bad_signature", f"{path}: expected a key of 16 to 4096 bytes")
    return key


def sign_headers(
    key: bytes, agent_id: str, method: str, path: str, body: bytes, now: float
) -> dict[str, str]:
    """Return the four headers of a signed request (SPEC.md, 3.3), each time with a new nonce."""
    stamp, nonce = str(int(now)), os.urandom(16).hex()
    text = "\n".join((stamp, nonce, method, path, hashlib.sha256(body).hexdigest())).encode()
    return {
        "X-Fazai-Agent": agent_id,
        "X-Fazai-Timestamp": stamp,
        "X-Fazai-Nonce": nonce,
        "X-Fazai-Signature": f"sha256={hmac.new(key, text, hashlib.sha256).hexdigest()}",
    }


class Signer:
    """Builds the agent's signed requests."""

    def __init__(
        self, address: Address, agent_id: str, key: bytes, now: Callable[[], float] = time.time
    ) -> None:
        self._address = address
        self._agent_id = agent_id
        self._key = key
        self._now = now

    def build(self, path: str, body: bytes) -> bytes:
        """Return a request, signed now."""
        headers = sign_headers(self._key, self._agent_id, "POST", path, body, self._now())
        return build_request("POST", self._address.authority, path, body, headers)


class HttpLane:
    """One request at a time, over a connection that is kept while the daemon keeps it, else made anew."""

    def __init__(
        self,
        loop: Loop,
        open_stream: Callable[[Callable[[TlsStream], None], Callable[[LinkError], None]], Opening],
        on_failed: Callable[[LinkError], None],
    ) -> None:
        self._loop = loop
        self._open_stream = open_stream
        self._on_failed = on_failed
        self._stream: TlsStream | None = None
        self._opening: Opening | None = None
        self._reader = ResponseReader()
        self._build: Callable[[], bytes] | None = None
        self._on_response: Callable[[Response], None] | None = None
        self._is_reused = False
        self._timer: Timer | None = None

    def adopt(self, stream: TlsStream) -> None:
        """Use a connection that stands."""
        self._opening = None
        self._stream = stream
        self._is_reused = False
        stream.on_data = self._on_data
        stream.on_lost = self._lost
        if self._build is not None:
            stream.write(self._build())

    def ask(
        self, build: Callable[[], bytes], on_response: Callable[[Response], None], timeout_s: float
    ) -> None:
        """Send a request; its answer is called back."""
        self._build, self._on_response = build, on_response
        self._reader = ResponseReader()
        late = LinkError("timeout", f"no answer within {timeout_s:.0f} s")
        self._timer = self._loop.later(timeout_s, lambda: self._fail(late))
        if self._stream is not None:
            self._stream.write(build())
        else:
            self._opening = self._open_stream(self.adopt, self._fail)

    def close(self) -> None:
        """End the connection, without a call back."""
        self._build = self._on_response = None
        self._drop()
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.abandon()
            self._opening = None

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()

    def _fail(self, error: LinkError) -> None:
        self.close()
        self._on_failed(error)

    def _on_data(self, data: bytes) -> None:
        if self._on_response is None:
            self._drop()  # nobody asked: the next request gets a connection of its own
            return
        try:
            response = self._reader.feed(data)
        except LinkError as error:
            self._fail(error)
            return
        if response is not None:
            self._answered(response)

    def _lost(self, error: LinkError) -> None:
        """The connection ended: while nothing is asked that is nothing. A request on a connection that was
        kept is repeated once on a new one, for the daemon may end a quiet one just then."""
        self._drop()
        if self._on_response is None:
            return
        response = self._reader.end()
        if response is not None:
            self._answered(response)
        elif self._is_reused:
            self._is_reused = False
            self._opening = self._open_stream(self.adopt, self._fail)
        else:
            self._fail(error)

    def _answered(self, response: Response) -> None:
        on_response, self._on_response, self._build = self._on_response, None, None
        if self._timer is not None:
            self._timer.cancel()
        if response.keep and not response.rest:
            self._is_reused = True
        else:
            self._drop()
        assert on_response is not None
        on_response(response)


class PollingLink(Link):
    """Messages over signed HTTP."""

    def __init__(
        self, signer: Signer, where: str, make_lane: Callable[[Callable[[LinkError], None]], HttpLane]
    ) -> None:
        self._signer = signer
        self._where = where
        self._posting = make_lane(self._lose)
        self._polling = make_lane(self._lose)
        self._waiting: list[bytes] = []
        self._parts: list[tuple[Iterator[bytes], Callable[[], None]]] = []
        self._is_busy = False
        self._is_closed = False
        self._poll_s = LONGEST_POLL_S

    def adopt(self, stream: TlsStream) -> None:
        """Use a connection that stands for what is posted."""
        self._posting.adopt(stream)

    def expect(self, limit_bytes: int, heartbeat_s: float) -> None:
        """The session stands: wait for requests. Answers to polls are the signs of life."""
        self._poll_s = min(LONGEST_POLL_S, heartbeat_s)
        self._poll()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._waiting.append(message)
        self._post_next()

    def send_parts(self, parts: Iterator[bytes], on_sent: Callable[[], None]) -> None:
        """Send several messages as there is room, then call back."""
        self._parts.append((parts, on_sent))
        self._post_next()

    def ping(self) -> None:
        """Do nothing: a poll is always under way."""

    def close(self, code: int, reason: str) -> None:
        """End the connection; the daemon notices that nobody polls."""
        self._is_closed = True
        self._waiting.clear()
        self._parts.clear()
        self._posting.close()
        self._polling.close()

    def _lose(self, error: LinkError) -> None:
        if not self._is_closed:
            self.close(1006, "")
            self.on_lost(error)

    def _post_next(self) -> None:
        while self._parts and len(self._waiting) < _MOST_WAITING:
            parts, on_sent = self._parts[0]
            message = next(parts, None)
            if message is None:
                self._parts.pop(0)
                on_sent()
            else:
                self._waiting.append(message)
        if self._waiting and not self._is_busy and not self._is_closed:
            self._is_busy = True
            body = self._waiting.pop(0)
            self._posting.ask(lambda: self._signer.build("/southbound", body), self._posted, POST_S)

    def _posted(self, response: Response) -> None:
        self._is_busy = False
        self._take(response)
        self._post_next()

    def _poll(self) -> None:
        if self._is_closed:
            return
        body = json.dumps({"wait_ms": int(self._poll_s * 1000)}).encode()
        self._polling.ask(
            lambda: self._signer.build("/southbound/poll", body), self._polled, self._poll_s + _POLL_GRACE_S
        )

    def _polled(self, response: Response) -> None:
        self._take(response)
        self._poll()

    def _take(self, response: Response) -> None:
        if self._is_closed:
            return
        if response.status not in (200, 204):
            self._lose(explain_refusal(response.status, response.body, self._where))
            return
        self.on_life()
        if response.body:
            self.on_message(response.body)


class PollingOpening:
    """One try to reach the daemon by signed HTTP."""

    def __init__(
        self,
        loop: Loop,
        life: LifePipe,
        address: Address,
        make_context: Callable[[], ssl.SSLContext],
        *,
        agent_id: str,
        key: bytes,
        on_open: Callable[[PollingLink], None],
        on_failed: Callable[[LinkError], None],
    ) -> None:
        def open_stream(
            on_stream: Callable[[TlsStream], None], on_lost: Callable[[LinkError], None]
        ) -> Opening:
            return Opening(loop, life, address, make_context, on_open=on_stream, on_failed=on_lost)

        def opened(stream: TlsStream) -> None:
            signer = Signer(address, agent_id, key)
            link = PollingLink(signer, address.authority, lambda failed: HttpLane(loop, open_stream, failed))
            link.adopt(stream)
            on_open(link)

        self._opening = open_stream(opened, on_failed)

    def abandon(self) -> None:
        """Give it up without a call back."""
        self._opening.abandon()
