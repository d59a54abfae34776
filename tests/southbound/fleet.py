"""A daemon and agents as processes, as a user starts them: `fazai daemon`, `fazai agent run`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import unix_connect

from bench.agent_fleet import ask_daemon
from tests.daemon.live import until

AGENT_YML = """\
agent_id: {name}
daemon: wss://{address}:{port}
ca: {folder}/ca.pem
certificate: {folder}/cert.pem
key: {folder}/key.pem
state: {folder}/state
root: {folder}/root
programs:
  - path: /bin/echo
    args: [{{pattern: "[a-z0-9 -]*", rest: true, optional: true}}]
  - path: /usr/bin/tee
    args: ["-a", {{pattern: "/[A-Za-z0-9/_.-]*"}}]
    stdin: true
  - path: /bin/sleep
    args: [{{pattern: "[0-9.]+"}}]
reconcile:
  mode: yes
"""


@dataclass
class Fleet:
    """One daemon with its folder, and its agents; they run under the prefixes (`ip netns exec`)."""

    folder: Path
    address: str = "127.0.0.1"
    heartbeat_s: int = 1
    daemon_prefix: Sequence[str] = ()
    agent_prefix: Sequence[str] = ()
    agents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(mode=0o700)
        (self.folder / "secrets").mkdir(mode=0o700)
        self.port, self.http_port = _free_port(), _free_port()
        text = f"agents: {{host: {self.address}, port: {self.port}, heartbeat: {self.heartbeat_s}s}}\n"
        (self.folder / "daemon.yml").write_text(text)
        self.fazai("pki", "init", "--name", self.address)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "FAZAI_STATE_DIR": str(self.folder / "state"),
            "FAZAI_SECRETS": str(self.folder / "secrets"),
            "FAZAI_URL": f"unix:{self.folder}/daemon.sock",
        }

    def fazai(
        self, *words: str, stdin: str = "", expect: Sequence[int] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fazai", *words],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=120,
            check=False,
        )
        assert done.returncode in expect, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    # -- processes ------------------------------------------------------------------------------------------

    def start_daemon(self) -> None:
        """Start the daemon, and wait until it takes requests of agents' clients."""
        for name in ("daemon.sock", "agents.sock"):
            (self.folder / name).unlink(missing_ok=True)
        self.daemon = self._start(
            [
                *(*self.daemon_prefix, sys.executable, "-m", "fazai", "daemon", "--config", "daemon.yml"),
                *("--port", str(self.http_port), "--socket", str(self.folder / "daemon.sock")),
            ],
            "daemon.log",
        )
        until(lambda: self.get("/health") is not None and (self.folder / "agents.sock").exists())

    def enrol(self, name: str) -> Path:
        """Give an agent its policy, key and certificate, as an operator does. Returns its folder."""
        folder = self.folder / name
        (folder / "root").mkdir(parents=True)
        text = AGENT_YML.format(name=name, address=self.address, port=self.port, folder=folder)
        (folder / "agent.yml").write_text(text)
        (folder / "agent.yml").chmod(0o600)
        token = self.fazai("pki", "enrol", name).stdout
        command = [
            *self.agent_prefix,
            sys.executable,
            "-m",
            "fazai",
            "agent",
            "enrol",
            "--config",
            "agent.yml",
        ]
        subprocess.run(
            command, env=self.environment, input=token, text=True, cwd=folder, check=True, capture_output=True
        )
        return folder

    def start_agent(self, name: str, *, ready: bool = True) -> None:
        command = [*self.agent_prefix, sys.executable, "-m", "fazai", "agent", "run"]
        self.agents[name] = self._start([*command, "--config", f"{name}/agent.yml"], f"{name}.log")
        if ready:
            self.wait_for(name, "observation")

    def _start(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                list(command),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def kill(self, process: subprocess.Popen[bytes] | None, number: int = signal.SIGKILL) -> None:
        assert process is not None
        process.send_signal(number)
        process.wait(60)

    def close(self) -> None:
        for process in (*self.agents.values(), self.daemon):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in (*self.agents.values(), self.daemon):
            if process is not None:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    # -- what is said ---------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Ask the daemon; None while it does not answer with 200."""
        answer = ask_daemon(self.folder / "daemon.sock", path)
        return None if answer is None else json.loads(answer)

    def row(self, name: str) -> dict[str, Any]:
        """Return an agent's row in the registry; empty where there is none."""
        found = self.get(f"/agents/{name}")
        return {} if found is None else dict(found["agent"])

    def wait_for(self, name: str, state: str) -> None:
        until(lambda: self.row(name).get("state") == state)

    def relay(self) -> Any:
        return unix_connect(
            str(self.folder / "agents.sock"), "ws://fazai/southbound/relay", max_size=None, open_timeout=30
        )

    def ask(self, name: str, message: Mapping[str, Any], timeout_s: float = 120) -> dict[str, Any]:
        """Ask an agent through the relay; returns the whole frame that answers."""
        with self.relay() as relay:
            relay.send(json.dumps({"id": 1, "agent": name, "message": message}))
            answer: dict[str, Any] = json.loads(relay.recv(timeout=timeout_s))
            return answer

    def append(self, name: str, action_id: str, text: str) -> dict[str, Any]:
        """Return the request that appends a line to a file, where its effects are counted."""
        return {
            "method": "command.exec",
            "action_id": action_id,
            "command": "/usr/bin/tee",
            "args": ["-a", str(self.folder / f"{name}.lines")],
            "stdin": f"{text}\n",
            "timeout": 60_000,
        }

    def lines(self, name: str) -> list[str]:
        path = self.folder / f"{name}.lines"
        return path.read_text().splitlines() if path.exists() else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
