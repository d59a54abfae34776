"""The process that runs programs: takes command.exec of the agent's main process, one at a time, and answers.

It is forked once and stays, small and with all that it needs loaded: a program then costs one fork, not two
of a process as large as the agent. Nothing passes from one program to the next: each has a cgroup of its own
where there are any, its limits, user and folder are set in its own process, and the next one begins when
nothing of it is left. After a cancel, SIGTERM, the process answers and ends.
"""

from __future__ import annotations

import selectors
import socket
from contextlib import closing
from typing import TYPE_CHECKING

from fazai.agent.children import Unpacker, pack
from fazai.agent.execution.launching import find_user, set_up_inherited
from fazai.agent.execution.limits import end_orphaned_leaves
from fazai.agent.execution.running import StopRequests, run_command
from fazai.agent.execution.system import become_reaper
from fazai.agent.messages import refuse
from fazai.errors import FazaiError
from fazai.faults import no_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fazai.agent.config.settings import AgentConfig


def serve_commands(fd: int, config: AgentConfig, fault: Callable[[str], None] = no_fault) -> None:
    """Serve command.exec on a socket until it is closed, or SIGTERM. To be called in a process of its own."""
    become_reaper()
    set_up_inherited()
    end_orphaned_leaves()
    find_user(None)  # what is the same for every program
    with socket.socket(fileno=fd) as sock, StopRequests() as stop:
        for request in _read_requests(sock, stop):
            sock.sendall(pack(_answer(request, config, stop, fault)))


def _read_requests(sock: socket.socket, stop: StopRequests) -> Iterator[dict[str, Any]]:
    """Yield requests until the socket is closed, or a signal ends the process."""
    unpacker = Unpacker()
    with closing(selectors.DefaultSelector()) as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(stop.wakeup, selectors.EVENT_READ)
        while True:
            stop.clear()
            if stop.cancelled:
                return
            ready = [key.fileobj for key, _ in selector.select()]
            if sock in ready:
                data = sock.recv(65_536)
                if not data:
                    return
                yield from unpacker.feed(data)


def _answer(
    request: dict[str, Any], config: AgentConfig, stop: StopRequests, fault: Callable[[str], None]
) -> dict[str, Any]:
    try:
        fault("effect.started")
        answer = {"ok": True, **run_command(request, config, stop)}
        fault("effect.done")
    except FazaiError as error:
        return refuse(error, None)
    return answer
