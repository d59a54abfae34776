"""A daemon's end of the southbound contract, written from SPEC.md: a TLS listener, each WebSocket in the
hands of the test, and HTTP beside it."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.agent.link.authority import Authority, Pair

#: What answers a POST: of body and headers; None: the connection ends without an answer.
Post = Callable[[dict[str, Any], dict[str, str]], "tuple[HTTPStatus, dict[str, Any] | None] | None"]

WAIT_S = 60.0
POLICY = {
    "timeouts": {"exec": 60_000, "apply": 60_000},
    "max_payload": 65_536,
    "max_output": 262_144,
    "heartbeat_ms": 15_000,
    "max_message": 4 * 1024 * 1024,
    "ack": True,
}


class Closed(Exception):
    """The agent ended the connection; 1006 where it did so without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Peer:
    """One connection of an agent; the test is the daemon."""

    def __init__(self, sock: ssl.SSLSocket, protocol: ServerProtocol) -> None:
        self._socket = sock
        self._protocol = protocol
        self._lock = threading.Lock()
        self._messages: queue.Queue[dict[str, Any] | Closed] = queue.Queue()

    def serve(self) -> None:
        """Read until the connection ends."""
        whole = b""
        with contextlib.suppress(OSError, ValueError):
            while True:
                if not self._socket.pending():
                    select.select([self._socket], [], [])
                with self._lock:  # OpenSSL does not read and write one connection in two threads at once
                    data = self._socket.recv(65_536)
                    if data:
                        self._protocol.receive_data(data)
                        self._flush()
                    events = self._protocol.events_received()
                if not data:
                    break
                for event in events:
                    if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                        whole += bytes(event.data)
                        if event.fin:
                            self._messages.put(json.loads(whole))
                            whole = b""
        close = self._protocol.close_rcvd
        self._messages.put(Closed(close.code, close.reason) if close else Closed(1006, ""))

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            for data in self._protocol.data_to_send():
                if data:
                    self._socket.sendall(data)
                else:
                    self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> dict[str, Any]:
        """Return the next message. Raises Closed."""
        found = self._messages.get(timeout=WAIT_S)
        if isinstance(found, Closed):
            self._messages.put(found)
            raise found
        return found

    def receive_whole(self) -> dict[str, Any]:
        """Return the next message, joined where it comes in parts."""
        message, joined, index = self.receive(), b"", 0
        while message.get("method") == "part":
            assert message["index"] == index
            index += 1
            joined += base64.b64decode(message["data"], validate=True)
            if message["last"]:
                whole: dict[str, Any] = json.loads(joined)
                assert whole["action_id"] == message["action_id"]
                return whole
            message = self.receive()
        return message

    def send(self, message: object) -> None:
        """Send a message, or a text as it is."""
        text = message if isinstance(message, str) else json.dumps(message)
        with self._lock:
            self._protocol.send_text(text.encode())
            self._flush()

    def flood(self, message: dict[str, Any], *, seconds: float) -> None:
        """Send a message again and again, and read nothing, until the other side gives the connection up."""
        text = json.dumps(message).encode()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # the kernel shall not hold all answers for us
            self._socket.setsockopt(socket.SOL_SOCKET, option, 65_536)
        with self._lock:  # which keeps `serve` from reading
            self._socket.settimeout(seconds)
            limit = time.monotonic() + seconds
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                while time.monotonic() < limit:
                    for _ in range(200):
                        self._protocol.send_text(text)
                    self._socket.sendall(b"".join(self._protocol.data_to_send()))
                raise AssertionError("everything was read")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the next message, which should answer it."""
        self.send(request)
        return self.receive_whole()

    def exec(self, action_id: str, command: str, *args: str, **more: Any) -> dict[str, Any]:
        """Ask for a program, and return the answer."""
        return self.ask(
            **{
                "method": "command.exec",
                "action_id": action_id,
                "command": command,
                "args": args,
                "timeout": 30_000,
                **more,
            }
        )

    def hello(self, **policy: Any) -> dict[str, Any]:
        """Take hello and let the agent in; returns hello."""
        found = self.receive()
        assert found["method"] == "hello"
        self.send({"ok": True, "policy": {**POLICY, **policy}, "contract": "1.1"})
        return found

    def refuse(self, code: str, error: str) -> None:
        """Take hello and refuse it, as SPEC.md says: an answer, then a close with the reason."""
        self.receive()
        self.send({"ok": False, "code": code, "error": error})
        self.close(1008, f"{code}: {error}")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection."""
        with self._lock, contextlib.suppress(OSError):
            if self._protocol.close_sent is None and not self._protocol.eof_sent:
                self._protocol.send_close(CloseCode(code) if code in set(CloseCode) else code, reason)
                self._flush()

    def wait_closed(self) -> tuple[int, str]:
        """Wait until the agent ended the connection; returns its code and reason, 1006 for none."""
        try:
            while True:
                self.receive()
        except Closed as closed:
            return closed.code, closed.reason

    def certificate(self) -> dict[str, Any]:
        """Return the agent's certificate."""
        return dict(self._socket.getpeercert() or {})

    def end(self) -> None:
        """Drop the connection without a word."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Daemon:
    """A listener on a free port of the loopback. `posts` answer HTTP; `clock_s` is how wrong its clock is."""

    def __init__(
        self,
        authority: Authority,
        *,
        pair: Pair | None = None,
        port: int = 0,
        posts: dict[str, Post] | None = None,
        clock_s: float = 0.0,
    ) -> None:
        pair = pair or authority.listener()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._context.load_verify_locations(authority.file)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._posts = posts or {}
        self._clock_s = clock_s
        self._peers: queue.Queue[Peer] = queue.Queue()
        self._sockets: list[socket.socket] = []
        self.requests: list[str] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        """Take one connection: a POST, or a WebSocket."""
        self._sockets.append(plain)
        plain.settimeout(WAIT_S)
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as sock:
            self._sockets.append(sock)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    if not (more := sock.recv(65_536)):
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
                self.requests.append(path)
                if "upgrade" in headers:
                    self._open(sock, head + b"\r\n\r\n")
                    return
                size = int(headers.get("content-length", 0))
                while len(data) < size:
                    data += sock.recv(65_536)
                body, data = data[:size], data[size:]
                if not self._answer(sock, method, path, headers, body):
                    return

    def _answer(
        self, sock: ssl.SSLSocket, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> bool:
        """Answer an HTTP request; returns whether the connection stays."""
        found: tuple[HTTPStatus, dict[str, Any] | None] | None
        if (method, path) == ("GET", "/southbound/time"):
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self._clock_s))
            found = HTTPStatus.OK, {"ok": True, "time": now}
        elif method == "POST" and path in self._posts:
            headers[":body"] = body.decode()
            found = self._posts[path](json.loads(body), headers)
        else:
            found = HTTPStatus.NOT_FOUND, {"ok": False, "code": "not_found", "error": "no such route"}
        if found is None:
            return False
        answer = b"" if found[1] is None else json.dumps(found[1]).encode()
        length = f"Content-Length: {len(answer)}\r\n" if found[1] is not None else ""
        keep = headers.get("connection", "").lower() != "close"
        sock.sendall(
            f"HTTP/1.1 {found[0].value} {found[0].phrase}\r\n{length}"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + answer
        )
        return keep

    def _open(self, sock: ssl.SSLSocket, head: bytes) -> None:
        protocol = ServerProtocol(max_size=16 * 1024 * 1024)
        protocol.receive_data(head)
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        peer = Peer(sock, protocol)
        peer._flush()
        self._peers.put(peer)
        peer.serve()

    def accept(self) -> Peer:
        """Return the next connection of an agent."""
        return self._peers.get(timeout=WAIT_S)

    def has_more(self) -> bool:
        """Return whether another connection waits to be accepted."""
        return not self._peers.empty()

    def stop(self) -> None:
        """End the listener and all connections."""
        for sock in [self._server, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
