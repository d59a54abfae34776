"""Trust in host keys: a host's key is compared with known_hosts before anything is sent to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from fazai.errors import FazaiError, InventoryError, Unreachable


class KnownHosts:
    """Files of known hosts, each parsed once a run."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[object, asyncssh.SSHKnownHosts]] = {}

    def read(self, path: str) -> asyncssh.SSHKnownHosts:
        """Return the known hosts that the file holds now; none where it is not there. Raises
        InventoryError."""
        try:
            found = os.stat(path)
        except OSError:
            return asyncssh.import_known_hosts("")
        stamp = (found.st_mtime_ns, found.st_size)
        read_at, known = self._files.get(path, (None, None))
        if known is None or read_at != stamp:
            try:
                known = asyncssh.read_known_hosts(path)
            except (OSError, ValueError) as error:
                raise InventoryError(f"{path} cannot be used: {error}", where=path) from None
            self._files[path] = stamp, known
        return known


@dataclass(slots=True)
class Trust:
    """The trust in one host; is given to asyncssh as `known_hosts`, and remembers why it said no."""

    files: tuple[str, ...]
    known: KnownHosts
    accept_new: bool = False
    pinned: asyncssh.SSHKey | None = None
    asked: tuple[str, str, int | None] | None = None  # the host, as asyncssh named it
    offered: list[str] = field(default_factory=list)

    def __call__(self, host: str, addr: str, port: int | None) -> Sequence[Sequence[Any]]:
        """Return the trusted, certifying and revoked keys of a host (asyncssh's interface)."""
        self.asked = host, addr, port
        if self.pinned is not None:
            return [self.pinned], [], [], [], [], [], []
        parts: list[list[Any]] = [[] for _ in range(7)]
        for path in self.files:
            file = self.known.read(path)
            for part, more in zip(parts, file.match(host, addr, port), strict=True):
                part += more
        return parts

    @property
    def seen(self) -> bool:
        """True when a key of this host is known, so that one that is not trusted is another."""
        if self.pinned is not None or self.asked is None:
            return self.asked is not None
        host, addr, port = self.asked
        name = f"[{host}]:{port}" if port else host
        return any(self.known.read(path).match(name, addr, None)[0] for path in self.files)

    def unknown(self, host: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Tell whether a key that is not in known_hosts is accepted; one that is accepted is added there."""
        self.offered.append(f"{key.get_algorithm()} {key.get_fingerprint()}")
        if self.seen or not self.accept_new:
            return False
        name = host if port == 22 else f"[{host}]:{port}"
        line = f"{name} {key.export_public_key().decode().strip()}\n"
        path = self.files[0]
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(line)
        except OSError:
            return False
        return True

    def refusal(self, host: str, address: str) -> FazaiError:
        """Return the error that says why the host's key was not accepted."""
        offered = f" ({self.offered[-1]})" if self.offered else ""
        files = ", ".join(self.files)
        if self.pinned is not None:
            text = f"{address} showed a key that is not the pinned one{offered}"
            hint = "is it another machine? if it was set up anew, change host_key:"
        elif self.seen:
            text = f"the host key of {address} has changed{offered}: it may be another machine"
            hint = f"if it was set up anew: ssh-keygen -R '{address}' -f {self.files[0]}"
        else:
            text = f"the host key of {address} is not known{offered}"
            hint = f"compare it and add it to {files}, or say host_key: accept-new"
        return Unreachable(text, stage="host_key", where=host, hint=hint)
