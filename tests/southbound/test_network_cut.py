"""The network is cut without a FIN between an agent and its daemon (A2, A5), in network namespaces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.live import until
from tests.southbound.fleet import Fleet
from tests.southbound.namespaces import Network, network

pytestmark = pytest.mark.slow

HEARTBEAT_S = 2


@pytest.fixture
def wires() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def fleet(wires: Network, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(
        tmp_path,
        address=wires.daemon_address,
        heartbeat_s=HEARTBEAT_S,
        daemon_prefix=wires.prefix("d"),
        agent_prefix=wires.prefix("a"),
    )
    try:
        made.start_daemon()
        made.enrol("edge-1")
        made.start_agent("edge-1")
        yield made
    finally:
        made.close()


def test_both_sides_notice_a_dead_peer_and_come_back(fleet: Fleet, wires: Network) -> None:
    """A2. Neither side writes anything but its heartbeat, and the registry never shows a dead one for longer
    than three of them."""
    connected = fleet.row("edge-1")["since"]
    wires.cut()
    fleet.wait_for("edge-1", "closing")
    said = re.fullmatch(r"no heartbeat for ([0-9.]+) s", fleet.row("edge-1")["last_error"])
    assert said is not None
    assert float(said[1]) >= 3 * HEARTBEAT_S
    until(lambda: f"was silent for {3 * HEARTBEAT_S} s" in (fleet.folder / "edge-1.log").read_text())
    wires.mend()
    fleet.wait_for("edge-1", "observation")
    assert fleet.row("edge-1")["since"] > connected
    answer = fleet.ask("edge-1", fleet.append("edge-1", "after", "after"))
    assert answer["answer"]["ok"], answer
    assert fleet.lines("edge-1") == ["after"]


def test_outcomes_of_what_ran_while_the_network_was_cut_arrive_once(fleet: Fleet, wires: Network) -> None:
    """A5. Agents run their commands while nobody hears them; the outcomes come with the connection, once."""
    names = [f"edge-{number}" for number in range(1, 6)]
    for name in names[1:]:
        fleet.enrol(name)
        fleet.start_agent(name)
    with fleet.relay() as relay:
        for number, name in enumerate(names, 1):
            sleep = {
                "method": "command.exec",
                "action_id": f"s-{name}",
                "command": "/bin/sleep",
                "args": ["3"],
                "timeout": 60_000,
            }
            relay.send(json.dumps({"id": number, "agent": name, "message": sleep}))
        for name in names:  # the daemon says so as soon as it sends: before the agent has it
            until(lambda name=name: "command.exec began" in (fleet.folder / f"{name}.log").read_text())  # type: ignore[misc]
        wires.cut()
        for name in names:
            fleet.wait_for(name, "closing")
        lost = [json.loads(relay.recv(timeout=120)) for _ in names]
        assert {frame["code"] for frame in lost} == {"agent_lost"}
    for name in names:
        until(lambda name=name: "command.exec is done" in (fleet.folder / f"{name}.log").read_text())  # type: ignore[misc]
    wires.mend()
    for name in names:
        until(lambda name=name: fleet.row(name).get("last_outcome") == "ok")  # type: ignore[misc]
        assert (fleet.folder / f"{name}.log").read_text().count("command.exec began") == 1
        told = (fleet.folder / "daemon.log").read_text().count(f"command.exec on {name}: ")
        assert told == 1  # the line of an outcome is written where it is new, with its event
