"""Proxies on the loopback: what listens, and one that can stop passing bytes on and closes nothing, as a cut
cable does."""

from __future__ import annotations

import contextlib
import socket
import threading


class Listener:
    """Serves each connection to a port of its own in a thread."""

    def __init__(self, port: int) -> None:
        """`port`: where it leads to."""
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End everything."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def dial(self) -> socket.socket:
        """Connect to where it leads."""
        there = socket.create_connection(("127.0.0.1", self._to))
        self._sockets.append(there)
        return there

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve_quietly, args=(client,), daemon=True).start()

    def _serve_quietly(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        """Serve one connection."""
        raise NotImplementedError


class Proxy(Listener):
    """Passes bytes to a port; while `cut`, swallows them in both directions."""

    def __init__(self, port: int) -> None:
        self._cut = threading.Event()
        super().__init__(port)

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._cut.set()

    def mend(self) -> None:
        """Pass on what new connections bring."""
        self._cut.clear()

    def serve(self, client: socket.socket) -> None:
        """Pass on both ways."""
        if not self._cut.is_set():
            self.join(client, self.dial())

    def join(self, client: socket.socket, there: socket.socket) -> None:
        """Pass on both ways, to the end."""
        threading.Thread(target=self._pass_on, args=(there, client), daemon=True).start()
        self._pass_on(client, there)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._cut.is_set():
                    return  # both ends stay open, and hear nothing more of each other
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
