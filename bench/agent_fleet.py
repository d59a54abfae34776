"""A daemon with its authority, and many real agents, for bench/agents.py: all on loopback below one folder.

The agents are processes forked from one that has imported the agent
(`python -m bench.agent_fleet FOLDER NAME…`): starting a thousand interpreters would measure Python's start.
Each has its own certificate, policy, state folder and root.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers import fazai

__all__ = ["AgentFleet", "ask_daemon"]

_POLICY = """\
agent_id: {name}
daemon: wss://127.0.0.1:{port}
ca: {ca}
certificate: {folder}/{name}.pem
key: {folder}/{name}.key
state: {folder}/state
root: {root}
programs:
  - path: /bin/true
  - path: /bin/echo
    args: [{{pattern: "[a-z]*"}}]
reconcile:
  mode: yes
limits:
  journal: 4194304
"""
#: What an agent loads when it starts.
_PRELOADED = ("json", "ssl", "fazai.agent.config.reading", "fazai.agent.journal", "fazai.agent.process")
#: What its reconciler loads when it is asked for the first time: a thousand machines do that each for itself.
_RECONCILER = ("asyncio", "fazai.agent.state.worker")
_START_S = 900.0
_TOGETHER = 50  # agents that start at once


class AgentFleet:
    """`count` agents of one daemon; `reconciles`: they have the reconciler's modules already.

    `with` starts the daemon, `start_agents` the agents.
    """

    def __init__(self, folder: Path, count: int, *, reconciles: bool = False) -> None:
        self.folder, self.state = folder, folder / "state"
        self._module = ["bench.agent_fleet", *(["--reconciles"] if reconciles else [])]
        self.names = [f"a{number:04}" for number in range(count)]
        self.port, self.agents_port = _free_port(), _free_port()
        self.daemon: subprocess.Popen[bytes] | None = None
        self._agents: subprocess.Popen[bytes] | None = None
        self._secrets = folder / "secrets"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which fazai speaks to this daemon."""
        return {
            **os.environ,
            "FAZAI_STATE_DIR": str(self.state),
            "FAZAI_SECRETS": str(self._secrets),
            "FAZAI_URL": f"unix:{self.folder}/daemon.sock",
            "FAZAI_AGENTS_URL": f"unix:{self.folder}/agents.sock",
        }

    def __enter__(self) -> Self:
        self.state.mkdir(mode=0o700)
        self._fazai("pki", "init", "--name", "127.0.0.1")
        for name in self.names:
            self._make_agent(name)
        self.start_daemon()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._agents, self.daemon):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _fazai(self, *words: str) -> str:
        done = subprocess.run(
            [fazai(), *words], env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def _make_agent(self, name: str) -> None:
        from fazai.pki import Authority
        from fazai.pki.administration import issue_pair
        from fazai.store.factory import open_certificates

        folder, root = self.folder / name, self.folder / "roots" / name
        folder.mkdir(mode=0o700)
        (folder / "state").mkdir(mode=0o700)
        root.mkdir(parents=True)
        with contextlib.closing(open_certificates(self.state)) as store:
            issue_pair(Authority.load(self._secrets / "pki"), store, name, folder)
        text = _POLICY.format(
            name=name, port=self.agents_port, ca=self._secrets / "pki" / "ca.pem", folder=folder, root=root
        )
        (folder / "agent.yml").write_text(text)

    def start_daemon(self) -> None:
        """Start the daemon, and wait until it answers."""
        options = ["--port", str(self.port), "--agents-port", str(self.agents_port)]
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [fazai(), "daemon", *options, "--socket", str(self.folder / "daemon.sock")],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._wait(lambda: self.get("/health") is not None, "the daemon answers")

    def kill_daemon(self) -> None:
        """End the daemon as a crash would."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def start_agents(self) -> None:
        """Start all agents, and wait until the daemon has said hello to each."""
        with (self.folder / "agents.log").open("ab") as log:
            self._agents = subprocess.Popen(
                [sys.executable, "-m", *self._module, str(self.folder), *self.names],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._wait(lambda: self.connected() == len(self.names), "all agents are connected")

    def connected(self) -> int:
        """Return how many agents the daemon calls connected."""
        answer = self.get("/agents")
        rows = [] if answer is None else json.loads(answer)["agents"]
        return sum(
            row["agent_id"] in self.names and row["state"] in ("observation", "execution") for row in rows
        )

    def get(self, path: str) -> bytes | None:
        """Ask the daemon over its socket; None while it does not answer."""
        return ask_daemon(self.folder / "daemon.sock", path)

    def write_inventory(self, resources: Sequence[Mapping[str, Any]]) -> Path:
        """Write an inventory of all agents with these resources on each, and return its path."""
        hosts = {name: {"provider": "agent"} for name in self.names}
        path = self.folder / "inventory.yml"
        path.write_text(json.dumps({"all": {"hosts": hosts, "resources": list(resources)}}))
        return path

    def empty(self) -> None:
        """Make all agents' machines as they were at the beginning."""
        for name in self.names:
            root = self.folder / "roots" / name
            shutil.rmtree(root)
            root.mkdir()

    def agents_cpu_s(self) -> float:
        """Return the CPU time so far of all agents, and of what they ran and run."""
        ticks, left = 0, [str(pid) for pid in self.agent_pids()]
        while left:
            pid = left.pop()
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(each) for each in fields[11:15])
                left += _children_of(int(pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def children(self, pid: int) -> list[int]:
        """Return the processes that an agent has forked."""
        return [int(each) for each in _children_of(pid)]

    def agent_pids(self) -> list[int]:
        """Return the main process of each agent."""
        assert self._agents is not None
        return [int(each) for each in _children_of(self._agents.pid)]

    def _wait(self, so: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + _START_S
        while not so():
            if time.monotonic() > until_s:
                raise RuntimeError(f"not within {_START_S:.0f} s: {what}; see {self.folder}")
            time.sleep(0.1)


def ask_daemon(address: Path, path: str) -> bytes | None:
    """Ask a daemon over its socket; None while it does not answer with 200."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        try:
            connection.connect(str(address))
            head = f"GET {path} HTTP/1.1\r\nHost: fazai\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return None
    status, _, body = answer.partition(b"\r\n\r\n")
    return body if status.split(b" ")[1:2] == [b"200"] else None


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _ended_together(pids: list[int]) -> Iterator[None]:
    """End all children when this process is told to end."""

    def end(*_: object) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for pid in pids:
            os.waitpid(pid, 0)


def serve(folder: Path, names: Sequence[str], modules: Sequence[str]) -> None:
    """Fork an agent for each name, and wait for them."""
    from fazai.agent import main as agent

    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection would write to each page that the agents share: a thousand must fit
    pids: list[int] = []
    with _ended_together(pids):
        for number, name in enumerate(names):
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    code = agent.main(["run", "--config", str(folder / name / "agent.yml")])
                finally:
                    os._exit(code)
            pids.append(pid)
            if number % _TOGETHER == 0:  # a thousand handshakes at once would time out on two cores
                _wait_connected(folder / name / "state" / "status")


def _wait_connected(status: Path) -> None:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError):
            if "state=connected" in status.read_text():
                return
        time.sleep(0.02)


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "--reconciles":
        serve(Path(words[1]), words[2:], (*_PRELOADED, *_RECONCILER))
    else:
        serve(Path(words[0]), words[1:], _PRELOADED)
