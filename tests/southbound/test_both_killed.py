"""Daemon and agent are killed in turn, at each instant that matters: an action has at most one effect, every
id has an outcome in the end, and what is said of it is true (A4)."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from fazai.store.sqlite.schema import FILE_NAME
from tests.agent.link.authority import Pair
from tests.agent.link.conftest import Agent
from tests.agent.link.test_crash import FAULTS
from tests.campaign import campaign_size, in_full
from tests.daemon.live import PATIENCE_S, own_port, until
from tests.daemon.southbound import client
from tests.daemon.southbound.process import DaemonProcess
from tests.daemon.southbound.test_crash import INSTANTS

#: Of an agent that is connected for the first time since its action; `result.sent` needs a second time.
_AGENT = FAULTS[:-1]


class _Issuer:
    """The daemon's authority, as the agent's test class asks for it."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._authority = daemon.authority
        self.file = daemon.authority.file

    def agent(self, name: str) -> Pair:
        made = self._authority.issue(name)
        return Pair(made.cert, made.key)


def outcome_of(folder: Path, action_id: str) -> dict[str, object] | None:
    """The recorded outcome of an action; None where there is none. It must be recorded."""
    with contextlib.closing(sqlite3.connect(folder / "state" / FILE_NAME)) as connection:
        query = "SELECT done, answer FROM agent_actions WHERE action = ?"
        found = connection.execute(query, (action_id,)).fetchone()
    return None if found is None or found[0] is None else json.loads(found[1])


def is_recorded(folder: Path, action_id: str) -> bool:
    with contextlib.closing(sqlite3.connect(folder / "state" / FILE_NAME)) as connection:
        query = "SELECT 1 FROM agent_actions WHERE action = ?"
        return connection.execute(query, (action_id,)).fetchone() is not None


def is_connected(daemon: DaemonProcess) -> bool:
    with client.local_relay(daemon.socket) as relay:
        return relay.rows().get("edge-7", {}).get("state") == "observation"


def run_round(daemon: DaemonProcess, agent: Agent, action_id: str, target: Path, instant: str) -> None:
    """An action during which one of the two dies at an instant, the other after it; then both again."""
    of_daemon = instant in INSTANTS
    agent.start(fault=None if of_daemon else instant)
    until(lambda: is_connected(daemon))
    if of_daemon:
        daemon.die_at(instant)
    request = client.execute(action_id, "-c", f"echo {action_id} >> {target}", command="/bin/sh")
    with contextlib.suppress(ConnectionClosed, OSError, EOFError), client.local_relay(daemon.socket) as relay:
        relay.begin("edge-7", request)
        if of_daemon:
            daemon.wait_killed()
            agent.kill()
        else:
            assert agent.process.wait(PATIENCE_S) == -9, f"the agent did not die at {instant}"
            daemon.kill()
    daemon.start()
    agent.start()
    if is_recorded(daemon.folder, action_id):
        until(lambda: outcome_of(daemon.folder, action_id) is not None)
        check_truth(daemon, action_id, target, instant)
    else:
        assert instant == "action.asked"
    with client.local_relay(daemon.socket) as relay:
        until(lambda: is_connected(daemon))
        again = relay.ask("edge-7", request)["answer"]
    lines = target.read_text().split().count(action_id) if target.exists() else 0
    assert lines == 1 if again["ok"] else (lines <= 1 and again["code"] == "interrupted"), (instant, again)
    until(lambda: outcome_of(daemon.folder, action_id) == {**again})
    assert agent.stop() == 0


def check_truth(daemon: DaemonProcess, action_id: str, target: Path, instant: str) -> None:
    """The outcome that was found is what happened, before anybody asks again."""
    found = outcome_of(daemon.folder, action_id)
    assert found is not None
    lines = target.read_text().split().count(action_id) if target.exists() else 0
    if found["ok"]:
        assert lines == 1, (instant, found)
    elif found["code"] == "not_sent":
        assert lines == 0, (instant, found)
    else:
        assert found["code"] == "interrupted", (instant, found)
        assert lines <= 1


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8 if in_full() else 1))
def test_every_id_has_an_outcome(tmp_path: Path, part: int) -> None:
    """25 rounds each: all instants in turn, and then by chance."""
    chance = random.Random(12 + part)
    instants = [*INSTANTS, *_AGENT]
    rounds = [] if part else instants
    rounds += [chance.choice(instants) for _ in range(campaign_size(25 - len(rounds)))]
    with own_port() as port, DaemonProcess(tmp_path, port) as daemon:
        (tmp_path / "agent").mkdir()
        agent = Agent(tmp_path / "agent", _Issuer(daemon))  # type: ignore[arg-type]
        agent.configure(f"wss://localhost:{port}")
        try:
            for number, instant in enumerate(rounds):
                run_round(daemon, agent, f"a-{number}", tmp_path / "lines", instant)
        finally:
            agent.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as connection:
        query = "SELECT action FROM agent_actions WHERE done IS NULL"
        assert connection.execute(query).fetchall() == []
