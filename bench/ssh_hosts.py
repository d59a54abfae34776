"""Hosts for bench/hosts.py: real sshd processes on loopback, every host with an address of its own.

A host is an address 127.77.x.y and a folder. One sshd listens at sixteen addresses (more it does not take),
so 100 hosts are seven processes. Logins at once are not limited.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Host", "SshHosts"]

_ADDRESSES = 16  # of one sshd


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    address: str
    root: Path


@dataclass
class SshHosts:
    """`folder` gets keys, known_hosts, log and the hosts' folders."""

    folder: Path
    count: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.user = getpass.getuser()
        self.host_key, self.user_key = self._keygen("host_key"), self._keygen("user_key")
        self.known_hosts = self.folder / "known_hosts"
        self.log = self.folder / "sshd.log"
        self.home = self.folder / "home"  # empty: this machine's start-up files are nobody's business here
        self.home.mkdir()
        self.hosts = [
            Host(f"h{n:04}", f"127.77.{n // 250}.{n % 250 + 1}", self.folder / "roots" / f"h{n:04}")
            for n in range(self.count)
        ]
        self.port = _free_port()
        algorithm, public = self.host_key.with_suffix(".pub").read_text().split()[:2]
        lines = (f"[{host.address}]:{self.port} {algorithm} {public}\n" for host in self.hosts)
        self.known_hosts.write_text("".join(lines))
        for host in self.hosts:
            host.root.mkdir(parents=True)

    def empty(self) -> None:
        """All hosts as they were at the beginning."""
        for host in self.hosts:
            shutil.rmtree(host.root)
            host.root.mkdir()

    def _keygen(self, name: str) -> Path:
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    def __enter__(self) -> Self:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for number in range(0, self.count, _ADDRESSES):
            self.processes.append(self._start(number))
        for host in self.hosts:
            _wait_for(host.address, self.port)
        return self

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        config = self.folder / f"sshd_config.{number}"
        lines = [f"ListenAddress {host.address}" for host in self.hosts[number : number + _ADDRESSES]]
        lines += [
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.user_key}.pub",
            f"PidFile {self.folder}/sshd.{number}.pid",
            "LogLevel INFO",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "PrintMotd no",
            "MaxStartups 4096",
            "MaxSessions 64",
            "Subsystem sftp internal-sftp",
            f"SetEnv HOME={self.home}",
        ]
        config.write_text("\n".join(lines) + "\n")
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if sshd is None:
            raise RuntimeError("OpenSSH's server is not installed: tools/test-hosts installs it")
        command = [sshd, "-D", "-f", str(config), "-E", str(self.log)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def logins(self) -> int:
        """How often somebody logged in so far."""
        return self.log.read_bytes().count(b"Accepted publickey")

    def settle(self) -> None:
        """Wait until no session is left, so that its CPU time stands in its server's account. Connections
        that a client keeps open on purpose (Ansible's masters) are cut."""
        until = time.monotonic() + 5
        while children := self._children():
            if time.monotonic() > until:
                for pid in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
            time.sleep(0.02)

    def _children(self) -> list[int]:
        paths = [Path(f"/proc/{process.pid}/task/{process.pid}/children") for process in self.processes]
        return [int(pid) for path in paths for pid in path.read_text().split()]

    def cpu_s(self) -> float:
        """CPU of the servers so far: their own, and that of the sessions which ended."""
        total = 0
        for process in self.processes:
            fields: list[Any] = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    """A port that is free at all addresses of loopback."""
    with socket.create_server(("0.0.0.0", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _wait_for(address: str, port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection((address, port), timeout=5):
                return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
