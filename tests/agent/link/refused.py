"""Dials a port where nobody listens, again and again, while a fake clock lets the waits pass.

    python -m tests.agent.link.refused CA CERTIFICATE KEY PORT TRIES

Prints what that cost as JSON. A process of its own, for its memory is what is measured.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from types import SimpleNamespace
from typing import Any

from fazai.agent.actions import Actions
from fazai.agent.children import LifePipe
from fazai.agent.config.settings import AgentConfig, DaemonAddress
from fazai.agent.connecting import Connector
from fazai.agent.loop import Loop
from fazai.agent.serving import Agent


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure."""
    ca, certificate, key, port, wanted = sys.argv[1:]
    now, turns = [0.0], [0]

    def wait(selector: Any, timeout: float | None) -> Any:
        turns[0] += 1
        if selector.get_map():  # something is under way, which takes real time
            return selector.select(0 if timeout == 0 else 5.0)
        now[0] += timeout or 0.0
        return []

    loop, life = Loop(clock=lambda: now[0], wait=wait), LifePipe()
    config = AgentConfig(
        file="agent.yml",
        agent_id="edge-7",
        daemon=(DaemonAddress("wss", "127.0.0.1", int(port)),),
        ca=ca,
        certificate=certificate,
        key=key,
    )
    tries: list[int] = [0]
    never = SimpleNamespace()
    agent = Agent(
        loop,
        config,
        never,
        Actions(loop, life, {}, {}, fault=lambda name: None),
        log=lambda level, message, **ids: None,
        instance="x",
        fault=lambda name: None,
    )

    def count(state: str, error: object) -> None:
        assert state == "connecting", error
        assert "Connection refused" in str(error), error
        tries[0] += 1

    connector = Connector(agent, life, random=random.Random(7).random, now=time.time, on_change=count)
    connector.start()
    while tries[0] < 200:  # what is made once is made by then
        loop.turn()
    gc.collect()
    before, files = _resident(), len(os.listdir("/proc/self/fd"))
    while tries[0] < int(wanted):
        loop.turn()
    print(
        json.dumps(
            {
                "tries": tries[0],
                "grown_bytes": _resident() - before,
                "files_before": files,
                "files": len(os.listdir("/proc/self/fd")),
                "hours": now[0] / 3600,
                "busy_turns": turns[0],
            }
        )
    )


if __name__ == "__main__":
    main()
