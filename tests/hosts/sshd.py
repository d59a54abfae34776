"""A real OpenSSH server on loopback with keys of its own: one `sshd -i` for each connection that is accepted,
so that the port is chosen by the system and any connection can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SSHD", "Sshd", "keygen"]

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def keygen(path: Path, *options: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair; returns the private key's path."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path), *options]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass
class Sshd:
    """`lines` are added to its configuration; `connections` counts those that were accepted; `enter` is the
    command that brings it into a machine of its own."""

    folder: Path
    lines: tuple[str, ...] = ()
    enter: tuple[str, ...] = ()
    connections: int = 0
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert SSHD is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host_key = self.folder / "host_key"
        if not self.host_key.exists():
            keygen(self.host_key)
        self.user_key = self.folder / "user_key"
        if not self.user_key.exists():
            keygen(self.user_key)
        self.authorized = self.folder / "authorized_keys"
        self.authorized.write_bytes(self.user_key.with_suffix(".pub").read_bytes())
        self.config = self.folder / "sshd_config"
        self.configure(*self.lines)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd separates privileges there
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def configure(self, *lines: str) -> None:
        base = [
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "PrintMotd no",
            "LogLevel ERROR",
        ]
        self.config.write_text("\n".join([*lines, *base]) + "\n")  # the first of two counts

    def known_hosts(self, path: Path, key: Path | None = None) -> Path:
        """A known_hosts file with this server's key, or with another one."""
        algorithm, public = (key or self.host_key).with_suffix(".pub").read_text().split()[:2]
        path.write_text(f"[127.0.0.1]:{self.port} {algorithm} {public}\n")
        return path

    def cut(self) -> None:
        """Cut all connections, as a machine does that loses its power."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                child = subprocess.Popen(
                    [*self.enter, str(SSHD), "-i", "-e", "-f", str(self.config)],
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self.children.append(child)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()
        for child in self.children:
            child.wait()
