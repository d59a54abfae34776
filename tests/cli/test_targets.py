"""What the ledger remembers of how runs left each target, and when that a target is converged is an event."""

from __future__ import annotations

import asyncio
from typing import Any

from fazai.lab import Fault
from fazai.store.sqlite.ledger import SqliteStore

from .conftest import World


def left(world: World, name: str = "fw-01") -> tuple[str, int]:
    store = SqliteStore(world.folder / "state")
    state = asyncio.run(store.targets())[name]
    assert asyncio.run(store.left(name)) == state.status
    store.close()
    return state.status, state.pending


def outcomes(world: World) -> list[dict[str, Any]]:
    """Of the newest run."""
    store = SqliteStore(world.folder / "state")
    events = asyncio.run(store.events(asyncio.run(store.history(1))[0].run_id))
    store.close()
    return [event for event in events if event["type"] == "outcome"]


def test_each_run_says_how_it_left_its_targets(world: World) -> None:
    firewall = world.firewall()
    inventory = world.inventory()
    assert world.fazai("plan", inventory).code == 2
    assert left(world) == ("pending", 3)
    assert world.fazai("apply", inventory).code == 0
    assert left(world) == ("changed", 0)
    assert world.fazai("drift", inventory).code == 0
    assert left(world) == ("converged", 0)
    assert outcomes(world) == []  # that nothing changed is no news
    firewall.inject(Fault(kind="status", status=500))
    assert world.fazai("drift", inventory).code not in (0, 2)
    assert left(world)[0] not in ("converged", "changed", "pending")
    firewall.clear_faults()
    assert world.fazai("drift", inventory).code == 0
    assert left(world) == ("converged", 0)
    (outcome,) = outcomes(world)
    assert (outcome["status"], outcome["was"] in ("failed", "unreachable")) == ("converged", True)


def test_the_first_look_at_a_target_is_news(world: World) -> None:
    world.firewall()
    resources = {"opnsense.alias": {"name": "nobody", "type": "host"}, "state": "absent"}
    inventory = world.inventory(resources=[resources])
    assert world.fazai("drift", inventory).code == 0
    (outcome,) = outcomes(world)
    assert (outcome["status"], outcome["was"]) == ("converged", "unknown")
    assert world.fazai("drift", inventory).code == 0
    assert outcomes(world) == []


def test_one_name_of_two_telemetry_agents_is_said(world: World) -> None:
    agents = [{"host.telemetry_agent": {"server": "https://fazai.example.net", "hostname": "web"}}]
    for name in ("h1", "h2"):
        (world.folder / name).mkdir()
    host = {"provider": "local", "mode": "write", "resources": agents}
    hosts = {name: {**host, "root": str(world.folder / name)} for name in ("h1", "h2")}
    result = world.fazai("validate", world.inventory(hosts))
    assert result.code == 3
    assert 'hostname: "web" is that of h1, too, for h2' in result.err
