"""The agent's process with small true handlers of its own, and faults where a test wants them.

    python -m tests.agent.link.small_agent CONFIG [FAULT]

Where CONFIG has `programs`, they are run as an agent runs them.

It dies by SIGKILL where FAULT (a name of docs/adr/0029) is reached.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fazai.agent.config.reading import load_config
from fazai.agent.errors import Refused
from fazai.agent.journal import Journal
from fazai.agent.process import SERVERS, Log, Process

if TYPE_CHECKING:
    from fazai.agent.actions import Server


def run_program(request: dict[str, Any], config: Any) -> dict[str, Any]:
    """Run any program, as command.exec answers."""
    if request["command"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    started: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: object) -> None:
        for one in started:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        raise Refused("cancelled", "it was ended", None, {"stdout": "", "stderr": "", "truncated": False})

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it is known what there is to end
    signal.signal(signal.SIGTERM, end)
    child = subprocess.Popen(
        [request["command"], *request["args"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}),
    )
    started.append(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        stdout, stderr = child.communicate(timeout=request["timeout"] / 1000)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise Refused("timeout", "it took too long") from None
    finally:
        child.wait()
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return {"exit_code": code, "stdout": stdout.decode("utf-8", "replace"), "stderr": stderr.decode()}


def show_request(request: dict[str, Any], config: Any) -> dict[str, Any]:
    """Answer file.diff with the size of what was wanted."""
    return {"patch": "x" * len(request.get("want", "")), "differs": True}


def serve_state(fd: int, config: Any, fault: Callable[[str], None]) -> None:
    """Answer state.* with the number of this process."""
    import socket

    from fazai.agent.children import Unpacker, pack

    sock, unpacker = socket.socket(fileno=fd), Unpacker()
    while data := sock.recv(65_536):
        for request in unpacker.feed(data):
            if request["method"] == "cancel":
                sock.sendall(pack({"ok": False, "code": "cancelled", "error": "it was ended"}))
            elif request["method"] == "state.close":
                sock.sendall(pack({"ok": True, "action_id": request["action_id"]}))
            elif request.get("step", {}).get("write") == "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(3600)
            elif request.get("step", {}).get("write") != "wait":
                sock.sendall(pack({"ok": True, "observation": {"pid": os.getpid()}, "action_id": "x"}))


def make_fault(name: str | None) -> Callable[[str], None]:
    """Return what ends the agent where a fault is reached."""
    main = os.getpid()

    def fault(reached: str) -> None:
        if reached == name:
            os.kill(main, signal.SIGKILL)
            if os.getpid() != main:
                os.kill(os.getpid(), signal.SIGKILL)

    return fault


def main() -> int:
    """Run the agent."""
    config = load_config(sys.argv[1])
    fault = make_fault(sys.argv[2] if len(sys.argv) > 2 else None)
    journal = Journal(os.path.join(config.state, "journal"), config.limits.journal, time.time, fault=fault)
    handlers = {"command.exec": lambda: run_program, "file.diff": lambda: show_request}
    servers: dict[str, Callable[[], Server]] = {"state": lambda: serve_state}
    if config.programs:  # then command.exec is the true one
        servers["command.exec"] = SERVERS["command.exec"]
    process = Process(
        config,
        journal,
        log=Log(text=True),
        handlers=handlers,
        servers=servers,
        reload=lambda: load_config(sys.argv[1]),
        fault=fault,
    )
    return process.run()


if __name__ == "__main__":
    sys.exit(main())
