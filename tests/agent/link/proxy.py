"""A TCP proxy on the loopback that can stop passing bytes on and closes nothing, as a cut cable does."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Passes bytes to a port; while `cut`, swallows them in both directions."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._cut = threading.Event()
        self._sockets: list[socket.socket] = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._cut.set()

    def mend(self) -> None:
        """Pass on what new connections bring."""
        self._cut.clear()

    def close(self) -> None:
        """End everything."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._sockets.append(client)
                if self._cut.is_set():
                    continue
                there = socket.create_connection(("127.0.0.1", self._to))
                self._sockets.append(there)
                for source, target in ((client, there), (there, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._cut.is_set():
                    return  # both ends stay open, and hear nothing more of each other
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
