"""An agent for tests: the reconciler's own process, forked, on a socket; and the relay in its place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fazai.agent.state.worker import serve_state
from fazai.errors import Unreachable
from fazai.model import Target
from fazai.providers.hosts.kinds import load_host_kinds
from fazai.providers.hosts.remote.session import AgentSession

__all__ = ["ALL", "AgentProcess", "Config", "Rules"]


@dataclass(frozen=True)
class Rules:
    mode: str = "yes"
    kinds: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    hold_s: float = 600.0


#: Also kinds and fields that run a text of the playbook.
ALL = Rules(kinds=(*load_host_kinds(), "host.file.validate", "host.line.validate"))


@dataclass(frozen=True)
class Config:
    root: str
    reconcile: Rules = field(default_factory=Rules)
    agent_id: str = "box"
    own_files: tuple[str, ...] = ()


#: Serves as `AgentProcess` does, in another Python: PLACE of the code, descriptor, the configuration.
_SERVE = """import json, sys
from types import SimpleNamespace
place, fd, config = sys.argv[1:]
sys.path.insert(0, place)
from fazai.agent.state.worker import serve_state
serve_state(int(fd), json.loads(config, object_hook=lambda found: SimpleNamespace(**found)))
"""


class AgentProcess:
    """The reconciler of an agent in a child process; `messages` are all that went there. `python`: another
    interpreter, with the agent's code from a place (a folder, or the single file)."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str] | None = None,
        python: tuple[Path, Path] | None = None,
    ) -> None:
        self.config, self.environ, self.python = config, environ, python
        self.messages: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                if self.environ is not None:
                    os.environ.clear()
                    os.environ.update(self.environ)
                if self.python is not None:
                    self._become_other(theirs, *self.python)
                serve_state(theirs.detach(), self.config)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        self._sock = ours

    def _become_other(self, sock: socket.socket, python: Path, place: Path) -> None:
        sock.set_inheritable(True)
        words = [str(python), "-c", _SERVE, str(place), str(sock.fileno()), json.dumps(asdict(self.config))]
        os.execv(python, words)

    def session(self, *, timeout_s: float = 20, name: str = "box") -> AgentSession:
        target = Target(name, "agent", "write", {"agent_id": "box"})
        return AgentSession(target, load_host_kinds(), nullcontext(self), "box", timeout_s=timeout_s)

    async def request(self, agent: str, message: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """Send a message and wait for its answer, as the relay does."""
        self.messages.append(dict(message))
        try:
            async with asyncio.timeout(timeout_s):
                await self.send(message)
                (size,) = struct.unpack(">I", await self._read(4))
                found = json.loads(await self._read(size))
        except (EOFError, ConnectionError):
            raise Unreachable("the connection to the agent was lost", stage="read", where="box") from None
        assert isinstance(found, dict)
        return found

    async def send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode()
        await asyncio.get_running_loop().sock_sendall(self._sock, struct.pack(">I", len(data)) + data)

    async def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            more = await asyncio.get_running_loop().sock_recv(self._sock, size - len(found))
            if not more:
                raise EOFError
            found += more
        return bytes(found)

    def restart(self) -> None:
        """End the process and start another one, which knows nothing."""
        self.end()
        self.start()

    def hang_up(self) -> None:
        """Close the connection to the process."""
        self._sock.close()

    def wait(self) -> None:
        """Wait until the process has ended by itself, without an error."""
        self.hang_up()
        pid, self.pid = self.pid, 0
        assert os.waitpid(pid, 0)[1] == 0

    def end(self) -> None:
        if self.pid:
            self.hang_up()
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)
