"""The agent dies by SIGKILL at each instant that matters: an action has at most one effect, and what is said
of it is true (A4)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.agent.link.conftest import Agent
from tests.agent.link.daemon import WAIT_S, Closed, Daemon, Peer
from tests.campaign import campaign_size

#: In the order in which one action passes them; the last two belong to a second connection.
FAULTS = (
    "request.received",
    "intent.written",
    "intent.synced",
    "action.forked",
    "effect.started",
    "effect.done",
    "answer.received",
    "outcome.written",
    "outcome.synced",
    "answer.sent",
    "ack.received",
    "result.sent",
)
#: After these the effect must have happened.
_AFTER = FAULTS[5:]


def _ask(peer: Peer, action_id: str, target: Path) -> dict[str, Any] | None:
    """Ask for a line in a file; returns the answer, None where the connection ended before."""
    try:
        answer = peer.exec(action_id, "/bin/sh", "-c", f"echo {action_id} >> {target}")
        peer.send({"method": "ack", "action_ids": [action_id]})
    except Closed:
        return None
    return answer


def _take_results(peer: Peer, action_id: str) -> list[dict[str, Any]]:
    """Acknowledge what an agent delivers at its start; returns the outcomes of one action."""
    found = []
    peer.send({"method": "cancel", "action_id": "no-such-action"})
    while "code" not in (message := peer.receive()):
        if message["action_id"] == action_id:
            found.append(message["answer"])
        peer.send({"ok": True, "action_id": message["action_id"]})
    return found


def _die_once(agent: Agent, daemon: Daemon, fault: str, action_id: str, target: Path) -> None:
    """One round: an action while the agent dies at `fault`, then what a new process says of it."""
    process = agent.start(fault=fault)
    first = daemon.accept()
    first.hello()
    if fault == "result.sent":  # an outcome that the daemon never took, and a second connection
        first.exec(action_id, "/bin/sh", "-c", f"echo {action_id} >> {target}")
        first.close()
        first = daemon.accept()
        first.hello()
        answer = None
    else:
        answer = _ask(first, action_id, target)
    assert process.wait(WAIT_S) == -9, f"the agent did not die at {fault}"
    first.close()

    agent.start()
    second = daemon.accept()
    second.hello()
    late = _take_results(second, action_id)
    again = second.exec(action_id, "/bin/sh", "-c", f"echo {action_id} >> {target}")
    lines = target.read_text().split().count(action_id) if target.exists() else 0
    assert lines <= 1
    for said in [answer, *late, again]:
        if said is not None:
            assert said["ok"] or said["code"] == "interrupted", said
            assert lines == 1 or not said["ok"]
    if answer is not None and answer["ok"]:
        assert again == answer
    if fault in _AFTER:
        assert lines == 1
    if fault == FAULTS[0]:  # nothing was written yet: the action is carried out now, for the first time
        assert again["ok"]
        assert late == []
    elif fault in FAULTS[1:7]:
        assert again["code"] == "interrupted"
        assert late == [again]
    elif fault in ("outcome.synced", "answer.sent", "result.sent"):
        assert late == [again]
        assert again["ok"]
    second.send({"method": "ack", "action_ids": [action_id]})
    assert second.ask(method="cancel", action_id="none")["code"] == "not_found"
    assert agent.stop() == 0
    second.close()


#: With it the agent runs programs as it does in service; without, as its tests do, in a child for each.
PROGRAMS = "programs: [{path: /bin/sh, args: ['-c', {pattern: '.*'}]}]\n"


@pytest.mark.parametrize("programs", ["", PROGRAMS], ids=["a child", "the runner"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_action_has_at_most_one_effect(
    fault: str, programs: str, agent: Agent, daemon: Daemon, tmp_path: Path
) -> None:
    agent.configure(f"wss://localhost:{daemon.port}", more=programs)
    _die_once(agent, daemon, fault, "a-1", tmp_path / "lines")


@pytest.mark.slow
def test_many_deaths(agent: Agent, daemon: Daemon, tmp_path: Path) -> None:
    """At all instants in turn and by chance, with one journal that grows old."""
    agent.configure(f"wss://localhost:{daemon.port}", more=PROGRAMS)
    chance = random.Random(4)
    rounds = [*FAULTS, *(chance.choice(FAULTS) for _ in range(campaign_size(200)))]
    for number, fault in enumerate(rounds):
        _die_once(agent, daemon, fault, f"a-{number}", tmp_path / "lines")
