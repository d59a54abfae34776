"""A daemon that is killed between any two steps: nothing is acknowledged that is not stored, nothing is told
twice, and the agent is asked for an action at most once with effect."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fazai.store.sqlite.schema import FILE_NAME
from tests.daemon.live import own_port
from tests.daemon.southbound import client
from tests.daemon.southbound.authority import Pair
from tests.daemon.southbound.client import done, execute
from tests.daemon.southbound.process import DaemonProcess

INSTANTS = (
    *("action.asked", "action.recorded", "action.sent"),
    *("outcome.received", "outcome.stored", "outcome.acknowledged"),
)


class JournaledAgent:
    """An agent with a journal: an action has its effect once, and is answered from the journal then."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.effects: list[str] = []
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()

    def take(self, agent: client.Agent, message: dict[str, Any]) -> None:
        if message.get("method") == "ack":
            self.acknowledged.update(message["action_ids"])
        elif message.get("method") == "command.exec":
            action_id = message["action_id"]
            if action_id not in self.outcomes:
                self.effects.append(action_id)
                self.outcomes[action_id] = done(message, stdout=f"{action_id}\n")
            agent.send(self.outcomes[action_id])


def stored(folder: Path) -> dict[str, bool]:
    """Which actions the store has, and whether with their outcome."""
    with contextlib.closing(sqlite3.connect(folder / "state" / FILE_NAME)) as connection:
        rows = connection.execute("SELECT action, done IS NOT NULL FROM agent_actions").fetchall()
    return {action: bool(ended) for action, ended in rows}


def told(folder: Path) -> list[str]:
    """The actions whose outcome was published, once for each event."""
    with contextlib.closing(sqlite3.connect(folder / "state" / FILE_NAME)) as connection:
        rows = connection.execute("SELECT data FROM stream WHERE type = 'log' AND agent = 'edge-7'")
        return [found["action_id"] for (data,) in rows if "action_id" in (found := json.loads(data))]


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_daemon_that_is_killed(tmp_path: Path, instant: str) -> None:
    with own_port() as port, DaemonProcess(tmp_path, port) as daemon:
        agent = JournaledAgent(daemon.authority.issue("edge-7"))
        for number in range(3):
            action_id = f"a-{number}"
            daemon.die_at(instant)
            with (
                contextlib.suppress(ConnectionClosed, OSError, EOFError),
                client.agent(port, daemon.authority.file, agent.pair, "edge-7", instance="one") as first,
                client.local_relay(daemon.socket) as relay,
            ):
                relay.begin("edge-7", execute(action_id))
                while True:
                    agent.take(first, first.recv())
            daemon.wait_killed()
            assert agent.acknowledged <= {one for one, ended in stored(tmp_path).items() if ended}
            daemon.start()
            # the client asks again with the same id, and has the one outcome
            with client.agent(port, daemon.authority.file, agent.pair, "edge-7", instance="one") as again:
                _deliver(agent, again)
                with client.local_relay(daemon.socket) as relay:
                    relay.begin("edge-7", execute(action_id))
                    answer = _serve_one(agent, again, relay)
            assert answer == done(execute(action_id), stdout=f"{action_id}\n")
            assert agent.effects == [f"a-{one}" for one in range(number + 1)]
            assert agent.acknowledged <= {one for one, ended in stored(tmp_path).items() if ended}
        assert sorted(told(tmp_path)) == ["a-0", "a-1", "a-2"]
        assert stored(tmp_path) == dict.fromkeys(("a-0", "a-1", "a-2"), True)


def _deliver(agent: JournaledAgent, connection: client.Agent) -> None:
    """Sends what was not acknowledged, and waits for it to be."""
    for action_id in sorted(agent.outcomes.keys() - agent.acknowledged):
        late = {"method": "result", "action_id": action_id, "of": "command.exec"}
        assert connection.ask({**late, "answer": agent.outcomes[action_id]})["ok"] is True
        agent.acknowledged.add(action_id)


def _serve_one(agent: JournaledAgent, connection: client.Agent, relay: client.Relay) -> Any:
    """Serves the agent until the client has its answer, and its outcome is acknowledged."""
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(relay.recv()["answer"]))
    waiting.start()
    while waiting.is_alive():
        try:
            agent.take(connection, connection.recv(0.1))
        except TimeoutError:
            continue
    while agent.outcomes.keys() - agent.acknowledged:
        agent.take(connection, connection.recv())
    return found[0]
