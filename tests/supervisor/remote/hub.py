"""The other end of the small agent: a CA of ours that issues to it, a registry, `GET /agents/{id}`."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import socketserver
import ssl
import threading
import zipfile
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fazai.errors import FazaiError
from fazai.pki import Enrolments, PeerChecker
from fazai.pki.administration import Maker
from fazai.store.factory import open_certificates

__all__ = ["Hub", "build_agent"]


@cache
def build_agent(version: str, behaviour: str = "good") -> bytes:
    """Pack the small agent as a single file."""
    text = (Path(__file__).parent / "small_agent.py").read_text()
    text = text.replace("@VERSION@", version).replace("@BEHAVIOUR@", behaviour)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("__main__.py", text), ("fazai/__init__.py", f'__version__ = "{version}"\n')):
            archive.writestr(zipfile.ZipInfo(name), content)
    return b"#!/usr/bin/env python3\n" + packed.getvalue()


class Hub:
    """Serves agents and the registry. `refuses`: versions that it does not accept; `seen`: all that agents
    sent, as it came."""

    def __init__(self, state: Path, secrets: Path) -> None:
        secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.authority, _ = Maker(secrets / "pki").make_ca()
        self.state, self.refuses, self.seen = state, set[str](), list[str]()
        self.rows: dict[str, dict[str, Any]] = {}
        self.hellos: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []

    @contextlib.contextmanager
    def serve(self) -> Iterator[Hub]:
        hub = self

        class Agents(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                hub.serve_agent(self.request, self.rfile)

        class Registry(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                row = hub.rows.get(self.path.rpartition("/")[2])
                body = {"ok": True, "agent": row} if row else {"ok": False, "error": "there is no such agent"}
                data = json.dumps(body).encode()
                self.send_response(200 if row else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:  # a run's events
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        with (
            Server(("127.0.0.1", 0), Agents) as agents,
            ThreadingHTTPServer(("127.0.0.1", 0), Registry) as api,
        ):
            api.daemon_threads = True
            self.port, self.url = agents.server_address[1], f"http://127.0.0.1:{api.server_address[1]}"
            for server in (agents, api):
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield self
            finally:
                for server in (agents, api):
                    server.shutdown()
                self.cut()

    def serve_agent(self, connection: socket.socket, lines: Any) -> None:
        line = lines.readline()
        self.seen.append(line.decode())
        try:
            message = json.loads(line)
        except ValueError:
            return
        answer = self._enrol(message) if "enrol" in message else self._hello(message)
        if "hello" not in message or "error" in answer:
            connection.sendall(json.dumps(answer).encode() + b"\n")
            return
        name = message["hello"]
        with self._lock:
            self.hellos.append((name, message["version"]))
            row = {
                "agent_id": name,
                "name": name,
                "protocol": "websocket",
                "state": "observation",
                "since": f"2026-01-01T00:00:00.{len(self.hellos):06d}Z",
                "version": message["version"],
                "latency_ms": 1.5,
            }
            self.rows[name] = row
            self._open.append(connection)
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(answer).encode() + b"\n")
            lines.read(1)
        with self._lock:
            row["state"] = "closing"

    def cut(self) -> None:
        """Close all connections of agents."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _enrol(self, message: dict[str, Any]) -> dict[str, Any]:
        with contextlib.closing(open_certificates(self.state)) as store:
            try:
                issued = Enrolments(self.authority, store).redeem(message["enrol"], message["csr"])
            except FazaiError as error:
                return {"error": error.message}
        return {"certificate": issued.pem, "ca": issued.ca_pem}

    def _hello(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["version"] in self.refuses:
            return {"error": f"version {message['version']} is not wanted here"}
        der = ssl.PEM_cert_to_DER_cert(
            message["certificate"].split("-----END")[0] + "-----END CERTIFICATE-----\n"
        )
        with contextlib.closing(open_certificates(self.state)) as store:
            peers = PeerChecker(self.authority, store)
            peers.refresh()
            try:
                peers.check_peer(der, message["hello"], self.authority.clock())
            except FazaiError as error:
                return {"error": error.message}
        return {"ok": True}
